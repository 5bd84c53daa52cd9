"""An iterable, pulled in the trainer: for sources that can neither be split nor sent to a worker."""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from stoker.errors import SourceError, cause, summary
from stoker.runtime.locks import Lock
from stoker.sources.keras_dataset import is_keras
from stoker.validation import length_of

log = logging.getLogger("stoker")

#: Skipped items that are kept anyway, so that the form of batches is determined from the same items as before.
_IN_SIGHT = 32
#: Seconds that an iteration waits for an earlier, closed one to finish its current item.
_PATIENCE = 60.0


class IterableSource:
    """See `from_iterable`."""

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

    def open(self) -> Iterator[Any]:
        """An iterator for the next epoch. Raises `SourceError` if the iterable returns the last one again."""
        iterator = iter(self._factory() if self._factory is not None else self._iterable)
        if iterator is self._last():
            what = f"this {type(iterator).__name__}"
            raise SourceError(
                f"{what} can be iterated only once, and its epoch is over. Pass a function that makes a new one, "
                "`from_iterable(lambda: ...)`, or make a new Loader."
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
            return "was said to give length={}"
        return f"is a {type(self._iterable).__name__} whose len() is {{}}"

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
            made = "connect in" if self._factory is not None else "pass"
            told = SourceError(
                f"the iterable belongs to the thread that made it, and stoker pulls its items in another one "
                f"({summary(error)}). Let it be made there: {made} a function that makes all of it, "
                "`from_iterable(lambda: sqlite3.connect(path).execute(query))`."
            )
            told.__cause__ = cause(error)
            return told
        if shared and hasattr(error, "add_note"):  # Python 3.11
            error.add_note(
                "An earlier iteration of this iterable is still open. If it can be iterated only once at a time, let "
                "go of that one before, or call its `close()`."
            )
        return error


def _weak(iterator: Any) -> Callable[[], Any]:
    """A weak reference if possible, so that the iterator releases its resources before the next one is made."""
    try:
        return weakref.ref(iterator)
    except TypeError:  # built-in types, which hold no resources
        return lambda: iterator


def _counted(items: Iterator[Any], length: float, says: str) -> Iterator[Any]:
    """Yield the items. Raises `SourceError` if there are more or fewer; if more, before the last one is yielded."""
    count = 0
    try:
        for count, item in enumerate(items, 1):
            if count > length or (count == length and next(items, items) is not items):
                raise _wrong_length(says, f"{length:,}", f"more than {length:,}")
            yield item
        if count != length:
            told = "math.inf" if length == math.inf else f"{length:,}"
            raise _wrong_length(says, told, f"{count:,} items")
    finally:
        if isinstance(items, Generator):
            items.close()


def _wrong_length(says: str, told: str, came: str) -> SourceError:
    repair = (
        "Correct `length`, or leave it out: the cardinality is unknown then."
        if "length=" in says
        else "Correct its `__len__`, or give `length=`; or pass `lambda: iterable`, whose length nobody knows."
    )
    return SourceError(f"the iterable {says.format(told)}, and gives {came}. {repair}")


def from_iterable(
    iterable: Iterable[Any] | Callable[[], Iterable[Any]], length: float | None = None, *, batched: bool = False
) -> IterableSource:
    """A source of the items of an iterable, pulled ahead (up to a limit) by one thread of this process.

    Use it for what cannot be split or pickled: a database cursor, a socket, `range(10**12)`, another
    `tf.data.Dataset` (`dataset.as_numpy_iterator`). Each item is pickled and sent to a worker, where the
    transform runs. Batches come in the iterable's order. An iteration that is closed or unreferenced releases
    its iterator before the next one begins. The iterable's exceptions are raised unchanged, in their turn.

    Args:
        iterable: iterated anew for each epoch; an iterator yields one epoch, and then an error. Or a function that
            makes an iterable for each epoch, called in the pulling thread: for objects that belong to the thread
            that made them, such as `lambda: sqlite3.connect(path).execute(query)`.
        length: items of an epoch, if known. It makes the cardinality known, and any other number is an error;
            `math.inf` for an iterable that never ends. None uses the iterable's own `len()`, if it has one.
        batched: each item is a batch and passes unchanged; omit the Loader's `batch_size`.

    Raises:
        SourceError: `iterable` is not iterable.
        OptionError: `length` is no number of items.

    Example:
        >>> import stoker
        >>> source = stoker.from_iterable(x * x for x in range(5))
        >>> with stoker.Loader(source, batch_size=2, workers=0) as loader:
        ...     [batch.tolist() for batch in loader]
        [[0, 1], [4, 9], [16]]
    """
    return IterableSource(iterable, length, batched)


@dataclass(frozen=True)
class IterableEnd:
    """The end of the iterable; `error` is the exception it raised, if any."""

    error: BaseException | None


class Puller:
    """Pulls the items of one epoch in its own thread, a bounded number ahead.

    Args:
        source: the source to pull from.
        shuffle: a shuffle buffer, or None. It holds packed items, which user code still running cannot change.
        pack: serialises an item.
        every: report progress after this many items, one batch.
        tell: called from the thread with the number of items so far, and whether these are all.
        skip: the first `skip` items count as pulled and taken; some are kept to be examined.
    """

    def __init__(
        self,
        source: IterableSource,
        shuffle: Callable[[Iterator[bytes]], Iterator[bytes]] | None,
        pack: Callable[[Any], bytes],
        every: int,
        tell: Callable[[int, bool], None],
        *,
        skip: int = 0,
    ) -> None:
        self._source, self._shuffle, self._pack, self._every, self._tell = source, shuffle, pack, every, tell
        self.skipped, self._behind = skip, list[bytes]()
        self._items: deque[bytes] = deque()
        self._wanted = skip
        self._changed = Lock()
        self._closed = False
        self.pulled = skip
        self.ended: IterableEnd | None = None
        self._earlier = source.enter(self)
        self._thread = threading.Thread(target=self._run, name="stoker-puller", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            source.leave(self)
            raise

    def want(self, count: int) -> None:
        """Pull until `count` items have been pulled in all."""
        with self._changed:
            self._wanted = max(self._wanted, count)
            self._changed.notify_all()

    def peek(self, count: int) -> tuple[list[bytes], int]:
        """At most `count` items, without taking them: the next ones or, if there are none, some of the skipped.

        Also returns how many of them were skipped.
        """
        items = [self._items[place] for place in range(min(count, len(self._items)))]
        return (items, 0) if items else (self._behind[:count], len(self._behind[:count]))

    def in_sight(self) -> int:
        """Number of items available to `peek`."""
        return len(self._behind) + len(self._items)

    def count(self) -> int:
        """Number of items pulled and not yet taken."""
        return len(self._items)

    def take(self, count: int) -> list[bytes]:
        """Take the next `count` items, which have been pulled already."""
        return [self._items.popleft() for _ in range(count)]

    def close(self, wait: float = 0.0) -> None:
        """Stop pulling. Wait up to `wait` seconds for an item in progress."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if wait and threading.current_thread() is not self._thread:
            self._thread.join(wait)

    def _run(self) -> None:
        shared = False
        try:
            shared = self._let_others_end()
            self._pull()
            self.ended = IterableEnd(None)
        except BaseException as error:  # the user's own, raised where the batch is pulled
            came = self.pulled > self.skipped or self._behind
            self.ended = IterableEnd(error if came else self._source.explained(error, shared=shared))
        self._source.leave(self)
        if not self._closed:
            self._tell(self.pulled, True)

    def _let_others_end(self) -> bool:
        """Wait until closed iterations have released their iterators. Returns True if an earlier one is still open."""
        until, others = time.monotonic() + _PATIENCE, self._earlier
        self._earlier = []
        for other in others:
            if other.is_done():
                other._thread.join(max(0.0, until - time.monotonic()))
        if any(other.is_done() and other._thread.is_alive() for other in others):
            log.warning(
                "an iteration of an iterable that is closed has been at its next item for %.0f s; the next iteration "
                "begins beside it.",
                _PATIENCE,
            )
        return any(not other.is_done() for other in others)

    def is_done(self) -> bool:
        """True if it pulls nothing more, except perhaps to finish an item in progress."""
        return self._closed or self.ended is not None

    def _pull(self) -> None:
        if self._closed:
            return
        count = self.skipped
        items: Iterator[Any] = self._source.open() if self._shuffle is None else self._shuffle(self._segments())
        try:
            self._leave_behind(items)
            while self._is_wanted(count):
                try:
                    item = next(items)
                except StopIteration:
                    break
                self._items.append(self._item(item, count))
                self.pulled = count = count + 1
                if count == self._wanted or count % self._every == 0:
                    self._tell(count, False)
        finally:
            if isinstance(items, Generator):
                items.close()  # here: it may hold objects of this thread, such as a database cursor
            del items  # a raised error's traceback keeps this frame alive

    def _leave_behind(self, items: Iterator[Any]) -> None:
        number = 0
        for number, item in enumerate(islice(items, self.skipped), 1):
            if number <= _IN_SIGHT:
                self._behind.append(self._item(item, number - 1))
            if self._closed:
                return
        if number <= self.skipped - self._every:  # the last batch may not have been full
            raise SourceError(
                f"the iterable ended after {number:,} items, and {self.skipped:,} were taken before: it is not what it "
                "was when the state was saved."
            )

    def _is_wanted(self, count: int) -> bool:
        with self._changed:
            while count >= self._wanted and not self._closed:
                self._changed.wait()
            return not self._closed

    def _segments(self) -> Iterator[bytes]:
        """The items, packed."""
        items = self._source.open()
        try:
            for number, item in enumerate(items):
                yield self._packed(item, number)
        finally:
            if isinstance(items, Generator):
                items.close()

    def _item(self, item: Any, number: int) -> bytes:
        """The packed item. Items from the shuffle buffer are packed already."""
        return self._packed(item, number) if self._shuffle is None else item

    def _packed(self, item: Any, number: int) -> bytes:
        try:
            return self._pack(item)
        except Exception as error:
            raise SourceError(
                f"item {number} of the iterable, a {type(item).__name__}, cannot be sent to a worker: "
                f"{summary(error)}. Yield what can be pickled: arrays, numbers, strings, paths."
            ) from cause(error)
