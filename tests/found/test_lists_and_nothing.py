"""Lists of numbers are arrays, in whatever way they are joined; where nothing stands, the others tell what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stoker
from tests.sources_of_tests import ByIndex


def batches(examples: list[Any], **options: Any) -> list[Any]:
    with stoker.Loader(examples, **{"workers": 0, **options}) as loader:
        return list(loader)


# ── lists ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([[1, 2], [3, 4]], np.int64),
        ([[1, 0.5], [3, 4]], np.float64),
        ([[True], [False]], np.bool_),
        ([[[1, 2]], [[3, 4]]], np.int64),
        ([["a", "b"], ["c", "d"]], object),
        ([[np.float32(1)], [np.float32(2)]], np.float32),
    ],
)
def test_a_list_of_numbers_of_one_kind_or_of_strings_is_an_array(values: list[Any], dtype: Any) -> None:
    for collate in ("stack", "pad"):
        (batch,) = batches([{"x": value} for value in values], collate=collate)
        assert batch["x"].dtype == dtype
        text = [[part.decode() for part in row] for row in batch["x"]] if dtype is object else batch["x"].tolist()
        assert text == values


def test_other_lists_and_tuples_stay_containers() -> None:
    (batch,) = batches([[1, True, np.zeros(2), "a", (1, 2)]] * 3)
    assert [type(part) for part in batch] == [np.ndarray] * 4 + [tuple]
    with pytest.raises(stoker.SpecError, match=r"is a container: pass np.array\(…\) for an array"):
        batches([[1, "a"], [1, "a", 2]])


def test_tokens_padded_as_a_list_are_one_input() -> None:
    tf = pytest.importorskip("tensorflow")
    with stoker.Loader([([n] * 16, n % 2) for n in range(8)], batch_size=4, workers=0) as loader:
        assert loader.element_spec == (tf.TensorSpec((4, 16), tf.int64), tf.TensorSpec((4,), tf.int64))


def test_lists_of_varying_length_come_one_by_one() -> None:
    examples = [{"ids": [n] * (n % 4), "rows": [[n] * k for k in range(n % 3)]} for n in range(50)]
    for example, came in zip(examples, batches(examples, batch_size=None), strict=True):
        assert came["ids"].tolist() == example["ids"]
        assert [row.tolist() for row in came["rows"]] == example["rows"]
    with pytest.raises(stoker.SpecError, match="declare it as None in `output_signature`") as caught:
        batches([[1, 2]] * 40 + [[1]], batch_size=None)
    assert "collate" not in str(caught.value)


def test_a_list_takes_the_place_of_an_array_where_its_numbers_fit() -> None:
    (batch,) = batches([np.zeros(2, np.float32), [1, 2]])
    assert (batch.dtype, batch.tolist()) == (np.float32, [[0, 0], [1, 2]])
    with pytest.raises(stoker.SpecError, match="expected int64"):
        batches([[1, 2], [1, 0.5]])


# ── nothing ──────────────────────────────────────────────────────────────────────────────────
EMPTY: list[Any] = [
    [],
    np.zeros(0),
    np.zeros((0, 4)),
    np.zeros((0, 4), np.float32),
    np.zeros((0, 0), np.float32),
    np.array([], object),
]


def boxes(number: int) -> Any:
    return np.arange(4 * number, dtype=np.float32).reshape(number, 4) + number


@pytest.mark.parametrize("empty", EMPTY, ids=repr)
@pytest.mark.parametrize("collate", ["pad", "ragged"])
def test_empty_boxes_take_the_shape_and_dtype_of_the_others(empty: Any, collate: str) -> None:
    some, none = [boxes(2), boxes(1)], [empty] * 2
    for examples in (some + none, none + some, none * 20 + some, [empty, boxes(2), *none, boxes(1), empty]):
        data = [{"boxes": example} for example in examples]
        for start, batch in enumerate(batches(data, batch_size=2, collate=collate)):
            rows = examples[2 * start : 2 * start + 2]
            assert batch["boxes"][0].dtype == np.float32
            for came, row in zip(batch["boxes"], rows, strict=True):
                assert came.shape[1:] == (4,)
                assert came[: len(row)].tolist() == np.reshape(row, (-1, 4)).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_of_lists_of_boxes_in_any_order(workers: int) -> None:
    tf = pytest.importorskip("tensorflow")

    def example(n: int) -> Any:
        return {"boxes": boxes(n % 3 * (n % 16 < 3)).tolist()}

    source = ByIndex(example, 64)
    for collate in ("pad", "ragged"):
        with stoker.Loader(source, batch_size=4, shuffle=True, seed=3, collate=collate, workers=workers) as loader:
            dataset = loader.to_tf()
            spec = dataset.element_spec["boxes"]
            assert (spec.shape.as_list(), spec.dtype) == ([4, None, 4], tf.float64)
            found = sum(float(tf.reduce_sum(batch["boxes"])) for batch in dataset)
    assert found == sum(float(np.sum(example(n)["boxes"])) for n in range(64))


def test_where_nothing_ever_stood_the_error_names_the_signature() -> None:
    with pytest.raises(stoker.SpecError, match=r"It was empty in the first examples.*`output_signature`"):
        batches([{"boxes": []}] * 600 + [{"boxes": boxes(1)}], batch_size=100, collate="pad")
