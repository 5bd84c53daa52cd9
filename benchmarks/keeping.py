"""What it costs that examples are written or copied before user code runs on: CPU time of an epoch, by two versions.

    python -m benchmarks.keeping BEFORE [--workers N] [--pairs N]

BEFORE is the folder `src` of another checkout. Each version runs in a process of its own, and they take turns, epoch by
epoch, so that both meet the same machine. CPU time of the trainer and of its workers is counted. A line for each case:
the least of both, the median of the ratios after/before, and their quartiles.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import stoker

ROOT = Path(__file__).parents[1]


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
    yield "ragged tokens", Items(4_000, lambda n: {"ids": tokens[n], "y": n % 7}), {"collate": {"ids": "ragged"}}
    yield "tokens, skip", Items(4_000, lambda n: tokens[n]), {"collate": "pad", "on_error": "skip"}
    yield "images", Items(512, lambda n: (images[n % 64], n)), {"batch_size": 64}
    yield "images of several sizes", Items(512, lambda n: images[n % 64][: 200 + n % 24].copy()), {"batch_size": None}
    yield "images, a function", Items(512, lambda n: images[n % 64]), {"batch_size": 64, "collate": np.stack}


def spent() -> float:
    """Seconds of CPU time that this process and its workers have taken."""
    workers = [process.pid for process in psutil.Process().children(recursive=True)]
    clocks = [~pid << 3 | 2 for pid in workers]  # Linux' number for the clock of another process
    return time.process_time() + sum(map(time.clock_gettime, clocks))


def serve(workers: int) -> None:
    """Answer each line, the name of a case, with the seconds of an epoch of it."""
    answers, sys.stdout = sys.stdout, sys.stderr
    made = {name: (source, options) for name, source, options in cases()}
    loaders: dict[str, stoker.Loader] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in loaders:
            source, options = made[name]
            loaders[name] = stoker.Loader(source, workers=workers, **options)
        began = spent()
        for _ in loaders[name]:
            """It is dropped."""
        print(spent() - began, file=answers, flush=True)
    for loader in loaders.values():
        loader.close()


def compare(before: Path, workers: int, pairs: int) -> None:
    """Print a line for each case."""
    sides = [_Side(before, workers), _Side(ROOT / "src", workers)]
    for name, _, _ in cases():
        for side in sides:
            side.epoch(name)  # the first one finds out what batches look like
        seconds = [
            [side.epoch(name) for side in (sides if n % 2 else sides[::-1])][:: 1 if n % 2 else -1]
            for n in range(pairs)
        ]
        ratios = [after / earlier for earlier, after in seconds]
        low, middle, high = statistics.quantiles(ratios, n=4)
        least = [1000 * min(column) for column in zip(*seconds, strict=True)]
        print(f"{name:28}{least[0]:8.1f} {least[1]:8.1f} ms   {middle:.2f} ({low:.2f}-{high:.2f})", flush=True)
    for side in sides:
        side.end()


class _Side:
    """One version, in a process of its own."""

    def __init__(self, source: Path, workers: int) -> None:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source.resolve()), str(ROOT)])}
        command = [sys.executable, "-m", "benchmarks.keeping", "--serve", "--workers", str(workers)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def epoch(self, name: str) -> float:
        """Seconds of CPU time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        """Let it go."""
        self._process.communicate()


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("before", type=Path, nargs="?")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=20)
    told = parser.parse_args()
    if told.serve:
        serve(told.workers)
    elif told.before is None or not (told.before / "stoker").is_dir():
        parser.error("give the folder src of another checkout")
    else:
        compare(told.before, told.workers, told.pairs)


if __name__ == "__main__":
    main()
