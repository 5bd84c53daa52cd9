"""Producers of a Loader's batches: the protocol that `feed` relies on, and the base class of both producers."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy.typing as npt

from stoker.coordinator.consumption import ConsumptionTracker
from stoker.coordinator.source_guard import SourceGuard
from stoker.epochs.epoch import Epoch
from stoker.epochs.shard_progress import SavedShards
from stoker.errors import ClosedError, SourceError, StateError, StokerError
from stoker.insight.measured import Measured
from stoker.plan.batching import Batching, EpochCounts, Outline
from stoker.plan.host_shard import HostShard
from stoker.plan.position import Position, position_of, state_of
from stoker.runtime.locks import Lock
from stoker.stats import Stats
from stoker.structure.collation import Form

#: Maximum number of batches per pull.
AT_ONCE = 8


class BatchProducer(Protocol):
    """Makes the batches of one Loader. `feed` knows nothing else of a Loader. Thread-safe.

    Attributes:
        batching: how examples are made into batches.
        counts: counts the batches of an epoch in advance.
        together: maximum number of batches that `pull_stacked` gives; 1 if stacking brings no gain.
        makes_ahead: whether batches are made before they are pulled.
        last_error: the last error that ended an iteration, or None.
    """

    @property
    def batching(self) -> Batching: ...
    @property
    def counts(self) -> EpochCounts: ...
    @property
    def together(self) -> int: ...
    @property
    def makes_ahead(self) -> bool: ...

    last_error: StokerError | None

    def outline(self, host_shard: HostShard | None = None) -> Outline:
        """The facts known in advance about the batches of this trainer or of the trainer with another host shard."""

    def form(self, *, apart: bool = False) -> Form:
        """The form of the batches."""

    def open_stream(self, serialized: bool = False, host_shard: HostShard | None = None, *, apart: bool = False) -> int:
        """Open an iteration. Returns the number of its stream."""

    def begin(self, stream: int) -> int:
        """Begin an iteration. Returns the number of its stream, another one if its epoch was made ahead."""

    def pull(self, stream: int) -> list[list[npt.NDArray[Any]]]:
        """The next batches of an iteration, at least one. Raises StopIteration at its end."""

    def pull_stacked(self, stream: int) -> list[npt.NDArray[Any]]:
        """The next batches of equal length, stacked along a new first axis. Raises StopIteration at the end."""

    def check_source(self) -> None:
        """Raise `SourceError` if the source's length has changed; warn if another change is detected.

        Draws the order of the epoch that begins next.
        """

    def epoch(self, stream: int) -> Epoch | None:
        """The epoch of an iteration that has begun."""

    def last_epoch(self) -> Epoch | None:
        """The epoch of the iteration that began last."""

    def consumption(self) -> AbstractContextManager[ConsumptionTracker]:
        """The record of what was consumed so far, for use under the lock."""

    def state(self, consumed: int | None = None, *, rolls: bool = True) -> dict[str, Any]:
        """The position of training."""

    def close_stream(self, stream: int) -> None:
        """End an iteration."""

    def drop_stream(self, stream: int) -> None:
        """End an iteration from a finalizer."""

    def require_owner(self) -> None:
        """Raise `ClosedError` in a fork of the process that made the producer."""


@dataclass(frozen=True)
class Wanted:
    """What a stream's consumer wants.

    Attributes:
        serialized: each component as a serialised tensor.
        host_shard: its rows of each batch; None for those of this trainer.
        apart: batches that TensorFlow pulls. Its threads must not run the user's code.
    """

    serialized: bool = False
    host_shard: HostShard | None = None
    apart: bool = False

    def is_served_by(self, other: Wanted) -> bool:
        """True if batches made for another consumer are right for this one."""
        return (self.serialized, self.host_shard) == (other.serialized, other.host_shard)


KindOfEpoch = TypeVar("KindOfEpoch", bound=Epoch)


@dataclass(frozen=True)
class EpochSetup(Generic[KindOfEpoch]):
    """Everything that a new iteration needs.

    Attributes:
        make_epoch: makes the epoch that begins at a position.
        counts: counts the batches of an epoch in advance.
        fingerprint: everything that batches depend on, besides the user's code, the seed and the epoch.
        guard: detects changes of the source.
    """

    make_epoch: Callable[[Position, Callable[[], None]], KindOfEpoch]
    counts: EpochCounts
    fingerprint: Mapping[str, Any]
    guard: SourceGuard


class EpochProducer(ABC, Generic[KindOfEpoch]):
    """Manages the streams of one Loader, their epochs, and how much of them was consumed. Thread-safe."""

    together = 1
    makes_ahead = False

    def __init__(self, setup: EpochSetup[KindOfEpoch]) -> None:
        self._setup, self.counts, self.batching = setup, setup.counts, setup.counts.batching
        self._changed = Lock()
        self._ordering = threading.RLock()  # held while the user's function draws an order
        self._epochs: dict[int, KindOfEpoch] = {}
        self._serialized: set[int] = set()
        self._host_shards: dict[int, HostShard] = {}
        self._apart: set[int] = set()
        self._dropped: deque[int] = deque()  # streams that finalizers have dropped
        self._streams, self._made_epochs = 0, 0
        self._consumption = ConsumptionTracker()
        self._closed = False
        self._broken: StokerError | None = None
        self.uneven = False  # a transform returned SKIP or Many
        self.last_error: StokerError | None = None

    def outline(self, host_shard: HostShard | None = None) -> Outline:
        """The facts known in advance about the batches of this trainer or of the trainer with another host shard."""
        return self.counts.outline(host_shard or self.batching.host_shard, uneven=self.uneven)

    def check_source(self) -> None:
        """Raise `SourceError` if the source's length has changed; warn if another change is detected.

        Draws the order of the epoch that begins next. If that fails, the iteration after it goes on with the epoch
        after that one.
        """
        self._setup.guard.check()
        try:
            self._prepare()
        except SourceError:
            with self._changed:
                self._consumption.begin()
            raise

    def elements(self) -> float | None:
        """Batches (or examples) of the epoch that is being read or, between epochs, of the next one; None if unknown.

        The user's function may be called for it.
        """
        cardinality = self.outline().cardinality
        if cardinality is not None or not self.counts.varies or self.uneven:
            return cardinality
        with self._changed:
            read = [epoch.total() for stream, epoch in self._epochs.items() if stream not in self._dropped]
            epoch = self._inspected()
        if read:
            return read[-1]
        if epoch is not None:
            return epoch.total()
        return self.counts.upcoming_elements(self._prepare())

    def _prepare(self) -> Position:
        """Draw the order of the epoch that begins next, if that is the user's. Returns where it begins.

        The user's function is called here, as it must not be called under the lock.
        """
        with self._ordering:
            with self._changed:
                position = self._consumption.upcoming()
                is_drawn = self._inspected() is not None
            if not is_drawn:
                self.counts.prepare(position)
            return position

    def _inspected(self) -> KindOfEpoch | None:
        """The epoch that begins next, if it exists already because its first examples are inspected."""
        return None

    def open_stream(self, serialized: bool = False, host_shard: HostShard | None = None, *, apart: bool = False) -> int:
        """Open a stream and return its number. Its epoch begins at its first pull.

        Args:
            serialized: whether each component is delivered as a serialised tensor.
            host_shard: the rows of each batch that the stream has; None for this trainer's.
            apart: whether TensorFlow pulls the stream. Its threads must not run the user's code.
        """
        with self._changed:
            return self._new_stream(Wanted(serialized, host_shard, apart))

    def begin_early(self) -> None:
        """Begin what the first iteration needs, as far as there is anything to begin."""

    def begin(self, stream: int) -> int:
        """Call it before a stream's first pull. Returns the stream to pull: another one if its epoch was made ahead."""
        return stream

    def require_owner(self) -> None:
        """Raise `ClosedError` in a fork of the process that made the producer, as every method that locks does."""
        self._changed.require_owner()

    @abstractmethod
    def form(self, *, apart: bool = False) -> Form:
        """The form of the batches. `apart`: as for `open_stream`."""

    @abstractmethod
    def pull(self, stream: int) -> list[list[npt.NDArray[Any]]]:
        """The arrays of a stream's next batch, and of following ones if they are small and ready.

        A pull costs more than a small batch, so one pull gives several. Raises StopIteration at the epoch's end.
        """

    def epoch(self, stream: int) -> Epoch | None:
        """The epoch of a stream that has begun; None if another thread has just closed the stream."""
        with self._changed:
            return self._epochs.get(stream)

    def last_epoch(self) -> Epoch | None:
        """The epoch of the stream that began last."""
        with self._changed:
            return self._consumption.last()

    @contextmanager
    def consumption(self) -> Iterator[ConsumptionTracker]:
        """The record of what was consumed so far, for use under the lock."""
        with self._changed:
            yield self._consumption

    @abstractmethod
    def update(self, values: Mapping[str, Any]) -> None:
        """Set attributes of the source for all epochs that begin from now on. Raises `OptionError`."""

    def state(self, consumed: int | None = None, *, rolls: bool = True) -> dict[str, Any]:
        """The position of training; `rolls`: whether the end of an epoch is reported as the start of the next one."""
        cardinality = self.outline().cardinality
        with self._changed:
            position = self._consumption.position(consumed, cardinality, rolls=rolls)
        return state_of(position, self.batching.seed, self._setup.fingerprint)

    def load_state(self, state: Any, *, strict: bool) -> None:
        """Let the next stream begin at the position of a saved state. Raises `StateError`."""
        position = position_of(state, self.batching.seed, self._setup.fingerprint, strict)
        cardinality = self.outline().cardinality
        count = cardinality if cardinality is not None else position.taken
        if position.stream is None and position.taken > count:
            raise StateError(f"the state counts {position.taken:,} batches taken, but an epoch has only {count:,}.")
        if position.stream is not None:
            SavedShards.of(position.stream)
        self.go_to(position)

    def go_to(self, position: Position) -> None:
        """Let the next stream begin at `position`."""
        with self._changed:
            self._check()
            self._consumption.go_to(position)

    @abstractmethod
    def pull_stacked(self, stream: int) -> list[npt.NDArray[Any]]:
        """The next batches of equal length, stacked along a new first axis. Raises StopIteration at the end."""

    @abstractmethod
    def stats(self) -> Stats:
        """Statistics of what happened so far."""

    @abstractmethod
    def measured(self) -> Measured:
        """All measurements so far."""

    @abstractmethod
    def close_stream(self, stream: int) -> None:
        """Close a stream that will not be pulled again."""

    def drop_stream(self, stream: int) -> None:
        """`close_stream` for finalizers. Takes no lock and is carried out later."""
        self._dropped.append(stream)

    @abstractmethod
    def request_stop(self) -> None:
        """Release resources without waiting and without a lock, for finalizers."""

    @abstractmethod
    def close(self) -> None:
        """Close the producer, and wake all threads that wait for a batch."""

    # ── under the lock ───────────────────────────────────────────────────────────────────────
    def _check(self) -> None:
        if self._closed:
            raise ClosedError(
                "this Loader is closed. Create a new one, or iterate before `close()` or the end of `with`."
            )
        if self._broken is not None:
            raise self._broken

    def _new_stream(self, wanted: Wanted) -> int:
        self._streams += 1
        if wanted.serialized:
            self._serialized.add(self._streams)
        if wanted.host_shard is not None:
            self._host_shards[self._streams] = wanted.host_shard
        if wanted.apart:
            self._apart.add(self._streams)
        return self._streams

    def _wanted(self, stream: int) -> Wanted:
        return Wanted(stream in self._serialized, self._host_shards.get(stream), stream in self._apart)

    def _begin(self, stream: int) -> KindOfEpoch:
        """The stream's epoch. It begins now if this is the first pull."""
        if stream not in self._epochs:
            try:
                epoch = self._fitted(stream, self._next_epoch())
            finally:  # if it fails, the iteration after this one goes on with the epoch after that one
                self._consumption.begin()
            self._epochs[stream] = epoch
            self._consumption.began(epoch)
        return self._epochs[stream]

    def _next_epoch(self) -> KindOfEpoch:
        """The epoch that begins next. It counts as begun only when a stream reads it."""
        return self._new_epoch(self._consumption.upcoming())

    def _new_epoch(self, begin: Position) -> KindOfEpoch:
        self._made_epochs += 1
        key = self._made_epochs
        epoch = self._setup.make_epoch(begin, lambda: self.fed(key))
        epoch.key = key
        epoch.uneven = epoch.uneven or self.uneven
        return epoch

    def _fitted(self, stream: int, epoch: KindOfEpoch) -> KindOfEpoch:
        """The epoch, made to give what the stream's consumer wants."""
        epoch.serialized = stream in self._serialized
        epoch.host_shard = self._host_shards.get(stream, epoch.host_shard)
        epoch.check_shares()
        return epoch

    @abstractmethod
    def fed(self, key: int) -> None:
        """Note that items have been pulled for the epoch with this key. Called by the thread that pulls them."""

    def _ended(self, stream: int) -> Epoch | None:
        """Remove a stream that is no longer read. Returns its epoch."""
        self._serialized.discard(stream)
        self._host_shards.pop(stream, None)
        self._apart.discard(stream)
        return self._epochs.pop(stream, None)
