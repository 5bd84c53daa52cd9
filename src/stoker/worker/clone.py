"""Forks this process so that the new one is a child of this process's parent, not of this process.

A worker that the zygote forks is thereby the trainer's own child: the trainer reads its exit code, the kernel kills it
when the trainer ends, and it lives on when the zygote dies. glibc and Python offer no such fork, so the system call is
made directly (clone(2), CLONE_PARENT), between the calls that Python makes before and after a fork.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import signal
from pathlib import Path

_PR_GET_TID_ADDRESS = 40
_CLONE_PARENT, _CLONE_PARENT_SETTID = 0x8000, 0x100000
_CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID = 0x200000, 0x1000000
#: By architecture: the number of clone(2), and whether the thread area comes before the child's address.
_CALLS = {"x86_64": (56, False), "aarch64": (220, True)}


class CannotClone(Exception):
    """This system does not support the fork."""


class Cloner:
    """Forks this process, which must have a single thread.

    Raises:
        CannotClone: the architecture or the kernel is not supported.
    """

    def __init__(self) -> None:
        machine = platform.machine()
        if machine not in _CALLS:
            raise CannotClone(f"not supported on {machine}")
        self._number, self._area_first = _CALLS[machine]
        self._libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL: the new process has no other thread to take it
        self._libc.syscall.restype = ctypes.c_long
        # Where glibc keeps the thread's number. As its own fork does, the kernel must write the new number there.
        where = ctypes.c_void_p()
        if self._libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(where), 0, 0, 0) or not where.value:
            raise CannotClone("the kernel does not say where the number of a thread is kept")
        self._thread = where.value

    def clone(self, page: int) -> int:
        """Fork. Returns the new process, or 0 in it.

        The kernel writes the number of the new process to its page before it runs, so that the trainer
        learns of it even if this process is killed at that moment.

        Args:
            page: the descriptor of the new process's page.
        """
        pages = mmap.mmap(page, mmap.PAGESIZE)
        cell = ctypes.c_int.from_buffer(pages)
        flags = _CLONE_PARENT | _CLONE_PARENT_SETTID | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID | signal.SIGCHLD
        ends = (0, self._thread) if self._area_first else (self._thread, 0)
        arguments = map(ctypes.c_long, (self._number, flags, 0, ctypes.addressof(cell), *ends))
        python = ctypes.pythonapi
        python.PyOS_BeforeFork()
        process: int = self._libc.syscall(*arguments)
        if process == 0:
            python.PyOS_AfterFork_Child()
        else:
            error = ctypes.get_errno()
            python.PyOS_AfterFork_Parent()
            if process < 0:
                raise OSError(error, os.strerror(error))
        return process


def rename(old: bytes, new: bytes) -> None:
    """Replace an argument of this process's command line, as `ps` shows it, by one of the same length."""
    assert len(old) == len(new)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc(5)
    place = ctypes.string_at(start, end - start).find(b"\0" + old + b"\0")
    if place >= 0:
        ctypes.memmove(start + place + 1, new, len(new))
