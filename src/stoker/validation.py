"""Checks of single option values, for Python and NumPy numbers alike."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

import numpy as np

from stoker.errors import OptionError


def index(value: Any) -> int | None:
    """`value` as an int, or None if it is not a whole number; booleans do not count."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def whole(name: str, value: Any, *, least: int | None) -> int:
    """`value` as an int. Raises `OptionError` unless it is a whole number of at least `least`."""
    number = index(value)
    if number is None or (least is not None and number < least):
        bound = "" if least is None else f" of at least {least}"
        raise OptionError(f"{name} must be an int{bound}, got {value!r}")
    return number


def flag(name: str, value: Any) -> bool:
    """`value` as a bool. Raises `OptionError` unless it is True, False, 1 or 0."""
    if isinstance(value, bool | np.bool_) or index(value) in (0, 1):
        return bool(value)
    raise OptionError(f"{name} must be True or False, got {value!r}")


def is_flag(value: Any) -> bool:
    """True if the value is a boolean of Python or NumPy."""
    return isinstance(value, bool | np.bool_)


def real(value: Any) -> float | None:
    """`value` as a float, or None if it is not a real number."""
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value[()]
    if isinstance(value, np.bool_) or not isinstance(value, numbers.Real):
        return None
    return float(value)


def length_of(value: Any) -> float | None:
    """A number of examples: an int, `math.inf`, or None if unknown. Raises `OptionError` for anything else."""
    if value is None:
        return None
    if real(value) == math.inf:
        return math.inf
    number = index(value)
    if number is None or number < 0:
        raise OptionError(f"length must be the number of examples, math.inf or None, got {value!r}")
    return number
