"""A kind of source that Stoker does not have: CSV files, each of which is a shard. Workers import this module."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stoker.sources.sharded import ShardedSource


class CsvSource(ShardedSource):
    """The rows of CSV files without a header: all columns but the last are x, the last one is y."""

    noun = "a set of CSV files"

    def __init__(self, paths: list[Path], open_files: int = 2) -> None:
        self.paths, self.count, self.open_shards = paths, len(paths), open_files

    @property
    def length(self) -> None:
        """Nobody has counted the rows."""

    def read(self, index: int, rng: np.random.Generator) -> Iterator[Any]:
        with self.paths[index].open(newline="") as file:
            for row in csv.reader(file):
                yield np.array(row[:-1], np.float32), np.float32(row[-1])

    def fingerprint(self) -> dict[str, Any]:
        return {"source": "csv", "files": [path.name for path in self.paths], "open_files": self.open_shards}
