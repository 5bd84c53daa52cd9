"""What a Loader's consumers are served with, whoever makes the batches: streams, their epochs, and the journal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from stoker.coordinator.consumption import ConsumptionTracker
from stoker.epochs.epoch import Epoch
from stoker.errors import ClosedError, StokerError
from stoker.plan.host_shard import HostShard
from stoker.plan.position import Position
from stoker.runtime.locks import Lock
from stoker.stats import Stats
from stoker.structure.collation import Form

#: Batches that one pull gives at most.
AT_ONCE = 8

#: Makes the epoch that begins here; gets the function to call with the number of items pulled and whether there are
#: no more.
MakeEpoch = Callable[[Position, Callable[[int, bool], None]], Epoch]


class Streams(ABC):
    """The streams of one Loader. Its public methods may be called from any thread."""

    def __init__(self, make_epoch: MakeEpoch) -> None:
        self._make_epoch = make_epoch
        self._changed = Lock()
        self._epochs: dict[int, Epoch] = {}
        self._serialized: set[int] = set()
        self._host_shards: dict[int, HostShard] = {}
        self._apart: set[int] = set()
        self._streams, self._made_epochs = 0, 0
        self._consumption = ConsumptionTracker()
        self._closed = False
        self._broken: StokerError | None = None
        self.uneven = False  # a transform returned SKIP or Many

    def open_stream(self, serialized: bool = False, host_shard: HostShard | None = None, *, apart: bool = False) -> int:
        """A number for a new stream; its epoch begins at its first pull.

        Args:
            serialized: whether each component is delivered as a serialised tensor.
            host_shard: which rows of each batch it has.
            apart: whether TensorFlow pulls it: its threads run no code of the user's.
        """
        with self._changed:
            self._streams += 1
            if serialized:
                self._serialized.add(self._streams)
            if host_shard is not None:
                self._host_shards[self._streams] = host_shard
            if apart:
                self._apart.add(self._streams)
            return self._streams

    def require_owner(self) -> None:
        """Raise `ClosedError` in a fork of the process that made it. All that takes the lock does so too."""
        self._changed.require_owner()

    @abstractmethod
    def form(self, *, apart: bool = False) -> Form:
        """What batches look like. `apart`: as for `open_stream`."""

    @abstractmethod
    def pull(self, stream: int) -> list[list[npt.NDArray[Any]]]:
        """The arrays of a stream's next batch, and of those after it, if they are small and ready: a pull costs more.

        Raises StopIteration at the epoch's end.
        """

    def epoch(self, stream: int) -> Epoch | None:
        """What a stream that has begun reads; None when another thread has just closed it."""
        with self._changed:
            return self._epochs.get(stream)

    def last_epoch(self) -> Epoch | None:
        """What the last stream that began reads."""
        with self._changed:
            return self._consumption.last()

    @contextmanager
    def consumption(self) -> Iterator[ConsumptionTracker]:
        """What was taken so far, held still."""
        with self._changed:
            yield self._consumption

    def update(self, values: Mapping[str, Any]) -> None:
        """The source has these attributes in all epochs that begin from now on."""
        raise AssertionError("this source has none")

    def go_to(self, position: Position) -> None:
        """The next stream that begins does so there."""
        with self._changed:
            self._check()
            self._consumption.go_to(position)

    @abstractmethod
    def stats(self) -> Stats:
        """What happened so far."""

    @abstractmethod
    def close_stream(self, stream: int) -> None:
        """Nobody will pull this stream again."""

    @abstractmethod
    def drop_stream(self, stream: int) -> None:
        """`close_stream` for finalizers: takes no lock, and is carried out later."""

    @abstractmethod
    def request_stop(self) -> None:
        """Let go of what is held, without waiting and without a lock: for finalizers."""

    @abstractmethod
    def close(self) -> None:
        """End it, and wake whoever waits for a batch."""

    # ── under the lock ───────────────────────────────────────────────────────────────────────
    def _check(self) -> None:
        if self._closed:
            raise ClosedError(
                "this Loader is closed. Make a new one, or iterate before `close()` or the end of `with`."
            )
        if self._broken is not None:
            raise self._broken

    def _begin(self, stream: int) -> Epoch:
        """The stream's epoch, which begins now if this is its first pull."""
        if stream not in self._epochs:
            epoch = self._epochs[stream] = self._next_epoch()
            epoch.serialized = stream in self._serialized
            epoch.host_shard = self._host_shards.get(stream, epoch.host_shard)
            self._consumption.began(epoch)
        return self._epochs[stream]

    def _next_epoch(self) -> Epoch:
        self._made_epochs += 1
        key = self._made_epochs
        epoch = self._make_epoch(self._consumption.begin(), lambda items, ended: self.fed(key, items, ended))
        epoch.key = key
        epoch.uneven = epoch.uneven or self.uneven
        return epoch

    def fed(self, key: int, items: int, ended: bool) -> None:
        """So many items of the iterable have been pulled for the epoch with this key."""
        raise AssertionError("nothing is pulled for these epochs")

    def _ended(self, stream: int) -> Epoch | None:
        """Nobody reads this stream any more; returns what it read."""
        self._serialized.discard(stream)
        self._host_shards.pop(stream, None)
        self._apart.discard(stream)
        return self._epochs.pop(stream, None)
