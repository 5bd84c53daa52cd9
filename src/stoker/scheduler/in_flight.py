"""A task on its way: who makes it, what for, and whether anybody still needs it."""

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
    search: FaultSearch | None = None  # that this task is a trial of
    made_by: int | None = None  # the worker that made the same before

    @property
    def first(self) -> int:
        """The first row of the task."""
        return first_row(self.search.held.task if self.search is not None else self.task)

    @property
    def is_vain(self) -> bool:
        """Whether nobody needs to know what comes of it: its batch is dropped, or fails by a row before."""
        failure = self.batch.failure
        return self.batch.state is BatchState.DROPPED or (failure is not None and self.first >= first_row(failure.task))


@dataclass
class FaultSearch:
    """What is found out about a task that workers died at: which of its rows kills, or whether its example does."""

    held: TaskInFlight
    died: WorkerDiedEvent  # the last of them
    bisection: Bisection | None  # among rows; of a shard one example is suspected
    kills: int = 0  # of that example, tried alone


def repeated(task: Task, since: ShardProgress | None) -> TrialWork | ShardWork:
    """The work of a task, to be done a second time and compared."""
    if isinstance(task.work, IndexWork):
        return TrialWork(task.work.batch, task.work.first, task.work.count, task.work.whole, of=task.id)
    assert isinstance(task.work, ShardWork)
    return ShardWork(task.work.shard, True, since, of=task.id)


def first_row(task: Task | None) -> int:
    """The first row of a task."""
    return task.work.first if task is not None and isinstance(task.work, IndexWork | TrialWork) else 0
