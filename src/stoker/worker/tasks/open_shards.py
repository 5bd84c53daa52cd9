"""The shards that are open in this worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from stoker.worker.tasks.shard_reader import ShardReader

#: Number of ended shards to remember. Exceeds the number of steps that can be requested ahead.
_ENDED = 256


class OpenShards:
    """The readers of this worker's open shards, by iteration (its key) and shard."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], ShardReader] = {}
        self._ended: deque[tuple[int, int]] = deque()

    def get(self, key: int, shard: int) -> ShardReader:
        """The reader of an open shard."""
        return self._open[key, shard]

    def open(self, key: int, shard: int, make: Callable[[], ShardReader]) -> ShardReader:
        """Open a shard with `make`. If it is already open, close it first."""
        self.close(key, shard)
        shard_reader = self._open[key, shard] = make()
        return shard_reader

    def close(self, key: int, shard: int) -> None:
        """Close a shard if it is open."""
        shard_reader = self._open.pop((key, shard), None)
        if shard_reader is not None:
            shard_reader.close()

    def finish(self, key: int, shard: int) -> None:
        """Release a shard that has ended. Steps requested ahead still find it, without rows."""
        self._open[key, shard].close()
        self._ended.append((key, shard))
        if len(self._ended) > _ENDED:
            self._open.pop(self._ended.popleft(), None)

    def leave(self, key: int) -> None:
        """Close all shards of an iteration."""
        for of, shard in [its for its in self._open if its[0] == key]:
            self.close(of, shard)

    def leave_all(self) -> None:
        """Close all shards."""
        for key, shard in list(self._open):
            self.close(key, shard)
