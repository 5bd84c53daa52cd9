"""Searches a range of rows for the one that kills workers, by trials of some of the rows, one trial at a time.

The row that the last worker was at is tried first, alone. If it is harmless, the rows are halved. A half that kills
its worker is halved again; if a half is harmless, the search continues in the other. A single row must kill its
worker `TIMES` times in succession, because a worker may also be killed from outside during a trial.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Number of times that a suspect must kill its worker when it is tried alone.
TIMES = 2


@dataclass(frozen=True)
class Span:
    """Rows first … first+count-1."""

    first: int
    count: int


class Bisection:
    """The search among the rows of `suspects`.

    Attributes:
        trial: the rows to try next; None when the search is over.
        found: the row that kills workers; None if no single row does, or while the search continues.
    """

    def __init__(self, suspects: Span, hint: int | None) -> None:
        self._suspects, self._kills = suspects, 0
        hinted = hint is not None and 0 <= hint - suspects.first < suspects.count
        self.found: int | None = None
        self.trial: Span | None = Span(hint, 1) if hint is not None and hinted else self._half()

    def record(self, killed: bool) -> None:
        """Record the outcome of the trial: whether it killed its worker."""
        tried, suspects = self.trial, self._suspects
        assert tried is not None
        if killed and tried.count == 1:
            self._kills += 1
            if self._kills == TIMES:
                self.found, self.trial = tried.first, None
            return
        self._kills = 0
        if killed:
            self._suspects = tried
        elif tried == suspects:
            self.trial = None  # the last row left is harmless too, when tried alone
            return
        elif tried.first == suspects.first:
            self._suspects = Span(tried.first + tried.count, suspects.count - tried.count)
        # else: the hinted row, not the first one, is harmless; the halves are tried as if there had been no hint
        self.trial = self._half()

    def _half(self) -> Span:
        return Span(self._suspects.first, -(-self._suspects.count // 2))
