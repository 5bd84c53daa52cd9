"""Whether the trainer waits for a batch of a Loader, for the workers that serve several Loaders to see."""

from __future__ import annotations

import fcntl
import mmap
import os

from stoker.memory.memfd import Memfd


class WaitPage(Memfd):
    """A page of shared memory for one Loader, which only the trainer writes. It counts the threads that wait."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._words: memoryview | None = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("q")

    @classmethod
    def fresh(cls) -> WaitPage:
        """Create the page of a Loader, for whose batches nothing waits yet."""
        page = Memfd.create("wait-page")
        os.ftruncate(page.fd, mmap.PAGESIZE)
        fcntl.fcntl(page.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        fd, page.fd = page.fd, -1
        return cls(fd)

    def count(self, threads: int) -> None:
        """Count so many threads more, or fewer if the number is negative."""
        if (words := self._words) is not None:
            words[0] += threads

    def is_waited_for(self) -> bool:
        """True if a thread waits."""
        return self._words is not None and self._words[0] > 0

    def close(self) -> None:
        """Release the page."""
        self._words = None
        super().close()
