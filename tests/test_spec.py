from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.structure.forms import Misfit
from stoker.structure.spec import Spec
from stoker.worker.batching.fixed_rows import FixedRows, MisfitAt
from tests.examples import Pair

leaves = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False),
    st.sampled_from([np.float32(1.5), np.uint8(7), np.zeros((2, 0)), np.arange(6).reshape(2, 3), np.array(3.0)]),
)
structures: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.builds(Pair, inner, inner),
        st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


@given(structures)
def test_any_structure_is_written_and_read_back(example: Any) -> None:
    spec = Spec.of(example)
    columns: list[Any] = [np.zeros((3, *leaf.shape), leaf.dtype) for leaf in spec.leaves]
    rows = FixedRows(spec, columns)
    for row, written in enumerate((example, copy.deepcopy(example)), 1):
        rows.write(row, written)
    for row in (1, 2):
        again = spec.unflatten(column[row] for column in columns)
        assert repr(spec.tree) == repr(Spec.of(again, lambda part: False).tree)
        assert all(
            np.array_equal(one, other)
            for one, other in zip(spec.tree.flatten_up_to(again), spec.tree.flatten_up_to(example), strict=True)
        )


def test_the_order_of_keys_does_not_matter() -> None:
    spec = Spec.of({"a": 1, "b": 2.0})
    columns: list[Any] = [np.zeros(1, leaf.dtype) for leaf in spec.leaves]
    for example in ({"b": 5.0, "a": 4}, OrderedDict(b=5.0, a=4)):
        FixedRows(spec, columns).write(0, example)
        assert [column[0] for column in columns] == [4, 5.0]


@pytest.mark.parametrize(
    "example", [{}, (), [{}], {"a": ()}, None, "\udcff", {1}, np.array([object()]), 2**64, object()]
)
def test_what_no_tensor_can_hold_is_refused(example: Any) -> None:
    with pytest.raises(Misfit):
        Spec.of(example)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ((1, 2), [1, 2]),
        ((1, 2), (1, (2,))),
        ((1, 2), (1, 2, 3)),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 1, "b": 1}),
        (Pair(1, 2), (1, 2)),
        (1, True),
        (1, 1.0),
        (1, np.int32(1)),
        (1, None),
        (np.zeros(2), np.zeros((2, 1))),
        (np.zeros(2), [0.0, 0.0, 0.0]),
        (np.zeros(2), np.zeros(2, np.float32)),
    ],
)
def test_another_structure_shape_or_dtype_does_not_fit(first: Any, other: Any) -> None:
    spec = Spec.of(first)
    columns: list[Any] = [np.zeros((2, *leaf.shape), leaf.dtype) for leaf in spec.leaves]
    rows = FixedRows(spec, columns)
    rows.write(0, first)
    with pytest.raises(MisfitAt) as caught:
        rows.write(1, other, position=1)
    assert caught.value.position == 1
    assert "xpected" in str(caught.value.reason)
