"""Sources that workers read shard by shard, each from start to end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np


class ShardedSource(ABC):
    """A source in shards, which one worker each reads by iterating.

    Attributes:
        count: number of shards.
        open_shards: number of shards read in turn.
    """

    count: int
    open_shards: int

    @abstractmethod
    def read(self, index: int, rng: np.random.Generator) -> Iterable[Any]:
        """The examples of the shard with this index. Called in a worker, once for each time the shard is opened.

        If the result has `state_dict()` and `load_state_dict(state)`, an interrupted shard goes on from its state.
        Otherwise it is read again, and must give the same examples.

        Args:
            index: the shard's number, from 0.
            rng: a random generator of the shard's own, the same each time the shard is opened in an epoch.
        """
