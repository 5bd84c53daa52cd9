"""Arrays, read by rows: the first dimension is the example."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.errors import SourceError
from stoker.sources.columns import SparseRows, columns_of
from stoker.sources.stored_arrays import StoredRows
from stoker.structure.casting import cast, is_castable
from stoker.structure.forms import Misfit, Ragged, Sparse
from stoker.structure.leaf import leaf_of
from stoker.structure.nesting import flattened
from stoker.structure.spec import Spec
from stoker.structure.values import canonical


class ArraySource(Sequence[Any]):
    """A map-style source over arrays that can copy many rows at once. See `from_arrays`."""

    def __init__(self, structure: Any) -> None:
        try:
            leaves, tree = flattened(_without_lists(columns_of(structure)), None)
        except Misfit as misfit:
            raise SourceError(f"from_arrays needs nested arrays: {misfit}") from None
        except RecursionError:
            raise SourceError("from_arrays got a structure that is nested too deeply, or contains itself.") from None
        paths = [accessor.codify("") for accessor in tree.accessors()]
        if not leaves:
            raise SourceError("from_arrays needs at least one array.")
        self.arrays = [_array(path, leaf) for path, leaf in zip(paths, leaves, strict=True)]
        self._tree = tree
        lengths = {path or "the array": len(array) for path, array in zip(paths, self.arrays, strict=True)}
        if len(set(lengths.values())) > 1:
            rows = ", ".join(f"{length:,} in {path}" for path, length in lengths.items())
            raise SourceError(f"from_arrays needs the same number of rows in each array, got {rows}.")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> Any:
        return self._tree.unflatten([array[index] for array in self.arrays])

    def is_in_memory(self) -> bool:
        """True if all arrays are plain contiguous memory: no strings, no strides, no mapped files."""
        return all(
            isinstance(array, np.ndarray)
            and array.flags.c_contiguous
            and array.dtype.isnative
            and array.dtype.kind in "biufcV"
            and leaf_of("", canonical(array[:1])).dtype == array.dtype
            and not _is_mapped(array)
            for array in self.arrays
        )

    def is_like(self, spec: Spec) -> bool:
        """True if the rows fit this spec, apart from dtypes that can be converted."""
        return spec.tree == self._tree and all(
            isinstance(array, np.ndarray)
            and array.dtype != object
            and array.shape[1:] == leaf.shape
            and is_castable(array.dtype, leaf.dtype)
            for array, leaf in zip(self.arrays, spec.leaves, strict=True)
        )

    def take(self, indices: npt.NDArray[np.int64], rows: Sequence[npt.NDArray[Any]]) -> None:
        """Write the examples `indices` to `rows`, one output for each array, in one NumPy call each.

        Raises `CannotCast`.
        """
        first, count = int(indices[0]), len(indices)
        in_turn = int(indices[-1]) == first + count - 1 and bool((np.diff(indices) == 1).all())
        for array, out in zip(self.arrays, rows, strict=True):
            if in_turn:
                out[...] = cast(array[first : first + count], out.dtype)
            elif array.dtype == out.dtype and array.flags.c_contiguous:
                np.take(array, indices, axis=0, out=out, mode="clip")  # mode "raise" makes NumPy copy first
            else:
                out[...] = cast(array[indices], out.dtype)


def rows_of(source: Any) -> ArraySource | None:
    """The arrays of a source that can be copied by rows without the user's code; None if it has no such arrays."""
    return source if isinstance(source, ArraySource) else None


def _without_lists(structure: Any) -> Any:
    """Replace lists in the structure by tuples, because a list of numbers in an example would count as an array."""
    if type(structure) in (list, tuple):
        return tuple(map(_without_lists, structure))
    if type(structure) is dict:
        return {key: _without_lists(part) for key, part in structure.items()}
    return structure


def from_arrays(*arrays: Any) -> ArraySource:
    """A source of the rows of arrays, which are in memory once, regardless of the number of workers.

    With a transform, workers read the arrays in shared memory. Without one, batches of plain arrays cost less to make
    than to hand over: the consuming thread copies the rows itself, and no workers are started.

    Args:
        arrays: one nested structure of arrays, or several, whose rows become tuples. Accepts NumPy arrays,
            memory-mapped `.npy` files, lists of numbers or strings, ranges, SciPy sparse matrices, and anything else
            that supports DLPack or the buffer protocol. Workers map `.npy` files too, so these are not read into
            memory. h5py and zarr arrays stay in their files and are read row by row. A table (a DataFrame, an Arrow
            table) becomes a dict of its columns. All arrays have the same first dimension, the number of examples.

    Raises:
        SourceError: the arrays have different numbers of rows, or one is not an array.

    Example:
        >>> import stoker
        >>> source = stoker.from_arrays({"x": np.arange(6.0).reshape(3, 2)}, np.array([0, 1, 0]))
        >>> source[1]
        ({'x': array([2., 3.])}, np.int64(1))
    """
    if not arrays:
        raise SourceError("from_arrays needs at least one array.")
    return ArraySource(arrays[0] if len(arrays) == 1 else arrays)


def _array(path: str, value: Any) -> Any:
    where = f"{path} of " if path else ""
    if isinstance(value, SparseRows | StoredRows):
        return value
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        try:
            array: Any = canonical(value) if value.dtype == object else value  # numbers as objects become numeric
        except Misfit as misfit:
            raise SourceError(f"{where}from_arrays {misfit}") from None
        array = value if isinstance(array, Ragged) else array
    else:
        try:
            array = np.asarray(memoryview(value)) if _is_buffer(value) else canonical(value)
        except Misfit as misfit:
            raise SourceError(f"{where}from_arrays {misfit}") from None
    try:
        if isinstance(array, Ragged | Sparse) or not array.ndim:
            raise SourceError(f"{where}from_arrays has no rows: it is {leaf_of('', array)}. Pass arrays.")
        leaf_of(path, canonical(array[:1]))
    except Misfit as misfit:
        raise SourceError(f"{where}from_arrays: {misfit}") from None
    rows: npt.NDArray[Any] = array
    return rows


def _is_mapped(array: Any) -> bool:
    """True if an array lies in a mapped file, where reading may block on the disk."""
    while array is not None:
        if isinstance(array, mmap.mmap | np.memmap):
            return True
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return False


def _is_buffer(value: Any) -> bool:
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__") or hasattr(value, "__dlpack__"):
        return False
    try:
        memoryview(value)
    except TypeError:
        return False
    return True
