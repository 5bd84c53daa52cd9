"""A generator function over shards: the user's partition of the data, whatever the number of workers."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stoker.errors import OptionError, SourceError
from stoker.validation import flag, length_of, whole


@dataclass(frozen=True)
class Shard:
    """One part of the source: what a generator function is called with, in a worker.

    Attributes:
        index: which one it is, from 0.
        count: how many there are.
        item: the item of `shards` that it stands for, when they were given as a list; else None.
        rng: a random generator of its own for each epoch, the same in every run.
    """

    index: int
    count: int
    item: Any
    rng: np.random.Generator

    def split(self, sequence: Sequence[Any]) -> Any:
        """This shard's part of a sequence: a slice of it; the shards' sizes differ by one at most.

        Args:
            sequence: anything with a length that can be sliced, the same for all shards.

        Example:
            >>> shards = [Shard(index, 3, None, np.random.default_rng()) for index in range(3)]
            >>> [shard.split("abcdefgh") for shard in shards]
            ['abc', 'def', 'gh']
        """
        try:
            size, more = divmod(len(sequence), self.count)
        except TypeError:
            raise SourceError(
                f"shard.split() needs a sequence with a length, got a {type(sequence).__name__}: make a list of it."
            ) from None
        start = self.index * size + min(self.index, more)
        return sequence[start : start + size + (self.index < more)]


@dataclass(frozen=True)
class GeneratorSource:
    """See `from_generator`.

    Attributes:
        function: called with a `Shard`; gives an iterable of examples.
        count: number of shards.
        items: what the shards stand for, or None.
        length: examples in all shards together: None when nobody knows, `math.inf` when they never end.
        open_shards: shards that are read in turn.
        batched: whether each element is a batch already.
    """

    function: Callable[[Shard], Iterable[Any]]
    count: int
    items: Sequence[Any] | None
    length: float | None
    open_shards: int
    batched: bool

    def shard(self, index: int, rng: np.random.Generator) -> Shard:
        """The shard with this index."""
        return Shard(index, self.count, None if self.items is None else self.items[index], rng)


def from_generator(
    fn: Callable[[Shard], Iterable[Any]],
    shards: int | Sequence[Any],
    length: float | None = None,
    *,
    open_shards: int = 16,
    batched: bool = False,
) -> GeneratorSource:
    """A source of the examples that `fn(shard)` yields, for each of the shards, in the workers.

    The shards are the user's partition of the data (files, ranges, servers) and do not depend on the number
    of workers. Each is read by one worker at a time, from its start to its end. Batches are taken from up
    to `open_shards` shards in turn, a finished one's place is taken by the next; the rows left at the ends of
    shards are joined, so that all batches but the last are full. When a worker dies, its shards are opened
    again and the examples that were delivered are skipped: the user's code runs again for them. An iterator
    that has `state_dict()` and `load_state_dict(state)` goes on without that.

    Args:
        fn: a generator function with one parameter, a `stoker.Shard`, or anything that returns an iterable.
            `random`, `numpy.random` and `shard.rng` are seeded from (seed, epoch, shard).
        shards: how many there are, or a list of what they stand for, one `shard.item` each.
        length: examples in all shards together, if known: it makes the cardinality known, and another number is an
            error; `math.inf` for a source that never ends.
        open_shards: shards that are read in turn, a part of the order.
        batched: each element yielded is a batch and passes as it is; the Loader's `batch_size` is left out.

    Raises:
        SourceError: `fn` is a generator object, or takes no shard.
        OptionError: another argument has no meaning.

    `Loader(shuffle=n)` shuffles each shard through a buffer of n examples, and the order of the shards.

    Example:
        >>> import stoker
        >>> def numbers(shard):
        ...     yield from shard.split(range(10))
        >>> with stoker.Loader(stoker.from_generator(numbers, shards=2), batch_size=4, workers=0) as loader:
        ...     [batch.tolist() for batch in loader]
        [[0, 1, 2, 3], [5, 6, 7, 8], [4, 9]]
    """
    _check_function(fn)
    count, items = _counted(shards)
    open_shards = whole("open_shards", open_shards, least=1)
    return GeneratorSource(fn, count, items, length_of(length), open_shards, flag("batched", batched))


def _counted(shards: Any) -> tuple[int, Sequence[Any] | None]:
    """The number of shards, and what they stand for."""
    items: Sequence[Any] | None = None
    try:
        count = operator.index(shards)
    except TypeError:
        if isinstance(shards, str | bytes) or not hasattr(shards, "__len__") or not hasattr(shards, "__getitem__"):
            raise OptionError(
                f"shards must be a number or a list of what the shards stand for, got a {type(shards).__name__}: "
                f"{shards!r}"
            ) from None
        items, count = shards, len(shards)
    if count < 1 or isinstance(shards, bool):
        raise OptionError(f"shards must be at least 1, got {shards!r}: there would be nothing to read.")
    return count, items


def _check_function(fn: Any) -> None:
    if inspect.isgenerator(fn) or (hasattr(fn, "__next__") and not callable(fn)):
        raise SourceError(
            f"from_generator got a {type(fn).__name__} object, which can be neither sent to workers nor started again. "
            "Pass the generator function itself, with a parameter `shard`; or `stoker.from_iterable(...)`, which is "
            "read in this process."
        )
    if not callable(fn):
        raise SourceError(f"from_generator needs a function fn(shard), got a {type(fn).__name__}: {fn!r}")
    if inspect.isasyncgenfunction(fn) or inspect.iscoroutinefunction(fn):
        raise SourceError(f"{_name(fn)} is async; from_generator needs a plain generator function.")
    try:
        signature = inspect.signature(fn)
    except (ValueError, TypeError):  # a builtin that tells nothing about its parameters
        return
    try:
        signature.bind("shard")
    except TypeError:
        raise SourceError(
            f"{_name(fn)}{signature} cannot be called with a shard: each worker would give all examples again. Write "
            f"`def {_name(fn)}(shard):` and read one part there, for example `for path in shard.split(paths)`."
        ) from None


def _name(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)
