"""Assembles examples of differing sizes into a batch: sizes first, then each value is copied once into the slot.

If every example has a fixed place, `fixed_rows` writes it there directly. This module makes a batch as a whole: padded,
ragged, sparse, of strings, made by the user's collate function, or already batched by the source.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stoker.structure.collation import Pad, Rule, batch_leaf, filler, rounded
from stoker.structure.forms import (
    STRING,
    Array,
    Misfit,
    Ragged,
    Sparse,
    join_ragged,
    join_strings,
    splits_of,
    with_splits,
)
from stoker.structure.leaf import Kind, Leaf, leaf_of
from stoker.structure.spec import Spec
from stoker.structure.values import PYTHON_NUMBERS, encoded
from stoker.worker.batching.fitting import MisfitAt, all_dense, all_fitting, at, fitting, too_long, unexpected


class Block(NamedTuple):
    """One array to be written into a slot."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Callable[[npt.NDArray[Any]], None]


class Assembler:
    """Assembles batches from examples.

    Args:
        spec: spec of every example; with a collate function or a source of batches, spec of a batch.
        rules: collation rule of each leaf.
        function: makes a batch from a list of examples, or None.
    """

    def __init__(self, spec: Spec, rules: Sequence[Rule], function: Callable[[list[Any]], Any] | None) -> None:
        self._spec, self._function = spec, function
        self._whole = bool(rules) and rules[0] == "asis"
        self._is_alone = spec.tree.is_leaf()
        self._gets = [itemgetter(key) for key in spec.flat_keys() or ()]  # for a plain dict
        self._joins = [_join(leaf, rule) for leaf, rule in zip(spec.leaves, rules, strict=True)]

    def blocks(self, examples: list[Any]) -> list[Block]:
        """The blocks of the batch of `examples`, in the order of the spec's parts; raises `MisfitAt`."""
        if self._function is not None:
            examples = [self._function(examples)]
        elif self._whole and len(examples) != 1:
            raise AssertionError("a source of batches yields one at a time")
        blocks: list[Block] = []
        for join, column in zip(self._joins, self._columns(examples), strict=True):
            blocks += join(column)
        return blocks

    def _columns(self, examples: list[Any]) -> list[list[Any]]:
        """The values of each leaf."""
        kinds, size = set(map(type, examples)), len(self._joins)
        if self._gets and kinds == {dict} and set(map(len, examples)) == {size}:
            try:
                return [list(map(get, examples)) for get in self._gets]
            except KeyError:
                pass  # reported below, with its position
        if self._is_alone and kinds == {np.ndarray}:
            return [examples]
        rows = []
        for position, example in enumerate(examples):
            try:
                rows.append(self._spec.flatten(example))
            except Misfit as misfit:
                raise MisfitAt(position, misfit) from None
        return [list(column) for column in zip(*rows, strict=True)]


_Join = Callable[[list[Any]], list[Block]]


def _join(leaf: Leaf, rule: Rule) -> _Join:
    """The function that turns the values of one leaf into blocks."""
    if rule == "asis":
        return lambda values: _as_is(_of_batch(leaf, fitting(leaf, values[0], 0)))
    if leaf.kind is Kind.SPARSE:
        return partial(_sparse, leaf)
    if isinstance(rule, Pad):
        return partial(_padded, leaf, rule, filler(rule, leaf))
    joined = batch_leaf(leaf, rule, None)
    if joined.kind is Kind.RAGGED:
        return partial(_ragged, leaf, joined.ragged_rank)
    if joined.kind is Kind.VARYING:
        return partial(_varying, leaf)
    return partial(_stacked, leaf)


