"""Which batch lies how in which slot, and how much memory that takes."""

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
from stoker.scheduler.commands import DeliverCommand
from stoker.scheduler.events import SlotsSizedEvent
from stoker.scheduler.machine import SPARE
from stoker.structure.collation import Form

log = logging.getLogger("stoker")

#: Slots that consumers may hold; batches beyond are copied out. TensorFlow holds what it prefetches (up to 6) and 2,
#: and an iteration up to 7 that it was given at once.
LEASES = 16
#: Of these, what a training loop holds at a time.
_HELD = 3
#: A batch is small when to pull it costs more than to copy it.
_SMALL_BYTES = 1 << 20
#: Slots for batches made ahead when the user does not say: as many as fit into this many bytes, within the bounds.
_AHEAD_BYTES, _AHEAD_LEAST, AHEAD_MOST = 64 << 20, 2, 16


_living: weakref.WeakSet[SlotTable] = weakref.WeakSet()


def promised() -> int:
    """Bytes that the slots of this process's Loaders may still take."""
    return sum(slot_table.promised() for slot_table in list(_living))


class SlotTable:
    """The slots of one Loader, with their inboxes. Used under the producer's lock.

    Args:
        slots: the slots, `LEASES` of them for consumers.
        inboxes: theirs.
        batch_size: rows of a full batch.
        workers: how many fill them.
        prefetch: batches made ahead, or None to choose by their size.
        memory_limit: bytes that all slots together may take.
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
    ) -> None:
        self._slots, self._inboxes, self._batch_size = slots, inboxes, batch_size
        self._workers, self._prefetch, self._limit = workers, prefetch, memory_limit
        self.is_bounded = prefetch == 1  # one batch is made ahead, in all
        self.ahead = len(slots) - LEASES - SPARE  # slots in which batches may be made
        self._leases = Leases()
        self._layout: Layout | None = None
        self._layouts: dict[int, Layout] = {}  # of batches whose sizes are not those planned, by slot
        self._grown = [0] * len(slots)
        self._largest = 0
        _living.add(self)

    def promised(self) -> int:
        """Bytes that the slots may still take."""
        most = self._limit if self._layout is None else min(self._limit, self._layout.nbytes * len(self._slots))
        try:
            return max(0, most - sum(slot.taken() for slot in self._slots))
        except OSError:  # another thread has just closed them
            return 0

    def learn(self, form: Form, later: Callable[..., None]) -> SlotsSizedEvent:
        """Give the slots their size; `later` is called with what to log.

        Raises:
            OptionError: the memory is not enough for a batch.
        """
        self._in_place = form.in_place
        if not form.in_place:
            return SlotsSizedEvent(self._prefetch or min(self.ahead, 2 * self._workers + 2), whole=True)
        layout = self._layout = Layout.of(form.spec.leaves, self._batch_size)
        if layout.nbytes > self._limit:
            raise OptionError(
                f"a batch of {self._batch_size} examples takes {layout.nbytes:,} bytes, more than memory_limit="
                f"{self._limit:,}. Give a smaller batch_size or more memory_limit."
            )
        for slot in self._slots:
            slot.resize(layout.nbytes)
        ahead, fit = self._ahead(layout.nbytes), self._limit // layout.nbytes
        if fit >= ahead + SPARE + LEASES:
            return SlotsSizedEvent(ahead)
        fewer = max(1, min(ahead, fit - SPARE - _HELD))
        kept = max(0, fit - SPARE - fewer)
        slower = f"only {fewer} instead of {ahead} are made ahead, so training may wait for data; and "
        later(
            log.warning,
            "memory_limit=%s holds %d batches of %s bytes: %sof the batches that your code holds at a time, %s copied "
            "into memory of their own, which takes time. No batch is lost. For full speed give memory_limit=%s or "
            "more, or a smaller batch_size%s.",
            f"{self._limit:,}",
            fit,
            f"{layout.nbytes:,}",
            slower if fewer < ahead else "",
            f"those beyond the first {kept} are" if kept else "each is",
            f"{layout.nbytes * (ahead + SPARE + LEASES):_}",
            " or prefetch" if ahead > 1 else "",
        )
        return SlotsSizedEvent(fewer, leases=kept)

    def wrote(
        self, slot: int, form: Form, dims: tuple[int, ...], free: Callable[[], list[int]]
    ) -> list[SlotsSizedEvent]:
        """A worker wrote a batch with these shapes, none for one as planned; `free` slots may be emptied."""
        if not dims and (form.in_place or any(part.ndim for part in form.parts)):  # else a batch of scalars alone
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

    def view(self, delivered: DeliverCommand) -> list[npt.NDArray[Any]]:
        """The arrays of a batch; they keep its slot, unless they are to be copied."""
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

    def is_small(self, delivered: DeliverCommand) -> bool:
        """Whether a batch takes little memory."""
        layout = self._layouts.get(delivered.slot) or self._layout
        return layout is not None and layout.nbytes <= _SMALL_BYTES

    def ended(self) -> list[int]:
        """Slots whose lease has ended since the last call."""
        return self._leases.ended()

    def put(self, slot: int, data: bytes) -> None:
        """Put something into a slot's inbox."""
        self._inboxes[slot].put(data)

    def segments(self, slot: int, rows: int) -> list[bytes]:
        """Copies of the single examples that a worker wrote: see `Output.packed`."""
        fd = self._slots[slot].fd
        ends = np.frombuffer(os.pread(fd, 8 * rows, 0), np.int64).tolist()
        starts = [0, *ends[:-1]]
        return [os.pread(fd, end - start, 8 * rows + start) for start, end in zip(starts, ends, strict=True)]

    def close(self) -> None:
        """Give up the slots; batches that were handed over stay valid."""
        _living.discard(self)
        for memory in (*self._slots, *self._inboxes):
            memory.close()

    def _ahead(self, nbytes: int) -> int:
        """Batches to be made ahead when they have this size."""
        least = _AHEAD_LEAST if self._in_place or nbytes > _AHEAD_BYTES else self._workers + 2
        return self._prefetch or min(self.ahead, max(least, _AHEAD_BYTES // nbytes))
