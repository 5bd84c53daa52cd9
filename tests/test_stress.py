"""The long run of `make stress`: loaders come and go, threads pull, workers are killed; nothing is lost or stuck."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import Any

import psutil
import pytest

import stoker
from tests.examples import Squares

SECONDS = float(os.environ.get("STRESS_SECONDS", "120"))


@pytest.mark.stress
def test_every_example_comes_once_while_workers_are_killed_and_iterations_are_dropped() -> None:
    seed = random.randrange(10**6)
    dice, deadline, epochs, kills = random.Random(seed), time.monotonic() + SECONDS, 0, 0
    expected = [index * index for index in range(20_000)]
    while time.monotonic() < deadline:
        with stoker.Loader(Squares(20_000), batch_size=64, workers=2, prefetch=dice.choice([1, 2, None])) as loader:
            found: list[list[int]] = []

            def pull(loader: Any = loader, found: Any = found) -> None:
                next(iter(loader))  # dropped at once
                held = list(loader)
                found.append([int(square) for batch in held for square in batch[1]])

            threads = [threading.Thread(target=pull) for _ in range(3)]
            for thread in threads:
                thread.start()
            next(iter(loader))
            for worker in dice.sample(psutil.Process().children(), k=1):
                worker.send_signal(signal.SIGKILL)
                kills += 1
            for thread in threads:
                thread.join(timeout=60)
            assert found == [expected] * 3, f"seed {seed}"
            epochs += 3
    print(f"seed {seed}: {epochs} epochs, {kills} workers killed, nothing lost")
    assert kills