# ── the values of one leaf ───────────────────────────────────────────────────────────────────
def _stacked(leaf: Leaf, values: list[Any]) -> list[Block]:
    if leaf.dtype == STRING and not leaf.shape:
        try:
            are_str = set(map(type, values)) == {str}
            flat = list(map(str.encode if are_str else encoded, values))
            return string_blocks(flat, (len(flat),))
        except (Misfit, UnicodeEncodeError):
            pass  # reported below, with its position; or it is another kind of string
    if not leaf.shape and set(map(type, values)) <= _number_types(leaf.dtype):
        try:
            return [_copy(np.fromiter(values, leaf.dtype, len(values)))]
        except OverflowError:
            pass  # reported below, with its position
    arrays = all_dense(leaf, values)
    first = arrays[0].shape
    for position, array in enumerate(arrays):
        if array.shape != first:
            came, expected = leaf_of(leaf.path, array), leaf_of(leaf.path, arrays[0])
            raise unexpected(expected, came, position)
    if leaf.dtype == STRING:
        flat = [text for array in arrays for text in array.reshape(-1).tolist()]
        return string_blocks(flat, (len(arrays), *first))
    return [Block((len(arrays), *first), leaf.dtype, partial(_stack_into, arrays))]


@functools.cache
def _number_types(dtype: np.dtype[Any]) -> set[type]:
    """The NumPy and Python number types of this dtype."""
    return {dtype.type, *[number for number, its in PYTHON_NUMBERS.items() if its == dtype]}


def _stack_into(arrays: list[Array], view: Array) -> None:
    for row, array in enumerate(arrays):
        view[row] = array


def _padded(leaf: Leaf, rule: Pad, fill: Any, values: list[Any]) -> list[Block]:
    if not leaf.shape:
        return _stacked(leaf, values)
    forms = all_fitting(leaf, values)
    if Ragged in set(map(type, forms)):
        forms = [_rectangle(form, leaf, fill) for form in forms]
    if rule.truncate:
        forms = [form[tuple(slice(rule.size(place)) for place in range(form.ndim))] for form in forms]
    sizes = []
    is_line = len(leaf.shape) == 1
    dimensions = [list(map(len, forms))] if is_line else zip(*[form.shape for form in forms], strict=True)
    for place, dimension in enumerate(dimensions):
        wanted, longest = rule.size(place), max(dimension)
        if wanted is not None:
            too_long(leaf, rule, place, longest, dimension.index(longest))
        sizes.append(wanted if wanted is not None else rounded(longest, rule.multiple_of))
    if leaf.dtype == STRING:
        whole = np.empty((len(forms), *sizes), object)
        _pad_into(forms, fill, whole)
        return _value_blocks(whole)
    return [Block((len(forms), *sizes), leaf.dtype, partial(_pad_into, forms, fill))]


def _pad_into(arrays: list[Array], fill: Any, view: Array) -> None:
    view[...] = fill
    if view.ndim == 2:
        for row, array in zip(view, arrays, strict=True):
            row[: len(array)] = array
    else:
        for row, array in zip(view, arrays, strict=True):
            row[tuple(map(slice, array.shape))] = array


def _rectangle(form: Any, leaf: Leaf, fill: Any) -> Array:
    """Pad a ragged value to one array."""
    if not isinstance(form, Ragged):
        return np.asarray(form)
    splits = form.splits[0]
    inner = Ragged(form.values, form.splits[1:])
    rows = []
    for start, stop in itertools.pairwise(splits.tolist()):
        rows.append(_rectangle(_cut(inner, start, stop), leaf, fill))
    shapes = [row.shape for row in rows] or [(0,) * len(form.splits) + form.values.shape[1:]]
    sizes = [max(sizes) for sizes in zip(*shapes, strict=True)]
    whole = np.empty((len(rows), *sizes), leaf.dtype)
    _pad_into(rows, fill, whole)
    return whole


def _cut(ragged: Ragged, start: int, stop: int) -> Any:
    """Rows start … stop-1."""
    if not ragged.splits:
        return ragged.values[start:stop]
    splits, low = [], start
    high = stop
    for level in ragged.splits:
        part = level[low : high + 1]
        low, high = int(part[0]), int(part[-1])
        splits.append(part - low)
    return Ragged(ragged.values[low:high], tuple(splits))


