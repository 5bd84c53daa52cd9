"""Checked conversion of numbers to the dtype that `output_signature` declares. Pure.

Floats may be rounded. Any other change of value is an error: 300 is no uint8, 1.5 and NaN are no int64, 1e300 is no
float32. `tf.data.Dataset.from_generator` silently converts these to 44, 1, -2**63 and inf.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: The dtype kinds that each kind may be converted to. Complex never becomes real, and strings never become numbers.
_BECOMES = {"b": "biufc", "u": "biufc", "i": "biufc", "f": "biufc", "c": "c"}


class CannotCast(Exception):
    """The dtype cannot represent `value`, one of the numbers to convert."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


def is_within(number: Any, dtype: np.dtype[Any]) -> bool:
    """True for a Python number that lies within the bounds of `dtype` and so needs no further check.

    >>> is_within(7, np.dtype(np.uint8)), is_within(300, np.dtype(np.uint8)), is_within(1.0, np.dtype(np.uint8))
    (True, False, False)
    """
    kind = type(number)
    if not (kind is int or (kind is float and dtype.kind == "f")):
        return False
    low, high = _bounds(dtype)
    return bool(low <= number <= high)


@functools.cache
def is_castable(came: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """True if at least some numbers of dtype `came` can be converted to `dtype`."""
    return came == dtype or _kind(dtype) in _BECOMES.get(_kind(came), ())


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Convert `array` to `dtype`, for which `is_castable` holds. Raises `CannotCast`.

    >>> cast(np.array([1.0, 3.0]), np.dtype(np.uint8))
    array([1, 3], dtype=uint8)
    """
    if array.dtype == dtype:
        return array
    if _is_safe(array.dtype, dtype):
        return array.astype(dtype)
    if array.dtype.kind == "V":  # via a NumPy dtype that holds all its values
        array = array.astype({"f": np.float32, "i": np.int8, "u": np.uint8}[_kind(array.dtype)])
    with np.errstate(all="ignore"):  # NaN stays NaN, and a float may be rounded to 0
        made = array.astype(dtype)
    if array.size:
        lost = _lost(array, made)
        if lost is not None and lost.any():
            raise CannotCast(array[lost].flat[0])
    return made


@functools.cache
def _is_safe(came: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """True if `dtype` can represent all numbers of dtype `came`, perhaps rounded."""
    is_float = came.kind in "biu" and dtype.kind in "fc" and dtype not in (np.float16, np.complex64)
    return is_float or (came.kind != "V" and bool(np.can_cast(came, dtype, "safe")))


@functools.cache
def _bounds(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the greatest number of a NumPy dtype; an empty range for other dtypes."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if dtype.kind == "f" and dtype.name.startswith("float") and "_" not in dtype.name:
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return math.inf, -math.inf


def _lost(array: Array, made: Array) -> Any:
    """A mask of the elements that the dtype of `made` cannot represent; None if it can represent all."""
    kind, dtype = array.dtype.kind, made.dtype
    if _kind(dtype) in "fc":
        is_finite = np.isfinite(made)
        return None if is_finite.all() else ~is_finite & (np.isfinite(array) if kind in "fc" else True)
    if dtype.kind == "b":
        return (array != 0) & (array != 1)
    low, high = _bounds(dtype)
    if kind in "iu":
        least, greatest = _bounds(array.dtype)
        if int(array.min()) >= low and int(array.max()) <= high:
            return None
        return (array < max(low, least)) | (array > min(high, greatest))
    wide = array if array.dtype.itemsize >= 8 else array.astype(np.float64)
    return ~((wide >= float(low)) & (wide < float(high + 1)) & (np.trunc(wide) == wide))


def _kind(dtype: np.dtype[Any]) -> str:
    """The kind of a dtype, including those of `ml_dtypes`, such as bfloat16."""
    if dtype.kind != "V":
        return dtype.kind
    name = dtype.name.lstrip("b")
    return "f" if name.startswith("float") else "u" if name.startswith("uint") else "i" if name[:3] == "int" else ""
