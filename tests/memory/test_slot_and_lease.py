from __future__ import annotations

import gc
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.memory.layout import ALIGNMENT, Layout, aligned_copy
from stoker.memory.lease import Leases
from stoker.memory.slot import Slot
from stoker.structure.leaf import Leaf

leaves = st.lists(
    st.builds(
        Leaf,
        path=st.just(""),
        shape=st.lists(st.integers(0, 5), max_size=3).map(tuple),
        dtype=st.sampled_from("b1 u1 i2 f4 f8 c16".split()).map(np.dtype),
    ),
    min_size=1,
    max_size=6,
)


@given(leaves, st.integers(1, 20))
def test_leaves_are_aligned_and_apart(leaves: list[Leaf], rows: int) -> None:
    layout = Layout.of(leaves, rows)
    buffer = bytearray(layout.nbytes)
    views = layout.view(buffer, rows)
    for number, (leaf, view, column) in enumerate(zip(leaves, views, layout.columns, strict=True)):
        assert column.offset % ALIGNMENT == 0
        assert (view.shape, view.dtype) == ((rows, *leaf.shape), leaf.dtype)
        view[...] = number % 2
    for number, view in enumerate(views):
        assert (view == number % 2).all()


def test_a_copy_is_aligned_too() -> None:
    for array in (np.arange(7), np.zeros((0, 3)), np.ones((3, 5), np.float16)):
        copy = aligned_copy(array)
        assert copy.ctypes.data % ALIGNMENT == 0
        assert np.array_equal(copy, array)


def test_writer_and_reader_see_the_same_pages() -> None:
    slot = Slot.create("slot")
    slot.resize(4096)
    np.ndarray(10, np.int64, slot.writable())[:] = range(10)
    reader = np.ndarray(10, np.int64, slot.readable())
    assert reader.tolist() == list(range(10))
    with pytest.raises(PermissionError):
        os.ftruncate(slot.fd, 100)  # sealed against shrinking: no reader can be cut off
    slot.close()
    assert reader.sum() == 45, "arrays outlive the slot"


def test_a_lease_ends_with_the_last_view_of_the_last_leaf() -> None:
    slot = Slot.create("slot")
    slot.resize(4096)
    layout = Layout.of([Leaf("", (3,), np.dtype("i4")), Leaf("", (), np.dtype("f4"))], 4)
    leases = Leases()
    arrays: list[Any] = layout.view(slot.readable(), 4)
    leases.grant(7, arrays)
    row, transposed = arrays[0][2], arrays[1].T
    exported = np.from_dlpack(row)
    del arrays, row
    assert leases.ended() == []
    del transposed
    assert leases.ended() == []
    del exported
    gc.collect()
    assert leases.ended() == [7]
    assert leases.ended() == []
