"""A batch in NumPy's form: the representation of each kind of leaf.

dense     the array in shared memory, read-only
strings   an object array of `bytes`, as from `tf.Tensor.numpy()`
ragged    an object array of arrays, as from `tf.RaggedTensor.numpy()`; they are views of shared memory
sparse    a named tuple (indices, values, dense_shape), as `tf.compat.v1.SparseTensorValue`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stoker.memory.layout import aligned_copy
from stoker.structure.collation import Form
from stoker.structure.forms import STRING, Array, Ragged, Sparse, cut_strings, join_strings
from stoker.structure.leaf import Kind, Leaf


def batch(form: Form, arrays: Sequence[Array]) -> Any:
    """The batch in these arrays, nested as the user's examples are."""
    if len(arrays) == len(form.batch.leaves) and form.in_place:
        return form.batch.unflatten(arrays)
    return form.batch.unflatten(
        value if isinstance(value, np.ndarray | Sparse) else value.nested() for value in _values(form, arrays)
    )


def examples(form: Form, arrays: Sequence[Array]) -> Iterator[Any]:
    """The examples of a batch whose rows are handed out one by one."""
    columns = [_rows(leaf, value) for leaf, value in zip(form.batch.leaves, _values(form, arrays), strict=True)]
    for row in zip(*columns, strict=True):
        yield form.batch.unflatten(row)


def behind(form: Form, arrays: Sequence[Array], rows: int) -> list[Array]:
    """Copies of the arrays of a batch without its first `rows` rows, for examples that are handed out one by one."""
    found: list[Array] = []
    start = 0
    for leaf, count in zip(form.batch.leaves, form.counts, strict=True):
        found += _behind(leaf, list(arrays[start : start + count]), rows)
        start += count
    return [aligned_copy(array) for array in found]


def _behind(leaf: Leaf, parts: list[Array], rows: int) -> list[Array]:
    if leaf.dtype == STRING:
        texts, *rest = _cut(leaf, [cut_strings(parts[0], parts[1]), *parts[2:]], rows)
        joined, ends = join_strings(texts.reshape(-1).tolist())
        return [np.frombuffer(joined, np.uint8), ends.reshape(texts.shape), *rest]
    return _cut(leaf, parts, rows)


def _cut(leaf: Leaf, parts: list[Array], rows: int) -> list[Array]:
    values, *rest = parts
    match leaf.kind:
        case Kind.DENSE:
            return [values[rows:]]
        case Kind.VARYING:
            splits, shapes = rest
            return [values[splits[rows] :], splits[rows:] - splits[rows], shapes[rows:]]
        case Kind.RAGGED:
            first, all_splits = rows, []
            for splits in rest:
                all_splits.append(splits[first:] - splits[first])
                first = int(splits[first])
            return [values[first:], *all_splits]
        case Kind.SPARSE:
            indices, shape = rest
            kept = indices[:, 0] >= rows
            moved, left = indices[kept], shape.copy()
            moved[:, 0] -= rows
            left[0] -= rows
            return [values[kept], moved, left]


def _values(form: Form, arrays: Sequence[Array]) -> Iterator[Any]:
    start = 0
    for leaf, count in zip(form.batch.leaves, form.counts, strict=True):
        yield _value(leaf, arrays[start : start + count])
        start += count


def _value(leaf: Leaf, parts: Sequence[Array]) -> Any:
    values, rest = parts[0], parts[1:]
    if leaf.dtype == STRING:
        values, rest = cut_strings(values, parts[1]), parts[2:]
    match leaf.kind:
        case Kind.DENSE:
            return values
        case Kind.RAGGED:
            return Ragged(values, tuple(rest))
        case Kind.SPARSE:
            return Sparse(rest[0], values, rest[1])
        case Kind.VARYING:
            splits, shapes = rest
            rows = np.empty(len(shapes), object)
            for row, shape in enumerate(shapes.tolist()):
                rows[row] = values[splits[row] : splits[row + 1]].reshape(shape)
            return rows


def _rows(leaf: Leaf, value: Any) -> list[Any]:
    """The rows of a leaf, each in the form that an example has."""
    if isinstance(value, Ragged):
        return list(value.nested())
    if isinstance(value, Sparse):
        rows = int(value.dense_shape[0])
        bounds = np.searchsorted(value.indices[:, 0], np.arange(rows + 1))
        return [
            Sparse(value.indices[start:stop, 1:], value.values[start:stop], value.dense_shape[1:])
            for start, stop in zip(bounds.tolist(), bounds[1:].tolist(), strict=False)
        ]
    return list(value)
