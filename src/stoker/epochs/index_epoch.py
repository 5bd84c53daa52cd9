"""Epochs of sources that are read by index."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stoker.epochs.epoch import Epoch, ExamplesLookedAt, described, of_part
from stoker.plan.batching import Batching
from stoker.plan.host_shard import PaddedBatch
from stoker.plan.order import Plan
from stoker.plan.position import Position
from stoker.protocol.requests import IndexTaskRequest, Request, ShardOpening, ShardTaskRequest
from stoker.scheduler.streams import IndexStream, Stream
from stoker.scheduler.work import IndexWork, JoinWork, ShardWork, Task, TrialWork


class IndexEpoch(Epoch):
    """An epoch of a map-style source or of arrays."""

    def __init__(self, begin: Position, batching: Batching, plan: Plan, *, uneven: bool) -> None:
        super().__init__(begin, batching, uneven=uneven or begin.stream is not None)
        self._plan, self._order = plan, plan.order(begin.epoch)

    def stream(self, number: int) -> Stream:
        left, size = self._plan.length - self._base, self._batching.size
        if self.uneven:
            return self._parts(range(-(-left // size)), number)
        return IndexStream(number, self.batches(), self._rows_of, size, whole=self.serialized)

    def look(self, batches: int, most: int) -> ExamplesLookedAt:
        numbers, rows = list[int](), list[int]()
        if self._base >= self._plan.length:  # nothing is left of it
            count = min(self._batching.size, self._plan.length, most)
            return ExamplesLookedAt(tuple(self._order.indices(0, count).tolist()), ())
        for batch in range(min(batches, -(-(self._plan.length - self._base) // self._batching.size))):
            count = self._rows_of(batch)
            if batch and not self._batching.keep_rest and self._whole(batch) < self._batching.size:
                break
            numbers += self.indices(IndexWork(batch, 0, min(count, most - len(numbers)), count)).tolist()
            rows.append(count)
        return ExamplesLookedAt(tuple(numbers), tuple(rows))

    def numbers(self, question: Request) -> list[int]:
        if isinstance(question, IndexTaskRequest):
            return [] if question.trial else question.indices.tolist()
        return (
            question.indices.tolist() if isinstance(question, ShardTaskRequest) and question.opening is not None else []
        )

    def batches(self) -> int:
        """Number of batches, if they are numbered."""
        left, size = self._plan.length - self._base, self._batching.size
        return -(-left // size) if self._batching.keep_rest else left // size

    def some_batches(self, first: int, most: int) -> list[npt.NDArray[np.int64]]:
        """This trainer's examples of up to `most` numbered batches from `first` on, as long as they have equal rows."""
        numbers = range(first, min(first + most, self.batches()))
        sizes = [self._rows_of(number) for number in numbers]
        return [
            self.indices(IndexWork(number, 0, size, size))
            for number, size in zip(numbers, sizes, strict=True)
            if size == sizes[0]
        ]

    def _rows_of(self, batch: int) -> int:
        first, stop = self.host_shard.span(self._whole(batch), self._batching.size)
        return stop - first

    def _whole(self, batch: int) -> int:
        """Rows of a batch, for all trainers together."""
        size = self._batching.size
        return min(size, self._plan.length - self._base - batch * size)

    def rows(self, task: Task, rows: IndexWork | TrialWork) -> Request:
        where = (task.id, self.number, task.slot, rows.first, rows.whole, self.serialized)
        filled = self._filled(rows) if self._batching.weighs else None
        return IndexTaskRequest(
            *where, False, rows.count, self.indices(rows), isinstance(rows, TrialWork), filled=filled
        )

    def shard_request(self, task: Task, shard: int, opening: ShardOpening | None) -> Request:
        if opening is None:
            return ShardTaskRequest(
                task.id, self.number, task.slot, shard, self.serialized, True, None, without=self._left_out(None)
            )
        size = self._rows_of(shard)
        indices = self.indices(IndexWork(shard, 0, size, size))
        without = self._left_out(None)
        return ShardTaskRequest(
            task.id, self.number, task.slot, shard, self.serialized, True, opening, size, indices, without
        )

    def example(self, work: IndexWork | TrialWork, row: int) -> int:
        return int(self.indices(IndexWork(work.batch, row, 1, work.whole))[0])

    def row(self, work: IndexWork | TrialWork, example: int) -> int | None:
        found = np.flatnonzero(self.indices(work) == example)
        return work.first + int(found[0]) if len(found) else None

    def indices(self, rows: IndexWork | TrialWork) -> npt.NDArray[np.int64]:
        """The numbers of the examples in these rows."""
        start, filled = self._base + rows.batch * self._batching.size, self._filled(rows)
        first, stop = rows.first, rows.first + rows.count
        if filled.rows == filled.examples:
            start += filled.first
            return self._order.indices(start + first, start + stop)
        return self._order.indices(start, start + filled.examples)[filled.places(first, stop)]

    def _filled(self, rows: IndexWork | TrialWork) -> PaddedBatch:
        whole, size = self._whole(rows.batch), self._batching.size
        return PaddedBatch(size if self.host_shard.pads else whole, whole, self.host_shard.span(whole, size)[0])

    def examples(self, work: IndexWork | TrialWork | ShardWork | JoinWork) -> str:
        if isinstance(work, IndexWork | TrialWork):
            return described(self.indices(work).tolist())
        return (
            "examples that are joined" if isinstance(work, JoinWork) else of_part(work, self._batching.size, self._base)
        )
