"""Byte parts in one sealed memfd: written once by the trainer, mapped by every worker, normally read-only."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from stoker.memory.layout import align
from stoker.memory.memfd import Memfd
from stoker.memory.remap import PAGE, address, is_movable, move_into
from stoker.runtime.shortage import wanted

_PIECE = 4 << 20
_HEAD = 8  # bytes that hold the length of the table of parts
#: The pages that `open_bundle` has mapped, by their id. (Lookup in a set of weak references is slow.)
_opened: dict[int, weakref.ref[mmap.mmap]] = {}


def write_bundle(parts: Sequence[bytes | memoryview], *, shared: bool = True) -> Memfd:
    """Write `parts` to new shared memory.

    Small parts start at a multiple of 64. A large array is moved: see `move_into`.

    Args:
        parts: the parts to write.
        shared: True to map them read-only; False to let each process write, on private copies of the pages.
    """
    views = [memoryview(part).cast("B") for part in parts]
    adopted = [is_movable(view) for view in views]
    table, offset = [], 0
    for view, moves in zip(views, adopted, strict=True):
        if moves:
            offset += (address(view) - offset) % PAGE
        table.append((offset, view.nbytes))
        offset = align(offset + view.nbytes)
    head = json.dumps([shared, table]).encode()
    start = -(-(_HEAD + len(head)) // PAGE) * PAGE
    memory = Memfd.create("program")
    with wanted("shared memory for the source and the transform", start + offset):
        os.ftruncate(memory.fd, start + offset)
        _write(memory.fd, memoryview(len(head).to_bytes(_HEAD, "little") + head), 0, moves=False)
        for view, (at, _), moves in zip(views, table, adopted, strict=True):
            _write(memory.fd, view, start + at, moves)
    fcntl.fcntl(memory.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return memory


def open_bundle(fd: int) -> list[memoryview]:
    """Map the parts that `write_bundle` wrote, without copying them."""
    # MAP_PRIVATE: kernels before 6.7 refuse a shared mapping of a write-sealed memfd. Unwritten pages are still shared.
    pages = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    length = int.from_bytes(pages[:_HEAD], "little")
    shared, table = json.loads(pages[_HEAD : _HEAD + length])
    if not shared:
        pages = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    _opened[id(pages)] = weakref.ref(pages)
    view = memoryview(pages)
    start = -(-(_HEAD + length) // PAGE) * PAGE
    return [view[start + at : start + at + size] for at, size in table]


def is_bundled(array: Any) -> bool:
    """True if a NumPy array lies in the read-only pages of a bundle."""
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, memoryview) or not base.readonly:
        return False
    pages = base.obj
    opened = _opened.get(id(pages))
    return opened is not None and opened() is pages


def _write(fd: int, view: memoryview, offset: int, moves: bool) -> None:
    """Write `view` piece by piece. If `moves`, the memory under each piece is released before the next one."""
    while view.nbytes:
        written = os.pwrite(fd, view[:_PIECE], offset)
        if moves:
            move_into(view[:written], fd, offset)
        view, offset = view[written:], offset + written
