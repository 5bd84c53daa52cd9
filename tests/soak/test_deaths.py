"""Workers are killed at random times from outside; nobody who reads the batches can tell.

STRESS_KILLS is how many are killed while batches of one size are made (100).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

import stoker
from tests.soak.code import KINDS, Blocks, Points, Work, source
from tests.soak.tools import MANY, Killer, digest, hit, new_seed


def killed_once(loader: stoker.Loader, dice: random.Random, batches: int) -> Iterator[Any]:
    """The loader's next epoch, and a kill before one of its batches."""
    when = dice.randrange(batches)
    for number, batch in enumerate(loader):
        if number == when:
            assert hit(dice.randrange(9)) is not None
        yield batch


def run_and_kill(runs: int) -> None:
    """In each run a worker dies once, at any time; the hash of the epoch is that of the quiet one."""
    seed = new_seed()
    print(f"seed {seed}")
    dice, deaths = random.Random(seed), 0
    for run in range(runs):
        kind = KINDS[run % len(KINDS)]
        options: Any = {"batch_size": 4, "seed": run, "shuffle": 16 if kind in ("generator", "iterable") else True}
        with stoker.Loader(source(kind, 400), transform=Work(), workers=0, **options) as quiet:
            expected = digest(quiet)
        work = Work(pace=dice.choice([0.0, 0.0003]))
        with stoker.Loader(source(kind, 400), transform=work, workers=2, retries=MANY, **options) as loader:
            assert digest(killed_once(loader, dice, 100)) == expected, f"{kind}, seed {seed}, run {run}"
            deaths += loader.stats().deaths
    print(f"{runs} runs, {deaths} deaths seen before the epoch ended, every hash equal")
    assert deaths


def test_a_worker_killed_at_a_random_time_changes_no_byte() -> None:
    run_and_kill(8)


@pytest.mark.stress
def test_workers_killed_at_many_random_times_change_no_byte() -> None:
    run_and_kill(200)


@pytest.mark.stress
@pytest.mark.parametrize("size", [64 << 10, 1 << 20, 16 << 20, 64 << 20])
def test_workers_killed_again_and_again_tear_no_batch(size: int, capfd: pytest.CaptureFixture[str]) -> None:
    seed, kills, begun, longest = new_seed(), int(os.environ.get("STRESS_KILLS", "100")), time.monotonic(), 0.0
    epochs, source = 0, Blocks(size // 8)
    with stoker.Loader(source, batch_size=8, workers=3, retries=MANY, memory_limit=size * 24) as loader:
        with Killer(0.15, random.Random(seed)) as killer:
            while killer.kills < kills:
                last, number = time.monotonic(), 0
                for number, batch in enumerate(loader, 1):
                    longest, last = max(longest, time.monotonic() - last), time.monotonic()
                    assert (batch == np.arange(8 * number - 8, 8 * number)[:, None]).all(), f"seed {seed}"
                assert number == 32, f"seed {seed}"
                epochs += 1
        deaths = loader.stats().deaths
    with capfd.disabled():
        print(
            f"\n{size >> 10} KiB a batch: {killer.kills} kills (seed {seed}), {deaths} deaths seen, {epochs} epochs, "
            f"all whole, in {time.monotonic() - begun:.0f} s; {longest:.2f} s at most for a batch"
        )


def weights_after_fit(pace: float, every: float | None) -> tuple[list[Any], int]:
    """Train for two epochs; returns the weights and how often a worker was killed."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with stoker.Loader(Points(1200, pace), batch_size=8, shuffle=True, workers=2, retries=MANY) as loader:
        if every is None:
            model.fit(loader.to_tf(), epochs=2, verbose=0)
            return model.get_weights(), 0
        with Killer(every) as killer:
            model.fit(loader.to_tf(), epochs=2, verbose=0)
        assert loader.stats().deaths == killer.kills
    return model.get_weights(), killer.kills


@pytest.mark.stress
def test_a_training_whose_workers_die_every_second_ends_with_the_weights_of_a_quiet_one() -> None:
    quiet, _ = weights_after_fit(0, None)
    disturbed, kills = weights_after_fit(0.004, 1.0)
    assert kills >= 3
    assert all(np.array_equal(one, other) for one, other in zip(quiet, disturbed, strict=True))
