"""Finds the number of workers by trying others while the training runs (`workers="auto"`).

Two things are observed: how long the trainer waits for batches, and how many it gets a second. As long as it waits,
twice as many workers are tried; they stay if more batches arrive. Once it does not wait, or more workers do not help,
fewer are tried, halfway down to the largest number known to be too small; they stay if the trainer gets batches as
fast as before. What was found holds for a while, unless the training changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stoker.stats import WorkerChange

#: Shares of the time that the trainer may wait and still count as fed, and that show at once that it is not.
_FED, _HUNGRY = 0.03, 0.10
#: Ratios of the speeds with the new and the old number of workers: more workers must reach the first, fewer ones the
#: second, and below the third fewer are given up at once.
_GAIN, _LOSS, _BAD = 1.05, 0.97, 0.85
#: Beyond these ratios, a measurement is clear; between them it goes on for up to `_LONG`.
_CLEAR = 0.90, 1.12
#: Seconds of a measurement, of one that is not clear, and of one that is to end early; and the batches it must have.
_WINDOW, _LONG, _EARLY, _BATCHES = 1.2, 3.0, 0.3, 6
#: Seconds after a change in which workers may start, or end their shards, before the next measurement begins anyway.
_SETTLE = 10.0
#: Seconds for which the result of a search holds: after the first search, and at most.
_HOLD, _HOLD_MOST = 20.0, 300.0
#: The speed has changed if it differs by this factor.
_CHANGED = 1.3
#: The time of the trainer between two pulls counts up to this multiple of its average: it may save a checkpoint.
_OUTLIER = 5.0


@dataclass(frozen=True)
class Observation:
    """What one pull showed.

    Attributes:
        time: when it ended, in seconds of any clock.
        waited: seconds in which no batch was ready.
        batches: number of batches that it gave.
        ready: number of batches that are ready beyond these.
        is_first: True if it is the first pull of an iteration, whose wait says nothing.
        is_complete: True if all workers are up that are wanted, and no others.
    """

    time: float
    waited: float
    batches: int
    ready: int
    is_first: bool = False
    is_complete: bool = True


@dataclass
class _Window:
    """A measurement: the pulls in a row that it adds up."""

    waited: float = 0.0
    own: float = 0.0
    batches: int = 0
    ready: list[int] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.waited + self.own

    @property
    def waiting(self) -> float:
        """The share of the time in which the trainer waited."""
        return self.waited / self.seconds if self.seconds else 0.0

    @property
    def speed(self) -> float:
        """Batches a second."""
        return self.batches / self.seconds if self.seconds else 0.0

    @property
    def is_fed(self) -> bool:
        return self.waiting <= _FED

    def is_draining(self) -> bool:
        """True if the trainer does not wait only because batches from before are used up."""
        return self.is_fed and self.ready[0] - self.ready[-1] > 1


@dataclass(frozen=True)
class _Trial:
    """Another number of workers is being tried.

    Attributes:
        before: the number before.
        base: the measurement with that number.
    """

    before: int
    base: _Window


class AutoWorkers:
    """Decides how many workers there are. Reads no clock.

    Args:
        workers: the number at first.
        most: the largest number.
        has_room: whether memory for more workers is free.

    Attributes:
        workers: the number that is wanted now.
        changes: all changes so far.
    """

    def __init__(self, workers: int, most: int, has_room: Callable[[], bool] = lambda: True) -> None:
        self.workers, self._most, self._has_room = workers, most, has_room
        self.changes: list[WorkerChange] = []
        self._begun: float | None = None
        self._last = 0.0
        self._own: float | None = None  # the trainer's average time between two pulls
        self._window = _Window()
        self._changed_at = 0.0
        self._stale = 0  # batches that were ready or in the making at the last change
        self._trial: _Trial | None = None
        self._too_few, self._no_better = 0, most + 1
        self._found: _Window | None = None  # the measurement with which the last search ended
        self._until, self._hold, self._deviations = 0.0, _HOLD, 0

    def observe(self, seen: Observation) -> WorkerChange | None:
        """Take in a pull. Returns the change that is due, if any."""
        own = max(0.0, seen.time - seen.waited - self._last)
        self._last = seen.time
        is_first = seen.is_first or self._begun is None  # of an iteration, or of all that are observed
        if self._begun is None:
            self._begun = self._changed_at = seen.time
        if is_first:
            return None
        average = own if self._own is None else self._own
        self._own = 0.9 * average + 0.1 * own
        if self._stale > 0 or (not seen.is_complete and seen.time - self._changed_at < _SETTLE):
            self._stale -= seen.batches
            return None
        window = self._window
        window.waited += seen.waited
        window.own += min(own, _OUTLIER * average + 0.01)
        window.batches += seen.batches
        window.ready.append(seen.ready)
        wanted = self._judged(window, seen)
        return None if wanted is None else self._changed(*wanted, seen)

    def _changed(self, workers: int, reason: str, seen: Observation) -> WorkerChange | None:
        """Begin a new measurement, with another number of workers if `workers` differs."""
        self._window = _Window()
        if workers == self.workers:
            return None
        self._stale = seen.ready + max(workers, self.workers)
        self.workers = workers
        assert self._begun is not None
        self._changed_at = seen.time
        self.changes.append(WorkerChange(seen.time - self._begun, workers, reason))
        return self.changes[-1]

    def _judged(self, window: _Window, seen: Observation) -> tuple[int, str] | None:
        """The number of workers from now on, and why; None while the measurement goes on."""
        if self._trial is not None and self._trial.before > self.workers and _is_bad(window, self._trial.base):
            return self._gave_up(self._trial)
        if window.seconds < _WINDOW or window.batches < _BATCHES:
            return None
        if self._trial is None:
            return self._next(window, seen)
        if window.seconds < _LONG and _is_unclear(window, self._trial.base):
            return None
        if self._trial.before < self.workers:
            return self._tried_more(window, self._trial)
        return self._tried_fewer(window, self._trial)

    # ── the end of a trial ───────────────────────────────────────────────────────────────────
    def _tried_more(self, window: _Window, trial: _Trial) -> tuple[int, str]:
        self._trial = None
        ratio = window.speed / trial.base.speed
        if ratio >= _GAIN or window.is_fed:
            self._too_few = trial.before
            return self.workers, ""
        self._no_better = self.workers
        return trial.before, f"{self.workers} workers bring {ratio:.2f} times as many batches"

    def _tried_fewer(self, window: _Window, trial: _Trial) -> tuple[int, str]:
        if window.is_fed if trial.base.is_fed else window.speed >= _LOSS * trial.base.speed:
            self._trial = None
            return self.workers, ""
        return self._gave_up(trial)

    def _gave_up(self, trial: _Trial) -> tuple[int, str]:
        self._trial, self._too_few = None, self.workers
        return trial.before, f"{self.workers} are too few: the trainer waits"

    # ── what to try next ─────────────────────────────────────────────────────────────────────
    def _next(self, window: _Window, seen: Observation) -> tuple[int, str]:
        waits = f"the trainer waits {window.waiting:.0%} of the time"
        if self._found is not None:
            if not self._is_over(window, self._found, seen.time):
                return self.workers, ""
            self._found, self._no_better = None, self._most + 1
            if self._deviations:
                self._too_few = 0
            elif window.is_fed:  # each trial of too few costs batches, so only slightly fewer are tried again
                self._too_few = max(0, self.workers - max(2, self.workers // 4))
        more = min(self._most, 2 * self.workers)
        if not window.is_fed and self.workers < more < self._no_better and self._has_room():
            self._trial = _Trial(self.workers, window)
            return more, f"{waits}: trying more"
        fewer = (self._too_few + self.workers) // 2
        if self._too_few < fewer < self.workers:
            self._trial = _Trial(self.workers, window)
            return fewer, f"{waits}: trying fewer"
        self._found, self._until = window, seen.time + self._hold
        self._hold = min(2 * self._hold, _HOLD_MOST)
        return self.workers, ""

    def _is_over(self, window: _Window, found: _Window, now: float) -> bool:
        """True if a new search is due: the last result is old, or the training has changed for two measurements."""
        factor = window.speed / found.speed
        has_changed = window.is_fed != found.is_fed or not 1 / _CHANGED < factor < _CHANGED
        self._deviations = self._deviations + 1 if has_changed else 0
        if self._deviations >= 2:
            self._hold = _HOLD
        return now >= self._until or self._deviations >= 2


def _is_bad(window: _Window, base: _Window) -> bool:
    """True if a measurement that has only begun shows that there are too few workers."""
    if window.seconds < _EARLY or window.batches < _BATCHES // 2:
        return False
    return window.waiting > _HUNGRY if base.is_fed else window.speed < _BAD * base.speed


def _is_unclear(window: _Window, base: _Window) -> bool:
    """True if a longer measurement may show something else."""
    if window.is_fed:
        return window.is_draining()
    least, most = _CLEAR
    return least < window.speed / base.speed < most
