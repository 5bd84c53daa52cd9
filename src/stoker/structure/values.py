"""The values of an example's leaves, converted to one of the canonical forms. Pure; imports no other framework.

Foreign objects (tensors of TensorFlow, PyTorch and JAX, PIL images, SciPy matrices) are recognised by
their interface: `__array__`, DLPack, or characteristic attributes.
"""

from __future__ import annotations

from array import array as PackedArray
from collections import UserList
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import Any

import numpy as np

from stoker.structure.foreign import Coordinates, is_jax_sparse, is_torch, of_jax_sparse, of_torch
from stoker.structure.forms import (
    STRING,
    Array,
    Misfit,
    Ragged,
    Sparse,
    join_nested,
    join_ragged,
    ordered_sparse,
    require_one_kind,
)
from stoker.structure.lists import are_numbers, are_strings, is_number, kinds_of

#: The dtypes for Python's own numbers.
PYTHON_NUMBERS = {
    bool: np.dtype(np.bool_),
    int: np.dtype(np.int64),
    float: np.dtype(np.float64),
    complex: np.dtype(np.complex128),
}


#: Convert an instance of a subclass to the plain number, bypassing its own methods.
_NUMBERS: dict[Any, Any] = {
    int: int.__int__,
    float: float.__float__,
    complex: lambda value: complex(value.real, value.imag),
}
_BUILTIN = frozenset([*PYTHON_NUMBERS, str, bytes, list, tuple, dict, type(None)])


def canonical(value: Any) -> Array | Ragged | Sparse:
    """Convert `value` to one of the three forms. Raises `Misfit` if it has none, or if reading it raises."""
    try:
        return _canonical(value)
    except (Misfit, MemoryError):
        raise
    except RecursionError:
        raise Misfit(f"holds a {type(value).__name__} that is nested too deeply, or contains itself.") from None
    except Exception as error:
        raise _unreadable(value, error) from error


def _canonical(value: Any) -> Array | Ragged | Sparse:
    kind = type(value)
    if kind is np.ndarray:
        return _array(value)
    if kind is str or kind is bytes:
        array = np.empty((), object)
        array[()] = encoded(value)
        return array
    if kind in PYTHON_NUMBERS:
        if kind is int and not -(2**63) <= value < 2**63:
            raise Misfit(f"holds the int {short(value)}, which needs more than 64 bits.")
        return np.array(value, PYTHON_NUMBERS[kind])
    if kind is list:
        return _listed(value)
    if isinstance(value, str | bytes):  # NumPy string scalars, which as arrays would lose trailing zeros
        return canonical(encoded(value))
    plain = builtin(value)
    return _foreign(value) if plain is value else canonical(plain)


def builtin(value: Any) -> Any:
    """Convert instances of number and list subclasses, such as an `IntEnum`, to the plain type, and ranges to lists."""
    if isinstance(value, np.generic | np.ndarray) or type(value) in _BUILTIN:
        return value
    for number in (int, float, complex):
        if isinstance(value, number):
            return _NUMBERS[number](value)
    if isinstance(value, list | UserList | range):
        return list(value)
    if isinstance(value, bytearray):
        return bytes(value)
    return value


def encoded(text: Any) -> bytes:
    """The bytes of a string; `str` is encoded as UTF-8."""
    if type(text) is bytes:
        return text
    if not isinstance(text, str):
        if isinstance(text, bytes):
            return bytes(text)
        raise Misfit(
            f"holds an object array that contains a {type(text).__name__}: {short(text)}. Only str and bytes, or "
            "arrays of numbers (rows of differing lengths), can be batched."
        )
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Misfit(
            f"holds text that is not valid Unicode: {ascii(text)[:80]}. Pass its bytes instead, for example "
            "`text.encode('utf-8', 'surrogateescape')` or `os.fsencode(name)`."
        ) from None


