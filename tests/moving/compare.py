"""Compares batches with those of another library: structure, order, values and dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np


def plain(batch: Any) -> Any:
    """A batch as dicts, tuples and NumPy arrays; strings are bytes."""
    if isinstance(batch, dict):
        return {name: plain(part) for name, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(map(plain, batch))
    if hasattr(batch, "indices") and hasattr(batch, "dense_shape"):
        return tuple(plain(np.asarray(part)) for part in (batch.indices, batch.values, batch.dense_shape))
    array = np.asarray(batch)
    if array.dtype.kind in "UO" and all(isinstance(item, str) for item in array.reshape(-1).tolist()):
        return np.vectorize(str.encode, [object])(array) if array.size else array.astype(object)
    return array.astype(object) if array.dtype.kind == "S" else array


def assert_same(came: Any, expected: Any) -> None:
    """Both are the same batch, or lists of the same batches."""
    if isinstance(expected, list):
        assert len(came) == len(expected)
        for one, other in zip(came, expected, strict=True):
            _assert_same(plain(one), plain(other))
    else:
        _assert_same(plain(came), plain(expected))


def _assert_same(came: Any, expected: Any) -> None:
    assert type(came) is type(expected)
    if isinstance(expected, dict):
        assert came.keys() == expected.keys()
        came, expected = tuple(came[name] for name in expected), tuple(expected.values())
    if isinstance(expected, tuple):
        assert len(came) == len(expected)
        for one, other in zip(came, expected, strict=True):
            _assert_same(one, other)
        return
    assert came.dtype == expected.dtype
    if came.dtype == object and any(isinstance(row, np.ndarray) for row in came.reshape(-1)):
        for one, other in zip(came, expected, strict=True):
            _assert_same(one, other)
        return
    np.testing.assert_array_equal(came, expected)
