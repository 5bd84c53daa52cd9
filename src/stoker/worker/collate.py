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

from stoker.spec import PYTHON_NUMBERS, Leaf, Misfit, Spec, describe

#: Examples that are written together: as many as fit into so many bytes (a core's cache), and no more than so many.
_TOGETHER_BYTES, _TOGETHER = 1 << 20, 32

_Write = Callable[[int, list[Any]], None]


class MisfitAt(Exception):
    """The example at `position` of those to be written does not fit; `reason` tells why."""

    def __init__(self, position: int, reason: Misfit) -> None:
        super().__init__(position, reason)
        self.position, self.reason = position, reason


class Reused(Exception):
    """Examples to be written together lie in the same memory: only the last one is still there."""


def together(spec: Spec) -> int:
    """How many examples of this kind to hand to `Rows.write` at once."""
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in spec.leaves)
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
        flat, flatten = self._flat, self._spec.tree.flatten_up_to
        values: list[Any] = []
        for position, example in enumerate(examples):
            if type(example) is tuple and len(example) == flat:
                values.append(example)
                continue
            try:
                values.append(flatten(example))
            except (ValueError, TypeError):
                raise MisfitAt(position, Misfit(self._spec.structure_misfit(example))) from None
        for write, column in zip(self._writers, zip(*values, strict=True), strict=True):
            write(row, list(column))


def _array_writer(leaf: Leaf, column: npt.NDArray[Any]) -> _Write:
    shape, dtype = leaf.shape, leaf.dtype

    def write(row: int, values: list[Any]) -> None:
        for position, value in enumerate(values):
            if type(value) is np.ndarray and value.shape == shape:
                came = value.dtype
                if came is dtype or came == dtype:
                    continue
            values[position] = _converted(leaf, value, position)
        if len(values) > 1:
            _refuse_reused(values)
        target = column[row : row + len(values)]
        np.concatenate(values, out=target.reshape(len(values) * shape[0], *shape[1:]), casting="no")

    return write


def _refuse_reused(values: list[Any]) -> None:
    """Raise `Reused` when user code seems to fill and return one array again and again (or up to three in turn).

    Arrays of the dataset itself are read-only in a worker: views of it that overlap, such as windows, are no such case.
    """
    first = values[0]
    if first.flags.writeable and any(np.may_share_memory(first, values[n]) for n in {1, min(2, len(values) - 1), -1}):
        raise Reused


def _number_writer(leaf: Leaf, column: npt.NDArray[Any]) -> _Write:
    dtype, scalar = leaf.dtype, leaf.dtype.type
    number = next((number for number, its in PYTHON_NUMBERS.items() if its == dtype), scalar)

    def write(row: int, values: list[Any]) -> None:
        for position, value in enumerate(values):
            if type(value) is not number and type(value) is not scalar:
                values[position] = _converted(leaf, value, position)[()]
        try:
            column[row : row + len(values)] = np.fromiter(values, dtype, len(values))
        except OverflowError:
            for position, value in enumerate(values):
                _converted(leaf, value, position)
            raise

    return write


def _converted(expected: Leaf, value: Any, position: int) -> npt.NDArray[Any]:
    """`value` as an array of the expected dtype, if it is the leaf that is expected (in whatever byte order)."""
    try:
        came = describe(expected.path, value)
    except Misfit as reason:
        raise MisfitAt(position, Misfit(f"{reason} Expected {expected} as in example 0.")) from None
    if came != expected:
        where = f"at {expected.path} " if expected.path else ""
        misfit = Misfit(
            f"{where}it holds {came}, expected {expected} as in example 0. Examples are stacked, so every one "
            "must have the same shapes and dtypes: resize, pad or convert it in `__getitem__` or in `transform`."
        )
        raise MisfitAt(position, misfit)
    return np.asarray(value).astype(expected.dtype, copy=False)
