"""A task on its way: who makes it, what for, and whether anybody still needs it."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.scheduler.bisection import Narrowing
from stoker.scheduler.messages import Died, Rows, Stride, Task, Trial
from stoker.scheduler.streams import Batch, State


@dataclass
class Held:
    """A task that a worker holds or will get."""

    task: Task
    batch: Batch
    search: Search | None = None  # that this task is a trial of
    made_by: int | None = None  # the worker that made the same before

    @property
    def first(self) -> int:
        """The first row of the task."""
        return first_row(self.search.held.task if self.search is not None else self.task)

    @property
    def is_vain(self) -> bool:
        """Whether nobody needs to know what comes of it: its batch is dropped, or fails by a row before."""
        failure = self.batch.failure
        return self.batch.state is State.DROPPED or (failure is not None and self.first >= first_row(failure.task))


@dataclass
class Search:
    """What is found out about a task that workers died at: which of its rows kills, or whether its example does."""

    held: Held
    died: Died  # the last of them
    narrowing: Narrowing | None  # among rows; of a shard one example is suspected
    kills: int = 0  # of that example, tried alone


def repeated(task: Task, since: object) -> Trial | Stride:
    """The work of a task, to be done a second time and compared."""
    if isinstance(task.work, Rows):
        return Trial(task.work.batch, task.work.first, task.work.count, task.work.whole, of=task.id)
    assert isinstance(task.work, Stride)
    return Stride(task.work.shard, True, since, of=task.id)


def first_row(task: Task | None) -> int:
    """The first row of a task."""
    return task.work.first if task is not None and isinstance(task.work, Rows | Trial) else 0
