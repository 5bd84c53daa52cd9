"""How the rows of one global batch are dealt to several trainers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class HostShard:
    """The part of each batch that is this trainer's: the same rows for the same batch, whatever the trainers' number.

    Attributes:
        index: of this trainer, from 0.
        count: of the trainers; it divides the batch size.
        pads: whether a batch that is not full is filled up, with rows that count nothing.

    Example:
        >>> [HostShard(index, 2).span(rows=5, size=8) for index in range(2)]
        [(0, 2), (2, 5)]
        >>> [HostShard(index, 2, pads=True).span(rows=5, size=8) for index in range(2)]
        [(0, 4), (4, 8)]
    """

    index: int = 0
    count: int = 1
    pads: bool = False

    def span(self, rows: int, size: int) -> tuple[int, int]:
        """The first row, and the one behind the last, of a global batch that has so many of `size` rows."""
        total = size if self.pads else rows
        return total * self.index // self.count, total * (self.index + 1) // self.count


@dataclass(frozen=True)
class PaddedBatch:
    """A batch that is filled up: its examples are spread over its rows, and each stands again up to the next one.

    So each trainer, and each replica that a part of a trainer's rows goes to, has as many as any other, but for one.

    Attributes:
        rows: of the batch, of all trainers together.
        examples: of these, the ones that count; no more than `rows`.
        first: the row of the batch that is row 0 to whoever asks.

    Example:
        >>> filled = PaddedBatch(rows=8, examples=3)
        >>> filled.places(0, 8).tolist(), filled.counts(0, 8).tolist()
        ([0, 0, 0, 1, 1, 1, 2, 2], [True, False, False, True, False, False, True, False])
    """

    rows: int
    examples: int
    first: int = 0

    def places(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        """Which of the examples stand in rows first … stop-1."""
        return np.arange(self.first + first, self.first + stop) * self.examples // self.rows

    def counts(self, first: int, stop: int) -> npt.NDArray[np.bool_]:
        """Whether rows first … stop-1 count: the first of each example does."""
        return np.diff(self.places(first - 1, stop)) > 0


#: There is one trainer: it has all rows.
ALL = HostShard()
