"""Checks values against the expected leaf, and makes the error messages for those that do not fit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from stoker.structure.casting import CannotCast, cast, is_castable, is_within
from stoker.structure.collation import Pad
from stoker.structure.foreign import plain_torch
from stoker.structure.forms import STRING, Array, Misfit, Ragged, Sparse
from stoker.structure.leaf import Kind, Leaf, dtype_repair, empty_as, leaf_of, undetermined_by
from stoker.structure.values import PYTHON_NUMBERS, builtin, canonical


class MisfitAt(Exception):
    """The example at `position` among those to be written does not fit; `reason` holds the cause."""

    def __init__(self, position: int, reason: Misfit) -> None:
        super().__init__(position, reason)
        self.position, self.reason = position, reason


class Uneven(Exception):
    """The transform returned SKIP or Many where exactly one example was expected."""


def fitting(leaf: Leaf, value: Any, position: int) -> Any:
    """Convert `value` to canonical form; raises `MisfitAt` if it does not match the leaf."""
    value = plain_torch(value)
    if _is_as_expected(leaf, value):
        form: Any = value
    elif leaf.signed and is_within(value, leaf.dtype):  # fast path for a number
        form = np.array(value, leaf.dtype)
    else:
        return _read(leaf, value, position)
    if not _has_sizes(leaf, form.shape):
        raise unexpected(leaf, leaf_of(leaf.path, form), position)
    return form


def _read(leaf: Leaf, value: Any, position: int) -> Any:
    """Convert `value` to canonical form, with the expected dtype and kind; raises `MisfitAt`."""
    try:
        form: Any = _cast(leaf, value) if leaf.signed and leaf.kind is Kind.DENSE else None
        if form is not None and _has_sizes(leaf, form.shape):
            return form
        value = builtin(value)
        if form is None:
            form = canonical(_wide(value) if leaf.signed else value)
            if leaf.kind is not Kind.SPARSE and undetermined_by(value, form):
                form = empty_as(leaf, form)
            form = _converted(leaf, form) if leaf.signed else form
        came = leaf_of("", form)
    except Misfit as misfit:
        text = str(misfit).removeprefix("it ")
        raise MisfitAt(position, Misfit(f"{at(leaf)}it {text} E{leaf.expected[1:]}.")) from None
    except CannotCast as unfit:
        raise _unfit(leaf, value, unfit.value, position) from None
    are_loose = type(value) is list or (type(value) is np.ndarray and value.dtype == STRING)
    if are_loose or (leaf.lenient and type(value) in PYTHON_NUMBERS):
        form = _as_number(leaf, form)
        came = leaf_of("", form)
    if came.dtype != leaf.dtype or (came.kind is not leaf.kind and Kind.SPARSE in (came.kind, leaf.kind)):
        raise unexpected(leaf, came, position)
    if not _has_sizes(leaf, came.shape):
        raise unexpected(leaf, dataclasses.replace(came, path=leaf.path), position)
    if not isinstance(form, Ragged | Sparse) and form.dtype != leaf.dtype:  # opposite byte order
        form = form.astype(leaf.dtype)
    return form


def _cast(leaf: Leaf, value: Any) -> Array | None:
    """Fast path: cast a NumPy array or number to the dtype of the signature; raises `CannotCast`."""
    if type(value) is not np.ndarray:
        if not isinstance(value, np.number | np.bool_):
            return None
        value = np.asarray(value)
    # Strings must be encoded instead.
    is_number = value.size > 0 and value.dtype != STRING and is_castable(value.dtype, leaf.dtype)
    return cast(value, leaf.dtype) if is_number else None


def _wide(value: Any) -> Any:
    """Convert a Python int that exceeds a signed 64-bit integer to a NumPy number that may hold it."""
    if type(value) is not int or -(2**63) <= value < 2**63:
        return value
    try:
        return np.uint64(value) if 0 <= value < 2**64 else np.float64(value)
    except OverflowError:  # exceeds the range of floats
        return value


def _converted(leaf: Leaf, form: Any) -> Any:
    """Cast the numbers in `form` to the dtype of the signature; raises `CannotCast`."""
    values = _values(form)
    if values.dtype == leaf.dtype or (values.size and not is_castable(values.dtype, leaf.dtype)):
        return form
    values = cast(values, leaf.dtype) if values.size else np.zeros(values.shape, leaf.dtype)
    if isinstance(form, Ragged):
        return Ragged(values, form.splits)
    return form._replace(values=values) if isinstance(form, Sparse) else values


def _unfit(leaf: Leaf, came: Any, value: Any, position: int) -> MisfitAt:
    """The exception for an example that holds `came`, whose `value` the signature's dtype cannot represent."""
    form = canonical(_wide(came))
    came = f"{form.dtype.name} of shape {form.shape}" if isinstance(form, np.ndarray) else _values(form).dtype.name
    misfit = Misfit(
        f"{at(leaf)}it holds {came}, {leaf.expected}, and {value} does not fit into {leaf.dtype_name}. Round, clip or "
        "scale it in your code, or declare a dtype that can hold it."
    )
    return MisfitAt(position, misfit)


