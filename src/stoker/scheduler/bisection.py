"""Which one of several rows kills the workers: found out by trials of some of them, each by a worker of its own.

The row that the last worker was at is tried first, alone. If it does no harm, the rows are halved. A half that
kills is halved again; when one does no harm, it is the other that is looked at. A row alone must kill `TIMES`:
a worker may be killed from outside while it tries one.
"""

from __future__ import annotations

from dataclasses import dataclass

#: How often what is suspected must kill when it is tried alone.
TIMES = 2


@dataclass(frozen=True)
class Span:
    """Rows first … first+count-1."""

    first: int
    count: int


class Bisection:
    """The search, among the rows of `attribution`.

    Attributes:
        trial: what is to be tried next; None when the search is over.
        found: the row that kills; None when no single one does.
    """

    def __init__(self, attribution: Span, hint: int | None) -> None:
        self._attribution, self._kills = attribution, 0
        hinted = hint is not None and 0 <= hint - attribution.first < attribution.count
        self.found: int | None = None
        self.trial: Span | None = Span(hint, 1) if hint is not None and hinted else self._half()

    def told(self, killed: bool) -> None:
        """The trial is over; it killed its worker, or not."""
        tried, attribution = self.trial, self._attribution
        assert tried is not None
        if killed and tried.count == 1:
            self._kills += 1
            if self._kills == TIMES:
                self.found, self.trial = tried.first, None
            return
        self._kills = 0
        if killed:
            self._attribution = tried
        elif tried == attribution:
            self.trial = None  # the last one left does no harm either, alone
            return
        elif tried.first == attribution.first:
            self._attribution = Span(tried.first + tried.count, attribution.count - tried.count)
        # else: the row in the middle that was hinted at; halves are tried as if nothing had been said
        self.trial = self._half()

    def _half(self) -> Span:
        return Span(self._attribution.first, -(-self._attribution.count // 2))
