"""Arrays in memory: `stoker.from_arrays` beside `tf.data.Dataset.from_tensor_slices(…).shuffle(n).batch(b)`.

Both shuffle the whole source (tf.data by a buffer of its size), in one process after the other, in turn, so that what
else the machine does hits both alike. A contender is read for some seconds by an eager loop; the rate is that
of the whole time. `python -m benchmarks.arrays` writes results/arrays.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

#: Title, rows, columns, batch size.
CASES = [
    ("1,000,000 rows of 100 float32, batch 256", 1_000_000, (100,), 256),
    ("60,000 images of 28×28 uint8, batch 64", 60_000, (28, 28), 64),
    ("2,000 images of 224×224×3 uint8, batch 64", 2_000, (224, 224, 3), 64),
]


def with_tf(x: Any, y: Any, batch_size: int) -> Iterator[Any]:
    """The batches of tf.data, epoch after epoch."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(batch_size)
    return iter(dataset.repeat().prefetch(tf.data.AUTOTUNE))


def with_stoker(x: Any, y: Any, batch_size: int) -> Iterator[Any]:
    """Stoker's batches, epoch after epoch, by two workers."""
    import stoker

    with stoker.Loader(stoker.from_arrays(x, y), batch_size=batch_size, shuffle=True, workers=2) as loader:
        yield from loader.to_tf().repeat()


def rate(batches: Iterator[Any], batch_size: int, seconds: float) -> float:
    """Rows a second; the first batches, in which buffers fill and workers start, are not counted."""
    for _ in range(30):
        next(batches)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        next(batches)
        count += 1
    return count * batch_size / (time.perf_counter() - started)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "arrays.md")
    asked = parser.parse_args()
    lines = [
        "# Arrays in memory",
        "",
        f"Rows a second into tf.data (eager loop), medians of {asked.rounds} rounds; the ratio is that within a round,",
        f"its median and least–most. {os.cpu_count()} cores, two workers. Made by `python -m benchmarks.arrays`.",
        "",
        "| | tf.data | Stoker | Stoker ÷ tf.data |",
        "|---|---:|---:|---:|",
    ]
    for title, rows, shape, batch_size in CASES:
        x = np.random.default_rng(0).integers(0, 255, (rows, *shape), np.uint8)
        x = x.astype(np.float32) if len(shape) == 1 else x
        y = np.arange(rows)
        found: dict[Callable[..., Iterator[Any]], list[float]] = {with_tf: [], with_stoker: []}
        for number in range(asked.rounds):
            for contender in list(found)[:: 1 if number % 2 else -1]:
                found[contender].append(rate(contender(x, y, batch_size), batch_size, asked.seconds))
        tf_rates, our_rates = found.values()
        ratios = sorted(ours / theirs for theirs, ours in zip(tf_rates, our_rates, strict=True))
        lines.append(
            f"| {title} | {statistics.median(tf_rates):,.0f} | {statistics.median(our_rates):,.0f} | "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) |"
        )
        print(lines[-1], flush=True)
    asked.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
