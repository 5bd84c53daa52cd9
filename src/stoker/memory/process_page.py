"""What the trainer must know of a worker process itself: its number, and its Python stack when it is asked for it."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import sys

from stoker.memory.memfd import Memfd

_PAGE = mmap.PAGESIZE
_STACK_BYTES = 64_000
#: On this signal, a worker writes its Python stack after its page. A signal number that is otherwise unused.
STACK_SIGNAL = int(signal.SIGRTMAX) - 3 if hasattr(signal, "SIGRTMAX") else 0


class ProcessPage(Memfd):
    """A page of shared memory for one worker process. It begins with the number of a forked process, a C int."""

    @classmethod
    def fresh(cls) -> ProcessPage:
        """Create the page of a process that is about to start."""
        page = cls.create("process-page")
        os.ftruncate(page.fd, _PAGE)
        fcntl.fcntl(page.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        os.lseek(page.fd, _PAGE, os.SEEK_SET)  # where the stack will be written
        return page

    def process(self) -> int:
        """The process that the zygote forked for this page, or 0 if it has forked none yet."""
        return int.from_bytes(os.pread(self.fd, 4, 0), sys.byteorder)

    def stack_end(self) -> int:
        """The offset at which the next stack begins."""
        return os.lseek(self.fd, 0, os.SEEK_CUR)

    def stack(self, begin: int) -> str:
        """The text that was written from offset `begin` on."""
        return os.pread(self.fd, _STACK_BYTES, begin).decode("utf-8", "replace")
