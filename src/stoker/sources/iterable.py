"""An iterable, pulled in the trainer: for what can be neither split nor sent to a worker."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from stoker.errors import SourceError, cause, summary
from stoker.locks import Lock
from stoker.sources.ready import is_keras

#: Items that are skipped and yet kept, so that what batches look like is found out from the same ones.
_IN_SIGHT = 32


class IterableSource:
    """See `from_iterable`."""

    def __init__(self, iterable: Iterable[Any] | Callable[[], Iterable[Any]], batched: bool = False) -> None:
        self.batched = batched or is_keras(iterable)
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
        self._last: Any = None

    def open(self) -> Iterator[Any]:
        """An iterator for the next epoch; raises `SourceError` when the last one cannot be had again."""
        iterator = iter(self._factory() if self._factory is not None else self._iterable)
        if iterator is self._last:
            what = f"this {type(iterator).__name__}"
            raise SourceError(
                f"{what} can be iterated only once, and its epoch is over. Pass a function that makes a new one, "
                "`from_iterable(lambda: ...)`, or make a new Loader."
            )
        once = self._factory is not None or iterator is self._iterable
        self._last = iterator if once else None
        return iterator


def from_iterable(iterable: Iterable[Any] | Callable[[], Iterable[Any]], *, batched: bool = False) -> IterableSource:
    """A source of the items of an iterable, pulled in this process by one thread, a bounded number ahead.

    Each item is pickled and sent to a worker, where the transform runs; batches come in the iterable's
    order. For what cannot be split or pickled: a database cursor, a socket, `range(10**12)`, another
    `tf.data.Dataset` (`dataset.as_numpy_iterator`). Its exceptions are raised as they are, in their turn.

    Args:
        iterable: iterated anew for each epoch; an iterator gives one epoch, and then an error. Or a function that
            makes one for each epoch.
        batched: each item is a batch and passes as it is; the Loader's `batch_size` is left out.

    Raises:
        SourceError: it is no iterable.

    Example:
        >>> import stoker
        >>> source = stoker.from_iterable(x * x for x in range(5))
        >>> with stoker.Loader(source, batch_size=2, workers=0) as loader:
        ...     [batch.tolist() for batch in loader]
        [[0, 1], [4, 9], [16]]
    """
    return IterableSource(iterable, batched)


@dataclass(frozen=True)
class Ended:
    """The iterable has no more items; `error` is what it raised instead."""

    error: BaseException | None


class Puller:
    """Pulls the items of one epoch in a thread of its own, a bounded number ahead.

    Args:
        source: whose items.
        wrap: puts something between the iterator and the items, such as a shuffle buffer.
        pack: makes the bytes of an item.
        every: items after which they are told of: those of a batch.
        tell: called from the thread with the number of items so far and whether there are no more.
        skip: the first so many items count as pulled and taken; some are kept to be looked at.
    """

    def __init__(
        self,
        source: IterableSource,
        wrap: Callable[[Iterator[Any]], Iterator[Any]],
        pack: Callable[[Any], bytes],
        every: int,
        tell: Callable[[int, bool], None],
        *,
        skip: int = 0,
    ) -> None:
        self._source, self._wrap, self._pack, self._every, self._tell = source, wrap, pack, every, tell
        self._skip, self._skipped = skip, list[bytes]()
        self._items: deque[bytes] = deque()
        self._wanted = skip
        self._changed = Lock()
        self._closed = False
        self.pulled = skip
        self.ended: Ended | None = None
        self._thread = threading.Thread(target=self._run, name="stoker-puller", daemon=True)
        self._thread.start()

    def want(self, count: int) -> None:
        """Pull until so many items have been pulled in all."""
        with self._changed:
            self._wanted = max(self._wanted, count)
            self._changed.notify_all()

    def peek(self, count: int) -> list[bytes]:
        """The first items, at most so many, without taking them."""
        kept = self._skipped[:count]
        return kept + [self._items[place] for place in range(min(count - len(kept), len(self._items)))]

    def in_sight(self) -> int:
        """Items that `peek` can give."""
        return len(self._skipped) + len(self._items)

    def count(self) -> int:
        """Items that have been pulled and not taken."""
        return len(self._items)

    def take(self, count: int) -> list[bytes]:
        """The next items, which have been pulled."""
        return [self._items.popleft() for _ in range(count)]

    def close(self, wait: float = 0.0) -> None:
        """Pull no more; wait so long for an item that is being made."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if wait and threading.current_thread() is not self._thread:
            self._thread.join(wait)

    def _run(self) -> None:
        count = self._skip
        try:
            items = self._wrap(self._source.open())
            try:
                self._leave_behind(items)
                while self._is_wanted(count):
                    try:
                        item = next(items)
                    except StopIteration:
                        break
                    self._items.append(self._packed(item, count))
                    self.pulled = count = count + 1
                    if count == self._wanted or count % self._every == 0:
                        self._tell(count, False)
            finally:
                if isinstance(items, Generator):
                    items.close()  # here: what it holds may belong to this thread, such as a database's cursor
            self.ended = Ended(None)
        except BaseException as error:  # the user's own: it is raised where the batch is pulled
            self.ended = Ended(error)
        if not self._closed:
            self._tell(count, True)

    def _leave_behind(self, items: Iterator[Any]) -> None:
        number = 0
        for number, item in enumerate(islice(items, self._skip), 1):
            if number <= _IN_SIGHT:
                self._skipped.append(self._packed(item, number - 1))
            if self._closed:
                return
        if number <= self._skip - self._every:  # the last batch may not have been full
            raise SourceError(
                f"the iterable ended after {number:,} items, and {self._skip:,} were taken before: it is not what it "
                "was when the state was saved."
            )

    def _is_wanted(self, count: int) -> bool:
        with self._changed:
            while count >= self._wanted and not self._closed:
                self._changed.wait()
            return not self._closed

    def _packed(self, item: Any, number: int) -> bytes:
        try:
            return self._pack(item)
        except Exception as error:
            raise SourceError(
                f"item {number} of the iterable, a {type(item).__name__}, cannot be sent to a worker: "
                f"{summary(error)}. Yield what can be pickled: arrays, numbers, strings, paths."
            ) from cause(error)
