"""A large array of the trainer's moves into the shared memory that its workers read.

Without this, a dataset that the user keeps lies in memory twice: once in the trainer, once in the
bundle. Here the pages under the array are exchanged, in place, for private (copy-on-write) pages of
the bundle with the same content: the array keeps its address and stays writable, nothing that the
trainer writes reaches a worker, and the dataset costs its size once.

Pages are exchanged only under an allocation that glibc's malloc made by `mmap` for itself alone (it
does so from 32 MiB on at the latest) and will give back as a whole by `munmap`. Memory of other
allocators, which may use pages again and expect zeros in them, and mapped files are left alone.
A thread that writes to the array while the Loader is made may lose that write.
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
_HEADER = 16  # bytes before the memory that malloc returns: two words, the second holds the chunk's size and flags
_IS_MMAPPED, _FLAGS = 2, 7


def address(buffer: memoryview) -> int:
    """Where the buffer lies."""
    return int(np.frombuffer(buffer, np.uint8).ctypes.data) if buffer.nbytes else 0


def is_movable(buffer: memoryview) -> bool:
    """Whether `buffer` is a writable allocation of its own, as described above."""
    start = address(buffer)
    if buffer.readonly or buffer.nbytes < _LEAST or start % PAGE != _HEADER:
        return False
    if not _is_private_anonymous(start - _HEADER, start + buffer.nbytes):
        return False
    size = ctypes.c_size_t.from_address(start - ctypes.sizeof(ctypes.c_size_t)).value
    return size & _FLAGS == _IS_MMAPPED and (size - _IS_MMAPPED) % PAGE == 0 and size >= buffer.nbytes + _HEADER


def move_into(buffer: memoryview, fd: int, offset: int) -> None:
    """Exchange the whole pages under `buffer` for those at `offset` of `fd`, which have its content.

    `offset` and the buffer's address must be the same modulo `PAGE`. Raises OSError.
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
    """Whether start … stop-1 is mapped throughout, privately, writable, from no file (and not as the heap)."""
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
