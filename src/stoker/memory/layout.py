"""Maps the arrays of a batch to the bytes of a slot. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stoker.structure.leaf import Leaf, PartSpec

#: TensorFlow takes over an array without copying only if its address is a multiple of this.
ALIGNMENT = 64


class Column(NamedTuple):
    """One array of a batch, with `shape` and `dtype`, from byte `offset` of the slot."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def view(self, buffer: Any, rows: int | None) -> npt.NDArray[Any]:
        """This array, or its first `rows` rows, over `buffer`."""
        shape = self.shape if rows is None else (rows, *self.shape[1:])
        array: npt.NDArray[Any] = np.ndarray(shape, self.dtype, buffer, self.offset)
        return array


class Layout(NamedTuple):
    """The arrays of a batch and their total number of bytes.

    >>> layout = Layout.of([Leaf("['a']", (3,), np.dtype("u1")), Leaf("['b']", (), np.dtype("f4"))], rows=10)
    >>> [column.offset for column in layout.columns], layout.nbytes
    ([0, 64], 128)
    """

    columns: tuple[Column, ...]
    nbytes: int

    @classmethod
    def of(cls, leaves: Sequence[Leaf], rows: int) -> Layout:
        """Lay out `rows` examples with these leaves, one column after the other, each aligned."""
        return cls.of_arrays(((rows, *leaf.shape), leaf.dtype) for leaf in leaves)

    @classmethod
    def of_arrays(cls, arrays: Iterable[tuple[tuple[Any, ...], np.dtype[Any]]]) -> Layout:
        """Lay out arrays of these shapes and dtypes one after the other, each aligned."""
        columns, offset = [], 0
        for shape, dtype in arrays:
            columns.append(Column(offset, shape, dtype))
            offset += align(math.prod(shape) * dtype.itemsize)
        return cls(tuple(columns), max(offset, ALIGNMENT))

    @classmethod
    def of_dims(cls, parts: Sequence[PartSpec], dims: Sequence[int]) -> Layout:
        """Lay out arrays of these kinds; `dims` holds the dimensions of all shapes in sequence."""
        shapes, start = [], 0
        for part in parts:
            shapes.append((tuple(dims[start : start + part.ndim]), part.dtype))
            start += part.ndim
        return cls.of_arrays(shapes)

    def view(self, buffer: Any, rows: int | None = None) -> list[npt.NDArray[Any]]:
        """All arrays over `buffer`, or only the first `rows` rows of each."""
        return [column.view(buffer, rows) for column in self.columns]


def align(size: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def aligned_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy in the process's own memory that TensorFlow can take over without another copy."""
    raw = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    copy: npt.NDArray[Any] = np.ndarray(array.shape, array.dtype, raw, -raw.ctypes.data % ALIGNMENT)
    copy[...] = array
    return copy
