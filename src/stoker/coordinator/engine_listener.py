"""Turns what the engine reports into events for the scheduler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from stoker.coordinator.consumer_errors import warning_of
from stoker.coordinator.counters import Counters
from stoker.coordinator.task_table import TaskTable
from stoker.engines.engine import StuckWorker, WorkerDeath
from stoker.errors import StokerError
from stoker.protocol.failures import raisable
from stoker.protocol.replies import FailureReply, ReadyReply, Reply
from stoker.runtime.locks import Lock
from stoker.scheduler.events import Event, WorkerReadyEvent
from stoker.scheduler.machine import Scheduler

log = logging.getLogger("stoker")


class EngineListener:
    """A `Listener`. Its methods take the producer's lock.

    Args:
        changed: the producer's lock.
        tasks: the tasks that workers hold.
        scheduler: knows which tasks are needed.
        counters: counts deaths.
        step: processes events.
        cut_short: ends all streams with an error.
        inline: whether the user's code runs in the trainer.
    """

    def __init__(
        self,
        changed: Lock,
        tasks: TaskTable,
        scheduler: Scheduler,
        counters: Counters,
        *,
        step: Callable[..., None],
        cut_short: Callable[[BaseException], None],
        inline: bool,
    ) -> None:
        self._changed, self._tasks, self._scheduler, self._counters = changed, tasks, scheduler, counters
        self._step, self._cut_short, self._inline = step, cut_short, inline

    def heard(self, worker: int, replies: Sequence[Reply]) -> None:
        with self._changed:
            events: list[Event] = []
            for reply in replies:
                match reply:
                    case ReadyReply():
                        events.append(WorkerReadyEvent(worker))
                    case FailureReply(task=None):
                        error = raisable(reply, epoch=None, batch=None, worker=None if self._inline else worker)
                        assert isinstance(error, StokerError)
                        self._cut_short(error)
                    case _:
                        events += self._tasks.heard(worker, reply, inline=self._inline)
            self._step(*events)

    def died(self, death: WorkerDeath) -> None:
        with self._changed:
            if not death.elsewhere and not self._scheduler.is_retired(death.worker):
                self._counters.died(death, self._tasks.faults.epoch_at(death.place))
            self._step(self._tasks.died(death))

    def stuck(self, stuck: StuckWorker) -> None:
        with self._changed:
            is_needless = self._scheduler.is_needless(stuck.worker)
            warning = warning_of(stuck, self._tasks.faults.described(stuck.place), is_needless=is_needless)
            self._changed.later(log.warning, "%s", warning)

    def is_needless(self, worker: int) -> bool:
        with self._changed:
            return self._scheduler.is_needless(worker)

    def collapsed(self, error: BaseException) -> None:
        with self._changed:
            self._cut_short(error)
