"""The protocol of sources that consist of shards, which workers open and read from start to end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stoker.plan.permutation import mix
from stoker.sources.source import Source

if TYPE_CHECKING:
    import numpy as np

    from stoker.epochs.epoch import MakeEpoch
    from stoker.plan.batching import EpochCounts


class CannotRead(Exception):
    """Raised by `ShardedSource.read` for a source that cannot be read this way. The text says what to do."""


class ShardedSource(Source):
    """A source of shards. It is pickled once and sent to all workers, each of which reads some shards.

    Shards are the data's own partition, independent of the number of workers.

    Attributes:
        count: number of shards.
        open_shards: number of shards that are read in turn. It affects the order of examples.
        length_claim: who says how many examples there are, for messages; `{}` stands for the length.
    """

    is_sharded = True
    length_claim = "length={} was declared, but the generator"
    count: int
    open_shards: int

    @abstractmethod
    def read(self, index: int, rng: np.random.Generator) -> Iterable[Any]:
        """The examples of a shard, always the same ones in the same order. Called in a worker.

        An iterator with `state_dict()` and `load_state_dict(state)` resumes without reading the shard again.

        Args:
            index: the shard's number, from 0.
            rng: a random generator of the shard's own, new in each epoch and the same in every run.
        """

    def read_at(self, epoch: int, index: int, rng: np.random.Generator) -> Iterable[Any]:
        """Like `read`, for shards that differ from epoch to epoch. Called in a worker in place of it."""
        return self.read(index, rng)

    def seed_of(self, seed: int, epoch: int, index: int) -> int:
        """The seed of a shard's random states in an epoch, from the Loader's seed."""
        return mix(seed, epoch, 3, index)

    @property
    def payload(self) -> ShardedSource:
        return self

    def fingerprint(self) -> dict[str, Any]:
        length = "endless" if self.length == float("inf") else self.length
        shards = {"shards": self.count, "open_shards": self.open_shards}
        return {"source": "generator", **shards, "length": length, "batched": self.batched}

    def epochs(self, counts: EpochCounts) -> MakeEpoch:
        from stoker.epochs.shard_epoch import ShardEpoch, Shards

        shards = Shards(self.count, self.open_shards, self.length, self.length_claim)
        return lambda begin, fed: ShardEpoch(shards, counts, begin)
