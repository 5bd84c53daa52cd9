"""What may stand at a leaf of an example, brought into one of three forms. Pure; imports none of the makers.

    dense    an array; of strings: an object array of bytes
    ragged   `Ragged`: values and row splits, as in tf.RaggedTensor
    sparse   `Sparse`: indices, values and dense shape, as in tf.SparseTensor

Foreign objects (tensors of TensorFlow, PyTorch and JAX, PIL images, SciPy matrices) are known by
what they offer: `__array__`, DLPack, or the attributes of their kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: The dtype of arrays of strings: their elements are `bytes`.
STRING = np.dtype(object)

#: The dtypes that NumPy gives Python's numbers.
PYTHON_NUMBERS = {
    bool: np.dtype(np.bool_),
    int: np.dtype(np.int64),
    float: np.dtype(np.float64),
    complex: np.dtype(np.complex128),
}


class Misfit(Exception):
    """An example that cannot be batched; the text names the path, what came and what to do."""


@dataclass(frozen=True)
class Ragged:
    """Rows of differing lengths: `values` lie one after the other, cut by `splits`, the outermost first."""

    values: Array
    splits: tuple[npt.NDArray[np.int64], ...]

    def nested(self) -> Array:
        """As `tf.RaggedTensor.numpy()` gives it: an object array of arrays, which are views of `values`."""
        inner: Any = self.values
        for splits in reversed(self.splits):
            bounds = splits.tolist()
            inner = [inner[start:stop] for start, stop in itertools.pairwise(bounds)]
            inner = object_array(inner)
        return np.asarray(inner)


class Sparse(NamedTuple):
    """A sparse array: `values[n]` stands at `indices[n]`, in row-major order; all else is zero."""

    indices: npt.NDArray[np.int64]
    values: Array
    dense_shape: npt.NDArray[np.int64]


def object_array(items: Sequence[Any]) -> Array:
    """A 1-D object array of `items`, whatever they are."""
    array = np.empty(len(items), object)
    for place, item in enumerate(items):
        array[place] = item
    return array


def canonical(value: Any) -> Array | Ragged | Sparse:
    """`value` in one of the three forms; raises `Misfit` when it has none."""
    kind = type(value)
    if kind is np.ndarray:
        return _array(value)
    if kind is str or kind is bytes:
        array = np.empty((), object)
        array[()] = encoded(value)
        return array
    if kind in PYTHON_NUMBERS:
        if kind is int and not -(2**63) <= value < 2**63:
            raise Misfit(f"holds the int {value}, which needs more than 64 bits.")
        return np.array(value, PYTHON_NUMBERS[kind])
    if kind is list:
        return _listed(value)
    if isinstance(value, str | bytes):  # NumPy's scalars of strings, which as arrays would lose zeros at their end
        return canonical(encoded(value))
    return _foreign(value)


def encoded(text: Any) -> bytes:
    """The bytes of a string: UTF-8 for `str`."""
    if type(text) is bytes:
        return text
    if not isinstance(text, str):
        if isinstance(text, bytes):
            return bytes(text)
        raise Misfit(
            f"holds an object array with a {type(text).__name__} in it: {short(text)}. Only str and bytes, or arrays "
            "of numbers (rows of differing lengths) can be batched."
        )
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Misfit(
            f"holds text that is no valid Unicode: {ascii(text)[:80]}. Pass its bytes instead, for example "
            "`text.encode('utf-8', 'surrogateescape')` or `os.fsencode(name)`."
        ) from None


def short(value: Any) -> str:
    """`repr`, cut."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _array(array: Array) -> Array | Ragged:
    kind = array.dtype.kind
    if kind == "O" and array.size and not isinstance(array.flat[0], str | bytes):
        return _ragged([canonical(item) for item in array.tolist()]) if array.ndim == 1 else _strings(array)
    return _strings(array) if kind in "OSUT" else array


def _strings(array: Array) -> Array:
    strings = np.empty(array.shape, object)
    if array.dtype.kind == "S":
        strings[...] = array.astype(object)
    else:
        flat = strings.reshape(-1)
        for place, text in enumerate(array.astype(object).reshape(-1).tolist()):
            flat[place] = encoded(text)
    return strings


def _listed(items: list[Any]) -> Array | Ragged:
    """A list of numbers or strings as an array, a list of lists of differing lengths as ragged."""
    if not any(type(item) is list for item in items):
        if any(isinstance(item, str | bytes) for item in items):
            return _strings(object_array(items))
        array = np.asarray(items) if items else np.zeros(0, np.float32)
        if array.dtype.kind == "O":
            raise Misfit(f"holds a list that is no array: {short(items)}.")
        return array
    rows = [_listed(item) if type(item) is list else canonical(item) for item in items]
    shapes = {row.shape for row in rows if isinstance(row, np.ndarray)}
    arrays = [row for row in rows if isinstance(row, np.ndarray)]
    if len(shapes) == 1 and len(arrays) == len(rows):
        return np.stack(arrays)
    return _ragged(rows)


