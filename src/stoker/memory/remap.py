"""Moves large arrays of the trainer into the shared memory that its workers read.

Without this, a dataset that the user keeps would lie in memory twice: in the trainer and in the
bundle. Here the pages under the array are replaced, in place, by private (copy-on-write) pages of
the bundle with the same content. The array keeps its address and stays writable, writes of the
trainer never reach a worker, and the dataset takes its size only once.

Pages are replaced only under an allocation for which glibc's malloc made an `mmap` of its own (it
does so from 32 MiB on at the latest) and which it will release as a whole by `munmap`. Memory of other
allocators, which may reuse pages and expect zeros in them, and mapped files are left alone.
A thread that writes to the array while the Loader is being made may lose that write.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import numpy as np

PAGE = mmap.PAGESIZE
#: Smaller arrays are not worth a mapping of their own.
_LEAST = 1 << 20
_MAP_FIXED = 0x10
_HEADER = 16  # bytes before the memory that malloc returns: two words, the second with the chunk's size and flags
_IS_MMAPPED, _FLAGS = 2, 7


def address(buffer: memoryview) -> int:
    """The address of the buffer, or 0 if it is empty."""
    return int(np.frombuffer(buffer, np.uint8).ctypes.data) if buffer.nbytes else 0


def is_movable(buffer: memoryview) -> bool:
    """True if `buffer` is a writable allocation of its own, as described above."""
    start = address(buffer)
    if buffer.readonly or buffer.nbytes < _LEAST or start % PAGE != _HEADER:
        return False
    if not _is_private_anonymous(start - _HEADER, start + buffer.nbytes):
        return False
    size = ctypes.c_size_t.from_address(start - ctypes.sizeof(ctypes.c_size_t)).value
    return size & _FLAGS == _IS_MMAPPED and (size - _IS_MMAPPED) % PAGE == 0 and size >= buffer.nbytes + _HEADER


def move_into(buffer: memoryview, fd: int, offset: int) -> None:
    """Replace the whole pages under `buffer` by those at `offset` of `fd`, which have the same content.

    `offset` and the buffer's address must be equal modulo `PAGE`. Raises OSError.
    """
    start = address(buffer)
    first, last = -(-start // PAGE) * PAGE, (start + buffer.nbytes) // PAGE * PAGE
    if last <= first:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
    if libc.mmap(first, last - first, protection, flags, fd, offset + first - start) != first:
        raise OSError(ctypes.get_errno(), "an array could not be moved into shared memory")


def _is_private_anonymous(start: int, stop: int) -> bool:
    """True if all of start … stop-1 is a private, writable mapping of no file (and not the heap)."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, mode, _, _, inode, *name = line.split(maxsplit=5)
        low, high = (int(bound, 16) for bound in bounds.split("-"))
        if low <= start < high:
            if mode != "rw-p" or inode != "0" or name:
                return False
            start = high  # NumPy's advice on huge pages splits the mapping of an array
            if start >= stop:
                return True
    return False
