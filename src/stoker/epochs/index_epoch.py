"""Epochs of sources that are read by index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from stoker.epochs.epoch import ExamplesLookedAt
from stoker.epochs.numbered_epoch import NumberedEpoch
from stoker.plan.batching import EpochCounts
from stoker.plan.host_shard import PaddedBatch
from stoker.plan.position import Position
from stoker.protocol.requests import IndexTaskRequest, Request, ShardOpening, ShardTaskRequest
from stoker.scheduler.streams import IndexStream, Stream
from stoker.scheduler.work import IndexWork, TrialWork

#: Returns something for each of the positions start … stop-1 of an epoch.
Take = Callable[[int, int], npt.NDArray[np.int64]]


class IndexEpoch(NumberedEpoch):
    """An epoch of a map-style source or of arrays."""

    def __init__(self, counts: EpochCounts, begin: Position) -> None:
        super().__init__(counts, begin)
        self._counts = counts
        self._order = counts.order(begin)
        self._bounds = self._order.bounds
        if self._bounds is not None and begin.stream is None:
            self._base = int(self._bounds[begin.taken])
        self._first = self._batch_at_base()

    def _batch_at_base(self) -> int:
        """The number of the batch that begins at the base, if the user's order gives the batches."""
        return 0 if self._bounds is None else int(np.searchsorted(self._bounds, self._base))

    def stream(self, number: int) -> Stream:
        if self.uneven:
            return self._parts(range(self._spans()), number, apart=self._bounds is not None)
        return IndexStream(number, self.batches(), self._rows_of, self._batching.size, whole=self.serialized)

    def look(self, batches: int, most: int) -> ExamplesLookedAt:
        numbers, examples, rows = list[int](), list[int](), list[int]()
        for batch in range(min(batches, self._spans())):
            count = self._rows_of(batch)
            if batch and not self._batching.keep_rest and self._whole(batch) < self._batching.size:
                break
            work = IndexWork(batch, 0, min(count, most - len(numbers)), count)
            numbers += self.indices(work).tolist()
            examples += self.numbers_of(work)
            rows.append(count)
        if not numbers:  # nothing is left of it
            count = min(self._batching.size, self._order.length, most)
            numbers, examples = self._order.numbers(0, count).tolist(), self._order.indices(0, count).tolist()
        return ExamplesLookedAt(tuple(numbers), tuple(rows), examples=tuple(examples))

    def reusable(self, request: Request) -> list[int]:
        if isinstance(request, IndexTaskRequest):
            return [] if request.trial else request.indices.tolist()
        return request.indices.tolist() if isinstance(request, ShardTaskRequest) and request.opening is not None else []

    def total(self) -> int | None:
        return None if self.uneven else self._counts.elements(self._order)

    def check_shares(self) -> None:
        self._counts.check_shares(self._order, self.number, self.host_shard)

    def position(self, taken: int) -> Position | None:
        found = super().position(taken)
        return found if found is None or self._order.digest is None else replace(found, order=self._order.digest)

    def turn_uneven(self, batch: int) -> None:
        start, _ = self._span(batch)
        super().turn_uneven(batch)
        self._base = start
        self._first = self._batch_at_base()

    def batches(self) -> int:
        """Number of batches, if they are numbered."""
        if self._bounds is not None or self._batching.keep_rest:
            return self._spans()
        return (self._order.length - self._base) // self._batching.size

    def some_batches(self, first: int, most: int) -> list[npt.NDArray[np.int64]]:
        """This trainer's examples of up to `most` numbered batches from `first` on, as long as they have equal rows."""
        numbers = range(first, min(first + most, self.batches()))
        rows = takewhile(lambda count: count == self._rows_of(first), map(self._rows_of, numbers))
        return [
            self._taken(IndexWork(number, 0, count, count), self._order.indices)
            for number, count in zip(numbers, rows, strict=False)
        ]

    def _spans(self) -> int:
        """Number of batches from the base on, including one that is not full."""
        if self._bounds is not None:
            return len(self._bounds) - 1 - self._first
        return -(-(self._order.length - self._base) // self._batching.size)

    def _span(self, batch: int) -> tuple[int, int]:
        """The first position of a batch, over all trainers, and the one after its last."""
        if self._bounds is not None:
            start, stop = self._bounds[self._first + batch : self._first + batch + 2].tolist()
            return start, stop
        start = self._base + batch * self._batching.size
        return start, min(start + self._batching.size, self._order.length)

    def _rows_of(self, batch: int) -> int:
        first, stop = self.host_shard.span(self._whole(batch), self._batching.size)
        return stop - first

    def _whole(self, batch: int) -> int:
        """Rows of a batch, for all trainers together."""
        start, stop = self._span(batch)
        return stop - start

    def _opened_part(self, request: ShardTaskRequest, opening: ShardOpening) -> ShardTaskRequest:
        size = self._rows_of(request.shard)
        return replace(request, count=size, indices=self.indices(IndexWork(request.shard, 0, size, size)))

    def example(self, work: IndexWork | TrialWork, row: int) -> int:
        return self.numbers_of(IndexWork(work.batch, row, 1, work.whole))[0]

    def numbers_of(self, rows: IndexWork | TrialWork) -> list[int]:
        numbers: list[int] = self._taken(rows, self._order.indices).tolist()
        return numbers

    def indices(self, rows: IndexWork | TrialWork) -> npt.NDArray[np.int64]:
        return self._taken(rows, self._order.numbers)

    def _taken(self, rows: IndexWork | TrialWork, take: Take) -> npt.NDArray[np.int64]:
        """What `take` returns for the positions of these rows."""
        start, stop = self._span(rows.batch)
        if not self.host_shard.pads:
            start += self.host_shard.span(stop - start, self._batching.size)[0] + rows.first
            return take(start, start + rows.count)
        places = self._filled(rows).places(rows.first, rows.first + rows.count)
        return take(start, stop)[places]

    def _filled(self, rows: IndexWork | TrialWork) -> PaddedBatch:
        whole, size = self._whole(rows.batch), self._batching.size
        return PaddedBatch(size if self.host_shard.pads else whole, whole, self.host_shard.span(whole, size)[0])
