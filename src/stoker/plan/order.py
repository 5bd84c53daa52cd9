"""Which examples form which batch. This depends only on length, batch size, shuffle, order, seed and epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stoker.plan.orders import UserOrder
from stoker.plan.permutation import Permutation, mix

#: Positions that an `Order` computes at once, to spread the fixed cost of a NumPy call.
_BLOCK = 4096


@dataclass(frozen=True)
class Plan:
    """The batches of every epoch of a map-style source.

    Attributes:
        length: examples in the source, at least 1.
        batch_size: examples in a full batch, at least 1. If the user's order gives whole batches: in the largest.
        shuffle: each epoch takes the examples in a new permutation of all of them.
        seed: seeds the permutations, together with the epoch.
        drop_remainder: the last batch is dropped if it is not full.
        given: the user's order, or None.

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
    given: UserOrder | None = None

    @property
    def in_batches(self) -> bool:
        """True if the user's order gives whole batches."""
        return self.given is not None and self.given.in_batches

    @property
    def is_fixed(self) -> bool:
        """True if all epochs have equally many elements."""
        return self.given is None or self.given.count is not None

    @property
    def takes(self) -> int:
        """Examples that an epoch takes; if epochs may differ, that the first one takes."""
        return self.length if self.given is None else self.given.takes

    @property
    def batches(self) -> int:
        """Batches in an epoch; if epochs may differ, in the first one."""
        if self.given is not None and self.given.in_batches:
            return self.given.first.elements
        full, rest = divmod(self.takes, self.batch_size)
        return full + (rest > 0 and not self.drop_remainder)

    def rows(self, batch: int) -> int:
        """Examples in this batch, if `batch_size` cuts the batches: that many, or fewer in the last one."""
        return min(self.batch_size, self.takes - batch * self.batch_size)

    def static_rows(self) -> int | None:
        """The number of rows that every batch has, or None if some have fewer or it is not known."""
        if not self.is_fixed:
            return self.batch_size if self.drop_remainder else None
        if self.given is not None and self.given.in_batches:
            is_even = not self.given.is_drawn and self.given.first.least_rows() == self.batch_size
            return self.batch_size if is_even else None
        return self.batch_size if self.drop_remainder or self.takes % self.batch_size == 0 else None

    def order(self, epoch: int) -> Order:
        """The order of the examples in this epoch, which is going to be read."""
        return Order(self, epoch)


class Order:
    """Maps positions in one epoch, 0 … length-1, to examples, and says which positions form a batch.

    Computes positions in blocks, because a trainer asks for neighbouring ones.

    Attributes:
        length: number of positions.
        bounds: the positions at which the batches begin, and the end, if the user's order gives whole batches;
            otherwise None.
    """

    def __init__(self, plan: Plan, epoch: int) -> None:
        given = plan.given.take(epoch) if plan.given is not None else None
        self.length = plan.length if given is None else len(given.indices)
        self.bounds = None if given is None else given.bounds
        self._indices = None if given is None else given.indices
        self._examples = plan.length if given is not None and given.repeats else 0  # of the source, if some come again
        self._drawn = given if plan.given is not None and plan.given.is_drawn else None
        self._permutation = Permutation(self.length, mix(plan.seed, epoch)) if plan.shuffle else None
        self._blocks: dict[int, npt.NDArray[np.int64]] = {}

    @property
    def digest(self) -> str | None:
        """Distinguishes an order that was drawn for this epoch from others; None for any other order."""
        return None if self._drawn is None else self._drawn.digest  # computed only when a state is saved

    def indices(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The examples at positions start … stop-1."""
        if self._indices is None:
            return self._places(start, stop)
        if self._permutation is None:
            return self._indices[start:stop].astype(np.int64)
        return self._indices[self._places(start, stop)].astype(np.int64)

    def numbers(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Numbers for the examples at positions start … stop-1 that no other example of the epoch has.

        These are the examples themselves, unless the order repeats some. Then they are those plus a multiple of the
        number of examples in the source, so that each repetition has random numbers of its own.
        """
        found = self.indices(start, stop)
        return found if not self._examples else found + self._places(start, stop) * self._examples

    def _places(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The places at positions start … stop-1, in the source or in the user's list."""
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
            positions = np.arange(number * _BLOCK, min((number + 1) * _BLOCK, self.length))
            block = self._blocks[number] = self._permutation(positions)
            while len(self._blocks) > 2:
                del self._blocks[next(iter(self._blocks))]
        return block
