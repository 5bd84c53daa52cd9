"""Ragged and sparse values as plain arrays, for libraries that have no type for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stoker.structure.forms import Array


def padded_ragged(values: Array, splits: Sequence[Array]) -> Array:
    """A ragged value, padded with zeros to the longest row of the batch in each ragged dimension.

    Example:
        >>> padded_ragged(np.array([1, 2, 3]), [np.array([0, 2, 2, 3])]).tolist()
        [[1, 2], [0, 0], [3, 0]]
    """
    for bounds in reversed(splits):
        lengths = np.diff(bounds)
        longest = int(lengths.max(initial=0))
        dense = np.zeros((len(lengths), longest, *values.shape[1:]), values.dtype)
        dense[np.arange(longest) < lengths[:, None]] = values
        values = dense
    return values


def dense_sparse(values: Array, indices: Array, shape: Array) -> Array:
    """A sparse value with its zeros.

    Example:
        >>> dense_sparse(np.array([5.0]), np.array([[1, 2]]), np.array([2, 3])).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 5.0]]
    """
    dense = np.zeros(tuple(shape.tolist()), values.dtype)
    dense[tuple(indices.T)] = values
    return dense
