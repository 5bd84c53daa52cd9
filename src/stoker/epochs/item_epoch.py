"""Epochs of iterables, which are pulled in the trainer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from stoker.epochs.epoch import Epoch, ExamplesLookedAt, described, of_part
from stoker.memory.packed import pack
from stoker.plan.batching import Batching
from stoker.plan.permutation import mix
from stoker.plan.position import Position
from stoker.plan.shuffle_buffer import shuffled
from stoker.protocol.replies import TaskDoneReply
from stoker.protocol.requests import IndexTaskRequest, Request, ShardOpening, ShardTaskRequest
from stoker.scheduler.streams import IndexStream, Stream
from stoker.scheduler.work import IndexWork, JoinWork, ShardWork, Task, TrialWork
from stoker.sources.iterable import IterableSource, Puller


class ItemEpoch(Epoch):
    """An epoch of an iterable that is pulled in this process."""

    def __init__(
        self,
        begin: Position,
        batching: Batching,
        source: IterableSource,
        tell: Callable[[int, bool], None],
        *,
        uneven: bool,
    ) -> None:
        super().__init__(begin, batching, uneven=uneven or begin.stream is not None)
        needed = () if self._since is None else self._since.needed()
        self._needed = set(needed)
        self._first = min((*needed, self._since.opened)) if self._since is not None else 0
        skip = self._base + self._first * batching.size
        self.puller = _start_pulling(source, batching, begin.epoch, skip, tell)
        self._loaded: deque[list[bytes]] = deque()  # items of batches that are not delivered yet
        self._again: deque[bytes] = deque()  # items taken before, which are now read as parts
        self._open: dict[int, list[bytes]] = {}  # items of parts, by their number
        self._parts_taken, self._taken = self._first, skip
        self._delivered = 0
        self._want()
        self.puller.want(self._base + (max(self._needed, default=-1) + 1) * batching.size)

    def stream(self, number: int) -> Stream:
        size, keep = self._batching.size, self._batching.keep_rest
        if not self.uneven:
            return IndexStream(number, None, lambda batch: size, size, keep_rest=keep, whole=self.serialized)
        return self._parts(None, number)

    def look(self, batches: int, most: int) -> ExamplesLookedAt:
        size, skip = self._batching.size, self.puller.skipped
        segments, behind = self.puller.peek(min(batches * size, most))
        count = len(segments) - behind
        numbers = [*range(skip, skip + count), *range(behind)]
        rows = [size] * (count // size)
        if count % size and (self._batching.keep_rest or not rows):
            rows.append(count % size)
        return ExamplesLookedAt(tuple(numbers), tuple(rows), b"".join(segments))

    def numbers(self, question: Request) -> range:
        if isinstance(question, IndexTaskRequest) and not question.trial:
            return range(int(question.indices[0]), int(question.indices[0]) + question.count)
        if isinstance(question, ShardTaskRequest) and question.opening is not None:
            return range(question.opening.first, question.opening.first + question.opening.items)
        return range(0)

    def turn_uneven(self, batch: int) -> None:
        super().turn_uneven(batch)
        self._again = deque(item for items in self._loaded for item in items)
        self._loaded.clear()

    def arrived(self, items: int) -> int:
        """Number of the pulled items that belong to the stream."""
        return items - self._base

    def load(self, count: int) -> bytes:
        items = self._take(count)
        self._loaded.append(items)
        return b"".join(items)

    def delivered(self) -> None:
        """Note that a batch was delivered. The items of a numbered batch are no longer needed."""
        self._delivered += 1
        if self._loaded:
            self._loaded.popleft()
        if self._batching.bounded:
            self._want()

    def rows(self, task: Task, rows: IndexWork | TrialWork) -> Request:
        start = np.array([self.example(rows, rows.first)], np.int64)
        where = (task.id, self.number, task.slot, rows.first, rows.whole, self.serialized)
        return IndexTaskRequest(*where, True, rows.count, start, isinstance(rows, TrialWork))

    def example(self, work: IndexWork | TrialWork, row: int) -> int:
        return self._base + work.batch * self._batching.size + row

    def shard_request(self, task: Task, shard: int, opening: ShardOpening | None) -> Request:
        if opening is not None:
            opening = ShardOpening(opening.progress, len(self._open[shard]), self._base + shard * self._batching.size)
        without = self._left_out(None)
        return ShardTaskRequest(task.id, self.number, task.slot, shard, self.serialized, True, opening, without=without)

    def inbox(self, task: Task) -> bytes | None:
        if not isinstance(task.work, ShardWork):
            return None
        while self._parts_taken <= task.work.shard:
            items = self._take(self._batching.size)
            if self._since is None or self._parts_taken in self._needed or self._parts_taken >= self._since.opened:
                self._open[self._parts_taken] = items
            self._parts_taken += 1
        return b"".join(self._open[task.work.shard])

    def heard(self, work: IndexWork | TrialWork | ShardWork | JoinWork, answer: TaskDoneReply) -> None:
        super().heard(work, answer)
        if isinstance(work, ShardWork) and answer.ended and not self._is_needed_again(work, answer):
            self._open.pop(work.shard, None)

    def _is_needed_again(self, work: ShardWork, answer: TaskDoneReply) -> bool:
        """True if the items of a part that has ended must be kept.

        It will be made again for comparison, or was opened only for the leftovers of another run.
        """
        return work.of is None and (work.again or bool(answer.digests))

    def examples(self, work: IndexWork | TrialWork | ShardWork | JoinWork) -> str:
        if isinstance(work, IndexWork | TrialWork):
            start = self.example(work, work.first)
            return described(list(range(start, start + work.count)))
        return (
            "examples that are joined" if isinstance(work, JoinWork) else of_part(work, self._batching.size, self._base)
        )

    def close(self) -> None:
        self.puller.close()

    def _take(self, count: int) -> list[bytes]:
        again = [self._again.popleft() for _ in range(min(count, len(self._again)))]
        new = self.puller.take(min(count - len(again), self.puller.count()))
        self._taken += len(new)
        self._want()
        return again + new

    def _want(self) -> None:
        """Let the items of two batches be pulled ahead or, if bounded, only those of the batch that is being made."""
        size = self._batching.size
        if not self._batching.bounded:
            self.puller.want(self._taken + 2 * size)
        elif self.uneven:
            self.puller.want(self._taken + size)
        else:
            self.puller.want(self._base + (self._delivered + 1) * size)


def _start_pulling(
    source: IterableSource, batching: Batching, epoch: int, skip: int, tell: Callable[[int, bool], None]
) -> Puller:
    """Start a thread that pulls the items of an epoch, except for the first `skip`."""

    def shuffle(segments: Iterator[bytes]) -> Iterator[bytes]:
        return shuffled(segments, batching.shuffle, mix(batching.seed, epoch, 6))

    return Puller(source, shuffle if batching.shuffle else None, pack, batching.size, tell, skip=skip)
