"""The iterators of a dataset, which TensorFlow calls from its own threads to get the batches of a Loader."""

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
from stoker.structure.forms import STRING, cut_strings

_Made = TypeVar("_Made")


class Iterators:
    """The open iterators of one dataset, by number.

    Args:
        producer: makes the batches.
        owner: the object that stops the producer when it is gone; it is kept alive.
        form: the form of the batches.
        order: the arrays of a batch that TensorFlow gets, in TensorFlow's order of the leaves.
        serialized: True if each component is a serialised tensor.
        most: the most batches per pull; TensorFlow expects the arrays of this many each time.
        host_shard: the rows of each batch to hand out; None for the Loader's own.
        scale: factors for the values of some leaves, by leaf number, in the last batch.
    """

    def __init__(
        self,
        producer: BatchProducer,
        owner: object,
        form: Form,
        order: list[int],
        *,
        serialized: bool = False,
        most: int = 1,
        host_shard: HostShard | None = None,
        scale: Mapping[int, float] | None = None,
    ) -> None:
        self._producer, self._owner = producer, owner
        self._serialized, self.most, self._host_shard = serialized, most, host_shard
        self._order = order
        starts = list(itertools.accumulate(form.counts, initial=0))
        self._scale = {starts[number]: factor for number, factor in (scale or {}).items()}
        self._strings = {start for leaf, start in zip(form.batch.leaves, starts, strict=False) if leaf.dtype == STRING}
        cardinality = producer.outline().cardinality
        self._counted = cardinality is not None
        self._cardinality = None if cardinality == math.inf else cardinality
        self._sizes = _declared_sizes(producer.form(), serialized)
        self._numbers = itertools.count()
        self._open: dict[int, BatchIterator] = {}

    def begin(self) -> int:
        """The number of a new iterator; its epoch begins with its first pull."""
        number = next(self._numbers)
        self._open[number] = BatchIterator(self._producer, self._owner, self._serialized, self._host_shard, apart=True)
        return number

    def pull(self, number: int) -> list[Any]:
        """The number of batches, then their arrays. If there are fewer than `most`, the last batch fills the rest."""
        batches = self._taken(number, lambda its: its.several(self.most))
        if self._counted and self._producer.outline().cardinality is None:
            raise SpecError(
                "a transform returned stoker.SKIP or stoker.Many, so the number of batches is unknown. This dataset "
                "was created before that. Call to_tf() again, or name SKIP and Many in the transform itself."
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
        """The result of `take` for an iteration. Also pulls the end of the epoch if this was the last batch."""
        try:
            its = self._open[number]
            taken = take(its)
            if its.is_last(self._cardinality):
                its.end()
            return taken
        except ClosedError:
            if exiting():  # an error here would make TensorFlow pull again while the interpreter exits
                raise StopIteration from None
            raise

    def _handed_over(self, leaves: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The arrays of a batch in the form that TensorFlow gets. Checks the sizes that TensorFlow was given."""
        for path, part, axis, size in self._sizes:
            if leaves[part].shape[axis] != size:
                raise SpecError(
                    f"at {path or 'the leaf'} a batch has size {leaves[part].shape[axis]} in dimension {axis}, but "
                    f"the dataset was created with size {size}, as in all of the first examples. Declare in "
                    "`output_signature` that it varies (None)."
                )
        if not self._strings:
            return [leaves[place] for place in self._order]
        return [
            cut_strings(leaves[place], leaves[place + 1]) if place in self._strings else leaves[place]
            for place in self._order
        ]

    def record(self, error: StokerError) -> StokerError:
        """Record an error, as TensorFlow keeps only its text. Returns the error to raise instead."""
        self._producer.last_error = error.with_traceback(None)
        return plain(error)(
            f"{error}\n\n(TensorFlow passes on only this text. The error itself is `loader.last_error`.)"
        )

    def end(self, number: int) -> None:
        """Close an iterator that has ended or is no longer referenced."""
        self._open.pop(number).close()


class StackedIterators(Iterators):
    """Iterators over arrays in memory, which take several batches at once."""

    def pull(self, number: int) -> list[Any]:
        """The number of batches, then their arrays with the batches along a new first axis."""
        stacks = self._taken(number, lambda its: its.stacks())
        return [np.int64(len(stacks[0])), *(stacks[place] for place in self._order)]


class NoIterators:
    """Empty iterators with the same interface."""

    most = 1

    def record(self, error: StokerError) -> StokerError:
        """The error itself; none is ever raised here."""
        return error

    def begin(self) -> int:
        """An arbitrary number."""
        return 0

    def pull(self, number: int) -> list[Any]:
        """Raises StopIteration: there are no batches."""
        raise StopIteration

    def end(self, number: int) -> None:
        """Does nothing, as nothing is held."""


def _declared_sizes(form: Form, serialized: bool) -> list[tuple[str, int, int, int]]:
    """The sizes of padded leaves that the dataset declares to TensorFlow: path, array, dimension, size."""
    if serialized:
        return []
    starts = itertools.accumulate(form.counts, initial=0)
    return [
        (leaf.path, start + (leaf.dtype == STRING), axis, size)  # for strings, their ends have the shape
        for leaf, rule, start in zip(form.batch.leaves, form.rules, starts, strict=False)
        for axis, size in enumerate(leaf.shape)
        if isinstance(rule, Pad) and size is not None
    ]


def weak(iterators: Iterators | NoIterators) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """The methods of `iterators` as functions for TensorFlow.

    TensorFlow never releases a function, so these hold a weak reference. The dataset holds the strong one, and each
    iterator holds its dataset.
    """
    reference = weakref.ref(iterators)

    def begin() -> Any:
        alive = reference()
        if alive is None:
            raise ClosedError(
                "the dataset that to_tf() returned was deleted, but another one still reads it. Keep a reference to it."
            )
        return np.int64(alive.begin())

    def pull(number: np.int64) -> list[npt.NDArray[Any]]:
        alive = reference()
        if alive is None:
            raise StopIteration
        try:
            return alive.pull(int(number))
        except StokerError as error:
            recorded = alive.record(error)
        raise recorded from None

    def end(number: np.int64) -> Any:
        alive = reference()
        if alive is not None:
            alive.end(int(number))
        return np.int64(0)

    return begin, pull, end
