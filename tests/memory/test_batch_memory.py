"""Buffers are used again when nobody sees what is in them, and never before."""

from __future__ import annotations

import numpy as np

from stoker.memory.batch_memory import BatchMemory
from stoker.memory.layout import Layout
from stoker.structure.leaf import Leaf


def test_a_buffer_is_used_again_once_the_last_view_is_gone() -> None:
    memory = BatchMemory(Layout.of([Leaf("", (4,), np.dtype("i8")), Leaf("", (), np.dtype("f4"))], 16))
    first = memory.arrays(16)
    address, view = first[0].ctypes.data, first[1][3:]
    assert address % 64 == 0
    del first
    second = memory.arrays(16)
    assert second[0].ctypes.data != address, "a view of the other array is alive"
    del view, second
    third, fourth = memory.arrays(16), memory.arrays(8)
    assert address in (third[0].ctypes.data, fourth[0].ctypes.data)
    assert fourth[0].shape == (8, 4)


def test_memory_of_what_was_kept_for_a_while_is_given_back() -> None:
    memory = BatchMemory(Layout.of([Leaf("", (), np.dtype("i8"))], 8))
    kept = [memory.arrays(8) for _ in range(100)]
    for number, (array,) in enumerate(kept):
        array[:] = number
    assert [int(array[0]) for (array,) in kept] == list(range(100))
    del kept, array
    memory.arrays(8)
    assert len(memory._buffers) <= 9