def _ragged(rows: Sequence[Array | Ragged | Sparse]) -> Ragged:
    """Rows as one ragged value."""
    if any(isinstance(row, Sparse) for row in rows):
        raise Misfit("holds an object array of sparse matrices. Make them one matrix, or several leaves.")
    return join_ragged([row for row in rows if not isinstance(row, Sparse)])


def join_ragged(rows: Sequence[Array | Ragged], rank: int = 1) -> Ragged:
    """Values as the rows of one ragged value, whose splits have at least `rank` levels; raises `Misfit`."""
    rank = max([rank, *(1 + len(row.splits) for row in rows if isinstance(row, Ragged))])
    parts = [_with_splits(row, rank - 1) for row in rows]
    filled = [values for values, _ in parts if values.shape[0]] or [values for values, _ in parts[:1]]
    if len({values.shape[1:] for values in filled}) > 1:
        shapes = sorted({str(values.shape[1:]) for values in filled})
        raise Misfit(f"rows whose inner dimensions differ: {', '.join(shapes)}.")
    levels = []
    for level in range(rank):
        lengths = [np.array([len(s[0]) - 1 if s else len(v)]) for v, s in parts] if level == 0 else []
        lengths = lengths or [np.diff(splits[level - 1]) for _, splits in parts]
        levels.append(splits_of(np.concatenate(lengths) if lengths else np.zeros(0, np.int64)))
    values = np.concatenate(filled) if filled else np.zeros(0, np.float32)
    return Ragged(values, tuple(levels))


def splits_of(lengths: Any) -> npt.NDArray[np.int64]:
    """Row splits (n + 1 of them) of rows with these lengths."""
    splits = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=splits[1:])
    return splits


def _with_splits(value: Array | Ragged, levels: int) -> tuple[Array, list[npt.NDArray[np.int64]]]:
    """Values and splits of `value`, with exactly so many levels of splits inside its rows."""
    if isinstance(value, Ragged):
        values, splits = value.values, list(value.splits)
    else:
        values, splits = value, []
    while len(splits) < levels:
        if values.ndim < 2:
            raise Misfit(f"an array of {values.ndim} dimensions, too few for its ragged dimensions.")
        splits.append(np.arange(values.shape[0] + 1, dtype=np.int64) * values.shape[1])
        values = values.reshape(-1, *values.shape[2:])
    return values, splits


def _foreign(value: Any) -> Array | Ragged | Sparse:
    if isinstance(value, Ragged | Sparse):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise Misfit("holds a masked array, whose mask would be lost. Fill it: `array.filled(0)`.")
    if hasattr(value, "nested_row_splits") and hasattr(value, "flat_values"):
        splits = tuple(np.asarray(splits, np.int64) for splits in value.nested_row_splits)
        values = _array(np.asarray(value.flat_values))
        assert not isinstance(values, Ragged)
        return Ragged(values, splits)
    if hasattr(value, "dense_shape") and hasattr(value, "indices") and hasattr(value, "values"):
        values = _array(np.asarray(value.values))
        assert not isinstance(values, Ragged)
        return _ordered(np.asarray(value.indices), values, value.dense_shape)
    if hasattr(value, "tocoo") and hasattr(value, "nnz"):
        coo = value.tocoo(copy=True)
        coo.sum_duplicates()
        coordinates = getattr(coo, "coords", None) or (coo.row, coo.col)
        return _ordered(np.stack(coordinates, axis=1), coo.data, coo.shape)
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return _converted(np.asarray, value)
    if hasattr(value, "__dlpack__"):
        return _converted(np.from_dlpack, value)
    if value is None:
        raise Misfit("is None. Return arrays, numbers or strings (did a `return` go missing?).")
    raise Misfit(
        f"holds a {type(value).__name__}: {short(value)}. A leaf must be an array, a number, a bool or a string; "
        "containers are dict, list, tuple, namedtuple and dataclass."
    )


def _converted(convert: Any, value: Any) -> Array | Ragged | Sparse:
    try:
        if hasattr(value, "numpy"):
            value = value.numpy()
            return canonical(value) if isinstance(value, bytes) else _array(np.asarray(value))
        array: Array = convert(value)
    except Exception as error:  # a tensor that needs its gradient, lies on a GPU, or has a dtype that NumPy lacks
        raise Misfit(f"holds a {type(value).__name__} that NumPy cannot read: {error}") from error
    return _array(array)


def _ordered(indices: Array, values: Array, shape: Any) -> Sparse:
    """In row-major order, as tf.SparseTensor wants it."""
    indices = np.ascontiguousarray(indices, np.int64)
    order = np.lexsort(indices.T[::-1])
    if not np.array_equal(order, np.arange(len(order))):
        indices, values = indices[order], values[order]
    return Sparse(indices, values, np.asarray(shape, np.int64))
