"""Measures what the time of a worker's tasks goes to, and counts it on the progress page.

Each task is timed as a whole. What the stages take is measured in each task where examples take long, and in one task
of 16 where they take so little that reading the clock would slow them down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from stoker.memory.worker_times import (
    BEGAN,
    BUSY,
    CALLS,
    EXAMPLES,
    MAKES_ROWS,
    READY,
    SETUP,
    SPENT,
    TASKS,
    Stage,
)

_Result = TypeVar("_Result")

_now = time.perf_counter_ns
#: From this number of nanoseconds an example, each task is timed; below it, one of this number of tasks.
_LONG, _ONE_OF = 100_000, 16
_OWN = int(Stage.OWN)  # enum lookups are slow


class StageClock:
    """Times tasks. `begin` and `end` enclose each of them.

    Args:
        words: the worker's progress page.

    Attributes:
        is_running: True if the stages of the task at work are timed.
    """

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self.is_running = False
        self._until_timed = self._since = 0  # tasks; nanoseconds
        self._stage = _OWN

    def ready(self) -> None:
        """Note that the worker is ready for tasks."""
        self._words[READY] = _now()

    def begin(self, *, makes_rows: bool) -> None:
        """Begin a task; others than those that make rows only count as setup."""
        self.is_running = makes_rows and self._until_timed <= 0
        self._words[MAKES_ROWS] = makes_rows
        self._words[BEGAN] = self._since = _now()
        self._stage = _OWN

    def end(self, examples: int) -> None:
        """End a task that has made this number of examples."""
        words = self._words
        took, words[BEGAN] = _now() - words[BEGAN], 0
        if not words[MAKES_ROWS]:
            words[SETUP] += took
            return
        if self.is_running:
            self._enter(_OWN)
            self.is_running = False
            self._until_timed = _ONE_OF
        words[TASKS] += 1
        words[EXAMPLES] += examples
        words[BUSY] += took
        self._until_timed = 0 if took > _LONG * examples > 0 else self._until_timed - 1

    def of(self, stage: Stage, function: Callable[..., _Result]) -> Callable[..., _Result]:
        """`function`, whose calls count as this stage; itself if the stages of the task at work are not timed."""
        if not self.is_running:
            return function

        def timed(*args: Any, **named: Any) -> _Result:
            before = self._enter(stage)
            self._words[CALLS + stage] += 1
            try:
                return function(*args, **named)
            finally:
                self._enter(before)

        return timed

    def _enter(self, stage: int) -> int:
        """Go over to another stage. Returns the one before."""
        now, before = _now(), self._stage
        self._words[SPENT + before] += now - self._since
        self._since, self._stage = now, stage
        return before
