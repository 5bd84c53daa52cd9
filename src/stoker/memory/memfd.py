"""Unnamed shared memory, owned by the object that created it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
from typing import TYPE_CHECKING

from stoker.errors import StokerError
from stoker.runtime.shortage import wanted

if TYPE_CHECKING:
    from typing_extensions import Self


class Memfd:
    """A memfd, closed by `close` or when the object is no longer referenced.

    Args:
        fd: a descriptor, which this object owns from now on.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls, name: str) -> Self:
        """Create an empty memfd; /proc shows it as `name`.

        Raises:
            StokerError: the system does not support memfds, or refuses one.
        """
        if not hasattr(os, "memfd_create"):
            raise StokerError(f"stoker.Loader needs Linux (or WSL 2), got {sys.platform}")
        with wanted("a shared-memory descriptor"):
            return cls(above_standard(os.memfd_create(f"stoker-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)))

    def close(self) -> None:
        """Close the descriptor; the memory is released with the last mapping of it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def above_standard(fd: int) -> int:
    """`fd`, or a duplicate of it above the numbers of stdin, stdout and stderr.

    If a program is started with those closed, the first files it opens get their numbers. The output of a library
    would be written into them, and a worker, which is given a stdin, would lose them.
    """
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


_KEEP_SIZE, _PUNCH_HOLE = 1, 2


def punch(fd: int, nbytes: int) -> None:
    """Release the memory of the first `nbytes` bytes, which then read as zeros. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    if nbytes and libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, 0, nbytes):
        raise OSError(ctypes.get_errno(), "shared memory could not be released")
