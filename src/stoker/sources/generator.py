"""A generator function over shards: the user's partition of the data, independent of the number of workers."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stoker.errors import OptionError, SourceError
from stoker.sources.sharded import ShardedSource
from stoker.validation import flag, length_of, whole


@dataclass(frozen=True)
class Shard:
    """One part of the source. A worker calls the generator function with it.

    Attributes:
        index: the shard's number, from 0.
        count: number of shards.
        item: this shard's item of `shards`, if that is a list; else None.
        rng: a random generator of the shard's own, new in each epoch and the same in every run.
    """

    index: int
    count: int
    item: Any
    rng: np.random.Generator

    def split(self, sequence: Sequence[Any]) -> Any:
        """This shard's slice of a sequence. The slices of all shards differ in length by one at most.

        Args:
            sequence: anything that has a length and can be sliced; the same for all shards.

        Example:
            >>> shards = [Shard(index, 3, None, np.random.default_rng()) for index in range(3)]
            >>> [shard.split("abcdefgh") for shard in shards]
            ['abc', 'def', 'gh']
        """
        try:
            size, more = divmod(len(sequence), self.count)
        except TypeError:
            raise SourceError(
                f"shard.split() needs a sequence with a length, got a {type(sequence).__name__}. Convert it to a list."
            ) from None
        start = self.index * size + min(self.index, more)
        return sequence[start : start + size + (self.index < more)]


class GeneratorSource(ShardedSource):
    """See `from_generator`."""

    def __init__(
        self,
        function: Callable[[Shard], Iterable[Any]],
        shards: int | Sequence[Any],
        length: float | None,
        *,
        open_shards: int,
        batched: bool,
    ) -> None:
        _check_function(function)
        self._function = function
        self.count, self._items = _counted(shards)
        self.open_shards = whole("open_shards", open_shards, least=1)
        self._length, self.batched = length_of(length), flag("batched", batched)

    @property
    def length(self) -> float | None:
        return self._length

    def read(self, index: int, rng: np.random.Generator) -> Iterable[Any]:
        examples = self._function(Shard(index, self.count, None if self._items is None else self._items[index], rng))
        if not hasattr(examples, "__iter__") and not hasattr(examples, "__next__"):
            raise TypeError(
                f"from_generator's function returned a {type(examples).__name__} for shard {index}, not a generator "
                "(is its `yield` missing?)"
            )
        return examples


def from_generator(
    fn: Callable[[Shard], Iterable[Any]],
    shards: int | Sequence[Any],
    length: float | None = None,
    *,
    open_shards: int = 16,
    batched: bool = False,
) -> GeneratorSource:
    """A source of the examples that `fn(shard)` yields for each shard, run in the workers.

    The shards are the user's partition of the data (files, ranges, servers), independent of the number of
    workers. One worker at a time reads each shard, from start to end. Batches are taken from up to
    `open_shards` shards in turn; when a shard ends, the next takes its place. The rows left at the ends of
    shards are joined, so that all batches but the last are full. When a worker dies, its shards are opened
    again and the examples already delivered are skipped, so the user's code runs again for them. An iterator
    with `state_dict()` and `load_state_dict(state)` resumes without that.

    Args:
        fn: a generator function with one parameter, a `stoker.Shard`, or anything that returns an iterable.
            `random`, `numpy.random` and `shard.rng` are seeded from (seed, epoch, shard).
        shards: the number of shards, or a list with one `shard.item` for each.
        length: examples in all shards together, if known. It makes the cardinality known, and any other number is an
            error; `math.inf` for a source that never ends.
        open_shards: number of shards read in turn. It affects the order of examples.
        batched: each element yielded is a batch and passes unchanged; omit the Loader's `batch_size`.

    Raises:
        SourceError: `fn` is a generator object, or takes no shard.
        OptionError: another argument is invalid.

    `Loader(shuffle=n)` shuffles the order of the shards, and each shard through a buffer of n examples.

    Example:
        >>> import stoker
        >>> def numbers(shard):
        ...     yield from shard.split(range(10))
        >>> with stoker.Loader(stoker.from_generator(numbers, shards=2), batch_size=4, workers=0) as loader:
        ...     [batch.tolist() for batch in loader]
        [[0, 1, 2, 3], [5, 6, 7, 8], [4, 9]]
    """
    return GeneratorSource(fn, shards, length, open_shards=open_shards, batched=batched)


def _counted(shards: Any) -> tuple[int, Sequence[Any] | None]:
    """The number of shards, and their items if `shards` is a list."""
    items: Sequence[Any] | None = None
    try:
        count = operator.index(shards)
    except TypeError:
        if isinstance(shards, str | bytes) or not hasattr(shards, "__len__") or not hasattr(shards, "__getitem__"):
            raise OptionError(
                f"shards must be a number, or a list with one item per shard, got a {type(shards).__name__}: {shards!r}"
            ) from None
        items, count = shards, len(shards)
    if count < 1 or isinstance(shards, bool):
        raise OptionError(f"shards must be at least 1, got {shards!r}: there would be nothing to read.")
    return count, items


def _check_function(fn: Any) -> None:
    if inspect.isgenerator(fn) or (hasattr(fn, "__next__") and not callable(fn)):
        raise SourceError(
            f"from_generator got a {type(fn).__name__} object, which cannot be sent to workers or restarted. Pass the "
            "generator function itself, with a parameter `shard`, or use `stoker.from_iterable(...)`, which is read in "
            "this process."
        )
    if not callable(fn):
        raise SourceError(f"from_generator needs a function fn(shard), got a {type(fn).__name__}: {fn!r}")
    if inspect.isasyncgenfunction(fn) or inspect.iscoroutinefunction(fn):
        raise SourceError(f"{_name(fn)} is async; from_generator needs a plain generator function.")
    try:
        signature = inspect.signature(fn)
    except (ValueError, TypeError):  # a builtin without a signature
        return
    try:
        signature.bind("shard")
    except TypeError:
        raise SourceError(
            f"{_name(fn)}{signature} cannot be called with a shard, so every worker would yield all examples. Write "
            f"`def {_name(fn)}(shard):` and read only one part, for example `for path in shard.split(paths)`."
        ) from None


def _name(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)
