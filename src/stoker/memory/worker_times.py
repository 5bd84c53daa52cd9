"""What a worker's time goes to, counted on its progress page."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

_NS = 1e-9


class Stage(enum.IntEnum):
    """A part of the work on a batch."""

    OWN = 0  # Stoker's own: seeds, the loop, copies of examples that wait
    READ = 1  # `__getitem__`, `__getitems__` or the next item of a generator
    TRANSFORM = 2
    COLLATE = 3  # the user's function
    WRITE = 4  # into the batch


#: Places on a progress page, after those of the activity: when the worker was ready; when the request at work began (or
#: 0), and whether it makes rows; nanoseconds of requests that find out how batches look; what is counted of the others.
READY, BEGAN, MAKES_ROWS, SETUP, TASKS, EXAMPLES, BUSY = range(4, 11)
#: Places of the nanoseconds of the stages, then of their calls. Both count only the tasks that were timed.
SPENT = 11
CALLS = SPENT + len(Stage)
#: The place after the last one.
END = CALLS + len(Stage)


@dataclass(frozen=True)
class WorkerTimes:
    """What the time of one worker went to.

    Attributes:
        present: seconds since it is ready.
        setup: seconds in which it found out how batches look.
        tasks: the number of requests that have made rows.
        examples: the number of rows, made of that many examples.
        busy: seconds in which it made them.
        spent: seconds of each `Stage`, in the tasks that were timed.
        calls: the number of calls of each `Stage`, in these tasks.
    """

    present: float = 0.0
    setup: float = 0.0
    tasks: int = 0
    examples: int = 0
    busy: float = 0.0
    spent: tuple[float, ...] = (0.0,) * len(Stage)
    calls: tuple[int, ...] = (0,) * len(Stage)

    @classmethod
    def of(cls, words: Sequence[int], now: int) -> WorkerTimes:
        """The times on a progress page; `now` by `time.perf_counter_ns`."""
        at_work = max(0, now - words[BEGAN]) if words[BEGAN] else 0
        return cls(
            present=(now - words[READY]) * _NS if words[READY] else 0.0,
            setup=(words[SETUP] + (0 if words[MAKES_ROWS] else at_work)) * _NS,
            tasks=words[TASKS],
            examples=words[EXAMPLES],
            busy=(words[BUSY] + (at_work if words[MAKES_ROWS] else 0)) * _NS,
            spent=tuple(nanoseconds * _NS for nanoseconds in words[SPENT:CALLS]),
            calls=tuple(words[CALLS:END]),
        )

    def __add__(self, other: WorkerTimes) -> WorkerTimes:
        return WorkerTimes(
            present=self.present + other.present,
            setup=self.setup + other.setup,
            tasks=self.tasks + other.tasks,
            examples=self.examples + other.examples,
            busy=self.busy + other.busy,
            spent=tuple(map(sum, zip(self.spent, other.spent, strict=True))),
            calls=tuple(map(sum, zip(self.calls, other.calls, strict=True))),
        )

    @property
    def waiting(self) -> float:
        """Seconds in which it had no request."""
        return max(0.0, self.present - self.setup - self.busy)

    def seconds(self, stage: Stage) -> float:
        """Seconds of a stage in all tasks: its share of the timed ones, of the time that all took."""
        timed = sum(self.spent)
        return self.busy * self.spent[stage] / timed if timed else 0.0
