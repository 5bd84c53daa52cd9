"""Arrays with a size of 0 somewhere, joined in every way: the batches are those of tf.data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stoker

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def array(shape: tuple[int, ...], dtype: str, number: int) -> Any:
    values = np.arange(number, number + int(np.prod(shape))).reshape(shape)
    return values.astype(str).astype(object) if dtype == "string" else values.astype(dtype)


@st.composite
def arrays(draw: st.DrawFn, *, vary: bool) -> list[Any]:
    """Examples of one rank and dtype, whose sizes are often 0."""
    rank, dtype = draw(st.integers(1, 3)), draw(st.sampled_from(["int64", "float32", "string"]))
    size = st.sampled_from([0, 0, 1, 2, 3])
    fixed = draw(st.tuples(*[size] * rank))
    free = draw(st.integers(1, rank)) if vary else 0
    shapes = st.tuples(*[size] * free).map(lambda sizes: (*sizes, *fixed[free:]))
    return [array(shape, dtype, 10 * n) for n, shape in enumerate(draw(st.lists(shapes, min_size=1, max_size=6)))]


def joined(examples: list[Any], size: int, collate: Any, signature: Any = None) -> list[Any]:
    with stoker.Loader(examples, batch_size=size, collate=collate, output_signature=signature, workers=0) as loader:
        return list(loader)


def batches(examples: list[Any], size: int) -> Iterator[list[Any]]:
    return (examples[start : start + size] for start in range(0, len(examples), size))


def listed(value: Any) -> Any:
    """Nested lists, strings as text."""
    if isinstance(value, np.ndarray | list):
        return [listed(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value


@FEW
@given(arrays(vary=False), st.integers(1, 4))
def test_stacked(examples: list[Any], size: int) -> None:
    for batch, some in zip(joined(examples, size, "stack"), batches(examples, size), strict=True):
        assert batch.shape == (len(some), *some[0].shape)
        assert listed(batch) == [listed(one) for one in some]


@FEW
@given(arrays(vary=True), st.integers(1, 4))
def test_padded(examples: list[Any], size: int) -> None:
    fill = "" if examples[0].dtype == object else 0
    for batch, some in zip(joined(examples, size, "pad"), batches(examples, size), strict=True):
        longest = np.max([one.shape for one in some], axis=0)
        expected = np.full((len(some), *longest), fill, examples[0].dtype)
        for row, one in zip(expected, some, strict=True):
            row[tuple(map(slice, one.shape))] = one
        if batch.shape != expected.shape:  # where nothing stands, sizes are those of the others
            assert not any(one.size for one in some)
            continue
        assert listed(batch) == listed(expected)


@FEW
@given(arrays(vary=True), st.integers(1, 4))
def test_ragged(examples: list[Any], size: int) -> None:
    for batch, some in zip(joined(examples, size, "ragged"), batches(examples, size), strict=True):
        assert listed(batch) == [listed(one) for one in some]


@FEW
@given(arrays(vary=True))
def test_one_by_one(examples: list[Any]) -> None:
    came = joined(examples, None, "stack")  # type: ignore[arg-type]
    for one, example in zip(came, examples, strict=True):
        assert listed(one) == listed(example)
        assert one.shape == example.shape or not example.size


@FEW
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4), st.integers(1, 3))
def test_sparse(shapes: list[tuple[int, int]], size: int) -> None:
    import scipy.sparse

    examples = [scipy.sparse.coo_array(np.ones(shape, np.float32)) for shape in shapes]
    for batch, some in zip(joined(examples, size, "stack"), batches(examples, size), strict=True):
        assert batch.dense_shape.tolist() == [len(some), *np.max([one.shape for one in some], axis=0)]
        assert len(batch.values) == len(batch.indices) == sum(one.nnz for one in some)


SHAPES = [[(2, 0, 4), (3, 0, 4)], [(2, 0, 4), (0, 1, 4), (1, 2, 4)], [(0, 2), (0, 0), (1, 0)], [(1, 2, 0), (2, 1, 0)]]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "string"])
def test_batches_are_those_of_tf_data(shapes: list[tuple[int, ...]], dtype: str) -> None:
    tf = pytest.importorskip("tensorflow")
    examples = [array(shape, dtype, 10 * n) for n, shape in enumerate(shapes)]
    last = shapes[0][-1] if len(shapes[0]) == 3 else None
    signature = tf.TensorSpec((*[None] * (len(shapes[0]) - 1), last), getattr(tf, dtype))
    theirs = tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature)
    for collate, expected in (("pad", theirs.padded_batch(2)), ("ragged", theirs.ragged_batch(2))):
        with stoker.Loader(examples, batch_size=2, collate=collate, output_signature=signature, workers=0) as loader:
            for serialized in (False, True):
                came = list(loader.to_tf(serialized=serialized))
                assert len(came) == -(-len(shapes) // 2)
                if not serialized:
                    for ours, other in zip(came, expected, strict=True):
                        assert ours.shape.as_list() == other.shape.as_list()
                        ours, other = (
                            tf.RaggedTensor.from_tensor(x) if not hasattr(x, "to_list") else x for x in (ours, other)
                        )
                        assert ours.to_list() == other.to_list()
