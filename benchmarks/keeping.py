"""What it costs that examples are written or copied before user code runs on: milliseconds an epoch, without workers.

    python -m benchmarks.keeping

Process time, the least of eight epochs. To compare two versions, run it in turn with the one and the other on
PYTHONPATH: the figures behind docs/decisions.md were made so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import stoker

EPOCHS = 8


class Items:
    """What a function gives for each index."""

    def __init__(self, length: int, item: Any) -> None:
        self.length, self.item = length, item

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


def cases() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, source and options."""
    rng = np.random.default_rng(0)
    rows, images = rng.random((20_000, 100)), rng.integers(0, 255, (64, 224, 224, 3)).astype(np.uint8)
    tokens = [rng.integers(0, 1000, length) for length in rng.integers(5, 200, 4_000)]
    yield "rows", Items(20_000, lambda n: (rows[n], n % 10)), {"batch_size": 256}
    yield "rows in a dict", Items(20_000, lambda n: {"x": rows[n], "y": n % 10}), {"batch_size": 256}
    yield "padded tokens", Items(4_000, lambda n: {"ids": tokens[n], "y": n % 7}), {"collate": {"ids": "pad"}}
    yield "images", Items(512, lambda n: (images[n % 64], n)), {"batch_size": 64}
    yield "images of several sizes", Items(512, lambda n: images[n % 64][: 200 + n % 24].copy()), {"batch_size": None}
    yield "images, a function", Items(512, lambda n: images[n % 64]), {"batch_size": 64, "collate": np.stack}


def main() -> None:
    """Print a line for each case."""
    for name, source, options in cases():
        with stoker.Loader(source, workers=0, **options) as loader:
            spent = []
            for _ in range(EPOCHS):
                began = time.process_time()
                for _ in loader:
                    """It is dropped."""
                spent.append(time.process_time() - began)
        print(f"{name:28}{1000 * min(spent):8.1f} ms", flush=True)


if __name__ == "__main__":
    main()
