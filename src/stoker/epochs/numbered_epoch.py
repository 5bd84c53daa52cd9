"""The base class of epochs whose examples are numbered, so that rows and batches are known before they are made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from stoker.epochs.epoch import Epoch
from stoker.plan.batching import EpochCounts
from stoker.plan.host_shard import PaddedBatch
from stoker.plan.position import Position
from stoker.protocol.requests import IndexTaskRequest, Indices, Request
from stoker.scheduler.shard_streams import ShardStream
from stoker.scheduler.work import IndexWork, JoinWork, ShardWork, Task, TrialWork


class NumberedEpoch(Epoch):
    """An epoch of numbered batches. Once it is uneven, it is read in parts, as if these were shards."""

    def __init__(self, counts: EpochCounts, begin: Position) -> None:
        super().__init__(counts, begin)
        self.uneven = self.uneven or begin.stream is not None

    @abstractmethod
    def indices(self, rows: IndexWork | TrialWork) -> Indices:
        """The numbers of the examples in these rows, as a request names them: for items, only the first."""

    @abstractmethod
    def example(self, work: IndexWork | TrialWork, row: int) -> int:
        """The number of the example in a row of a numbered batch."""

    @abstractmethod
    def numbers_of(self, rows: IndexWork | TrialWork) -> Sequence[int]:
        """The numbers of the examples in these rows."""

    def row(self, work: IndexWork | TrialWork, example: int) -> int | None:
        numbers = self.numbers_of(work)
        return work.first + numbers.index(example) if example in numbers else None

    def request(self, task: Task, opens: bool) -> Request:
        work = task.work
        if isinstance(work, IndexWork | TrialWork):
            return self._rows_request(task, work)
        return self._shard_request(task, work, opens)

    def _rows_request(self, task: Task, rows: IndexWork | TrialWork) -> Request:
        """The request for rows of a numbered batch."""
        return IndexTaskRequest(
            task=task.id,
            epoch=self.number,
            slot=task.slot,
            first=rows.first,
            rows=rows.whole,
            serialized=self.serialized,
            from_inbox=self.pulled is not None,
            count=rows.count,
            indices=self.indices(rows),
            trial=isinstance(rows, TrialWork),
            filled=self._filled(rows) if self._batching.weighs else None,
        )

    def _filled(self, rows: IndexWork | TrialWork) -> PaddedBatch | None:
        """How the batch of these rows is padded, if it can be."""
        return None

    def _span(self, batch: int) -> tuple[int, int]:
        """The first example of a batch or part, counted in the epoch, and the one after its last."""
        start = self._base + batch * self._batching.size
        return start, start + self._batching.size

    def description(self, work: IndexWork | TrialWork | ShardWork | JoinWork) -> str:
        match work:
            case JoinWork():
                return "examples that are joined"
            case ShardWork(part):
                start, stop = self._span(part)
                return f"the {stop - start} examples starting at number {start}"
        numbers = self.numbers_of(work)
        shown = ", ".join(map(str, numbers[:8])) + (f", … ({len(numbers)} in all)" if len(numbers) > 8 else "")
        return f"example{'s' * (len(numbers) > 1)} {shown}"

    def _parts(self, order: Sequence[int] | None, number: int, *, apart: bool = False) -> ShardStream:
        """A stream of parts of the source from its base on. The sizes of the parts are not known in advance.

        `apart`: each part makes batches of its own.
        """
        stream = ShardStream(
            number,
            order,
            self._batching.size,
            open_shards=self._batching.window,
            keep_rest=self._batching.keep_rest,
            in_turn=False,
            apart=apart,
            since=self._since,
        )
        self._resume_points = stream.resume_points
        return stream
