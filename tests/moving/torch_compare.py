"""Compares batches with those of PyTorch."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

import stoker
from stoker.structure.values import canonical


def assert_same(ours: Any, theirs: Any) -> None:
    """Compare a batch with PyTorch's. A tuple may be a list there, and strings are a list."""
    if isinstance(theirs, Mapping):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple | collections.UserList) and not isinstance(ours, np.ndarray):
        assert type(ours) is type(theirs) or type(ours) in (tuple, list)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        expected = canonical(list(theirs) if isinstance(theirs, tuple) else theirs)
        assert isinstance(expected, np.ndarray)
        assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(ours, expected)


def batches_of(source: Any, **options: Any) -> list[Any]:
    with stoker.Loader(source, **options) as loader:
        return list(loader)


def assert_all_same(source: Any, loader: Any, **options: Any) -> None:
    ours, theirs = batches_of(source, **options), list(loader)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert_same(one, other)


def numbers(batches: Any) -> list[list[int]]:
    return [np.asarray(batch).tolist() for batch in batches]  # arrays, tensors or ints


def rows_of(batches: list[list[int]]) -> list[int]:
    return sorted(chain.from_iterable(batches))
