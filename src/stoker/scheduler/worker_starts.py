"""Decides when to give up because workers fail to start."""

from __future__ import annotations

from collections import defaultdict

#: Consecutive failed starts of a worker after which the scheduler gives up: before any worker has started, and after.
#: Once one has started, starts are still retried while other workers are up. A start that may have been killed from
#: outside counts half.
STARTS, STARTS_PROVEN = 2, 12


class WorkerStarts:
    """Counts consecutive failed starts of each worker."""

    def __init__(self) -> None:
        self._failed: defaultdict[int, float] = defaultdict(float)
        self._proven = False  # a worker has started, so the program can be loaded

    def came_up(self) -> None:
        """Record that a worker has started."""
        self._failed.clear()
        self._proven = True

    def failed(self, worker: int, *, killed: bool) -> None:
        """Record that a worker died before it was up; `killed`: perhaps from outside."""
        self._failed[worker] += 0.5 if killed else 1

    def is_hopeless(self, worker: int, *, any_up: bool) -> bool:
        """True if a worker's starts have failed so often that the program or the machine is to blame."""
        failed = self._failed[worker]
        return failed >= STARTS_PROVEN and not any_up if self._proven else failed >= STARTS
