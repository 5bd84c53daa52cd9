"""The three canonical forms of values, and how rows become one value. Pure.

dense    an array; for strings, an object array of bytes
ragged   `Ragged`: values and row splits, as in tf.RaggedTensor
sparse   `Sparse`: indices, values and dense shape, as in tf.SparseTensor
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: The dtype of string arrays, whose elements are `bytes`.
STRING = np.dtype(object)


class Misfit(Exception):
    """An example cannot be batched. The text names the path, the value and the remedy."""


@dataclass(frozen=True)
class Ragged:
    """Rows of differing lengths: concatenated `values`, divided by `splits`, outermost level first."""

    values: Array
    splits: tuple[npt.NDArray[np.int64], ...]

    def nested(self) -> Array:
        """An object array of arrays, as from `tf.RaggedTensor.numpy()`. The arrays are views of `values`."""
        inner: Any = self.values
        for splits in reversed(self.splits):
            bounds = splits.tolist()
            inner = [inner[start:stop] for start, stop in itertools.pairwise(bounds)]
            inner = object_array(inner)
        return np.asarray(inner)


class Sparse(NamedTuple):
    """A sparse array: `values[n]` at `indices[n]`, in row-major order, and zero elsewhere."""

    indices: npt.NDArray[np.int64]
    values: Array
    dense_shape: npt.NDArray[np.int64]


def object_array(items: Sequence[Any]) -> Array:
    """A 1-D object array of `items`, even if these are sequences or arrays."""
    array = np.empty(len(items), object)
    for place, item in enumerate(items):
        array[place] = item
    return array


def join_strings(strings: Sequence[bytes]) -> tuple[bytes, npt.NDArray[np.int64]]:
    """All strings in one, and the position at which each of them ends in it."""
    return b"".join(strings), np.array([*itertools.accumulate(map(len, strings))], np.int64)


def cut_strings(joined: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> Array:
    """The strings that `join_strings` joined, as an object array in the shape of `ends`."""
    data, stops = joined.tobytes(), ends.reshape(-1).tolist()
    strings = [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
    return np.array(strings, STRING).reshape(ends.shape)


def require_one_kind(arrays: Sequence[Array]) -> None:
    """Raise `Misfit` if arrays to be joined have dtypes that do not combine into one."""
    dtypes = {array.dtype for array in arrays}
    kinds = {dtype.kind for dtype in dtypes}
    if len(dtypes) > 1 and (
        (kinds & {"O", "b"} and len(kinds) > 1) or (kinds <= {"i", "u"} and np.result_type(*dtypes).kind == "f")
    ):
        raise Misfit(f"holds rows of different dtypes: {', '.join(sorted(map(str, dtypes)))}. Convert them to one.")


def join_ragged(rows: Sequence[Array | Ragged], rank: int = 1) -> Ragged:
    """Join values as the rows of one ragged value with at least `rank` levels of splits. Raises `Misfit`."""
    rank = max([rank, *(1 + len(row.splits) for row in rows if isinstance(row, Ragged))])
    parts = [with_splits(row, rank - 1) for row in rows]
    filled = [values for values, _ in parts if values.shape[0]] or [values for values, _ in parts[:1]]
    if len({values.shape[1:] for values in filled}) > 1:
        shapes = sorted({str(values.shape[1:]) for values in filled})
        raise Misfit(f"rows whose inner dimensions differ: {', '.join(shapes)}.")
    require_one_kind(filled)
    levels = []
    for level in range(rank):
        lengths = [np.array([len(s[0]) - 1 if s else len(v)]) for v, s in parts] if level == 0 else []
        lengths = lengths or [np.diff(splits[level - 1]) for _, splits in parts]
        levels.append(splits_of(np.concatenate(lengths) if lengths else np.zeros(0, np.int64)))
    values = np.concatenate(filled) if filled else np.zeros(0, np.float32)
    return Ragged(values, tuple(levels))


def splits_of(lengths: Any) -> npt.NDArray[np.int64]:
    """The n + 1 row splits of n rows with these lengths."""
    if type(lengths) is list:  # from a batch: faster than making an array of it first
        return np.array([0, *itertools.accumulate(lengths)], np.int64)
    splits = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=splits[1:])
    return splits


def with_splits(value: Array | Ragged, levels: int) -> tuple[Array, list[npt.NDArray[np.int64]]]:
    """The values and splits of `value`, with at least `levels` levels of splits inside its rows."""
    if isinstance(value, Ragged):
        values, splits = value.values, list(value.splits)
    else:
        values, splits = value, []
    while len(splits) < levels:
        if values.ndim < 2:
            raise Misfit(f"an array with {values.ndim} dimensions, too few for its ragged dimensions.")
        splits.append(np.arange(values.shape[0] + 1, dtype=np.int64) * values.shape[1])
        values = values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])  # -1 is ambiguous if a size is 0
    return values, splits


def join_nested(rows: list[Any]) -> Ragged:
    """Join arrays as rows of one ragged value, with as few ragged dimensions as possible."""
    for rank in range(1, max([1, *(np.ndim(row) for row in rows)])):
        try:
            return join_ragged(rows, rank)
        except Misfit:
            """An inner dimension differs too: try one more ragged level."""
    return join_ragged(rows, max([1, *(np.ndim(row) for row in rows)]))


def ordered_sparse(indices: Array, values: Array, shape: Any) -> Sparse:
    """A sparse value in row-major order, as tf.SparseTensor requires."""
    indices, shape = np.ascontiguousarray(indices, np.int64), np.asarray(shape, np.int64)
    fits = indices.shape == (values.shape[0], len(shape)) and values.ndim == shape.ndim == 1
    if not fits or (indices < 0).any() or (indices >= shape).any():
        raise Misfit(
            f"holds a sparse array whose parts do not match: indices of shape {indices.shape}, values of shape "
            f"{values.shape}, dense shape {shape.tolist()}."
        )
    order = np.lexsort(indices.T[::-1])
    if not np.array_equal(order, np.arange(len(order))):
        indices, values = indices[order], values[order]
    return Sparse(indices, values, shape)
