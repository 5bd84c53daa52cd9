"""An epoch of a generator function over shards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stoker.epochs.epoch import Batching, Epoch
from stoker.plan import Permutation, Position, mix
from stoker.scheduler import ShardStream, Stream
from stoker.scheduler.messages import Joint, Rows, Stride, Task, Trial
from stoker.sources import ShardedSource
from stoker.worker.messages import Opening, Progress, Question, Step


class ShardEpoch(Epoch):
    """Of a generator function over shards."""

    def __init__(self, begin: Position, batching: Batching, source: ShardedSource, *, uneven: bool) -> None:
        super().__init__(begin, batching, uneven=uneven)
        self._source = source

    def stream(self, number: int) -> Stream:
        order: Sequence[int] = range(self._source.count)
        if self._batching.shuffle:
            permutation = Permutation(self._source.count, mix(self._batching.seed, self.number, 5))
            order = permutation(np.arange(self._source.count)).tolist()
        stream = ShardStream(
            number,
            order,
            self._batching.size,
            open_shards=self._source.open_shards,
            keep_rest=self._batching.keep_rest,
            length=self._source.length,
            since=self._since,
        )
        self._marks = stream.marks
        return stream

    def rows(self, task: Task, rows: Rows | Trial) -> Question:
        raise AssertionError("shards have no numbered batches")

    def stride(self, task: Task, shard: int, opening: Opening | None) -> Question:
        without = self._left_out(shard)
        return Step(task.id, self.number, task.slot, shard, self.serialized, False, opening, without=without)

    def shard_of(self, work: Stride) -> int | None:
        return work.shard

    @property
    def has_shards(self) -> bool:
        return True

    def examples(self, work: Rows | Trial | Stride | Joint) -> str:
        if not isinstance(work, Stride):
            return "the last examples of shards"
        raw = self._progress.get(work.shard, Progress()).raw
        return f"shard {work.shard} from its example {raw} on"
