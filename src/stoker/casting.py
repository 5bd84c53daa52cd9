"""Numbers of one dtype as those of another, for an `output_signature` that tells another one than comes. Pure.

Floats may be rounded. All else must stay what it is: 300 is no uint8, 1.5 and NaN are no int64, 1e300 is no float32.
`tf.data.Dataset.from_generator` makes 44, 1, -2**63 and inf of them without a word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: The kinds of dtypes that each kind may become. No complex number becomes a real one, and no string a number.
_BECOMES = {"b": "biufc", "u": "biufc", "i": "biufc", "f": "biufc", "c": "c"}


class Unfit(Exception):
    """`value`, one of those that were to be cast, is none of the dtype's."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


def is_castable(came: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Whether there are numbers of dtype `came` that may become ones of `dtype`."""
    return came == dtype or _kind(dtype) in _BECOMES.get(_kind(came), ())


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` in `dtype`, which `is_castable`; raises `Unfit`.

    >>> cast(np.array([1.0, 3.0]), np.dtype(np.uint8))
    array([1, 3], dtype=uint8)
    """
    if array.dtype == dtype:
        return array
    if array.dtype.kind == "V":  # first one of NumPy's own that holds them all
        array = array.astype({"f": np.float32, "i": np.int8, "u": np.uint8}[_kind(array.dtype)])
    with np.errstate(all="ignore"):  # NaN stays NaN, and a float may be rounded to 0
        made = array.astype(dtype)
    if array.size and not np.can_cast(array.dtype, dtype, "safe"):
        lost = _lost(array, made)
        if lost is not None and lost.any():
            raise Unfit(array[lost].flat[0])
    return made


def _lost(array: Array, made: Array) -> Any:
    """Which elements are none of the dtype of `made`; None where all are."""
    kind, dtype = array.dtype.kind, made.dtype
    if _kind(dtype) in "fc":
        is_finite = np.isfinite(made)
        return None if is_finite.all() else ~is_finite & (np.isfinite(array) if kind in "fc" else True)
    if dtype.kind == "b":
        return (array != 0) & (array != 1)
    bounds = np.iinfo(dtype)
    low, high = int(bounds.min), int(bounds.max)
    if kind in "iu":
        if int(array.min()) >= low and int(array.max()) <= high:
            return None
        its = np.iinfo(array.dtype)
        return (array < max(low, int(its.min))) | (array > min(high, int(its.max)))
    wide = array if array.dtype.itemsize >= 8 else array.astype(np.float64)
    return ~((wide >= float(low)) & (wide < float(high + 1)) & (np.trunc(wide) == wide))


def _kind(dtype: np.dtype[Any]) -> str:
    """The kind of a dtype, also where it is one of `ml_dtypes`, such as bfloat16."""
    if dtype.kind != "V":
        return dtype.kind
    name = dtype.name.lstrip("b")
    return "f" if name.startswith("float") else "u" if name.startswith("uint") else "i" if name[:3] == "int" else ""
