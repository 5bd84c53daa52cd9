"""Tasks that workers died at: what of them kills, if it was no stranger.

A task is done again after a death. When workers die at it again and again, at one and the same place, that place is
suspected, and tried alone; only what kills then is at fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from stoker.scheduler.bisection import TIMES, Narrowing, Span
from stoker.scheduler.in_flight import Held, Search
from stoker.scheduler.messages import Died, Rows, Stride, Task, Trial

#: A task is looked into when workers died at one and the same place in it more often than it may be done again; or
#: so many times as often at any.
FACTOR = 10
#: Rounds of tries after which a task that workers die at is at fault, though nothing of it kills when it is tried.
ROUNDS = 2


@dataclass(frozen=True)
class Verdict:
    """This row of a task kills workers, or what the last one was at (None)."""

    held: Held
    died: Died
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


class Suspects:
    """Finds out what kills. What it returns is to be done next: the task again or a trial of it, or it is a verdict.

    Args:
        retries: how often a task is done again after a worker died at it.
        make_task: makes a task about rows of one that was given before.
    """

    def __init__(self, retries: int, make_task: Callable[[Held, Trial | Stride], Task]) -> None:
        self._retries, self._make_task = retries, make_task
        self._deaths: dict[int, _Deaths] = {}  # of a task, by its id
        self._acquitted: Counter[int] = Counter()  # rounds of tries in which nothing of a task, by its id, killed

    def died(self, held: Held, died: Died) -> Held | Verdict:
        """A worker died at a task."""
        deaths = self._deaths.setdefault(held.task.id, _Deaths())
        deaths.add(died.example if isinstance(held.task.work, Stride) else died.row)
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

    def tried(self, search: Search, died: Died | None) -> Held | Verdict | None:
        """A trial is over; it killed its worker, or not."""
        held, narrowing = search.held, search.narrowing
        if held.batch.shard is not None:
            held.batch.shard.on_trial = False
        if held.is_vain:
            return None
        if narrowing is not None:
            narrowing.told(died is not None)
            return self._try(search)
        if died is None or died.example != search.died.example:
            return self._acquit(held)
        search.kills += 1
        return self._try(search) if search.kills < TIMES else Verdict(held, died, None)

    def _accuse(self, held: Held, died: Died) -> Held | Verdict:
        """One worker after the other died at this task."""
        work = held.task.work
        is_known = isinstance(work, Stride) and work.of is None and died.example is not None
        if self._acquitted[held.task.id] >= ROUNDS or not (isinstance(work, Rows) or is_known):
            return Verdict(held, died, None)
        rows = Narrowing(Span(work.first, work.count), died.row) if isinstance(work, Rows) else None
        return self._try(Search(held, died, rows))

    def _try(self, search: Search) -> Held | Verdict:
        """Let a worker try what is to be tried next; at the end of the search, tell what was found."""
        held, work, narrowing = search.held, search.held.task.work, search.narrowing
        if isinstance(work, Stride):
            assert held.batch.shard is not None
            held.batch.shard.on_trial = True
            return self._trial(search, replace(work, until=search.died.example))
        assert isinstance(work, Rows)
        assert narrowing is not None
        if narrowing.trial is not None:
            return self._trial(search, Trial(work.batch, narrowing.trial.first, narrowing.trial.count, work.whole))
        return self._acquit(held) if narrowing.found is None else Verdict(held, search.died, narrowing.found)

    def _trial(self, search: Search, work: Trial | Stride) -> Held:
        return Held(self._make_task(search.held, work), search.held.batch, search)

    def _acquit(self, held: Held) -> Held:
        """Nothing of the task kills when it is tried: the workers may have been killed from outside."""
        self._acquitted[held.task.id] += 1
        return held
