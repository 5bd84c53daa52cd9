"""Observes the pulls of a Loader with `workers="auto"`, and carries out what follows for the number of workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from stoker.coordinator.slot_table import SlotTable
from stoker.scheduler.auto_workers import AutoWorkers, Observation
from stoker.scheduler.events import Event, WorkersEvent
from stoker.scheduler.machine import Scheduler
from stoker.stats import WorkerChange

log = logging.getLogger("stoker")

#: The most ready batches that are counted.
_READY = 64


class WorkerTuner:
    """Changes the number of workers while batches are pulled. Used under the producer's lock.

    Args:
        auto: decides.
        slot_table: learns the number of workers, as the number of batches made ahead depends on it.
    """

    def __init__(self, auto: AutoWorkers, slot_table: SlotTable) -> None:
        self._auto, self._slot_table = auto, slot_table
        self._waited = 0.0

    @property
    def changes(self) -> tuple[WorkerChange, ...]:
        """All changes of the number so far."""
        return tuple(self._auto.changes)

    def waited(self, since: float) -> None:
        """Note that a thread has waited for a batch since `since`, by `time.monotonic`."""
        self._waited += time.monotonic() - since

    def pulled(
        self, stream: int, batches: int, scheduler: Scheduler, later: Callable[..., None], *, is_first: bool
    ) -> list[Event]:
        """The events that follow from a pull that gave `batches` batches. Calls `later` with the line to log, if any.

        `is_first`: whether it was the first pull of its stream.
        """
        waited, self._waited = self._waited, 0.0
        change = self._auto.observe(
            Observation(
                time=time.monotonic(),
                waited=waited,
                batches=batches,
                ready=scheduler.ready(stream, _READY),
                is_first=is_first,
                is_complete=scheduler.has_all_workers(),
            )
        )
        if change is None:
            return []
        later(log.info, "%d workers from now on (%s)", change.workers, change.reason)
        return [WorkersEvent(change.workers), *self._slot_table.use_workers(change.workers)]
