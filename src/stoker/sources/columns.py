"""Tables, series, lists, ranges and sparse matrices, read by rows in place of arrays. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree

from stoker.errors import SourceError, StokerError, summary
from stoker.sources.mistaken import is_sparse, is_table
from stoker.sources.stored_arrays import StoredRows, is_stored
from stoker.structure.forms import Misfit, Ragged
from stoker.structure.nesting import plain
from stoker.structure.values import canonical


class SparseRow:
    """One row of a sparse matrix, with the attributes of a TensorFlow sparse tensor."""

    __slots__ = ("dense_shape", "indices", "values")

    def __init__(self, indices: Any, values: Any, width: int) -> None:
        self.indices, self.values, self.dense_shape = indices[:, None], values, (width,)


class SparseRows:
    """The rows of a SciPy sparse matrix, stored as its CSR arrays."""

    def __init__(self, matrix: Any) -> None:
        csr = matrix.tocsr()
        if not csr.has_canonical_format:
            csr = csr.copy() if csr is matrix else csr
            csr.sum_duplicates()
        self._starts, self._indices, self._data, self._shape = csr.indptr, csr.indices, csr.data, csr.shape

    def __len__(self) -> int:
        return int(self._shape[0])

    def __getitem__(self, row: int) -> SparseRow:
        part = slice(self._starts[row], self._starts[row + 1])
        return SparseRow(self._indices[part], self._data[part], self._shape[1])


def columns_of(structure: Any) -> Any:
    """Replace tables in the structure by dicts, and lists of numbers or strings, ranges and series by arrays."""
    return optree.tree_map(_columns, plain(structure), is_leaf=_is_column, none_is_leaf=True)


def _is_column(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_item, value))


def _is_item(value: Any) -> bool:
    """True for a number, a string, or a list of these."""
    if isinstance(value, list):
        return all(map(_is_item, value))
    return isinstance(value, bool | int | float | complex | str | bytes | np.generic)


def _columns(value: Any) -> Any:
    try:
        return _columns_of_one(value)
    except (StokerError, Misfit, RecursionError):
        raise
    except Exception as error:  # it raises where it is asked what it is
        raise SourceError(f"from_arrays cannot read the {type(value).__name__}: {summary(error)}") from error


def _columns_of_one(value: Any) -> Any:
    if is_table(value):
        return _table(value)
    if is_sparse(value):
        return SparseRows(value)
    if is_stored(value):
        return StoredRows(value)
    if isinstance(value, range):
        return np.arange(value.start, value.stop, value.step)
    if isinstance(value, list):
        return _listed(value)
    return series(value) if hasattr(value, "to_numpy") else value


def _table(table: Any) -> dict[Any, Any]:
    """The columns of a table, by name."""
    arrow = hasattr(table, "schema") and hasattr(table, "column")
    names = list(table.schema.names) if arrow else list(table.columns)
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise SourceError(f"from_arrays: the {type(table).__name__} has several columns named {double!r}. Rename them.")
    return {name: series(table.column(place) if arrow else table[name]) for place, name in enumerate(names)}


def series(values: Any) -> Any:
    """A column as one contiguous array; an object array for rows of differing lengths."""
    try:
        array = np.asarray(values.to_numpy(zero_copy_only=False))
    except TypeError:  # only Arrow has this parameter
        array = np.asarray(values.to_numpy())
    return array if array.dtype == object else np.ascontiguousarray(array)


def _listed(values: list[Any]) -> Any:
    """A list as an array; an object array for rows of differing lengths."""
    try:
        array = canonical(values)
    except Misfit as misfit:
        raise SourceError(f"from_arrays {misfit}") from None
    return array.nested() if isinstance(array, Ragged) else array
