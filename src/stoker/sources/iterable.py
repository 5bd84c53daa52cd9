"""An iterable, pulled in the trainer: for sources that can neither be split nor sent to a worker."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from stoker.errors import SourceError, cause, summary
from stoker.sources.classes import is_keras
from stoker.sources.source import Source
from stoker.validation import length_of

if TYPE_CHECKING:  # workers import sources, and need no epochs
    from stoker.epochs.epoch import MakeEpoch
    from stoker.epochs.puller import Puller
    from stoker.plan.batching import EpochCounts


class IterableSource(Source):
    """See `from_iterable`."""

    payload = None  # the trainer sends the items
    repeatable = False  # an iterable is opened once in each epoch

    def __init__(
        self,
        iterable: Iterable[Any] | Callable[[], Iterable[Any]],
        length: float | None = None,
        batched: bool = False,
    ) -> None:
        self._length, self.batched = length_of(length), batched or is_keras(iterable)
        self._factory: Callable[[], Iterable[Any]] | None = None
        is_iterable = hasattr(iterable, "__iter__") or hasattr(iterable, "__getitem__")
        if is_iterable and not isinstance(iterable, type):
            self._iterable: Any = iterable
        elif callable(iterable):
            self._factory = iterable
        else:
            raise SourceError(
                f"from_iterable needs an iterable or a function that returns one, got a {type(iterable).__name__}."
            )
        self._last: Callable[[], Any] = lambda: None
        self._pullers: list[Puller] = []  # those that hold an iterator of it, or wait for one

    def fingerprint(self) -> dict[str, Any]:
        return {"source": "iterable"}

    def epochs(self, counts: EpochCounts) -> MakeEpoch:
        from stoker.epochs.item_epoch import ItemEpoch

        return partial(ItemEpoch, self, counts)

    # ── for the thread that pulls the items (`PullerSource`) ─────────────────────────────────
    def open(self) -> Iterator[Any]:
        """An iterator for the next epoch. Raises `SourceError` if the iterable returns the previous one again."""
        iterator = iter(self._factory() if self._factory is not None else self._iterable)
        if iterator is self._last():
            what = f"this {type(iterator).__name__}"
            raise SourceError(
                f"{what} can be iterated only once, and its epoch has ended. Pass a function that creates a new one, "
                "`from_iterable(lambda: ...)`, or create a new Loader."
            )
        once = self._factory is not None or iterator is self._iterable
        self._last = _weak(iterator) if once else lambda: None
        length = self.length
        return iterator if length is None else _counted(iterator, length, self._whose_length())

    @property
    def length(self) -> float | None:
        """Items of an epoch, from `length=` or else `len()` of the iterable; None if unknown."""
        if self._length is not None or self._factory is not None or not hasattr(type(self._iterable), "__len__"):
            return self._length
        try:
            return len(self._iterable)
        except Exception:  # many have `__len__` but no length: filtered or infinite datasets
            return None

    def _whose_length(self) -> str:
        if self._length is not None:
            return "length={} was declared, but the iterable"
        return f"len() of this {type(self._iterable).__name__} is {{}}, but the iterable"

    def enter(self, puller: Puller) -> list[Puller]:
        """Register a puller. Returns the earlier ones that have not released their iterators."""
        earlier = list(self._pullers)
        self._pullers.append(puller)
        return earlier

    def leave(self, puller: Puller) -> None:
        """Unregister a puller that has released its iterator."""
        self._pullers.remove(puller)

    def explained(self, error: BaseException, *, shared: bool) -> BaseException:
        """The error to raise, with advice, for one before the first item. `shared`: an earlier iteration is open."""
        if isinstance(error, Exception) and not isinstance(error, SourceError) and "thread" in str(error).lower():
            create = "connect in" if self._factory is not None else "pass"
            foreign = SourceError(
                f"the iterable belongs to the thread that created it, but stoker pulls its items in another thread "
                f"({summary(error)}). Create it in that thread: {create} a function that creates all of it, "
                "`from_iterable(lambda: sqlite3.connect(path).execute(query))`."
            )
            foreign.__cause__ = cause(error)
            return foreign
        if shared and hasattr(error, "add_note"):  # Python 3.11
            error.add_note(
                "An earlier iteration of this iterable is still open. If only one may be open at a time, release the "
                "earlier one first, or call its `close()`."
            )
        return error


def _weak(iterator: Any) -> Callable[[], Any]:
    """A weak reference if possible, so that the iterator releases its resources before the next one is made."""
    try:
        return weakref.ref(iterator)
    except TypeError:  # built-in types, which hold no resources
        return lambda: iterator


def _counted(items: Iterator[Any], length: float, claim: str) -> Iterator[Any]:
    """Yield the items. Raises `SourceError` if there are more or fewer; if more, before the last one is yielded."""
    count = 0
    try:
        for count, item in enumerate(items, 1):
            if count > length or (count == length and next(items, items) is not items):
                raise _wrong_length(claim, f"{length:,}", f"more than {length:,}")
            yield item
        if count != length:
            declared = "math.inf" if length == math.inf else f"{length:,}"
            raise _wrong_length(claim, declared, f"{count:,}")
    finally:
        if isinstance(items, Generator):
            items.close()


def _wrong_length(claim: str, declared: str, came: str) -> SourceError:
    repair = (
        "Correct `length`, or omit it; the cardinality is then unknown."
        if "length=" in claim
        else "Correct its `__len__`, pass `length=`, or pass `lambda: iterable`, whose length is unknown."
    )
    return SourceError(f"{claim.format(declared)} gave {came} items. {repair}")


def from_iterable(
    iterable: Iterable[Any] | Callable[[], Iterable[Any]], length: float | None = None, *, batched: bool = False
) -> IterableSource:
    """A source of the items of an iterable, pulled ahead (up to a limit) by one thread of this process.

    Use it for what cannot be split or pickled: a database cursor, a socket, `range(10**12)`, another
    `tf.data.Dataset` (`dataset.as_numpy_iterator`). Each item is pickled and sent to a worker, where the
    transform runs. Batches come in the iterable's order. An iteration that is closed or unreferenced releases
    its iterator before the next one begins. The iterable's exceptions are raised unchanged, in their turn.

    Args:
        iterable: iterated once per epoch; an iterator yields one epoch, and then an error. Or a function that
            creates an iterable for each epoch, called in the pulling thread: for objects that belong to the thread
            that created them, such as `lambda: sqlite3.connect(path).execute(query)`.
        length: items of an epoch, if known. It makes the cardinality known, and any other number is an error;
            `math.inf` for an iterable that never ends. None uses the iterable's own `len()`, if it has one.
        batched: each item is a batch and passes unchanged; omit the Loader's `batch_size`.

    Raises:
        SourceError: `iterable` is not iterable.
        OptionError: `length` is not a number of items.

    Example:
        >>> import stoker
        >>> source = stoker.from_iterable(x * x for x in range(5))
        >>> with stoker.Loader(source, batch_size=2, workers=0) as loader:
        ...     [batch.tolist() for batch in loader]
        [[0, 1], [4, 9], [16]]
    """
    return IterableSource(iterable, length, batched)
