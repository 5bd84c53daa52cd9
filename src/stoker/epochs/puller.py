"""Pulls the items of an iterable in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from stoker.errors import SourceError, cause, summary
from stoker.runtime.locks import Lock

log = logging.getLogger("stoker")

#: Skipped items that are kept anyway, so that the form of batches is determined from the same items as before.
_IN_SIGHT = 32
#: Seconds that an iteration waits for an earlier, closed one to finish its current item.
_PATIENCE = 60.0


class PullerSource(Protocol):
    """A source whose items are pulled in the trainer. All methods but `enter` are called by the pulling thread."""

    def open(self) -> Iterator[Any]:
        """An iterator for the next epoch."""

    def enter(self, puller: Puller) -> list[Puller]:
        """Register a puller. Returns the earlier ones that have not released their iterators."""

    def leave(self, puller: Puller) -> None:
        """Unregister a puller that has released its iterator."""

    def explained(self, error: BaseException, *, shared: bool) -> BaseException:
        """The error to raise, with advice, for one before the first item. `shared`: an earlier iteration is open."""


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
        fed: called from the thread when items have been pulled, and at the end.
        skip: the first `skip` items count as pulled and taken; some are kept to be examined.
    """

    def __init__(
        self,
        source: PullerSource,
        shuffle: Callable[[Iterator[bytes]], Iterator[bytes]] | None,
        pack: Callable[[Any], bytes],
        every: int,
        fed: Callable[[], None],
        *,
        skip: int = 0,
    ) -> None:
        self._source, self._shuffle, self._pack, self._every, self._fed = source, shuffle, pack, every, fed
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
            self._fed()

    def _let_others_end(self) -> bool:
        """Wait until closed iterations have released their iterators. Returns True if an earlier one is still open."""
        until, others = time.monotonic() + _PATIENCE, self._earlier
        self._earlier = []
        for other in others:
            if other.is_done():
                other._thread.join(max(0.0, until - time.monotonic()))
        if any(other.is_done() and other._thread.is_alive() for other in others):
            log.warning(
                "a closed iteration of an iterable has been waiting for its next item for %.0f s. The next iteration "
                "begins alongside it.",
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
                    self._fed()
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
                f"the iterable ended after {number:,} items, but {self.skipped:,} had been taken: it has changed since "
                "the state was saved."
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
                f"{summary(error)}. Yield objects that can be pickled: arrays, numbers, strings, paths."
            ) from cause(error)
