"""Examples into the rows of a slot: each value is checked, then copied once, to its place.

This is the innermost loop of the product. An example is written as soon as it is made, before user code runs on: that
code may fill the same arrays again for the next one, and large examples should be dropped at once.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import numpy.typing as npt
from numpy import ndarray

from stoker.structure.spec import Leaf, Misfit, Spec, fixed_shape
from stoker.structure.values import PYTHON_NUMBERS
from stoker.worker.batching.fitting import MisfitAt, fitting

#: Rows of a batch of which a view is kept each: to make it anew takes as long as to write a hundred floats.
_VIEWS = 1024


class FixedRows:
    """Writes examples into rows of one batch.

    Args:
        spec: what every example must look like.
        columns: for each leaf, the array over the slot that it is written to.
    """

    def __init__(self, spec: Spec, columns: list[npt.NDArray[Any]]) -> None:
        self._spec = spec
        self._columns = [_column(leaf, column) for leaf, column in zip(spec.leaves, columns, strict=True)]
        # A tuple of leaves, by far the commonest example, needs no flattening.
        self._flat = len(spec.leaves) if spec.is_flat_tuple() else -1
        self._keys = len(keys) if (keys := spec.flat_keys()) else -1
        self._get: Any = itemgetter(*keys) if keys else None

    def write(self, row: int, example: Any, position: int = 0) -> None:
        """Write an example to a row; raises `MisfitAt` with this position."""
        if type(example) is tuple and len(example) == self._flat:
            values: Any = example
        else:
            values = self._values(example, position)
        for (rows, shape, dtype, number, scalar, leaf), value in zip(self._columns, values):  # noqa: B905  (quicker)
            kind = type(value)
            if kind is ndarray:
                if value.shape == shape and ((came := value.dtype) is dtype or came == dtype):
                    rows[row][...] = value
                    continue
            elif kind is number or kind is scalar:
                try:
                    rows[row] = value
                except OverflowError:
                    fitting(leaf, value, position)
                    raise
                continue
            fitted = fitting(leaf, value, position)
            if leaf.shape:
                rows[row][...] = fitted
            else:
                rows[row] = fitted

    def _values(self, example: Any, position: int) -> Any:
        """What stands at the leaves."""
        if type(example) is dict and len(example) == self._keys:
            try:
                return self._get(example) if self._keys > 1 else [self._get(example)]
            except KeyError:
                pass  # told by what follows
        try:
            return self._spec.flatten(example)
        except Misfit as misfit:
            raise MisfitAt(position, misfit) from None


def _column(leaf: Leaf, column: npt.NDArray[Any]) -> tuple[Any, ...]:
    """Where a leaf is written to, and what is written without a closer look: arrays, or numbers where it is one."""
    if leaf.shape:
        rows = list(column) if len(column) <= _VIEWS else column
        return rows, fixed_shape(leaf), leaf.dtype, None, None, leaf
    number = next((number for number, dtype in PYTHON_NUMBERS.items() if dtype == leaf.dtype), None)
    return column, None, leaf.dtype, number, leaf.dtype.type, leaf
