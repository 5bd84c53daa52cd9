"""Epochs of iterables, which are pulled in the trainer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from stoker.epochs.epoch import ExamplesLookedAt
from stoker.epochs.numbered_epoch import NumberedEpoch
from stoker.epochs.puller import Puller, PullerSource
from stoker.memory.packed import pack
from stoker.plan.batching import Batching, EpochCounts
from stoker.plan.permutation import mix
from stoker.plan.position import Position
from stoker.plan.shuffle_buffer import shuffled
from stoker.protocol.replies import TaskDoneReply
from stoker.protocol.requests import IndexTaskRequest, Indices, Request, ShardOpening, ShardTaskRequest
from stoker.scheduler.streams import IndexStream, Stream
from stoker.scheduler.work import IndexWork, JoinWork, ShardWork, Task, TrialWork


class ItemEpoch(NumberedEpoch):
    """An epoch of an iterable that is pulled in this process.

    Args:
        source: opens the iterable.
        counts: how examples are made into batches.
        begin: position at which it begins.
        fed: called from the pulling thread when items have arrived.
    """

    def __init__(self, source: PullerSource, counts: EpochCounts, begin: Position, fed: Callable[[], None]) -> None:
        super().__init__(counts, begin)
        batching = counts.batching
        needed = () if self._since is None else self._since.needed()
        self._needed = set(needed)
        self._first = min((*needed, self._since.opened)) if self._since is not None else 0
        skip = self._base + self._first * batching.size
        self._puller = _start_pulling(source, batching, begin.epoch, skip, fed)
        self._loaded: deque[list[bytes]] = deque()  # items of batches that are not delivered yet
        self._again: deque[bytes] = deque()  # items taken before, which are now read as parts
        self._open: dict[int, list[bytes]] = {}  # items of parts, by their number
        self._parts_taken, self._taken = self._first, skip
        self._delivered = 0
        self._want()
        self._puller.want(self._base + (max(self._needed, default=-1) + 1) * batching.size)

    def stream(self, number: int) -> Stream:
        size, keep = self._batching.size, self._batching.keep_rest
        if not self.uneven:
            return IndexStream(number, None, lambda batch: size, size, keep_rest=keep, whole=self.serialized)
        return self._parts(None, number)

    def look(self, batches: int, most: int) -> ExamplesLookedAt:
        size, skip = self._batching.size, self._puller.skipped
        segments, behind = self._puller.peek(min(batches * size, most))
        count = len(segments) - behind
        numbers = [*range(skip, skip + count), *range(behind)]
        rows = [size] * (count // size)
        if count % size and (self._batching.keep_rest or not rows):
            rows.append(count % size)
        return ExamplesLookedAt(tuple(numbers), tuple(rows), b"".join(segments))

    def reusable(self, request: Request) -> range:
        if isinstance(request, IndexTaskRequest) and not request.trial:
            return range(int(request.indices[0]), int(request.indices[0]) + request.count)
        if isinstance(request, ShardTaskRequest) and request.opening is not None:
            return range(request.opening.first, request.opening.first + request.opening.items)
        return range(0)

    def turn_uneven(self, batch: int) -> None:
        super().turn_uneven(batch)
        self._again = deque(item for items in self._loaded for item in items)
        self._loaded.clear()

    # ── the items, as `PulledItems` ──────────────────────────────────────────────────────────
    @property
    def pulled(self) -> ItemEpoch:
        return self

    def want(self, count: int) -> None:
        self._puller.want(self._puller.skipped + count)

    def has(self, count: int) -> bool:
        return self._puller.ended is not None or self._puller.count() >= count

    def arrivals(self) -> tuple[int, bool]:
        ended = self._puller.ended is not None  # read first: the last item may arrive in between
        return self._puller.pulled - self._base, ended

    def error(self) -> BaseException | None:
        return None if self._puller.ended is None else self._puller.ended.error

    def first_error(self) -> BaseException | None:
        error = self.error()  # read first, for the same reason
        return None if self._puller.in_sight() else error

    def load(self, count: int) -> bytes:
        items = self._take(count)
        self._loaded.append(items)
        return b"".join(items)

    # ── what becomes of them ─────────────────────────────────────────────────────────────────
    def delivered(self) -> None:
        """Note that a batch was delivered. The items of a numbered batch are no longer needed."""
        self._delivered += 1
        if self._loaded:
            self._loaded.popleft()
        if self._batching.bounded:
            self._want()

    def indices(self, rows: IndexWork | TrialWork) -> Indices:
        return np.array([self.example(rows, rows.first)], np.int64)

    def example(self, work: IndexWork | TrialWork, row: int) -> int:
        return self._base + work.batch * self._batching.size + row

    def _opened_part(self, request: ShardTaskRequest, opening: ShardOpening) -> ShardTaskRequest:
        items, first = len(self._open[request.shard]), self._base + request.shard * self._batching.size
        return replace(request, opening=replace(opening, items=items, first=first))

    def inbox(self, task: Task) -> bytes | None:
        if not isinstance(task.work, ShardWork):
            return None
        while self._parts_taken <= task.work.shard:
            items = self._take(self._batching.size)
            if self._since is None or self._parts_taken in self._needed or self._parts_taken >= self._since.opened:
                self._open[self._parts_taken] = items
            self._parts_taken += 1
        return b"".join(self._open[task.work.shard])

    def heard(self, work: IndexWork | TrialWork | ShardWork | JoinWork, reply: TaskDoneReply) -> None:
        super().heard(work, reply)
        if isinstance(work, ShardWork) and reply.ended and not self._is_needed_again(work, reply):
            self._open.pop(work.shard, None)

    def _is_needed_again(self, work: ShardWork, reply: TaskDoneReply) -> bool:
        """True if the items of a part that has ended must be kept.

        It will be made again for comparison, or was opened only for the leftovers of another run.
        """
        return work.of is None and (work.again or bool(reply.digests))

    def numbers_of(self, rows: IndexWork | TrialWork) -> range:
        start = self.example(rows, rows.first)
        return range(start, start + rows.count)

    def close(self) -> None:
        self._puller.close()

    def _take(self, count: int) -> list[bytes]:
        again = [self._again.popleft() for _ in range(min(count, len(self._again)))]
        new = self._puller.take(min(count - len(again), self._puller.count()))
        self._taken += len(new)
        self._want()
        return again + new

    def _want(self) -> None:
        """Let the items of two batches be pulled ahead or, if bounded, only those of the batch that is being made."""
        size = self._batching.size
        if not self._batching.bounded:
            self._puller.want(self._taken + 2 * size)
        elif self.uneven:
            self._puller.want(self._taken + size)
        else:
            self._puller.want(self._base + (self._delivered + 1) * size)


def _start_pulling(source: PullerSource, batching: Batching, epoch: int, skip: int, fed: Callable[[], None]) -> Puller:
    """Start a thread that pulls the items of an epoch, except for the first `skip`."""

    def shuffle(segments: Iterator[bytes]) -> Iterator[bytes]:
        return shuffled(segments, batching.shuffle, mix(batching.seed, epoch, 6))

    return Puller(source, shuffle if batching.shuffle else None, pack, batching.size, fed, skip=skip)
