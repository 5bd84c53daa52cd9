from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from stoker.memory.bundle import open_bundle, write_bundle
from stoker.memory.remap import PAGE, address, is_movable


def view(array: np.ndarray) -> memoryview:
    return memoryview(array).cast("B")


def test_parts_come_back_and_cannot_be_written() -> None:
    parts = [b"", b"abc", np.arange(1000).tobytes(), b"x" * 70]
    bundle = write_bundle(parts)
    found = open_bundle(bundle.fd)
    assert [bytes(part) for part in found] == parts
    assert all(part.readonly for part in found)
    with pytest.raises(PermissionError):
        mmap.mmap(bundle.fd, 0)  # sealed: nobody maps it writable


def test_a_large_array_moves_into_the_bundle_and_stays_the_users() -> None:
    array = np.arange(6_000_000)
    other = array[5:9]
    where = address(view(array))
    assert is_movable(view(array))
    bundle = write_bundle([b"small", view(array)])
    assert f"{-(-where // PAGE) * PAGE:x}-" in Path("/proc/self/maps").read_text()
    assert np.array_equal(array, np.arange(6_000_000))
    array[7] = -1
    assert address(view(array)) == where
    assert other.tolist() == [5, 6, -1, 8]
    shared = np.frombuffer(open_bundle(bundle.fd)[1], array.dtype)
    assert np.array_equal(shared, np.arange(6_000_000)), "workers do not see what the trainer writes"
    bundle.close()
    del array, other, shared
    again = np.zeros(6_000_000)  # the allocator may give the same place
    assert not again.any()


def test_memory_that_is_not_an_allocation_of_its_own_is_left_alone(tmp_path: Path) -> None:
    array = np.arange(6_000_000)
    path = tmp_path / "data"
    array.tofile(path)
    mapped = np.memmap(path, array.dtype, "r+")
    frozen = array.copy()
    frozen.flags.writeable = False
    for other in (array[512:], mapped, np.frombuffer(mmap.mmap(-1, 1 << 24), np.uint8), frozen, array[:10]):
        assert not is_movable(view(other))
