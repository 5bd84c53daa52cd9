"""Observes the pulls of a Loader with `workers="auto"`, and carries out what follows for the number of workers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from stoker.coordinator.slot_table import SlotTable
from stoker.scheduler.auto_workers import AutoWorkers, Observation
from stoker.scheduler.events import Event, WorkersEvent
from stoker.stats import WorkerChange

log = logging.getLogger("stoker")


class WorkerTuner:
    """Changes the number of workers while batches are pulled. Used under the producer's lock.

    Args:
        auto: decides.
        slot_table: learns the number of workers, as the number of batches made ahead depends on it.
    """

    def __init__(self, auto: AutoWorkers, slot_table: SlotTable) -> None:
        self._auto, self._slot_table = auto, slot_table

    @property
    def changes(self) -> tuple[WorkerChange, ...]:
        """All changes of the number so far."""
        return tuple(self._auto.changes)

    def pulled(self, seen: Observation, later: Callable[..., None]) -> list[Event]:
        """The events that follow from a pull. Calls `later` with the line to log, if any."""
        change = self._auto.observe(seen)
        if change is None:
            return []
        later(log.info, "%d workers from now on (%s)", change.workers, change.reason)
        return [WorkersEvent(change.workers), *self._slot_table.use_workers(change.workers)]
