"""A task in flight: its batch, its purpose, and whether its result is still needed."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.plan.position import ShardProgress
from stoker.scheduler.bisection import Bisection
from stoker.scheduler.events import WorkerDiedEvent
from stoker.scheduler.streams import BatchInMaking, BatchState
from stoker.scheduler.work import IndexWork, ShardWork, Task, TrialWork


@dataclass
class TaskInFlight:
    """A task that a worker holds or will get."""

    task: Task
    batch: BatchInMaking
    search: FaultSearch | None = None  # the search that this task is a trial of
    made_by: int | None = None  # the worker that made the same rows before

    @property
    def first(self) -> int:
        """First row of the task or, for a trial, of the task under investigation."""
        return first_row(self.search.held.task if self.search is not None else self.task)

    @property
    def is_vain(self) -> bool:
        """True if the result is no longer needed: the batch is dropped, or fails at this row or an earlier one."""
        failure = self.batch.failure
        return self.batch.state is BatchState.DROPPED or (failure is not None and self.first >= first_row(failure.task))


@dataclass
class FaultSearch:
    """Investigation of a task that workers died at: which row kills them, or whether the suspected example does."""

    held: TaskInFlight
    died: WorkerDiedEvent  # the last death
    bisection: Bisection | None  # among rows; None for a shard, where a single example is suspected
    kills: int = 0  # deaths in trials of that example


def repeated(task: Task, since: ShardProgress | None) -> TrialWork | ShardWork:
    """The work of a task as a repetition, whose result is compared with the first."""
    if isinstance(task.work, IndexWork):
        return TrialWork(task.work.batch, task.work.first, task.work.count, task.work.whole, of=task.id)
    assert isinstance(task.work, ShardWork)
    return ShardWork(task.work.shard, True, since, of=task.id)


def first_row(task: Task | None) -> int:
    """First row of a task; 0 for work that has no row numbers, or None."""
    return task.work.first if task is not None and isinstance(task.work, IndexWork | TrialWork) else 0
