"""The same random numbers for an example, whoever makes it: for code that knows nothing of Stoker."""

from __future__ import annotations

import functools
import random
import time
from typing import Any

import numpy as np
import pytest

import stoker
from stoker.worker.user_code.seeding import Seeder, install_lazy_random
from tests.worker import augmentation


def epochs(transform: Any, workers: int, **more: Any) -> list[Any]:
    how = {"source": list(range(40)), "batch_size": 8, "shuffle": True, "seed": 4, **more}
    with stoker.Loader(**how, transform=transform, workers=workers) as loader:
        return [[np.asarray(batch).tolist() for batch in loader] for _ in range(2)]


AUGMENTATIONS: dict[str, Any] = {
    "by the module random": augmentation.by_random,
    "by numpy.random": augmentation.by_numpy,
    "by a generator in an object": augmentation.Augment(np.random.default_rng(3)),
    "by an older generator in an object": augmentation.Augment(np.random.Generator(np.random.MT19937(3))),
    "by a RandomState in an object": augmentation.Augment(np.random.RandomState(3)),
    "by a random.Random in an object": augmentation.Augment(random.Random(3)),
    "by one generator of several objects": augmentation.Several(),
    "by torch": augmentation.by_torch,
    "by tf.random": augmentation.by_tensorflow,
}


@pytest.mark.parametrize(
    "name",  # TensorFlow is imported in each of the workers
    [pytest.param(name, marks=pytest.mark.stress if name == "by tf.random" else ()) for name in AUGMENTATIONS],
)
def test_unmodified_augmentation_gives_the_same_bits_for_any_number_of_workers(name: str) -> None:
    transform = AUGMENTATIONS[name]
    if name == "by torch":
        pytest.importorskip("torch")
    counts = (1, 3) if name == "by tf.random" else (0, 1, 7)  # in the trainer, TensorFlow's state is the trainer's
    results = [epochs(transform, workers) for workers in counts]
    assert all(result == results[0] for result in results)
    numbers = [tuple(row) for epoch in results[0] for batch in epoch for row in np.atleast_2d(batch)]
    assert len(set(numbers)) == len(numbers), "no two examples, and no two epochs, have the same numbers"


def test_the_states_of_the_trainers_own_objects_are_left_alone() -> None:
    held = augmentation.Augment(np.random.default_rng(3))
    random.seed(1)
    expected = np.random.default_rng(3).random(4).tolist(), random.Random(1).random()
    epochs(held, 0)
    assert (held.generator.random(4).tolist(), random.random()) == expected


def test_neighbours_are_not_correlated() -> None:
    """Neighbouring examples, and the same ones of neighbouring epochs: correlations as of independent numbers."""
    with stoker.Loader(range(4000), batch_size=500, transform=augmentation.by_all, workers=1) as loader:
        first, second = (np.concatenate(list(loader)) for _ in range(2))
    for one, other in ((first[1:], first[:-1]), (first, second)):
        for a, b in ((one[:, i], other[:, j]) for i in range(one.shape[1]) for j in range(one.shape[1])):
            assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(a))
    assert abs(first.mean() - 0.5) < 0.02


def test_a_batch_function_has_numbers_of_its_own() -> None:
    for source in (list(range(20)), stoker.from_generator(augmentation.numbers, shards=3)):
        how = {"source": source, "collate": augmentation.mixed, "shuffle": False}
        results = [epochs(None, workers, **how) for workers in (0, 1, 3)]
        assert results[0] == results[1] == results[2]
        drawn = [batch[0][1] for epoch in results[0] for batch in epoch]
        assert len(set(drawn)) == len(drawn)


def test_what_is_switched_off_is_not_seeded() -> None:
    transform = functools.partial(augmentation.by_all)
    first, second = (epochs(transform, workers, seed_globals=False) for workers in (1, 0))
    assert first != second
    assert epochs(augmentation.by_rng, 1, seed_globals=False) == epochs(augmentation.by_rng, 0, seed_globals=False)


def test_user_code_can_ask_what_is_at_work() -> None:
    with stoker.Loader(range(6), batch_size=2, seed=9, transform=augmentation.asked, workers=2) as loader:
        told = [[tuple(row) for row in batch.tolist()] for _ in range(2) for batch in loader]
    assert [[row[:2] for row in batch] for batch in told] == [
        [(epoch, start), (epoch, start + 1)] for epoch in range(2) for start in (0, 2, 4)
    ]
    assert {row[2] for batch in told for row in batch} <= {0, 1}
    assert len({row[3] for batch in told for row in batch}) == 12, "each example has its seed"
    generator = stoker.from_generator(augmentation.asked_in_shard, shards=3)
    with stoker.Loader(generator, batch_size=2, workers=1) as loader:
        assert [batch.tolist() for batch in loader] == [[[s, 0], [s, 1]] for s in range(3)]
    with pytest.raises(stoker.StokerError, match="Call it in the source"):
        stoker.current()


@pytest.mark.alone
def test_seeding_costs_less_than_eight_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in dir(random):  # `install_lazy_random` is for workers: what it replaces is put back
        monkeypatch.setattr(random, name, getattr(random, name))
    seeder = Seeder(0, install_lazy_random())
    seeder.seed_all()
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        for seed in range(1000):
            seeder.begin(seed)
            seeder.rng(seed)
        times.append((time.perf_counter() - begun) / 1000)
    assert min(times) < 8e-6
