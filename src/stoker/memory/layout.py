"""Which byte of a slot holds which leaf of a batch. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.spec import Leaf

#: TensorFlow takes over an array without copying it only when it starts at a multiple of this.
ALIGNMENT = 64


@dataclass(frozen=True)
class Column:
    """One leaf of a batch: `rows` examples of `shape` and `dtype` from byte `offset` of the slot."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def view(self, buffer: Any, rows: int) -> npt.NDArray[Any]:
        """The first `rows` rows of this leaf, as an array over `buffer`."""
        array: npt.NDArray[Any] = np.ndarray((rows, *self.shape), self.dtype, buffer, self.offset)
        return array


@dataclass(frozen=True)
class Layout:
    """The columns of a batch and the bytes that they take together.

    >>> layout = Layout.of([Leaf("['a']", (3,), np.dtype("u1")), Leaf("['b']", (), np.dtype("f4"))], rows=10)
    >>> [column.offset for column in layout.columns], layout.nbytes
    ([0, 64], 128)
    """

    columns: tuple[Column, ...]
    nbytes: int

    @classmethod
    def of(cls, leaves: Sequence[Leaf], rows: int) -> Layout:
        """Lay `rows` examples with these leaves one column after the other, each aligned."""
        columns, offset = [], 0
        for leaf in leaves:
            columns.append(Column(offset, leaf.shape, leaf.dtype))
            offset += align(rows * math.prod(leaf.shape) * leaf.dtype.itemsize)
        return cls(tuple(columns), max(offset, ALIGNMENT))

    def view(self, buffer: Any, rows: int) -> list[npt.NDArray[Any]]:
        """The first `rows` rows of every leaf, as arrays over `buffer`."""
        return [column.view(buffer, rows) for column in self.columns]


def align(size: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def aligned_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy in the process's own memory that TensorFlow takes over without copying it again."""
    raw = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    copy: npt.NDArray[Any] = np.ndarray(array.shape, array.dtype, raw, -raw.ctypes.data % ALIGNMENT)
    copy[...] = array
    return copy