def _ragged(leaf: Leaf, rank: int, values: list[Any]) -> list[Block]:
    forms = all_fitting(leaf, values)
    if rank == 1 and leaf.dtype != STRING and leaf.kind is Kind.DENSE:  # by far the most common case
        lengths = list(map(len, forms))
        shape = (sum(lengths), *forms[0].shape[1:])
        return [Block(shape, leaf.dtype, partial(_concatenate, forms)), _copy(splits_of(lengths))]
    try:
        joined = join_ragged(forms, rank)
    except Misfit as misfit:
        raise MisfitAt(0, Misfit(f"{at(leaf)}this batch holds {misfit}")) from None
    return _as_is(Ragged(joined.values.astype(leaf.dtype, copy=False), joined.splits))


def _concatenate(arrays: list[Array], view: Array) -> None:
    if arrays:
        np.concatenate(arrays, out=view)


def _sparse(leaf: Leaf, values: list[Any]) -> list[Block]:
    forms: list[Sparse] = []
    for position, value in enumerate(values):
        form = fitting(leaf, value, position)
        shape = tuple(form.dense_shape.tolist())
        if len(shape) != len(leaf.shape) or any(a not in (None, b) for a, b in zip(leaf.shape, shape, strict=True)):
            raise unexpected(leaf, leaf_of(leaf.path, form), position)
        forms.append(form)
    rows = np.repeat(np.arange(len(forms), dtype=np.int64), [len(form.indices) for form in forms])
    indices = np.concatenate([rows[:, None], np.concatenate([form.indices for form in forms])], axis=1)
    shape = np.max([form.dense_shape for form in forms], axis=0)
    return _as_is(
        Sparse(indices, np.concatenate([form.values for form in forms]), np.array([len(forms), *shape], np.int64))
    )


def _varying(leaf: Leaf, values: list[Any]) -> list[Block]:
    forms = all_dense(leaf, values)
    flat = np.concatenate([form.reshape(-1) for form in forms])
    shapes = np.array([form.shape for form in forms], np.int64)
    return [*_value_blocks(flat), _copy(splits_of([form.size for form in forms])), _copy(shapes)]


def _of_batch(leaf: Leaf, form: Any) -> Any:
    """Convert the value of a whole batch to the memory layout of its leaf."""
    if leaf.kind is Kind.RAGGED:
        levels = leaf.ragged_rank
        if not isinstance(form, Ragged) or len(form.splits) < levels:
            values, splits = with_splits(form, levels)
            form = Ragged(values, tuple(splits))
        if len(form.splits) > levels:
            raise unexpected(leaf, leaf_of(leaf.path, form), 0)
    elif leaf.kind is Kind.DENSE and isinstance(form, Ragged):
        raise unexpected(leaf, leaf_of(leaf.path, form), 0)
    return form


def _as_is(form: Any) -> list[Block]:
    """The blocks of a value that is already a batch."""
    if isinstance(form, Ragged):
        return [*_value_blocks(form.values), *map(_copy, form.splits)]
    if isinstance(form, Sparse):
        return [*_value_blocks(form.values), _copy(form.indices), _copy(form.dense_shape)]
    return _value_blocks(form)


def _value_blocks(array: Array) -> list[Block]:
    if array.dtype != STRING:
        return [_copy(array)]
    return string_blocks(array.reshape(-1).tolist(), array.shape)


def string_blocks(flat: list[bytes], shape: tuple[int, ...]) -> list[Block]:
    """The blocks of an array of strings of this shape."""
    joined, ends = join_strings(flat)
    return [_copy(np.frombuffer(joined, np.uint8)), _copy(ends.reshape(shape))]


def _copy(array: Array) -> Block:
    return Block(array.shape, array.dtype, partial(_copy_into, array))


def _copy_into(array: Array, view: Array) -> None:
    view[...] = array