def short(value: Any) -> str:
    """A truncated `repr`."""
    try:
        text = repr(value)
    except Exception as error:  # the user's own `__repr__`, or an int of too many digits
        text = f"<{type(value).__name__} whose repr() raises {type(error).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def _unreadable(value: Any, error: Exception) -> Misfit:
    try:
        reason = str(error) or type(error).__name__
    except Exception:  # the user's own `__str__`
        reason = type(error).__name__
    return Misfit(f"holds a {type(value).__name__} that NumPy cannot read: {reason}")


def _array(array: Array) -> Array | Ragged:
    kind = array.dtype.kind
    if kind == "O":
        return _objects(array)
    return _strings(array) if kind in "SUT" else array


def _objects(array: Array) -> Array | Ragged:
    """Convert an object array of strings, of numbers (as in a row of a table), or of rows of differing lengths."""
    items = array.reshape(-1).tolist()
    kinds = set(map(type, items))
    if not items or isinstance(items[0], str | bytes):
        return _strings(array)
    if are_numbers(kinds):
        return _numbers(items, kinds).reshape(array.shape)
    odd = next(item for item in items if not is_number(type(item)))
    is_rows = array.ndim == 1 and not any(is_number(kind) or issubclass(kind, str | bytes) for kind in kinds)
    if is_rows and not isinstance(odd, tuple | dict | None):
        return _ragged([canonical(item) for item in items])
    raise Misfit(
        f"holds an object array that contains a {type(odd).__name__}: {short(odd)}. Convert it to an array of numbers, "
        "for example with `array.astype('float32')`, or of strings, or of arrays (rows of differing lengths)."
    )


def _strings(array: Array) -> Array:
    return np.array(list(map(encoded, array.reshape(-1).tolist())), object).reshape(array.shape)


def _listed(items: list[Any]) -> Array | Ragged:
    """Convert a list of numbers or strings to an array, and lists of differing lengths to ragged."""
    kinds, is_even = kinds_of(items)
    if is_even and not kinds:
        return np.asarray(items, np.float32)
    if is_even and are_strings(kinds):
        return _strings(np.array(items, object))
    if is_even and are_numbers(kinds):
        return _numbers(items, kinds)
    if any(isinstance(item, str | bytes) or is_number(type(item)) for item in items):
        raise Misfit(
            f"holds a list that is not an array: {short(items)}. A list of anything but numbers, or strings, is a "
            "container; pass np.array(…) for an array."
        )
    rows = [canonical(item) for item in items]
    arrays = [row for row in rows if isinstance(row, np.ndarray)]
    if len(arrays) == len(rows) and len({row.shape for row in arrays}) == 1:
        require_one_kind(arrays)
        return np.stack(arrays)
    return _ragged(rows)


def _numbers(items: list[Any], kinds: Collection[type]) -> Array:
    """Convert nested lists of numbers to an array. Refuses integers that NumPy would turn into inexact floats."""
    array = np.asarray(items)
    are_whole = all(issubclass(kind, int | np.integer | np.bool_) for kind in kinds)
    if (
        array.dtype == STRING
        or (are_whole and array.dtype.kind not in "biu")
        or (int in kinds and array.dtype.kind == "u")
    ):
        raise Misfit(f"holds integers that need more than 64 bits: {short(items)}.")
    return array


def _ragged(rows: Sequence[Array | Ragged | Sparse]) -> Ragged:
    """Join rows into one ragged value."""
    if any(isinstance(row, Sparse) for row in rows):
        raise Misfit("holds an object array of sparse matrices. Combine them into one, or return several leaves.")
    if any(isinstance(row, np.ndarray) and not row.ndim for row in rows):
        raise Misfit("holds both single values and rows. Convert all of them to arrays.")
    try:
        return join_ragged([row for row in rows if not isinstance(row, Sparse)])
    except Misfit as misfit:
        raise Misfit(f"holds {str(misfit).removeprefix('holds ')}") from None


