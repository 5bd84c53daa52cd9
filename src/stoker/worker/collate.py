"""Examples into the rows of a slot: each is written straight to its place and dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.spec import Leaf, Misfit, Spec, describe

Writer = Callable[[int, Any], None]


class Rows:
    """Writes examples into rows of one batch.

    Args:
        spec: what every example must look like.
        columns: for each leaf, the array over the slot that it is written to.
    """

    def __init__(self, spec: Spec, columns: list[npt.NDArray[Any]]) -> None:
        self._flatten = spec.flatten
        self._writers = [_writer(leaf, column) for leaf, column in zip(spec.leaves, columns, strict=True)]

    def write(self, row: int, example: Any) -> None:
        """Write `example` to `row`; raises `Misfit` when it differs from the spec."""
        for write, value in zip(self._writers, self._flatten(example), strict=True):
            write(row, value)


def _writer(leaf: Leaf, column: npt.NDArray[Any]) -> Writer:
    """What writes one leaf. The common case, an ndarray or number of the right kind, costs two comparisons."""
    shape, dtype = leaf.shape, leaf.dtype
    python = {"bool": bool, "int64": int, "float64": float, "complex128": complex}.get(dtype.name) if not shape else None

    def write(row: int, value: Any) -> None:
        if type(value) is np.ndarray:
            if value.dtype != dtype or value.shape != shape:
                _check(leaf, value)
        elif type(value) is not python or (python is int and not -(2**63) <= value < 2**63):
            _check(leaf, value)
            value = np.asarray(value)
        column[row] = value

    return write


def _check(expected: Leaf, value: Any) -> None:
    """Raise `Misfit` unless `value` is the leaf that is expected (in whatever byte order)."""
    came = describe(expected.path, value)
    if came != expected:
        where = f"at {expected.path} " if expected.path else ""
        raise Misfit(
            f"{where}it holds {came}, expected {expected} as in example 0. Examples are stacked, so every one "
            "must have the same shapes and dtypes: resize, pad or convert it in `__getitem__` or in `transform`."
        )
