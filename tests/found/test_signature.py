"""`output_signature` tells a dtype: numbers of others are converted, and those that it cannot hold are errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stoker
from stoker.structure.casting import CannotCast, cast, is_castable

NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
VALUES = [0, 1, -1, 2, 300, 1.5, 70_000, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 1e39, 1e300, np.nan, np.inf]


def holds(dtype: np.dtype[Any], number: Any) -> bool:
    """Whether there is such a number of this dtype, but for rounding."""
    if dtype.kind == "b":
        return number in (0, 1)
    if dtype.kind in "iu":
        is_whole = np.isfinite(number) and number == int(number)
        return is_whole and np.iinfo(dtype).min <= int(number) <= np.iinfo(dtype).max
    with np.errstate(all="ignore"):
        return not np.isfinite(number) or bool(np.isfinite(np.array(number).astype(dtype)))


@settings(deadline=None)
@given(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS), st.data())
def test_numbers_stay_what_they_are_or_do_not_fit(name: str, other: str, data: Any) -> None:
    came, dtype = np.dtype(name), np.dtype(other)
    some = st.sampled_from([value for value in VALUES if came.kind not in "biu" or holds(came, value)])
    if came.kind == "c" and dtype.kind != "c":
        assert not is_castable(came, dtype)
        return
    with np.errstate(all="ignore"):
        numbers = np.array(data.draw(st.lists(some, max_size=3)), came)
        plain = numbers.astype(dtype)
        fits = all(holds(dtype, number) for number in numbers.tolist())
    if fits:
        made = cast(numbers, dtype)
        assert made.dtype == dtype
        np.testing.assert_array_equal(made, plain)
    else:
        with pytest.raises(CannotCast) as caught:
            cast(numbers, dtype)
        assert not holds(dtype, caught.value.value.item())


FIVE = [np.arange(5) + n for n in range(6)]


def as_generator(examples: list[Any]) -> Any:
    def generate(shard: stoker.Shard) -> Iterator[Any]:
        yield from examples

    return stoker.from_generator(generate, 1)


def batches(source: Any, spec: Any, workers: int = 0, **options: Any) -> list[Any]:
    with stoker.Loader(source, batch_size=3, output_signature=spec, workers=workers, **options) as loader:
        return list(loader)


def joined(examples: list[Any]) -> Any:
    return np.stack(examples)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "how", [list, as_generator, stoker.from_iterable, lambda some: stoker.from_arrays(np.stack(some))]
)
def test_examples_take_the_dtype_of_the_signature(how: Any, workers: int) -> None:
    tf = pytest.importorskip("tensorflow")
    spec = tf.TensorSpec((5,), tf.float32)
    for dtype in (np.float64, np.uint8, np.float16):
        first, _ = batches(how([five.astype(dtype) for five in FIVE]), spec, workers)
        assert (first.dtype, first.tolist()) == (np.float32, np.stack(FIVE[:3]).tolist())
    narrow = tf.TensorSpec((5,), tf.uint8)
    wrong = [*FIVE[:4], FIVE[4] + 296, FIVE[5]]
    with pytest.raises(
        stoker.SpecError, match=r"example 4 .*int64 of shape \(5,\), expected uint8 .* and 300 does not"
    ):
        batches(how(wrong), narrow, workers)


def test_so_do_numbers_lists_ragged_and_sparse_values_batches_and_what_functions_collate() -> None:
    tf = pytest.importorskip("tensorflow")
    sparse = pytest.importorskip("scipy.sparse")
    for values, spec in (
        ([1, 2, 3], tf.TensorSpec((), tf.float32)),
        ([np.float64(1), 2, np.int16(3)], tf.TensorSpec((), tf.int32)),
        ([True, False, True], tf.TensorSpec((), tf.bfloat16)),
        ([2**64 - 1, 0, 1], tf.TensorSpec((), tf.uint64)),
        ([[1, 2.0], [3, 4], [5.0, 6.0]], tf.TensorSpec((2,), tf.int8)),
    ):
        (batch,) = batches(values, spec)
        assert (batch.dtype, batch.tolist()) == (spec.dtype.as_numpy_dtype, values)
    rows = [np.array([1.0, 2.0]), [3.0], [4, 5]]
    (padded,) = batches(rows, tf.TensorSpec((None,), tf.int32), collate="pad")
    assert (padded.dtype, padded.tolist()) == (np.int32, [[1, 2], [3, 0], [4, 5]])
    (ragged,) = batches(rows, tf.TensorSpec((None,), tf.int32), collate="ragged")
    assert [(row.dtype, row.tolist()) for row in ragged] == [(np.int32, list(row)) for row in rows]
    matrix = sparse.csr_matrix(np.array([[0, 1.5]]))
    (batch,) = batches([matrix] * 3, tf.SparseTensorSpec((1, 2), tf.float16))
    assert (batch.values.dtype, batch.values.tolist()) == (np.float16, [1.5] * 3)
    (made, _) = batches(FIVE, tf.TensorSpec((None, 5), tf.float32), collate=joined)
    assert (made.dtype, made.tolist()) == (np.float32, np.stack(FIVE[:3]).tolist())

    def ready(shard: stoker.Shard) -> Iterator[Any]:
        yield np.stack(FIVE)

    whole = stoker.from_generator(ready, 1, batched=True)
    with stoker.Loader(
        whole, batch_size=None, output_signature=tf.TensorSpec((None, 5), tf.int16), workers=0
    ) as loader:
        assert [(batch.dtype, batch.shape) for batch in loader] == [(np.int16, (6, 5))]


def test_a_value_that_does_not_fit_is_told_with_its_example_path_and_value() -> None:
    tf = pytest.importorskip("tensorflow")
    for value, dtype, told in (
        (300, tf.uint8, "300 does not fit into uint8"),
        (1.5, tf.int64, "1.5 does not fit into int64"),
        (np.int64(-1), tf.uint16, "-1 does not fit into uint16"),
        (np.nan, tf.int32, "nan does not fit into int32"),
        (1e300, tf.float32, "1e.300 does not fit into float32"),
        (70_000, tf.float16, "70000 does not fit into float16"),
        (2, tf.bool, "2 does not fit into bool"),
        (1j, tf.float32, "complex128 .*expected float32"),
        ("1", tf.int32, "string .*expected int32"),
        (1, tf.string, "int64 .*expected string"),
    ):
        for shape, of in (((), lambda value: value), ((2,), lambda value: [value, value])):
            fits = "" if dtype == tf.string else 1
            with pytest.raises(stoker.SpecError, match=rf"example 1 .*at \['x'\] it holds .*{told}"):
                batches([{"x": of(fits)}, {"x": of(value)}], {"x": tf.TensorSpec(shape, dtype)})


def test_arrays_that_are_no_examples_of_the_signature_are_not_spread_over_the_rows() -> None:
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(stoker.SpecError, match=r"float32 of shape \(1,\), expected float32 of shape \(5,\)"):
        batches(stoker.from_arrays(np.zeros((3, 1), np.float32)), tf.TensorSpec((5,), tf.float32))


@pytest.mark.parametrize("collate", ["stack", "pad"])
def test_without_a_signature_other_dtypes_are_errors_that_name_it(collate: str) -> None:
    for first, second in ((0, 1.5), (np.int32(0), np.int64(1)), (np.zeros(2, np.uint8), np.zeros(2))):
        with pytest.raises(
            stoker.SpecError, match=r"example 5 .*expected .* as in the first examples.*`output_signature`"
        ):
            batches([first] * 5 + [second], None, collate=collate)
