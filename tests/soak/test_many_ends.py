"""Interpreters that exit and trainers that are killed, again and again: what hangs once in a hundred times is seen.

STRESS_RUNS is how often each happens (10).
"""

from __future__ import annotations

import os
import random
import signal
import time

import psutil
import pytest

from tests.soak.tools import new_seed
from tests.test_ends import EXITS, START, is_alive, poll, run, seconds_to_exit

pytestmark = [pytest.mark.stress, pytest.mark.alone]

RUNS = int(os.environ.get("STRESS_RUNS", "10"))


def summary(what: str, times: list[float]) -> str:
    times = sorted(times)
    return f"\n{what}: {len(times)} runs, {times[len(times) // 2]:.2f} s each, {times[-1]:.2f} s at most"


#: An interpreter that reads a tf.data.Dataset without Stoker.
ALONE = """
import tensorflow as tf
for _ in tf.data.Dataset.range(100).prefetch(2):
    print(flush=True)
    break
"""


def seconds_of_tensorflow() -> float:
    """What TensorFlow takes to exit now, on this machine."""
    trainer = run(ALONE)
    assert trainer.stdout is not None
    trainer.stdout.readline()
    begun = time.monotonic()
    trainer.communicate(timeout=20)
    return time.monotonic() - begun


@pytest.mark.parametrize("where", EXITS)
def test_the_interpreter_always_exits(where: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Within 2 seconds, beyond what TensorFlow takes itself; never later than that."""
    alone = [seconds_of_tensorflow() if "tensorflow" in EXITS[where] else 0.0 for _ in range(5)]
    times = [seconds_to_exit(where, 2 + max(alone)) for _ in range(RUNS)]
    with capfd.disabled():
        print(summary(f"exit, {where}", times) + f"; TensorFlow alone {sorted(alone)[2]:.2f} s")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_a_trainer_that_is_killed_at_any_moment_leaves_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """While it imports, while its workers start, while they deliver."""
    seed, times, alone = new_seed(), [], 0
    dice = random.Random(seed)
    for _ in range(RUNS):
        trainer = run(START + "for batch in loader: pass")
        time.sleep(dice.uniform(0.1, 1.2))
        workers = [child.pid for child in psutil.Process(trainer.pid).children()]
        alone += not workers
        trainer.send_signal(signal.Signals[name])
        begun = time.monotonic()
        out, _ = trainer.communicate(timeout=5)
        assert poll(lambda pids=workers: not any(map(is_alive, pids)), 1), f"seed {seed}"
        times.append(time.monotonic() - begun)
        assert out == ""
        assert trainer.returncode == -signal.Signals[name]
    with capfd.disabled():
        print(summary(f"{name} (seed {seed}, {alone} of them before there were workers)", times))
    assert alone < RUNS
