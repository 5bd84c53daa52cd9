"""Random layers and generators that the user's code holds or makes: the same numbers for any number of workers."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import pytest

import stoker
from tests.found.keras_augmentation import Augment
from tests.worker import augmentation


def epochs(transform: Any, workers: int) -> Any:
    how: dict[str, Any] = {"batch_size": 2, "shuffle": True, "seed": 5}
    with stoker.Loader(range(12), **how, transform=transform, workers=workers) as loader:
        return np.array([[batch.tolist() for batch in loader] for _ in range(2)])


def test_keras_random_layers_draw_the_same_whoever_makes_the_example() -> None:
    import keras
    import tensorflow as tf

    generator, other = keras.random.SeedGenerator(3), tf.random.Generator.from_seed(3)
    before = other.state.numpy().tolist()
    keras.utils.set_random_seed(4)
    expected = random.Random(4).random()
    results = [epochs(Augment(generator, other), workers) for workers in (2, 0)]
    assert np.array_equal(*results)
    of_example = results[0].reshape(24, -1)
    assert len({tuple(row) for row in of_example}) == 24, "each example of each epoch has its own"
    assert len(set(of_example[:, ::2].ravel().tolist())) == 24 * 9, "and each of its layers"
    assert generator.state.numpy().tolist() == [3, 0], "the trainer's own state is as it was"
    assert other.state.numpy().tolist() == before
    assert random.random() == expected
    assert not hasattr(keras.random.SeedGenerator.next, "_stoker_plain")


def by_torch(generator: Any, example: int) -> Any:
    import torch

    return torch.rand(3, generator=generator).numpy()


def by_system(generator: Any, example: int) -> Any:
    return 0 < generator.random() < 1


def test_generators_of_torch_that_are_held_are_seeded() -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator()
    results = [epochs(functools.partial(by_torch, generator), workers) for workers in (0, 1, 2)]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_of_entropy_without_a_state_may_be_held(workers: int) -> None:
    assert epochs(functools.partial(by_system, random.SystemRandom()), workers).all()


def test_a_module_that_draws_when_it_is_imported_changes_no_numbers(tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "drawing_when_imported.py").write_text("import random\nNUMBER = random.random()\n")
    monkeypatch.syspath_prepend(tmp_path)
    results = [epochs(augmentation.after_an_import, workers) for workers in (0, 2)]
    assert np.array_equal(*results)
