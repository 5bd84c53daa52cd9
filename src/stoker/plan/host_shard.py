"""How the rows of a global batch are divided among several trainers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class HostShard:
    """This trainer's part of each batch. A global batch has the same rows, however many trainers share it.

    Attributes:
        index: this trainer's number, from 0.
        count: number of trainers; it divides the batch size.
        pads: a batch that is not full is padded, with rows of weight 0.

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
        """This trainer's first row, and the one after its last, in a global batch with `rows` of `size` rows."""
        total = size if self.pads else rows
        return total * self.index // self.count, total * (self.index + 1) // self.count


@dataclass(frozen=True)
class PaddedBatch:
    """A padded batch: its examples are spread over its rows, each repeated up to the next one.

    So every trainer, and every replica that gets a part of a trainer's rows, has the same number of examples, give or
    take one.

    Attributes:
        rows: rows of the batch, over all trainers.
        examples: number of examples that count, at most `rows`.
        first: the batch row that is the caller's row 0.

    Example:
        >>> filled = PaddedBatch(rows=8, examples=3)
        >>> filled.places(0, 8).tolist(), filled.counts(0, 8).tolist()
        ([0, 0, 0, 1, 1, 1, 2, 2], [True, False, False, True, False, False, True, False])
    """

    rows: int
    examples: int
    first: int = 0

    def places(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        """The number of the example in each of the rows first … stop-1."""
        return np.arange(self.first + first, self.first + stop) * self.examples // self.rows

    def counts(self, first: int, stop: int) -> npt.NDArray[np.bool_]:
        """For each of the rows first … stop-1, whether it counts: only the first row of each example does."""
        return np.diff(self.places(first - 1, stop)) > 0


#: The shard of a single trainer: all rows.
ALL = HostShard()
