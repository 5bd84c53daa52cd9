"""Examples into the rows of a slot: each value is checked, then copied once, to its place.

This is the innermost loop of the product. Small examples are written a few at a time, because
a NumPy call costs more than copying a hundred floats; large ones singly, because they should
be dropped as soon as they are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.spec import Leaf, Misfit, Spec, fixed_shape
from stoker.values import PYTHON_NUMBERS
from stoker.worker.fitting import MisfitAt, fitting, refuse_reused

#: Examples that are written together: as many as fit into so many bytes (a core's cache), and no more than so many.
_TOGETHER_BYTES, _TOGETHER = 1 << 20, 32

_Write = Callable[[int, list[Any]], None]


def together(spec: Spec) -> int:
    """How many examples of this kind to hand to `Rows.write` at once."""
    size = sum(math.prod(fixed_shape(leaf)) * leaf.dtype.itemsize for leaf in spec.leaves)
    return max(1, min(_TOGETHER, _TOGETHER_BYTES // max(1, size)))


class Rows:
    """Writes examples into rows of one batch.

    Args:
        spec: what every example must look like.
        columns: for each leaf, the array over the slot that it is written to.
    """

    def __init__(self, spec: Spec, columns: list[npt.NDArray[Any]]) -> None:
        self._spec = spec
        self._writers = [
            _array_writer(leaf, column) if leaf.shape else _number_writer(leaf, column)
            for leaf, column in zip(spec.leaves, columns, strict=True)
        ]
        # A tuple of leaves, by far the commonest example, needs no flattening.
        self._flat = len(spec.leaves) if spec.is_flat_tuple() else -1

    def write(self, row: int, examples: Sequence[Any]) -> None:
        """Write `examples` to rows row, row+1, …; raises `MisfitAt` and `Reused`."""
        flat, flatten = self._flat, self._spec.flatten
        values: list[Any] = []
        for position, example in enumerate(examples):
            if type(example) is tuple and len(example) == flat:
                values.append(example)
                continue
            try:
                values.append(flatten(example))
            except Misfit as misfit:
                raise MisfitAt(position, misfit) from None
        for write, column in zip(self._writers, zip(*values, strict=True), strict=True):
            write(row, list(column))


def _array_writer(leaf: Leaf, column: npt.NDArray[Any]) -> _Write:
    shape, dtype = fixed_shape(leaf), leaf.dtype

    def write(row: int, values: list[Any]) -> None:
        for position, value in enumerate(values):
            if type(value) is np.ndarray and value.shape == shape:
                came = value.dtype
                if came is dtype or came == dtype:
                    continue
            values[position] = fitting(leaf, value, position)
        if len(values) > 1:
            refuse_reused(values)
        target = column[row : row + len(values)]
        np.concatenate(values, out=target.reshape(len(values) * shape[0], *shape[1:]), casting="no")

    return write


def _number_writer(leaf: Leaf, column: npt.NDArray[Any]) -> _Write:
    dtype, scalar = leaf.dtype, leaf.dtype.type
    number = next((number for number, its in PYTHON_NUMBERS.items() if its == dtype), scalar)

    def write(row: int, values: list[Any]) -> None:
        for position, value in enumerate(values):
            if type(value) is not number and type(value) is not scalar:
                values[position] = fitting(leaf, value, position)[()]
        try:
            column[row : row + len(values)] = np.fromiter(values, dtype, len(values))
        except OverflowError:
            for position, value in enumerate(values):
                fitting(leaf, value, position)
            raise

    return write
