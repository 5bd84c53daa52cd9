"""What a worker is doing for a Loader and what it has done, which the trainer can read even if it is stuck or dead.

Each worker has one page of shared memory for each Loader that it serves. Only the worker writes it.
"""

from __future__ import annotations

import enum
import fcntl
import mmap
import os
import struct
import time
from dataclasses import dataclass

from stoker.memory.memfd import Memfd
from stoker.memory.worker_times import END, WorkerTimes

_PAGE = mmap.PAGESIZE
_FIELDS = struct.Struct("=4q")
_ALL = struct.Struct(f"={END}q")
#: Places on the page.
TASK, SHARD, EXAMPLE, PHASE = range(4)
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

    @property
    def is_busy(self) -> bool:
        """True if code of this Loader runs."""
        return self not in (Phase.STARTING, Phase.IDLE)


@dataclass(frozen=True)
class Activity:
    """The activity of a worker: task, shard, example and phase."""

    task: int
    shard: int | None
    example: int | None
    phase: Phase


class ProgressPage(Memfd):
    """The activity of one worker for one Loader, in shared memory.

    The trainer calls `fresh` and `place`. The worker opens the page over its descriptor and calls `words`.
    """

    @classmethod
    def fresh(cls) -> ProgressPage:
        """Create the page of a worker that does not serve the Loader yet."""
        page = cls.create("progress-page")
        os.pwrite(page.fd, _FIELDS.pack(NOTHING, NOTHING, NOTHING, Phase.STARTING), 0)
        os.ftruncate(page.fd, _PAGE)
        fcntl.fcntl(page.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return page

    def words(self) -> memoryview:
        """The page as numbers, for the worker to write."""
        return memoryview(mmap.mmap(self.fd, _PAGE)).cast("q")

    def place(self) -> Activity:
        """The worker's activity, or its last one if it has died."""
        task, shard, example, phase = _FIELDS.unpack(os.pread(self.fd, _FIELDS.size, 0))
        shard, example = (None if number == NOTHING else number for number in (shard, example))
        return Activity(task, shard, example, Phase(phase))

    def times(self) -> WorkerTimes:
        """What the worker's time went to."""
        return WorkerTimes.of(_ALL.unpack(os.pread(self.fd, _ALL.size, 0)), time.perf_counter_ns())


def words_here() -> memoryview:
    """The words of a page that is not shared, for user code that runs in the trainer."""
    return memoryview(bytearray(_FIELDS.pack(NOTHING, NOTHING, NOTHING, Phase.IDLE).ljust(_ALL.size, b"\0"))).cast("q")
