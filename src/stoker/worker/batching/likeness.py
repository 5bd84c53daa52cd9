"""Checks that an example resembles the others. With `on_error="skip"`, those that do not are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optree

from stoker.structure.collation import Collation, Form, Pad, Rule
from stoker.structure.forms import STRING, Misfit
from stoker.structure.leaf import Kind, Leaf
from stoker.structure.nesting import plain
from stoker.structure.spec import Spec
from stoker.structure.values import PYTHON_NUMBERS, canonical
from stoker.worker.batching.fitting import MisfitAt, fitting, too_long

#: Python's number types by dtype.
_NUMBERS = {dtype: number for number, dtype in PYTHON_NUMBERS.items()}
#: Types that never raise when they are read.
_SETTLED = np.ndarray, np.generic, str, bytes, int, float, complex


def read(example: Any) -> None:
    """Read every part of an example once; raises whatever reading raises.

    A truncated image, for instance, may raise only now. Parts that cannot be batched are not reported here.
    """
    for leaf in optree.tree_leaves(plain(example)):
        _read(leaf)


def _read(leaf: Any) -> Any:
    """Convert a part of an example to an array, or return it unchanged; raises whatever reading it raises."""
    if isinstance(leaf, _SETTLED):
        return leaf
    try:
        form = canonical(leaf)
    except Misfit as misfit:
        if misfit.__cause__ is not None:
            raise misfit.__cause__ from None
        return leaf
    return form if isinstance(form, np.ndarray) else leaf


class Likeness:
    """Checks examples against the common form.

    Args:
        form: the form of the examples and batches.
    """

    def __init__(self, form: Form) -> None:
        self._spec = spec = form.spec
        self._is_alone = spec.tree.is_leaf()
        self._flat = len(spec.leaves) if spec.is_flat_tuple() else -1
        self._keys = spec.flat_keys() or []
        self._quick = [_quick(leaf, rule) for leaf, rule in zip(spec.leaves, form.rules, strict=True)]
        self._leaves: list[tuple[Leaf, Rule, Any]] = [
            (leaf, rule, None if leaf.shape else _NUMBERS.get(leaf.dtype))
            for leaf, rule in zip(form.spec.leaves, form.rules, strict=True)
        ]

    def taken(self, example: Any) -> Any:
        """The example, with every part read once.

        Raises `Misfit` if it does not resemble the others, or whatever reading a part raises.
        """
        if self._is_plain(example):
            return example
        values = self._spec.flatten(example)
        for place, ((leaf, rule, number), value) in enumerate(zip(self._leaves, values, strict=True)):
            if type(value) is number and (number is not int or -(2**63) <= value < 2**63):
                continue
            if type(value) is np.ndarray and value.shape == leaf.shape and value.dtype == leaf.dtype != STRING:
                continue
            values[place] = value = _read(value)
            try:
                form = fitting(leaf, value, 0)
                if isinstance(rule, Pad) and isinstance(form, np.ndarray):
                    for place, size in enumerate(form.shape):
                        too_long(leaf, rule, place, size, 0)
            except MisfitAt as misfit:
                raise misfit.reason from None
        return self._spec.unflatten(values)

    def _is_plain(self, example: Any) -> bool:
        """Fast path: True for expected arrays and numbers in a plain container, the most common case."""
        kind = type(example)
        values: Iterable[Any]
        if kind is np.ndarray and self._is_alone:
            values = (example,)
        elif kind is tuple and len(example) == self._flat:
            values = example
        elif kind is dict and len(example) == len(self._keys):
            try:
                values = [example[key] for key in self._keys]
            except KeyError:
                return False
        else:
            return False
        for (number, scalar, dtype, shape), value in zip(self._quick, values):  # noqa: B905  (faster)
            kind = type(value)
            if kind is np.ndarray:
                if value.dtype != dtype or (value.ndim != shape if type(shape) is int else value.shape != shape):
                    return False
            elif kind is not scalar and (kind is not number or (kind is int and not -(2**63) <= value < 2**63)):
                return False
        return True


def _quick(leaf: Leaf, rule: Rule) -> tuple[Any, Any, Any, Any]:
    """Describes the values of a leaf that pass without further checks.

    The result holds the Python and NumPy number types, then an array's dtype and its shape, or its rank if sizes vary.
    """
    if not leaf.shape and leaf.kind is Kind.DENSE and leaf.dtype != STRING:
        return _NUMBERS.get(leaf.dtype), leaf.dtype.type, None, None
    has_limits = isinstance(rule, Pad) and rule.to is not None
    is_free = len(leaf.shape) == 1 and leaf.shape[0] is None  # not more: sizes of an empty array may be adapted
    if leaf.kind is not Kind.DENSE or leaf.dtype == STRING or has_limits or not (is_free or leaf.is_fixed):
        return None, None, None, None
    return None, None, leaf.dtype, 1 if is_free else leaf.shape


class Kinds:
    """Groups the first examples by their spec.

    Args:
        collation: how the examples are joined.
        describe: returns the spec of an example; raises `Misfit`.
    """

    def __init__(self, collation: Collation, describe: Callable[[Any], Spec]) -> None:
        self._collation, self._describe, self._kinds = collation, describe, list[tuple[int, Spec]]()

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def add(self, example: Any) -> int:
        """Add an example; returns the number of examples of its kind. Raises `Misfit` if it cannot be batched."""
        for place, (count, kind) in enumerate(self._kinds):
            if (wider := self._widened(kind, example)) is not None:
                self._kinds[place] = count + 1, wider
                return count + 1
        self._kinds.append((1, self._describe(example)))
        return 1

    def commonest(self) -> Spec:
        """The spec of the most common kind; of equally common kinds, the one that came first."""
        return max(self._kinds, key=lambda kind: kind[0])[1]

    def _widened(self, kind: Spec, example: Any) -> Spec | None:
        """The kind widened to fit the example, or None if stacked leaves would no longer have one size."""
        try:
            wider = kind.widened(example)
        except Misfit:
            return None
        is_stacked = all(
            self._collation.rule_at(accessor) != "stack" or leaf.kind is not Kind.DENSE or leaf.shape == mine.shape
            for accessor, mine, leaf in zip(wider.tree.accessors(), kind.leaves, wider.leaves, strict=True)
        )
        return wider if is_stacked else None
