"""The form of the batches is inferred from examples like those that the batches will hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stoker


def graph(n: int) -> dict[str, Any]:
    nodes = 2 + n * n % 7
    return {"x": np.full((nodes, 3), n, np.float32), "edges": np.zeros((2, 2 * nodes), np.int64)}


def union(graphs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "x": np.concatenate([one["x"] for one in graphs]),
        "edges": np.concatenate([one["edges"] for one in graphs], axis=1),
    }


@pytest.mark.parametrize("length", [61, 64])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_function_decides_how_many_rows_it_makes_of_a_batch(length: int, workers: int) -> None:
    tf = pytest.importorskip("tensorflow")
    data = [graph(n) for n in range(length)]
    expected = [union(data[start : start + 8]) for start in range(0, length, 8)]
    with stoker.Loader(data, batch_size=8, collate=union, workers=workers) as loader:
        made = loader.to_tf()
        assert made.element_spec["x"] == tf.TensorSpec((None, 3), tf.float32)
        assert made.element_spec["edges"] == tf.TensorSpec((None, None), tf.int64)
        for batches in (loader, made):
            for batch, one in zip(batches, expected, strict=True):
                assert all(np.array_equal(batch[key], one[key]) for key in one)


@pytest.mark.parametrize(("length", "drop"), [(64, False), (61, True), (5, False)])
def test_a_function_is_given_batches_of_no_other_size_than_the_epochs(length: int, drop: bool) -> None:
    wanted = min(length, 8)

    def views(examples: list[Any]) -> Any:
        assert len(examples) == wanted
        return np.stack([flipped for one in examples for flipped in (one, one[::-1])])

    data = [np.arange(4.0) + n for n in range(length)]
    for workers in (0, 2):
        with stoker.Loader(data, batch_size=8, drop_remainder=drop, collate=views, workers=workers) as loader:
            assert [batch.shape for batch in loader] == [(2 * wanted, 4)] * max(1, length // 8)


def test_a_function_is_tried_on_the_rows_of_this_trainer() -> None:
    def halves(examples: list[Any]) -> Any:
        assert len(examples) == 4
        return np.stack(examples)

    with stoker.Loader(range(32), batch_size=8, shard_count=2, collate=halves, workers=0) as loader:
        assert [len(batch) for batch in loader] == [4] * 4


@pytest.mark.parametrize("rows", [None, 16])
def test_a_signature_wins(rows: int | None) -> None:
    tf = pytest.importorskip("tensorflow")
    signature = tf.TensorSpec((rows, None), tf.float64)
    data = [np.ones((2, 3)) for _ in range(64)]
    with stoker.Loader(data, batch_size=8, collate=np.concatenate, output_signature=signature, workers=1) as loader:
        assert loader.element_spec == signature
        assert [batch.shape for batch in loader.to_tf()] == [(16, 3)] * 8
