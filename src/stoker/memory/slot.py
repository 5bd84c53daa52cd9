"""One reusable cell of shared memory: a memfd, mapped read-only by the trainer and writable by workers."""

from __future__ import annotations

import fcntl
import mmap
import os

from stoker.memory.memfd import Memfd


class Slot(Memfd):
    """A memfd that holds one batch at a time.

    The process that makes it calls `create` and `resize`; a worker builds a `Slot` over the
    inherited descriptor. Pages are taken when they are first written, so a slot costs what the
    largest batch in it needed, and they stay: the next batch meets no page fault.

    Mapping is lazy and lasts as long as any array over it, also after `close`.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._reader: mmap.mmap | None = None
        self._writer: mmap.mmap | None = None

    def resize(self, nbytes: int) -> None:
        """Give the slot its size; it never shrinks, so no reader can meet the end of the file (SIGBUS)."""
        os.ftruncate(self.fd, nbytes)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)

    def readable(self) -> mmap.mmap:
        """The pages, read-only."""
        if self._reader is None:
            self._reader = mmap.mmap(self.fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        return self._reader

    def writable(self) -> mmap.mmap:
        """The pages, for the worker that fills them."""
        if self._writer is None:
            self._writer = mmap.mmap(self.fd, 0, flags=mmap.MAP_SHARED)
        return self._writer

    def close(self) -> None:
        """Give up the descriptor; the memory goes when the last array over it does."""
        self._reader = self._writer = None
        super().close()
