"""How much work a worker gets at a time, by the time that tasks take."""

from __future__ import annotations

import math

#: Tasks that a worker holds, so that it never waits for the trainer: the current one and the next. Short tasks are
#: queued deeper, up to `DEPTH_SHORT` but at most `DEPTH_SECONDS` of work.
DEPTH, DEPTH_SHORT, DEPTH_SECONDS = 2, 8, 0.004
#: Target duration of a task, in seconds: long compared with a message, so that messages cost little, and short enough
#: that an abandoned epoch wastes little work.
TASK_SECONDS = 0.016
#: Maximum rows per task. Keeps all pending messages to a worker far below the size of the socket's buffer.
TASK_ROWS = 1024


class Pace:
    """The measured speed, and what follows from it.

    Args:
        workers: number of workers.
        run: tasks begin and end at multiples of this many rows, or at the end of the batch.

    Attributes:
        workers: number of workers.
        whole: whether one worker makes a whole batch.
        depth: number of tasks that a worker holds.
    """

    def __init__(self, workers: int, run: int) -> None:
        self._run = run
        self._row_seconds: float | None = None
        self.workers, self.whole = workers, False
        self.depth = DEPTH

    def is_short(self) -> bool:
        """True if tasks are so short that workers hold more than the usual number of them."""
        return self.depth > DEPTH

    def measured(self, seconds: float, rows: int) -> None:
        """Record the time that a task of `rows` rows took."""
        each = seconds / rows
        self._row_seconds = each if self._row_seconds is None else 0.75 * self._row_seconds + 0.25 * each
        self.depth = max(DEPTH, min(DEPTH_SHORT, int(DEPTH_SECONDS / seconds)))

    def task_rows(self, rows: int, slots: int) -> int:
        """Rows per task: an even part of the batch until the speed is known, then `TASK_SECONDS` of work.

        The number is limited so that the batches made ahead, in `slots` slots, yield enough tasks to keep every
        worker busy.
        """
        if self.whole:
            return rows
        fair = rows / self.workers
        if self._row_seconds is not None:
            fair = min(TASK_SECONDS / self._row_seconds, rows * slots / (self.workers * DEPTH))
        parts = math.ceil(rows / max(1, min(fair, TASK_ROWS)))
        return math.ceil(rows / parts / self._run) * self._run
