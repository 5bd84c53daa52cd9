"""The current activity of a worker, which the trainer can read even if the worker is stuck or dead.

Each worker has one page of shared memory, which only the worker writes and the trainer only reads. The
worker's Python stack, if requested, follows that page.
"""

from __future__ import annotations

import enum
import fcntl
import mmap
import os
import signal
import struct
from dataclasses import dataclass

from stoker.memory.memfd import Memfd

_PAGE = mmap.PAGESIZE
_STACK_BYTES = 64_000
_FIELDS = struct.Struct("=5q")
#: On this signal, a worker writes its Python stack after its page. A signal number that is otherwise unused.
STACK_SIGNAL = int(signal.SIGRTMAX) - 3 if hasattr(signal, "SIGRTMAX") else 0
#: Places on the page.
TASK, SHARD, EXAMPLE, PHASE, PROCESS = range(5)
#: Means no example or no shard.
NOTHING = -1


class Phase(enum.IntEnum):
    """The phase of a worker's activity."""

    STARTING = 0  # the interpreter starts
    LOADING = 1  # the program is unpickled, the user's modules are imported
    IDLE = 2
    READING = 3  # user code makes an example
    PULLING = 4  # a user's generator runs to its next example
    JOINING = 5  # examples become a batch


@dataclass(frozen=True)
class Activity:
    """The activity of a worker: task, shard, example and phase."""

    task: int
    shard: int | None
    example: int | None
    phase: Phase


class ProgressPage(Memfd):
    """The activity of one worker, in shared memory.

    The trainer calls `fresh` and `place`. The worker opens the page over its descriptor and calls `words`.
    """

    @classmethod
    def fresh(cls) -> ProgressPage:
        """Create the page of a worker that is about to start."""
        page = cls.create("progress-page")
        os.pwrite(page.fd, _FIELDS.pack(NOTHING, NOTHING, NOTHING, Phase.STARTING, 0), 0)
        os.ftruncate(page.fd, _PAGE)
        fcntl.fcntl(page.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        os.lseek(page.fd, _PAGE, os.SEEK_SET)  # where the stack will be written
        return page

    def words(self) -> memoryview:
        """The page as numbers, for the worker to write."""
        return memoryview(mmap.mmap(self.fd, _PAGE)).cast("q")

    def place(self) -> Activity:
        """The worker's activity, or its last one if it has died."""
        task, shard, example, phase, _ = _FIELDS.unpack(os.pread(self.fd, _FIELDS.size, 0))
        shard, example = (None if number == NOTHING else number for number in (shard, example))
        return Activity(task, shard, example, Phase(phase))

    def process(self) -> int:
        """The process that the zygote forked for this page, or 0 if it has forked none yet."""
        return int(_FIELDS.unpack(os.pread(self.fd, _FIELDS.size, 0))[PROCESS])

    def stack_end(self) -> int:
        """The offset at which the next stack begins."""
        return os.lseek(self.fd, 0, os.SEEK_CUR)

    def stack(self, begin: int) -> str:
        """The text that was written from offset `begin` on."""
        return os.pread(self.fd, _STACK_BYTES, begin).decode("utf-8", "replace")


def unseen() -> memoryview:
    """A page that is never read, for user code that runs in the trainer."""
    return memoryview(bytearray(_FIELDS.pack(NOTHING, NOTHING, NOTHING, Phase.IDLE, 0))).cast("q")
