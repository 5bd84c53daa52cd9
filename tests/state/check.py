"""Training killed again and again ends as if it had never been: `make resume-check`, two minutes at most.

For each kind of source a run that is left alone, and one whose process group is killed by SIGKILL at random steps and
started again, each time with another number of workers. Weights and history must be equal bit for bit, and
each step must have seen the same examples.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.state.training import LENGTH
from tests.warm import Warm

EPOCHS = 3
#: Kills of each kind of source, and of a map-style one on Keras' other backends.
KILLS = {"map-style": 20, "generator": 4, "resumable generator": 3, "iterable": 3}
KILLS_BESIDE = {"jax": 6, "torch": 6}


@dataclass(frozen=True)
class Run:
    """What a run left behind."""

    weights: list[Any]
    history: Any
    seen: dict[int, list[int]]  # the examples of each step; what a step saw that was done again, replaced

    @classmethod
    def of(cls, folder: Path) -> Run:
        with np.load(folder / "weights.npz") as arrays:
            weights = [arrays[name] for name in arrays.files]
        lines = [json.loads(line) for line in (folder / "seen").read_text().splitlines()]
        return cls(weights, json.loads((folder / "history").read_text()), dict(lines))

    def differs(self, other: Run) -> str:
        """In what it is not the other; empty when it is."""
        if not all(np.array_equal(one, its) for one, its in zip(self.weights, other.weights, strict=True)):
            return "weights"
        return "" if (self.history, self.seen) == (other.history, other.seen) else "history or examples"


def start(folder: Path, warm: Warm | None = None, **options: Any) -> int:
    """Run the training in a process group of its own; returns its exit status. `warm`: where it is forked from."""
    if warm is not None:
        done = warm.run("-m", "tests.state.training", folder, env={name: str(value) for name, value in options.items()})
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": str(root / "src"),
    }
    environment |= {name: str(value) for name, value in options.items()}
    command = [sys.executable, "-m", "tests.state.training", str(folder)]
    process = subprocess.Popen(
        command, cwd=root, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        _, err = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode in (0, -signal.SIGKILL), err
    return process.returncode


def killed_again_and_again(folder: Path, kills: list[int], warm: Warm | None = None, **options: Any) -> Run:
    """A run that is killed at these steps, with another number of workers each time."""
    for number, step in enumerate(kills):
        status = start(folder, warm, KILL_AT=step, WORKERS=number % 3, **options)
        assert status == -signal.SIGKILL, f"it should have been killed at step {step}"
    assert start(folder, warm, WORKERS=1, **options) == 0
    return Run.of(folder)


def check(kind: str, kills: int, seed: int, folder: Path, warm: Warm | None = None, **options: Any) -> str:
    """Compare both runs of one kind of source, with these options; returns what is to be said of it."""
    (quiet := folder / "quiet").mkdir(parents=True)
    (killed := folder / "killed").mkdir()
    options |= {"SOURCE": kind}
    assert start(quiet, warm, **options) == 0
    expected = Run.of(quiet)
    steps = sorted(random.Random(seed).sample(range(1, len(expected.seen)), kills))
    run = killed_again_and_again(killed, steps, warm, **options)
    difference = run.differs(expected)
    assert not difference, f"{kind}: other {difference} after kills at {steps}"
    counts = Counter(example for examples in run.seen.values() for example in examples)
    assert counts == dict.fromkeys(range(LENGTH), EPOCHS), f"{kind}: {counts}"
    backend = options.get("KERAS_BACKEND", "tensorflow")
    return f"{kind}, {backend}: killed at steps {steps}; weights, history and examples are those of the quiet run"


def main() -> None:
    seed = int(os.environ.get("STRESS_SEED", random.randrange(10**6)))
    print(f"seed {seed}", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(check, kind, kills, seed, Path(folder, kind.replace(" ", "_"))) for kind, kills in KILLS.items()
        ]
        jobs += [
            pool.submit(check, "map-style", kills, seed, Path(folder, backend), KERAS_BACKEND=backend)
            for backend, kills in KILLS_BESIDE.items()
        ]
        for job in jobs:
            print(job.result(), flush=True)
    print(f"{sum([*KILLS.values(), *KILLS_BESIDE.values()])} kills in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
