"""Epochs of sources that consist of shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stoker.epochs.epoch import Epoch
from stoker.plan.batching import EpochCounts
from stoker.plan.permutation import Permutation, mix
from stoker.plan.position import Position, ShardProgress
from stoker.protocol.requests import Request
from stoker.scheduler.shard_streams import ShardStream
from stoker.scheduler.streams import Stream
from stoker.scheduler.work import IndexWork, JoinWork, ShardWork, Task, TrialWork


@dataclass(frozen=True)
class Shards:
    """The shards of a source.

    Attributes:
        count: number of shards.
        open_shards: number of shards that are read in turn.
        length: examples in all shards together; None if unknown, `math.inf` if they never end.
        length_claim: who says so, for messages; `{}` stands for the length.
    """

    count: int
    open_shards: int
    length: float | None
    length_claim: str


class ShardEpoch(Epoch):
    """An epoch of a source that consists of shards."""

    def __init__(self, shards: Shards, counts: EpochCounts, begin: Position) -> None:
        super().__init__(counts, begin)
        self._shards = shards
        self.length_claim = shards.length_claim
        self._owners: dict[int, int] = {}

    def _order(self) -> Sequence[int]:
        if not self._batching.shuffle:
            return range(self._shards.count)
        permutation = Permutation(self._shards.count, mix(self._batching.seed, self.number, 5))
        order: list[int] = permutation(np.arange(self._shards.count)).tolist()
        return order

    def first_shards(self) -> list[tuple[int, ShardProgress]]:
        """The list is empty if leftovers from a saved state must be made again: other shards are opened first then."""
        if self._since is not None and self._since.left:
            return []
        open_now = [] if self._since is None else [place.shard for place in self._since.positions]
        start = 0 if self._since is None else self._since.opened
        shards = [*open_now, *self._order()[start : start + self._shards.open_shards - len(open_now)]]
        return [(shard, self._progress.get(shard, ShardProgress())) for shard in shards]

    def opened(self, owners: dict[int, int]) -> None:
        self._owners = owners

    def stream(self, number: int) -> Stream:
        stream = ShardStream(
            number,
            self._order(),
            self._batching.size,
            open_shards=self._shards.open_shards,
            keep_rest=self._batching.keep_rest,
            length=self._shards.length,
            since=self._since,
            owners=self._owners,
        )
        self._resume_points = stream.resume_points
        return stream

    def request(self, task: Task, opens: bool) -> Request:
        assert isinstance(task.work, ShardWork | JoinWork)  # its stream has no numbered batches
        return self._shard_request(task, task.work, opens)

    def shard_of(self, work: ShardWork) -> int | None:
        return work.shard

    @property
    def has_shards(self) -> bool:
        return True

    def description(self, work: IndexWork | TrialWork | ShardWork | JoinWork) -> str:
        if not isinstance(work, ShardWork):
            return "the last examples of shards"
        raw = self._progress.get(work.shard, ShardProgress()).raw
        return f"shard {work.shard} starting at example {raw}"
