"""What makes the batches of one Loader: the protocol that `feed` knows, and what both producers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from stoker.coordinator.consumption import ConsumptionTracker
from stoker.coordinator.source_guard import SourceGuard
from stoker.epochs.epoch import Epoch
from stoker.epochs.shard_progress import SavedShards
from stoker.errors import ClosedError, StateError, StokerError
from stoker.plan.batching import Batching, EpochCounts, Outline
from stoker.plan.host_shard import HostShard
from stoker.plan.position import Position, position_of, told
from stoker.runtime.locks import Lock
from stoker.stats import Stats
from stoker.structure.collation import Form

#: Batches that one pull gives at most.
AT_ONCE = 8
#: Makes the epoch that begins here; gets the function to call with the number of items pulled and whether there are
#: no more.
MakeEpoch = Callable[[Position, Callable[[int, bool], None]], Epoch]


class BatchProducer(Protocol):
    """Makes the batches of one Loader. This is all that `feed` knows of a Loader. Any thread may call it.

    Attributes:
        batching: how examples are made into batches.
        counts: counts the batches of an epoch beforehand.
        together: batches that `pull_stacked` gives at most; 1 where nothing is gained by it.
        last_error: the last error that ended an iteration, or None.
    """

    @property
    def batching(self) -> Batching: ...
    @property
    def counts(self) -> EpochCounts: ...
    @property
    def together(self) -> int: ...

    last_error: StokerError | None

    def outline(self, host_shard: HostShard | None = None) -> Outline:
        """What is known of the batches beforehand, of this trainer or of the one with another host shard."""

    def form(self, *, apart: bool = False) -> Form:
        """What batches look like."""

    def open_stream(self, serialized: bool = False, host_shard: HostShard | None = None, *, apart: bool = False) -> int:
        """Open an iteration."""

    def pull(self, stream: int) -> list[list[npt.NDArray[Any]]]:
        """The next batches of an iteration, one at least; raises StopIteration at its end."""

    def pull_stacked(self, stream: int) -> list[npt.NDArray[Any]]:
        """The next batches with as many rows, along a new first axis; raises StopIteration at the end."""

    def check_source(self) -> None:
        """Raise `SourceError` if the source has another length than before; warn if it is seen to have changed."""

    def epoch(self, stream: int) -> Epoch | None:
        """What an iteration that has begun reads."""

    def last_epoch(self) -> Epoch | None:
        """What the last iteration that began reads."""

    def consumption(self) -> AbstractContextManager[ConsumptionTracker]:
        """What was consumed so far, held still."""

    def state(self, consumed: int | None = None, *, rolls: bool = True) -> dict[str, Any]:
        """Where training stands."""

    def close_stream(self, stream: int) -> None:
        """End an iteration."""

    def drop_stream(self, stream: int) -> None:
        """End it, from a finalizer."""

    def require_owner(self) -> None:
        """Raise `ClosedError` in a fork of the process that made it."""


@dataclass(frozen=True)
class EpochSetup:
    """What an iteration needs to begin.

    Attributes:
        make_epoch: makes the epoch that begins at a position.
        counts: counts its batches beforehand.
        fingerprint: what the batches depend on, beside the user's code, the seed and the epoch.
        guard: sees whether the source has changed.
    """

    make_epoch: MakeEpoch
    counts: EpochCounts
    fingerprint: Mapping[str, Any]
    guard: SourceGuard


class EpochProducer(ABC):
    """The streams of one Loader, their epochs, and how much of them was consumed. Any thread may call it."""

    together = 1

    def __init__(self, setup: EpochSetup) -> None:
        self._setup, self.counts, self.batching = setup, setup.counts, setup.counts.batching
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
        self.last_error: StokerError | None = None

    def outline(self, host_shard: HostShard | None = None) -> Outline:
        """What is known of the batches beforehand, of this trainer or of the one with another host shard."""
        return self.counts.outline(host_shard or self.batching.host_shard, uneven=self.uneven)

    def check_source(self) -> None:
        """Raise `SourceError` if the source has another length than before; warn if it is seen to have changed."""
        self._setup.guard.check()

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

    @abstractmethod
    def update(self, values: Mapping[str, Any]) -> None:
        """The source has these attributes in all epochs that begin from now on; raises `OptionError`."""

    def state(self, consumed: int | None = None, *, rolls: bool = True) -> dict[str, Any]:
        """Where training stands; `rolls` tells whether the end of an epoch is the start of the next one."""
        cardinality = self.outline().cardinality
        with self._changed:
            position = self._consumption.position(consumed, cardinality, rolls=rolls)
        return told(position, self.batching.seed, self._setup.fingerprint)

    def load_state(self, state: Any, *, strict: bool) -> None:
        """The next stream that begins does so where this was taken; raises `StateError`."""
        position = position_of(state, self.batching.seed, self._setup.fingerprint, strict)
        cardinality = self.counts.outline(self.batching.host_shard, uneven=self.uneven).cardinality
        count = cardinality if cardinality is not None else position.taken
        if position.taken > count:
            raise StateError(f"the state tells of {position.taken:,} batches taken; an epoch has {count:,}.")
        if position.stream is not None:
            SavedShards.of(position.stream)
        self.go_to(position)

    def go_to(self, position: Position) -> None:
        """The next stream that begins does so there."""
        with self._changed:
            self._check()
            self._consumption.go_to(position)

    @abstractmethod
    def pull_stacked(self, stream: int) -> list[npt.NDArray[Any]]:
        """The next batches with as many rows, along a new first axis; raises StopIteration at the end."""

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
        epoch = self._setup.make_epoch(self._consumption.begin(), lambda items, ended: self.fed(key, items, ended))
        epoch.key = key
        epoch.uneven = epoch.uneven or self.uneven
        return epoch

    @abstractmethod
    def fed(self, key: int, items: int, ended: bool) -> None:
        """So many items of the iterable have been pulled for the epoch with this key."""

    def _ended(self, stream: int) -> Epoch | None:
        """Nobody reads this stream any more; returns what it read."""
        self._serialized.discard(stream)
        self._host_shards.pop(stream, None)
        self._apart.discard(stream)
        return self._epochs.pop(stream, None)
