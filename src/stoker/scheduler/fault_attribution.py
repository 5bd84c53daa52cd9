"""Tasks that workers died at: what of them kills, if it was no stranger.

A task is done again after a death. When workers die at it again and again, at one and the same place, that place is
suspected, and tried alone; only what kills then is at fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from stoker.scheduler.bisection import TIMES, Bisection, Span
from stoker.scheduler.events import WorkerDiedEvent
from stoker.scheduler.in_flight import FaultSearch, TaskInFlight
from stoker.scheduler.work import IndexWork, ShardWork, Task, TrialWork

#: A task is looked into when workers died at one and the same place in it more often than it may be done again; or
#: so many times as often at any.
FACTOR = 10
#: Rounds of tries after which a task that workers die at is at fault, though nothing of it kills when it is tried.
ROUNDS = 2


@dataclass(frozen=True)
class Verdict:
    """This row of a task kills workers, or what the last one was at (None)."""

    held: TaskInFlight
    died: WorkerDiedEvent
    row: int | None


@dataclass
class _Deaths:
    """Of workers at one task, one after the other.

    A row or example that kills does so each time; who kills workers from outside finds them at one place and another.
    """

    count: int = 0
    at_one_place: int = 0
    place: int | None = None

    def add(self, place: int | None) -> None:
        """One more, at this row or example, if it is known."""
        self.count += 1
        self.at_one_place = self.at_one_place + 1 if place == self.place else 1
        self.place = place


class FaultAttribution:
    """Finds out what kills. What it returns is to be done next: the task again or a trial of it, or it is a verdict.

    Args:
        retries: how often a task is done again after a worker died at it.
        make_task: makes a task about rows of one that was given before.
    """

    def __init__(self, retries: int, make_task: Callable[[TaskInFlight, TrialWork | ShardWork], Task]) -> None:
        self._retries, self._make_task = retries, make_task
        self._deaths: dict[int, _Deaths] = {}  # of a task, by its id
        self._acquitted: Counter[int] = Counter()  # rounds of tries in which nothing of a task, by its id, killed

    def died(self, held: TaskInFlight, died: WorkerDiedEvent) -> TaskInFlight | Verdict:
        """A worker died at a task."""
        deaths = self._deaths.setdefault(held.task.id, _Deaths())
        deaths.add(died.example if isinstance(held.task.work, ShardWork) else died.row)
        if deaths.at_one_place <= self._retries and deaths.count <= FACTOR * self._retries:
            return held
        del self._deaths[held.task.id]
        return self._accuse(held, died)

    def survived(self, task: int) -> None:
        """A worker has lived through a task: it is done, or an error was raised in it."""
        self._deaths.pop(task, None)

    def done(self, task: int) -> None:
        """A task is done: nothing of it needs to be tried again."""
        self._acquitted.pop(task, None)

    def tried(self, search: FaultSearch, died: WorkerDiedEvent | None) -> TaskInFlight | Verdict | None:
        """A trial is over; it killed its worker, or not."""
        held, bisection = search.held, search.bisection
        if held.batch.shard is not None:
            held.batch.shard.on_trial = False
        if held.is_vain:
            return None
        if bisection is not None:
            bisection.told(died is not None)
            return self._try(search)
        if died is None or died.example != search.died.example:
            return self._acquit(held)
        search.kills += 1
        return self._try(search) if search.kills < TIMES else Verdict(held, died, None)

    def _accuse(self, held: TaskInFlight, died: WorkerDiedEvent) -> TaskInFlight | Verdict:
        """One worker after the other died at this task."""
        work = held.task.work
        is_known = isinstance(work, ShardWork) and work.of is None and died.example is not None
        if self._acquitted[held.task.id] >= ROUNDS or not (isinstance(work, IndexWork) or is_known):
            return Verdict(held, died, None)
        rows = Bisection(Span(work.first, work.count), died.row) if isinstance(work, IndexWork) else None
        return self._try(FaultSearch(held, died, rows))

    def _try(self, search: FaultSearch) -> TaskInFlight | Verdict:
        """Let a worker try what is to be tried next; at the end of the search, tell what was found."""
        held, work, bisection = search.held, search.held.task.work, search.bisection
        if isinstance(work, ShardWork):
            assert held.batch.shard is not None
            held.batch.shard.on_trial = True
            return self._trial(search, replace(work, until=search.died.example))
        assert isinstance(work, IndexWork)
        assert bisection is not None
        if bisection.trial is not None:
            return self._trial(search, TrialWork(work.batch, bisection.trial.first, bisection.trial.count, work.whole))
        return self._acquit(held) if bisection.found is None else Verdict(held, search.died, bisection.found)

    def _trial(self, search: FaultSearch, work: TrialWork | ShardWork) -> TaskInFlight:
        return TaskInFlight(self._make_task(search.held, work), search.held.batch, search)

    def _acquit(self, held: TaskInFlight) -> TaskInFlight:
        """Nothing of the task kills when it is tried: the workers may have been killed from outside."""
        self._acquitted[held.task.id] += 1
        return held
