"""The layout of batches in their slots, and the memory that they take."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.errors import OptionError
from stoker.memory.layout import Layout
from stoker.memory.lease import Leases
from stoker.memory.slot import Inbox, Slot
from stoker.runtime.memory_budget import MemoryBudget
from stoker.scheduler.commands import DeliverCommand
from stoker.scheduler.events import SlotsSizedEvent
from stoker.scheduler.slot_ledger import SPARE
from stoker.structure.collation import Form

log = logging.getLogger("stoker")

#: Number of slots that consumers may hold. Further batches are copied out. TensorFlow holds the batches that it
#: prefetches (up to 6) and 2 more; an iteration holds up to 7 that it received in one pull.
LEASES = 16
#: The number of them that a training loop holds at a time.
_HELD = 3
#: Up to this size, a batch is small: pulling it costs more than copying it.
_SMALL_BYTES = 1 << 20
#: Beyond this size, a batch is large: its slot is taken as late as possible.
_LARGE_BYTES = 64 << 20
#: Default slots for batches made ahead: as many as fit into this number of bytes, within these bounds.
_AHEAD_BYTES, _AHEAD_LEAST, AHEAD_MOST = 64 << 20, 2, 16


_living: weakref.WeakSet[SlotTable] = weakref.WeakSet()


def promised() -> int:
    """Number of bytes by which the slots of all Loaders of this process may still grow."""
    return sum(slot_table.promised() for slot_table in list(_living))


class SlotTable:
    """The slots of one Loader and their inboxes. Used under the producer's lock.

    Args:
        slots: the slots, `LEASES` of them for consumers.
        inboxes: their inboxes.
        batch_size: rows of a full batch.
        workers: number of workers that fill the slots.
        prefetch: number of batches made ahead, or None to choose it by their size.
        memory_limit: maximum bytes for all slots together.
        budget: the bytes that other Loaders share with this one, or None.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        inboxes: Sequence[Inbox],
        *,
        batch_size: int,
        workers: int,
        prefetch: int | None,
        memory_limit: int,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._slots, self._inboxes, self._batch_size = slots, inboxes, batch_size
        self._workers, self._prefetch, self._limit = workers, prefetch, memory_limit
        self.is_bounded = prefetch == 1  # only one batch in total is made ahead
        self.ahead = len(slots) - LEASES - SPARE  # slots in which batches may be made
        self._leases = Leases()
        self._layout: Layout | None = None
        self._layouts: dict[int, Layout] = {}  # by slot, of batches that deviate from the planned layout
        self._grown = [0] * len(slots)
        self._largest = 0
        self._budget = budget
        if budget is not None:
            budget.join(self)
        _living.add(self)

    def promised(self) -> int:
        """Number of bytes by which the slots may still grow."""
        most = self._limit if self._layout is None else min(self._limit, self._layout.nbytes * len(self._slots))
        try:
            return max(0, most - sum(slot.taken() for slot in self._slots))
        except OSError:  # another thread has just closed the slots
            return 0

    def learn(self, form: Form, later: Callable[..., None]) -> SlotsSizedEvent:
        """Give the slots their size. Calls `later` with the warning to log, if there is one.

        Raises:
            OptionError: a batch takes more than `memory_limit`.
        """
        self._in_place = form.in_place
        if not form.in_place:
            self._limit_to(self._limit)
            return SlotsSizedEvent(self._prefetch or min(self.ahead, 2 * self._workers + 2), whole=True)
        layout = self._layout = Layout.of(form.spec.leaves, self._batch_size)
        ahead = self._ahead(layout.nbytes)
        self._limit_to(layout.nbytes * (ahead + SPARE + LEASES))
        if layout.nbytes > self._limit:
            raise OptionError(
                f"a batch of {self._batch_size} examples takes {layout.nbytes:,} bytes, more than memory_limit="
                f"{self._limit:,}. Use a smaller batch_size or a larger memory_limit."
            )
        for slot in self._slots:
            slot.resize(layout.nbytes)
        fit = self._limit // layout.nbytes
        late = layout.nbytes > _LARGE_BYTES
        if fit >= ahead + SPARE + LEASES:
            return SlotsSizedEvent(ahead, late=late)
        fewer = max(1, min(ahead, fit - SPARE - _HELD))
        kept = max(0, fit - SPARE - fewer)
        slower = f"Stoker makes only {fewer} instead of {ahead} batches ahead, so training may wait for data. "
        which = f"Batches beyond the first {kept}" if kept else "All batches"
        enough = f"{layout.nbytes * (ahead + SPARE + LEASES):_}"
        message = (
            f"memory_limit={self._limit:,} holds {fit} batches of {layout.nbytes:,} bytes. "
            f"{slower if fewer < ahead else ''}{which} that your code holds at a time are copied, which takes time. No "
            f"batch is lost. For full speed, set memory_limit={enough} or more, or use a smaller "
            f"batch_size{' or prefetch' if ahead > 1 else ''}."
        )
        later(log.warning, "%s", message)
        return SlotsSizedEvent(fewer, leases=kept, late=late)

    def wrote(
        self, slot: int, form: Form, dims: tuple[int, ...], free: Callable[[], list[int]]
    ) -> list[SlotsSizedEvent]:
        """Record the shapes `dims` of a batch that a worker wrote; they are empty if the batch is as planned.

        May empty slots that `free` returns. Returns an event if the number of slots to use follows from its size.
        """
        if not dims and (form.in_place or any(part.ndim for part in form.parts)):  # else a batch of scalars only
            self._layouts.pop(slot, None)
            return []
        layout = self._layouts[slot] = Layout.of_dims(form.parts, dims)
        self._grown[slot] = max(self._grown[slot], layout.nbytes)
        if sum(self._grown) > self._limit // 2:
            for other in free():
                if self._grown[other]:
                    self._slots[other].empty()
                    self._grown[other] = 0
        if layout.nbytes <= self._largest or self._in_place:
            return []
        self._largest = layout.nbytes
        return [SlotsSizedEvent(self._ahead(layout.nbytes), whole=True)]

    def use_workers(self, workers: int) -> list[SlotsSizedEvent]:
        """Adopt another number of workers. Returns an event if the number of slots to use depends on it."""
        self._workers = workers
        return [] if self._in_place or not self._largest else [SlotsSizedEvent(self._ahead(self._largest), whole=True)]

    def view(self, delivered: DeliverCommand) -> list[npt.NDArray[Any]]:
        """The arrays of a batch. They hold a lease on its slot, unless they are to be copied."""
        layout, rows = self._layouts.get(delivered.slot), None
        if layout is None:
            assert self._layout is not None
            layout, rows = self._layout, delivered.rows
        arrays = layout.view(self._slots[delivered.slot].readable(layout.nbytes), rows)
        for array in arrays:
            array.flags.writeable = False
        if not delivered.copy:
            self._leases.grant(delivered.slot, arrays)
        return arrays

    def taken(self) -> int:
        """The bytes of memory that the slots occupy; 0 once they were released."""
        try:
            return sum(slot.taken() for slot in self._slots)
        except OSError:  # another thread has just released them
            return 0

    def is_small(self, delivered: DeliverCommand) -> bool:
        """True if a batch takes at most `_SMALL_BYTES`."""
        layout = self._layouts.get(delivered.slot) or self._layout
        return layout is not None and layout.nbytes <= _SMALL_BYTES

    def ended(self) -> list[int]:
        """The slots whose lease has ended since the last call."""
        return self._leases.ended()

    def put(self, slot: int, data: bytes) -> None:
        """Put data into a slot's inbox."""
        self._inboxes[slot].put(data)

    def segments(self, slot: int, rows: int) -> list[bytes]:
        """Copies of the single examples that a worker wrote: see `Output.packed`."""
        fd = self._slots[slot].fd
        ends = np.frombuffer(os.pread(fd, 8 * rows, 0), np.int64).tolist()
        starts = [0, *ends[:-1]]
        return [os.pread(fd, end - start, 8 * rows + start) for start, end in zip(starts, ends, strict=True)]

    def close(self) -> None:
        """Release the slots. Batches that were handed over stay valid."""
        _living.discard(self)
        if self._budget is not None:
            self._budget.leave(self)
        for memory in (*self._slots, *self._inboxes):
            memory.close()

    def _limit_to(self, wanted: int) -> None:
        """Take this Loader's part of the memory that it shares."""
        if self._budget is not None:
            self._limit = min(self._limit, self._budget.take(self, wanted))

    def _ahead(self, nbytes: int) -> int:
        """Number of batches to make ahead if each has `nbytes` bytes."""
        least = _AHEAD_LEAST if self._in_place or nbytes > _AHEAD_BYTES else self._workers + 2
        return self._prefetch or min(self.ahead, max(least, _AHEAD_BYTES // nbytes))
