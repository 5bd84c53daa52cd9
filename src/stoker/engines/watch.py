"""Detects workers that make no progress. Time in which this process stood still does not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stoker.engines.engine import StuckWorker
from stoker.engines.line import WorkerLine
from stoker.memory.progress_page import Activity, Phase

#: Seconds without progress after which a worker is reported if the user gave no `timeout`.
PATIENCE = 60.0
#: The least number of seconds that a worker has to start and load the program, which is slower than most examples.
_TO_START = 10.0
#: Seconds between two checks of a worker, and the most that counts between them: while the
#: machine was suspended, or this process stopped, the workers stood still too.
_LOOK, _MOST = 0.05, 0.5
#: Seconds that a worker has to write its stack.
_STACK = 0.5


@dataclass
class _Observed:
    """The activity of a worker at a check, and how long it has lasted."""

    line: WorkerLine
    place: Activity
    replies: int
    seconds: float = 0.0
    reported: bool = False


class ProgressWatch:
    """Checks the progress pages of busy workers. Used only by the supervisor.

    Args:
        timeout: seconds without progress after which a worker is killed; None to kill none.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._seen: dict[int, _Observed] = {}
        self._looked = time.monotonic()
        self.interval = _LOOK if timeout is None else min(_LOOK, timeout / 4)

    def look(self, lines: Iterable[WorkerLine], is_behind: Callable[[WorkerLine], bool]) -> list[StuckWorker]:
        """The workers that are newly found stuck; the caller must kill those with `killed` set.

        Args:
            lines: all lines of the Loader.
            is_behind: returns True for a line whose process is busy with another Loader's task.
        """
        now = time.monotonic()
        passed = now - self._looked
        if passed < self.interval:
            return []
        self._looked = now
        found = []
        for line in lines:
            is_due = line.owes() and not is_behind(line)
            stuck = self._look_at(line, min(passed, _MOST)) if is_due else self._seen.pop(line.number, None)
            if isinstance(stuck, StuckWorker):
                found.append(stuck)
        return found

    def reported(self) -> list[WorkerLine]:
        """The workers that were reported and have made no progress since."""
        return [seen.line for seen in self._seen.values() if seen.reported and seen.replies == seen.line.replies]

    def _look_at(self, line: WorkerLine, passed: float) -> StuckWorker | None:
        place, seen = line.page.place(), self._seen.get(line.number)
        if seen is None or (seen.line, seen.place, seen.replies) != (line, place, line.replies):
            self._seen[line.number] = _Observed(line, place, line.replies)
            return None
        seen.seconds += passed
        limit = PATIENCE if self._timeout is None else self._timeout
        if place.phase in (Phase.STARTING, Phase.LOADING):
            limit = max(limit, _TO_START)
        if seen.seconds < limit or seen.reported:
            return None
        seen.reported = True
        stack = "(no stack: no Python runs yet)" if place.phase is Phase.STARTING else line.process.stack(_STACK)
        return StuckWorker(line.number, seen.seconds, place, stack, killed=self._timeout is not None)
