"""Epochs of sources that are read by index."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from stoker.epochs.epoch import ExamplesLookedAt
from stoker.epochs.numbered_epoch import NumberedEpoch
from stoker.plan.batching import EpochCounts
from stoker.plan.host_shard import PaddedBatch
from stoker.plan.order import Plan
from stoker.plan.position import Position
from stoker.protocol.requests import IndexTaskRequest, Request, ShardOpening, ShardTaskRequest
from stoker.scheduler.streams import IndexStream, Stream
from stoker.scheduler.work import IndexWork, TrialWork


class IndexEpoch(NumberedEpoch):
    """An epoch of a map-style source or of arrays."""

    def __init__(self, plan: Plan, counts: EpochCounts, begin: Position) -> None:
        super().__init__(counts, begin)
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

    def reusable(self, request: Request) -> list[int]:
        if isinstance(request, IndexTaskRequest):
            return [] if request.trial else request.indices.tolist()
        return request.indices.tolist() if isinstance(request, ShardTaskRequest) and request.opening is not None else []

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

    def _opened_part(self, request: ShardTaskRequest, opening: ShardOpening) -> ShardTaskRequest:
        size = self._rows_of(request.shard)
        return replace(request, count=size, indices=self.indices(IndexWork(request.shard, 0, size, size)))

    def example(self, work: IndexWork | TrialWork, row: int) -> int:
        return int(self.indices(IndexWork(work.batch, row, 1, work.whole))[0])

    def numbers_of(self, rows: IndexWork | TrialWork) -> list[int]:
        numbers: list[int] = self.indices(rows).tolist()
        return numbers

    def indices(self, rows: IndexWork | TrialWork) -> npt.NDArray[np.int64]:
        start, filled = self._base + rows.batch * self._batching.size, self._filled(rows)
        first, stop = rows.first, rows.first + rows.count
        if filled.rows == filled.examples:
            start += filled.first
            return self._order.indices(start + first, start + stop)
        return self._order.indices(start, start + filled.examples)[filled.places(first, stop)]

    def _filled(self, rows: IndexWork | TrialWork) -> PaddedBatch:
        whole, size = self._whole(rows.batch), self._batching.size
        return PaddedBatch(size if self.host_shard.pads else whole, whole, self.host_shard.span(whole, size)[0])
