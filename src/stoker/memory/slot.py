"""One reusable cell of shared memory, mapped by the trainer and by workers, and its inbox."""

from __future__ import annotations

import fcntl
import mmap
import os

from stoker.memory.memfd import Memfd, punch
from stoker.runtime.shortage import wanted


class Slot(Memfd):
    """A memfd that holds one batch at a time.

    The creating process calls `create` and `resize`; a worker builds a `Slot` over the
    inherited descriptor. Pages are allocated when first written, so a slot takes what its
    largest batch needed. The pages stay, so that the next batch causes no page faults.

    Mapping is lazy. A mapping lasts as long as any array over it, even after `close`.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._reader: mmap.mmap | None = None
        self._writer: mmap.mmap | None = None

    def resize(self, nbytes: int) -> None:
        """Set the slot's size. It never shrinks, so no reader can run past the end of the file (SIGBUS)."""
        with wanted("shared memory for a batch", nbytes):
            os.ftruncate(self.fd, nbytes)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)

    def readable(self, nbytes: int = 0) -> mmap.mmap:
        """The pages for the trainer, at least `nbytes` of them; earlier mappings stay valid.

        The pages are writable, although arrays over them should not be written: TensorFlow works in place on a *part*
        of a tensor (`x[:4]`, a replica's rows) once nothing else refers to the tensor, whoever owns the memory.
        """
        if self._reader is None or len(self._reader) < nbytes:
            with wanted("a mapping of a batch", max(nbytes, self.size())):
                self._reader = mmap.mmap(self.fd, 0, flags=mmap.MAP_SHARED)
        return self._reader

    def writable(self, nbytes: int = 0) -> mmap.mmap:
        """The pages for the worker that fills them; the slot first grows to `nbytes` if it is smaller."""
        if self._writer is None or len(self._writer) < nbytes:
            if os.fstat(self.fd).st_size < nbytes:
                os.ftruncate(self.fd, -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._writer = mmap.mmap(self.fd, 0, flags=mmap.MAP_SHARED)
        return self._writer

    def size(self) -> int:
        """The slot's size in bytes."""
        return os.fstat(self.fd).st_size

    def taken(self) -> int:
        """The bytes of memory that the slot occupies."""
        return os.fstat(self.fd).st_blocks * 512

    def empty(self) -> None:
        """Release the slot's memory but keep its size; its content must no longer be in use."""
        punch(self.fd, os.fstat(self.fd).st_size)

    def close(self) -> None:
        """Close the descriptor; the memory is released with the last array over it."""
        self._reader = self._writer = None
        super().close()


class Inbox(Memfd):
    """The inputs from which a worker makes the batch of a slot: items of an iterable, single examples."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._reader: mmap.mmap | None = None

    def put(self, data: bytes) -> None:
        """Replace the content by `data`."""
        view, offset = memoryview(data), 0
        while offset < len(data):
            with wanted("shared memory for the inputs of a batch", len(data)):
                offset += os.pwrite(self.fd, view[offset:], offset)

    def read(self) -> memoryview:
        """The whole content; bytes beyond the data of the last `put` are meaningless."""
        size = os.fstat(self.fd).st_size
        if self._reader is None or len(self._reader) < size:
            self._reader = mmap.mmap(self.fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        return memoryview(self._reader)
