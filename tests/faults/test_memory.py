"""A memory cgroup that is full: the kernel kills, and the error says so."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 400_000_000
SCRIPT = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
import numpy as np
import stoker

class Hungry:
    def __len__(self):
        return 60

    def __getitem__(self, index):
        if index == 37:
            np.ones(10**9, np.uint8)
        return index

for on_error in ("raise", "skip"):
    with stoker.Loader(Hungry(), batch_size=8, workers=2, on_error=on_error) as loader:
        try:
            print(sum(map(len, loader)), loader.stats().skipped[0])
        except stoker.WorkerDied as error:
            print(error)
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of our own that may hold `LIMIT` bytes; skips, and says why, where the machine allows none."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    old = [path for _, controllers, path in lines if "memory" in controllers.split(",")]
    base, file = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes") if old else ("/sys/fs/cgroup", "memory.max")
    path = old[0] if old else next(path for _, controllers, path in lines if not controllers)
    made = Path(base + path) / f"faults-{os.getpid()}"
    try:
        made.mkdir()
        (made / file).write_text(str(LIMIT))
    except OSError as error:
        with contextlib.suppress(OSError):
            made.rmdir()
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield made
    made.rmdir()


def test_the_kernels_out_of_memory_killer_is_named(cgroup: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": "src"}
    command = [sys.executable, "-c", SCRIPT, str(cgroup / "cgroup.procs")]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    told = "was killed by SIGKILL; the kernel's out-of-memory counter of this cgroup rose by 1"
    raised, skipped = ended.stdout.splitlines()
    assert "example 37 (epoch 0, batch 4): the last one " + told in raised
    assert skipped.startswith("59 example 37: workers died at it; the last one " + told)
