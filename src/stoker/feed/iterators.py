"""The iterators of a dataset: what TensorFlow calls, from its own threads, to get batches of a Loader."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from stoker.coordinator.producer import BatchProducer
from stoker.errors import ClosedError, SpecError, StokerError, plain
from stoker.feed.batch_iterator import BatchIterator
from stoker.plan.host_shard import HostShard
from stoker.runtime.interpreter_exit import exiting
from stoker.structure.collation import Form, Pad
from stoker.structure.values import STRING

_Made = TypeVar("_Made")


class Iterators:
    """The open iterators of one dataset, by number.

    Args:
        producer: makes the batches.
        owner: whoever stops the producer when it is gone; it is kept alive.
        form: what these look like.
        order: which of a batch's arrays TensorFlow gets, in its order of the leaves.
        serialized: whether each component is a serialised tensor.
        most: batches that a pull gives at most; TensorFlow wants the arrays of as many each time.
        host_shard: which rows of each batch are handed out; None for the Loader's own.
        scale: what the values of some leaves, by number, are multiplied with in the last batch.
    """

    def __init__(
        self,
        producer: BatchProducer,
        owner: object,
        form: Form,
        order: list[int],
        serialized: bool,
        most: int,
        host_shard: HostShard | None,
        scale: Mapping[int, float],
    ) -> None:
        self._producer, self._owner = producer, owner
        self._serialized, self.most, self._host_shard = serialized, most, host_shard
        self._order = order
        starts = list(itertools.accumulate(form.counts, initial=0))
        self._scale = {starts[number]: factor for number, factor in scale.items()}
        self._strings = {start for leaf, start in zip(form.batch.leaves, starts, strict=False) if leaf.dtype == STRING}
        cardinality = producer.outline().cardinality
        self._counted = cardinality is not None
        self._cardinality = None if cardinality == math.inf else cardinality
        self._sizes = _told_sizes(producer.form(), serialized)
        self._numbers = itertools.count()
        self._open: dict[int, BatchIterator] = {}

    def begin(self) -> int:
        """The number of a new iterator; its epoch begins with its first pull."""
        number = next(self._numbers)
        self._open[number] = BatchIterator(self._producer, self._owner, self._serialized, self._host_shard, apart=True)
        return number

    def pull(self, number: int) -> list[Any]:
        """How many batches follow, and their arrays; the last one stands again in the places of those that do not."""
        batches = self._taken(number, lambda its: its.several(self.most))
        if self._counted and self._producer.outline().cardinality is None:
            raise SpecError(
                "a transform returned stoker.SKIP or stoker.Many, so the number of batches is unknown; this dataset "
                "was made before that was known. Call to_tf() again, or write SKIP and Many in the transform itself."
            )
        if self._scale and self._open[number].is_last(self._cardinality):
            batches[-1] = [
                leaf * leaf.dtype.type(self._scale[part]) if part in self._scale else leaf
                for part, leaf in enumerate(batches[-1])
            ]
        handed = list(map(self._handed_over, batches))
        handed += [handed[-1]] * (self.most - len(handed))
        return [np.int64(len(batches)), *itertools.chain.from_iterable(handed)]

    def _taken(self, number: int, take: Callable[[BatchIterator], _Made]) -> _Made:
        """What `take` gets from an iteration, and its end if this was the last of it."""
        try:
            its = self._open[number]
            taken = take(its)
            if its.is_last(self._cardinality):
                its.end()
            return taken
        except ClosedError:
            if exiting():  # an error here would let TensorFlow pull again while the interpreter goes
                raise StopIteration from None
            raise

    def _handed_over(self, leaves: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The arrays of a batch that TensorFlow gets."""
        for path, part, axis, size in self._sizes:
            if leaves[part].shape[axis] != size:
                raise SpecError(
                    f"at {path or 'the leaf'} a batch has size {leaves[part].shape[axis]} in dimension {axis}; it was "
                    f"{size} in all of the first examples, and the dataset was made so. Tell by `output_signature` "
                    "that it varies (None)."
                )
        if not self._strings:
            return [leaves[place] for place in self._order]
        return [
            np.array(leaves[place].tobytes(), object) if place in self._strings else leaves[place]
            for place in self._order
        ]

    def tell(self, error: StokerError) -> StokerError:
        """Keep an error, of which TensorFlow keeps but the text; returns what is raised in its place."""
        self._producer.last_error = error.with_traceback(None)
        return plain(error)(
            f"{error}\n\n(TensorFlow passes on this text alone. The error itself is `loader.last_error`.)"
        )

    def end(self, number: int) -> None:
        """An iterator is at its end, or nobody has it any more."""
        self._open.pop(number).close()


class StackedIterators(Iterators):
    """Iterators over arrays in memory, of which several batches are taken at once."""

    def pull(self, number: int) -> list[Any]:
        """How many batches follow, and their arrays, with the batches along a new first axis."""
        stacks = self._taken(number, lambda its: its.stacks())
        return [np.int64(len(stacks[0])), *(stacks[place] for place in self._order)]


class NoIterators:
    """Iterators without elements, that can stand in the place of others."""

    most = 1

    def tell(self, error: StokerError) -> StokerError:
        """Nothing is raised."""
        return error

    def begin(self) -> int:
        """Any number."""
        return 0

    def pull(self, number: int) -> list[Any]:
        """Nothing comes."""
        raise StopIteration

    def end(self, number: int) -> None:
        """Nothing is held."""


def _told_sizes(form: Form, serialized: bool) -> list[tuple[str, int, int, int]]:
    """Sizes of padded leaves that TensorFlow was told of: path, array, dimension, size."""
    if serialized:
        return []
    starts = itertools.accumulate(form.counts, initial=0)
    return [
        (leaf.path, start + (leaf.dtype == STRING), axis, size)  # of strings, the bounds have the shape
        for leaf, rule, start in zip(form.batch.leaves, form.rules, starts, strict=False)
        for axis, size in enumerate(leaf.shape)
        if isinstance(rule, Pad) and size is not None
    ]


def weak(iterators: Iterators | NoIterators) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """The methods of `iterators` as functions for TensorFlow, which never lets go of a function that it was given.

    So they hold a weak reference. The dataset holds the strong one, and each iterator its dataset.
    """
    reference = weakref.ref(iterators)

    def begin() -> Any:
        alive = reference()
        if alive is None:
            raise ClosedError(
                "the dataset that to_tf() returned is gone, while another one still reads it. Keep a reference to it."
            )
        return np.int64(alive.begin())

    def pull(number: np.int64) -> list[npt.NDArray[Any]]:
        alive = reference()
        if alive is None:
            raise StopIteration
        try:
            return alive.pull(int(number))
        except StokerError as error:
            told = alive.tell(error)
        raise told from None

    def end(number: np.int64) -> Any:
        alive = reference()
        if alive is not None:
            alive.end(int(number))
        return np.int64(0)

    return begin, pull, end