def _foreign(value: Any) -> Array | Ragged | Sparse:
    if isinstance(value, Ragged | Sparse):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise Misfit("holds a masked array, whose mask would be lost. Fill it: `array.filled(0)`.")
    if isinstance(value, type):
        raise Misfit(f"holds the class {value.__name__} itself. Return an instance of it, or an array.")
    if is_torch(value):
        return _read(value, of_torch)
    if is_jax_sparse(value):
        return _read(value, of_jax_sparse)
    if hasattr(value, "nested_row_splits") and hasattr(value, "flat_values"):
        return _row_split(value.flat_values, tuple(np.asarray(splits, np.int64) for splits in value.nested_row_splits))
    if hasattr(value, "dense_shape") and hasattr(value, "indices") and hasattr(value, "values"):
        values = _array(np.asarray(value.values))
        assert not isinstance(values, Ragged)
        return ordered_sparse(np.asarray(value.indices), values, value.dense_shape)
    if hasattr(value, "tocoo") and hasattr(value, "nnz"):
        coo = value.tocoo(copy=True)
        coo.sum_duplicates()
        coordinates = getattr(coo, "coords", None) or (coo.row, coo.col)
        data = _array(coo.data)
        assert not isinstance(data, Ragged)
        return ordered_sparse(np.stack(coordinates, axis=1), data, coo.shape)
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return _converted(np.asarray, value)
    if hasattr(value, "__dlpack__"):
        return _converted(np.from_dlpack, value)
    if isinstance(value, memoryview | PackedArray):
        return _converted(np.asarray, value)
    if isinstance(value, Enum):
        repair = f"Pass its value, or make {type(value).__name__} an IntEnum."
        raise Misfit(f"holds {value}, which is not a number. {repair}")
    if value is None:
        raise Misfit("is None. Return arrays, numbers or strings (is a `return` missing?).")
    raise Misfit(
        f"holds a {type(value).__name__}: {short(value)}. A leaf must be an array, a number, a bool or a string; "
        "containers are dict, list, tuple, namedtuple and dataclass."
    )


def _row_split(flat: Any, splits: tuple[Array, ...]) -> Ragged:
    """A ragged value from TensorFlow's parts. Raises `Misfit` if they are inconsistent."""
    values = _array(np.asarray(flat))
    fits = bool(splits) and not isinstance(values, Ragged) and values.ndim > 0
    inner: list[Any] = [*splits[1:], None]
    for level, below in zip(splits, inner, strict=True) if fits else ():
        length = len(values) if below is None else len(below) - 1  # type: ignore[arg-type]  # it is an array, if it fits
        fits = fits and level.ndim == 1 and len(level) > 0 and level[0] == 0 and level[-1] == length
        fits = fits and bool((np.diff(level) >= 0).all())
    if not fits:
        raise Misfit("holds ragged values whose row splits do not match them.")
    assert not isinstance(values, Ragged)
    return Ragged(values, splits)


def _read(value: Any, read: Callable[[Any], Array | list[Any] | Coordinates]) -> Array | Ragged | Sparse:
    """Read a foreign value with `read`, and convert the result to canonical form."""
    try:
        came = read(value)
    except Exception as error:  # it lies on a GPU, or has a dtype that NumPy lacks
        raise _unreadable(value, error) from error
    if isinstance(came, Coordinates):
        return ordered_sparse(came.indices, came.values, came.shape)
    if isinstance(came, list):
        return join_nested([canonical(row) for row in came])
    return _array(came)


def _converted(convert: Any, value: Any) -> Array | Ragged | Sparse:
    try:
        if hasattr(value, "numpy"):
            value = value.numpy()
            return canonical(value) if isinstance(value, bytes) else _array(np.asarray(value))
        array: Array = convert(value)
    except Exception as error:  # a tensor that needs its gradient, lies on a GPU, or has a dtype that NumPy lacks
        raise _unreadable(value, error) from error
    return _array(array)
