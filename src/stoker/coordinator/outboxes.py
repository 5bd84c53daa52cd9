"""Outcomes of streams that wait for their consumers."""

from __future__ import annotations

from collections import deque

from stoker.insight.pull_times import IterationClock
from stoker.scheduler.commands import DeliverCommand, FailCommand, FinishCommand

Outcome = DeliverCommand | FinishCommand | FailCommand


class Outbox:
    """The outcomes of one stream, in order.

    Attributes:
        is_pulled: whether the stream was pulled for an outcome that its consumer has not taken yet. A wait after an
            interrupted one must not pull again.
        clock: times the pulls.
    """

    def __init__(self) -> None:
        self.is_pulled, self.clock = False, IterationClock()
        self._outcomes: deque[Outcome] = deque()

    def __bool__(self) -> bool:
        return bool(self._outcomes)

    def put(self, outcome: Outcome) -> None:
        """Add an outcome."""
        self._outcomes.append(outcome)

    def take(self) -> Outcome:
        """Remove and return the oldest outcome, which the stream was pulled for."""
        self.is_pulled = False
        return self._outcomes.popleft()

    def take_batches(self) -> list[DeliverCommand]:
        """Remove all outcomes. Returns those that are batches."""
        batches = [outcome for outcome in self._outcomes if isinstance(outcome, DeliverCommand)]
        self._outcomes.clear()
        return batches
