"""How the rows of one global batch are dealt to several trainers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deal:
    """The part of each batch that is this trainer's: the same rows for the same batch, whatever the trainers' number.

    Attributes:
        index: of this trainer, from 0.
        count: of the trainers; it divides the batch size.
        pads: whether a batch that is not full is filled up, with rows that count nothing.

    Example:
        >>> [Deal(index, 2).span(rows=5, size=8) for index in range(2)]
        [(0, 2), (2, 5)]
        >>> [Deal(index, 2, pads=True).span(rows=5, size=8) for index in range(2)]
        [(0, 4), (4, 8)]
    """

    index: int = 0
    count: int = 1
    pads: bool = False

    def span(self, rows: int, size: int) -> tuple[int, int]:
        """The first row, and the one behind the last, of a global batch that has so many of `size` rows."""
        total = size if self.pads else rows
        return total * self.index // self.count, total * (self.index + 1) // self.count


#: There is one trainer: it has all rows.
ALL = Deal()
