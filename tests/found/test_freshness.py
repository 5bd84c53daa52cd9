"""With `prefetch=1`, examples of one batch at most are made ahead of what was taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stoker

SIZE = 8


class Endless:
    """Counts what it makes, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self, number: int) -> int:
        with self.path.open("a") as file:
            file.write("x")
        return number

    def __len__(self) -> int:
        return 800

    def __getitem__(self, index: int) -> int:
        return self.make(index)

    def items(self) -> Iterator[int]:
        yield from map(self.make, range(800))

    def shard(self, shard: stoker.Shard) -> Iterator[int]:
        yield from map(self.make, range(200))


@pytest.mark.parametrize("kind", ["map-style", "iterable", "generator"])
@pytest.mark.parametrize("behind_tf", [False, True])
def test_one_batch_at_most_is_made_ahead(kind: str, behind_tf: bool, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    source = Endless(tmp_path / "made")
    sources: dict[str, Any] = {
        "map-style": source,
        "iterable": stoker.from_iterable(source.items),
        "generator": stoker.from_generator(source.shard, shards=4),
    }
    with stoker.Loader(
        sources[kind], batch_size=SIZE, workers=2, prefetch=1, output_signature=tf.TensorSpec((), tf.int64)
    ) as loader:
        batches = iter(loader.to_tf() if behind_tf else loader)
        for taken in range(1, 7):
            next(batches)
            most, deadline = (taken + 1) * SIZE, time.monotonic() + 5
            while source.path.stat().st_size < most and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)
            assert source.path.stat().st_size == most
