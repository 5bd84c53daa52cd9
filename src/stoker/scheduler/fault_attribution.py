"""Decides whether a task kills its workers or something outside does.

A task is repeated after a death. If workers keep dying at it, the row or example that they died at is suspected and
tried alone. Only what kills its worker in a trial is at fault, unless no trial is possible or `ROUNDS` rounds of
trials have found nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from stoker.scheduler.bisection import TIMES, Bisection, Span
from stoker.scheduler.events import WorkerDiedEvent
from stoker.scheduler.in_flight import FaultSearch, TaskInFlight
from stoker.scheduler.work import IndexWork, ShardWork, Task, TrialWork

#: A task is investigated after more than `retries` consecutive deaths at one place in it, or more than
#: FACTOR × `retries` deaths anywhere in it.
FACTOR = 10
#: Rounds of trials that may clear a task. If workers keep dying at it afterwards, it is at fault although no trial
#: killed its worker.
ROUNDS = 2


@dataclass(frozen=True)
class Verdict:
    """The finding that `row` of a task kills workers or, if None, the place where the last worker died."""

    held: TaskInFlight
    died: WorkerDiedEvent
    row: int | None


@dataclass
class _Deaths:
    """Consecutive deaths of workers at one task.

    A row or example that kills its worker does so each time, whereas deaths caused from outside happen at varying
    places.
    """

    count: int = 0
    at_one_place: int = 0
    place: int | None = None

    def add(self, place: int | None) -> None:
        """Count another death, at this row or example if it is known."""
        self.count += 1
        self.at_one_place = self.at_one_place + 1 if place == self.place else 1
        self.place = place


class FaultAttribution:
    """Finds the cause of deaths. Its methods return the next step: the task again, a trial of it, or a verdict.

    Args:
        retries: how often a task is repeated after a worker died at it.
        make_task: creates a task for part of a task that is already in flight.
    """

    def __init__(self, retries: int, make_task: Callable[[TaskInFlight, TrialWork | ShardWork], Task]) -> None:
        self._retries, self._make_task = retries, make_task
        self._deaths: dict[int, _Deaths] = {}  # by the id of the task
        self._acquitted: Counter[int] = Counter()  # rounds of trials without a culprit, by task id

    def died(self, held: TaskInFlight, died: WorkerDiedEvent) -> TaskInFlight | Verdict:
        """Record that a worker died at a task. Returns the next step."""
        deaths = self._deaths.setdefault(held.task.id, _Deaths())
        deaths.add(died.example if isinstance(held.task.work, ShardWork) else died.row)
        if deaths.at_one_place <= self._retries and deaths.count <= FACTOR * self._retries:
            return held
        del self._deaths[held.task.id]
        return self._accuse(held, died)

    def survived(self, task: int) -> None:
        """Record that a worker survived a task: the task was done, or raised an error."""
        self._deaths.pop(task, None)

    def done(self, task: int) -> None:
        """Record that a task is done: no further trials of it are needed."""
        self._acquitted.pop(task, None)

    def tried(self, search: FaultSearch, died: WorkerDiedEvent | None) -> TaskInFlight | Verdict | None:
        """Record the end of a trial; `died` is None if its worker survived. Returns the next step, if one is needed."""
        held, bisection = search.held, search.bisection
        if held.batch.shard is not None:
            held.batch.shard.on_trial = False
        if held.is_vain:
            return None
        if bisection is not None:
            bisection.record(died is not None)
            return self._try(search)
        if died is None or died.example != search.died.example:
            return self._acquit(held)
        search.kills += 1
        return self._try(search) if search.kills < TIMES else Verdict(held, died, None)

    def _accuse(self, held: TaskInFlight, died: WorkerDiedEvent) -> TaskInFlight | Verdict:
        """Start a search in a task at which workers keep dying, or give the verdict if no search can help."""
        work = held.task.work
        is_known = isinstance(work, ShardWork) and work.of is None and died.example is not None
        if self._acquitted[held.task.id] >= ROUNDS or not (isinstance(work, IndexWork) or is_known):
            return Verdict(held, died, None)
        rows = Bisection(Span(work.first, work.count), died.row) if isinstance(work, IndexWork) else None
        return self._try(FaultSearch(held, died, rows))

    def _try(self, search: FaultSearch) -> TaskInFlight | Verdict:
        """The next trial of a search or, at its end, its result."""
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
        """Clear a task for which no trial found a culprit: its workers may have been killed from outside."""
        self._acquitted[held.task.id] += 1
        return held