def _values(form: Any) -> Array:
    values: Array = form.values if isinstance(form, Ragged | Sparse) else form
    return values


def _is_as_expected(leaf: Leaf, value: Any) -> bool:
    """True for an array of the expected dtype and rank. By far the most common case, so it is checked first."""
    if type(value) is not np.ndarray or leaf.kind is not Kind.DENSE:
        return False
    if value.ndim != len(leaf.shape) or (value.ndim > 1 and not value.size):  # sizes of an empty array may be adapted
        return False
    return value.dtype == leaf.dtype and leaf.dtype != STRING and value.dtype.isnative


def _has_sizes(leaf: Leaf, shape: Any) -> bool:
    """True if the leaf accepts a value of this shape."""
    expected = leaf.shape
    if shape == expected:
        return True
    if leaf.kind is Kind.RAGGED:  # the number of rows of a ragged value may vary
        expected = (None, *expected[1:])
    return len(shape) == len(expected) and all(size in (None, its) for size, its in zip(expected, shape, strict=True))


def all_dense(leaf: Leaf, values: list[Any]) -> list[Any]:
    """Like `all_fitting`, but rejects values with rows of differing lengths."""
    forms = all_fitting(leaf, values)
    for position, form in enumerate(forms):
        if type(form) is not np.ndarray:
            raise unexpected(leaf, leaf_of(leaf.path, form), position)
    return forms


def all_fitting(leaf: Leaf, values: list[Any]) -> list[Any]:
    """Apply `fitting` to the values of several examples."""
    return values if _are_arrays(leaf, values) else [fitting(leaf, v, position) for position, v in enumerate(values)]


def _are_arrays(leaf: Leaf, values: list[Any]) -> bool:
    """True if all values are arrays as expected. By far the most common case, so it is checked first."""
    if leaf.kind is not Kind.DENSE or leaf.dtype == STRING or set(map(type, values)) != {np.ndarray}:
        return False
    dtype, ndim, sizes = leaf.dtype, len(leaf.shape), leaf.shape
    is_free = sizes.count(None) == ndim
    for value in values:
        came = value.dtype
        if (came is not dtype and came != dtype) or value.ndim != ndim or (ndim > 1 and not value.size):
            return False
        if not is_free and any(size not in (None, its) for size, its in zip(sizes, value.shape, strict=True)):
            return False
    return True


def _as_number(leaf: Leaf, form: Any) -> Any:
    """Convert a Python number or list to the dtype of the spec, provided that its numbers keep their values."""
    if isinstance(form, Ragged):
        return Ragged(_as_number(leaf, form.values), form.splits)
    if form.dtype == leaf.dtype or (form.size and STRING in (form.dtype, leaf.dtype)):
        return form
    kinds = {"i": "iufc", "f": "fc", "c": "c"}.get(form.dtype.kind, "")
    fits = not form.size or (leaf.dtype.kind in kinds and _same(form, leaf.dtype)) or leaf.dtype.name == "bfloat16"
    return form.astype(leaf.dtype) if fits else form


def _same(form: Array, dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fc" or bool((form.astype(dtype) == form).all())


def unexpected(leaf: Leaf, came: Leaf, position: int) -> MisfitAt:
    """The exception for an example that holds `came` where `leaf` is expected."""
    repair = dtype_repair(leaf, came)
    if leaf.undetermined:
        repair = (
            "It was empty in the first examples, so the dtype and the sizes of others were unknown: declare them in "
            "`output_signature`."
        )
    elif (came.dtype, len(came.shape)) == (leaf.dtype, len(leaf.shape)):
        repair = (
            f"Its size is fixed, {leaf.origin}: declare it as None in `output_signature` if it varies."
            if leaf.lenient or leaf.is_alone
            else "If the sizes of examples differ, use `collate='pad'` or `collate='ragged'` (or None in "
            "`output_signature`), or resize them."
        )
    return MisfitAt(position, Misfit(f"{at(leaf)}it holds {came}, {leaf.expected}. {repair}"))


def too_long(leaf: Leaf, rule: Pad, place: int, size: int, position: int) -> None:
    """Raise `MisfitAt` if an example exceeds the padded size in a dimension."""
    wanted = rule.size(place)
    if wanted is not None and size > wanted and not rule.truncate:
        misfit = Misfit(
            f"{at(leaf)}it has size {size} in dimension {place}, more than pad(to={wanted}). Cut it with "
            "pad(truncate=True) or in your code, or pad to a larger size."
        )
        raise MisfitAt(position, misfit)


def at(leaf: Leaf) -> str:
    """The location of a leaf, as a prefix for messages."""
    return f"at {leaf.path} " if leaf.path else ""
