"""One reusable cell of shared memory, mapped by the trainer and by workers, and its inbox."""

from __future__ import annotations

import fcntl
import mmap
import os

from stoker.memory.memfd import Memfd, punch
from stoker.runtime.shortage import wanted


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
        with wanted("shared memory for a batch", nbytes):
            os.ftruncate(self.fd, nbytes)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)

    def readable(self, nbytes: int = 0) -> mmap.mmap:
        """The pages for the trainer, at least so many bytes of them; what was mapped before stays valid.

        They can be written to, though arrays over them should not: TensorFlow works in place on a *part* of a
        tensor (`x[:4]`, a replica's rows) when nothing else refers to the tensor any more, whoever owns the memory.
        """
        if self._reader is None or len(self._reader) < nbytes:
            with wanted("a mapping of a batch", max(nbytes, self.size())):
                self._reader = mmap.mmap(self.fd, 0, flags=mmap.MAP_SHARED)
        return self._reader

    def writable(self, nbytes: int = 0) -> mmap.mmap:
        """The pages for the worker that fills them; the slot grows to so many bytes first."""
        if self._writer is None or len(self._writer) < nbytes:
            if os.fstat(self.fd).st_size < nbytes:
                os.ftruncate(self.fd, -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._writer = mmap.mmap(self.fd, 0, flags=mmap.MAP_SHARED)
        return self._writer

    def size(self) -> int:
        """Bytes that it has grown to."""
        return os.fstat(self.fd).st_size

    def taken(self) -> int:
        """Bytes of memory that the slot takes."""
        return os.fstat(self.fd).st_blocks * 512

    def empty(self) -> None:
        """Give its memory back; nobody may see or need what is in it. It keeps its size."""
        punch(self.fd, os.fstat(self.fd).st_size)

    def close(self) -> None:
        """Give up the descriptor; the memory goes when the last array over it does."""
        self._reader = self._writer = None
        super().close()


class Inbox(Memfd):
    """What the trainer gives a worker to make the batch of a slot from: items of an iterable, single examples."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._reader: mmap.mmap | None = None

    def put(self, data: bytes) -> None:
        """Put `data` in the place of what was there."""
        view, offset = memoryview(data), 0
        while offset < len(data):
            with wanted("shared memory for what a worker makes a batch from", len(data)):
                offset += os.pwrite(self.fd, view[offset:], offset)

    def read(self) -> memoryview:
        """All that is there; what lies behind the last `put` is of no meaning."""
        size = os.fstat(self.fd).st_size
        if self._reader is None or len(self._reader) < size:
            self._reader = mmap.mmap(self.fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        return memoryview(self._reader)
