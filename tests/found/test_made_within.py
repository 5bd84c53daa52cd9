"""A dataset lives as long as whatever reads it, wherever it was made, and no longer."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

import stoker

tf: Any = pytest.importorskip("tensorflow")
ROWS = [float(n) for n in range(8)]


def made() -> Any:
    return stoker.Loader(ROWS, batch_size=4, workers=0).to_tf()


@pytest.mark.parametrize("how", ["flat_map", "interleave"])
def test_a_dataset_may_be_made_within_another_ones_function(how: str) -> None:
    with stoker.Loader(ROWS, batch_size=4, workers=0) as loader:
        dataset = getattr(tf.data.Dataset.range(2), how)(lambda number: loader.to_tf())
        for _ in range(2):
            gc.collect()
            assert sorted(n for batch in dataset for n in batch.numpy().tolist()) == sorted(ROWS * 2)


def test_it_may_be_made_within_a_function_of_tensorflows() -> None:
    with stoker.Loader(ROWS, batch_size=4, workers=0) as loader:

        @tf.function
        def total() -> Any:
            found = tf.constant(0.0, tf.float64)
            for batch in loader.to_tf():
                found += tf.reduce_sum(batch)
            return found

        assert [float(total()), float(total())] == [28.0, 28.0]


def test_a_dataset_keeps_its_loader_and_lets_go_of_it() -> None:
    for dataset in (made(), made().map(lambda n: n + 1).prefetch(1)):
        gc.collect()
        assert len(list(dataset)) == 2
    loader = stoker.Loader(ROWS, batch_size=4, workers=0)
    dataset, alive = loader.to_tf(), weakref.ref(loader)
    list(dataset.take(1))
    del loader, dataset
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("options", [{}, {"pad_remainder": True}], ids=["plain", "padded"])
def test_a_loader_made_within_a_function_ends_with_the_outer_dataset(options: dict[str, Any]) -> None:
    alive: list[weakref.ref[Any]] = []

    def inner(_: Any) -> Any:
        loader = stoker.Loader([(row, row) for row in ROWS], batch_size=3, workers=0, **options)
        alive.append(weakref.ref(loader))
        return loader.to_tf()

    dataset = tf.data.Dataset.range(2).flat_map(inner)
    assert len(list(dataset)) == 6
    del dataset
    gc.collect()
    assert [loader() for loader in alive] == [None] * len(alive)


def test_a_loader_made_within_tensorflows_function_ends_with_it() -> None:
    alive: list[weakref.ref[Any]] = []

    def run() -> float:
        @tf.function
        def total() -> Any:
            loader = stoker.Loader(ROWS, batch_size=4, workers=0)
            alive.append(weakref.ref(loader))
            found = tf.constant(0.0, tf.float64)
            for batch in loader.to_tf():
                found += tf.reduce_sum(batch)
            return found

        return float(total())

    assert run() == 28.0
    gc.collect()
    assert [loader() for loader in alive] == [None] * len(alive)
