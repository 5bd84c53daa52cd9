"""Which examples form which batch. This depends only on length, batch size, shuffle, seed and epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stoker.plan.permutation import Permutation, mix

#: Positions that an `Order` computes at once, to spread the fixed cost of a NumPy call.
_BLOCK = 4096


@dataclass(frozen=True)
class Plan:
    """The batches of every epoch of a map-style source.

    Attributes:
        length: examples in the source, at least 1.
        batch_size: examples in a full batch, at least 1.
        shuffle: each epoch takes the examples in a new permutation of all of them.
        seed: seeds the permutations, together with the epoch.
        drop_remainder: the last batch is dropped if it is not full.

    Example:
        >>> plan = Plan(length=10, batch_size=4, shuffle=False, seed=0, drop_remainder=False)
        >>> plan.batches, plan.rows(2)
        (3, 2)
        >>> plan.order(epoch=0).indices(8, 10)
        array([8, 9])
    """

    length: int
    batch_size: int
    shuffle: bool
    seed: int
    drop_remainder: bool

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.length, self.batch_size)
        return full + (rest > 0 and not self.drop_remainder)

    def rows(self, batch: int) -> int:
        """Examples in this batch: `batch_size`, or fewer in the last one."""
        return min(self.batch_size, self.length - batch * self.batch_size)

    def static_rows(self) -> int | None:
        """The number of rows that every batch has, or None if the last one has fewer."""
        return self.batch_size if self.drop_remainder or self.length % self.batch_size == 0 else None

    def order(self, epoch: int) -> Order:
        """The order of the examples in this epoch."""
        return Order(self, epoch)


class Order:
    """Maps positions in one epoch, 0 … length-1, to examples.

    Computes positions in blocks, because a trainer asks for neighbouring ones.
    """

    def __init__(self, plan: Plan, epoch: int) -> None:
        self._length = plan.length
        self._permutation = Permutation(plan.length, mix(plan.seed, epoch)) if plan.shuffle else None
        self._blocks: dict[int, npt.NDArray[np.int64]] = {}

    def indices(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The examples at positions start … stop-1."""
        if self._permutation is None:
            return np.arange(start, stop, dtype=np.int64)
        first, last = start // _BLOCK, (stop - 1) // _BLOCK
        parts = [self._block(number) for number in range(first, last + 1)]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined[start - first * _BLOCK : stop - first * _BLOCK]

    def _block(self, number: int) -> npt.NDArray[np.int64]:
        block = self._blocks.get(number)
        if block is None:
            assert self._permutation is not None
            positions = np.arange(number * _BLOCK, min((number + 1) * _BLOCK, self._length))
            block = self._blocks[number] = self._permutation(positions)
            while len(self._blocks) > 2:
                del self._blocks[next(iter(self._blocks))]
        return block
