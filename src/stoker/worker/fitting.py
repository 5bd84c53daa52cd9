"""Whether a value is the leaf that is expected; if not, what is told to the user."""

from __future__ import annotations

from typing import Any

import numpy as np

from stoker.spec import Kind, Leaf, Misfit, is_empty, leaf_of
from stoker.values import PYTHON_NUMBERS, STRING, Array, Ragged, Sparse, canonical


class MisfitAt(Exception):
    """The example at `position` of those to be written does not fit; `reason` tells why."""

    def __init__(self, position: int, reason: Misfit) -> None:
        super().__init__(position, reason)
        self.position, self.reason = position, reason


class Reused(Exception):
    """Examples that are written together lie in the same memory: only the last one is still there."""


def refuse_reused(values: list[Any]) -> None:
    """Raise `Reused` when user code seems to fill and return one array again and again (or up to three in turn).

    Arrays of the dataset itself are read-only in a worker: views of it that overlap, such as windows, are no such case.
    """
    first = values[0]
    if first.flags.writeable and any(np.may_share_memory(first, values[n]) for n in {1, min(2, len(values) - 1), -1}):
        raise Reused


def fitting(leaf: Leaf, value: Any, position: int) -> Any:
    """`value` in canonical form, if it is the leaf that is expected; raises `MisfitAt`."""
    if type(value) is np.ndarray and value.dtype == leaf.dtype and leaf.dtype != STRING and leaf.kind is Kind.DENSE:
        form: Any = value
    else:
        try:
            hollow = is_empty(value) and (leaf.kind is Kind.RAGGED or leaf.lenient)
            form = _nothing(leaf) if hollow else canonical(value)
            came = leaf_of("", form)
        except Misfit as misfit:
            told = str(misfit).removeprefix("it ")
            raise MisfitAt(position, Misfit(f"{at(leaf)}it {told} Expected {leaf} {leaf.origin}.")) from None
        if type(value) is list and not leaf.lenient:
            listed = Misfit(f"{at(leaf)}it holds a list, expected {leaf} {leaf.origin}. Make an array of it.")
            raise MisfitAt(position, listed)
        if leaf.lenient and (type(value) in PYTHON_NUMBERS or type(value) is list):
            form = _as_number(leaf, form)
            came = leaf_of("", form)
        if came.dtype != leaf.dtype or (came.kind is not leaf.kind and Kind.SPARSE in (came.kind, leaf.kind)):
            raise unexpected(leaf, came, position)
    if not isinstance(form, Ragged | Sparse):
        if len(form.shape) != len(leaf.shape) or any(
            size not in (None, its) for size, its in zip(leaf.shape, form.shape, strict=True)
        ):
            raise unexpected(leaf, leaf_of(leaf.path, form), position)
        if form.dtype != leaf.dtype:  # the other byte order
            form = form.astype(leaf.dtype)
    return form


def _nothing(leaf: Leaf) -> Array | Ragged:
    """What an empty list stands for."""
    sizes = tuple(size or 0 for size in leaf.shape[1:])
    if leaf.kind is Kind.RAGGED:
        values = np.zeros((0, *sizes[leaf.ragged_rank :]), leaf.dtype)
        return Ragged(values, tuple(np.zeros(1, np.int64) for _ in range(leaf.ragged_rank)))
    return np.zeros((0, *sizes), leaf.dtype)


def all_fitting(leaf: Leaf, values: list[Any]) -> list[Any]:
    """`fitting` for the values of several examples; raises `Reused` too."""
    forms = values if _are_arrays(leaf, values) else [fitting(leaf, v, position) for position, v in enumerate(values)]
    if len(forms) > 1 and type(forms[0]) is np.ndarray and forms[0].ndim:
        refuse_reused(forms)
    return forms


def _are_arrays(leaf: Leaf, values: list[Any]) -> bool:
    """Whether all are arrays as expected: by far the commonest, so it is looked at first, and quickly."""
    if leaf.kind is not Kind.DENSE or leaf.dtype == STRING or set(map(type, values)) != {np.ndarray}:
        return False
    dtype, ndim, sizes = leaf.dtype, len(leaf.shape), leaf.shape
    is_free = sizes.count(None) == ndim
    for value in values:
        if value.dtype != dtype or value.ndim != ndim:
            return False
        if not is_free and any(size not in (None, its) for size, its in zip(sizes, value.shape, strict=True)):
            return False
    return True


def _as_number(leaf: Leaf, form: Any) -> Any:
    """A Python number or list takes on the dtype of the spec, where its numbers stay what they are."""
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
    repair = "Convert it in your code."
    if (came.dtype, len(came.shape)) == (leaf.dtype, len(leaf.shape)):
        repair = (
            f"Its size is fixed, {leaf.origin}: give None for it in `output_signature` if it varies."
            if leaf.lenient
            else "For examples whose sizes differ give `collate='pad'` or `collate='ragged'` (or None in "
            "`output_signature`); or resize them."
        )
    return MisfitAt(position, Misfit(f"{at(leaf)}it holds {came}, expected {leaf} {leaf.origin}. {repair}"))


def at(leaf: Leaf) -> str:
    """Where a leaf stands, for messages."""
    return f"at {leaf.path} " if leaf.path else ""
