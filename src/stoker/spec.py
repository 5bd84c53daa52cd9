"""Nested structures and their flat leaves: the shapes and dtypes of an example.

Pure: no I/O, no process, no TensorFlow. A structure is any nesting of dict, list, tuple and
namedtuple; `optree` flattens it. A leaf is an array, a number or a bool.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

#: Names of the dtypes that both NumPy (with ml_dtypes) and TensorFlow have, one element a cell of memory.
DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 "
    "complex64 complex128 bfloat16".split()
)

#: The dtypes that NumPy gives Python's numbers.
PYTHON_NUMBERS = {
    bool: np.dtype(np.bool_),
    int: np.dtype(np.int64),
    float: np.dtype(np.float64),
    complex: np.dtype(np.complex128),
}


class Misfit(Exception):
    """An example that cannot be batched; the text names the path, what came and what to do."""


@dataclass(frozen=True)
class Leaf:
    """Shape and native dtype of one leaf, and where it stands: `['image']`, `[0].label`, or "" for the root."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype.name} of shape {self.shape}"


@dataclass(frozen=True)
class Spec:
    """What one example looks like: its nesting, and a `Leaf` for each array or number in it.

    >>> spec = Spec.of({"image": np.zeros((2, 3), np.uint8), "label": 4})
    >>> [str(leaf) for leaf in spec.leaves]
    ['uint8 of shape (2, 3)', 'int64 of shape ()']
    >>> spec.leaves[0].path
    "['image']"
    """

    tree: optree.PyTreeSpec
    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, example: Any) -> Spec:
        """Describe `example`; raises `Misfit` where a leaf is nothing that a tensor can hold."""
        values, tree = optree.tree_flatten(example, none_is_leaf=True)
        if not values:
            raise Misfit(f"it has no array or number in it: {_short(example)}. Return at least one.")
        paths = (accessor.codify("") for accessor in tree.accessors())
        return cls(tree, tuple(describe(path, value) for path, value in zip(paths, values, strict=True)))

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """Put `leaves` back into the nesting of the example."""
        return self.tree.unflatten(leaves)

    def is_flat_tuple(self) -> bool:
        """Whether an example is a plain tuple of leaves."""
        return self.tree.type is tuple and all(len(path) == 1 for path in self.tree.paths())

    def structure_misfit(self, example: Any) -> str:
        """In which parts the structure of `example` is another."""
        came = optree.tree_structure(example, none_is_leaf=True)
        ours, theirs = set(self.tree.paths()), set(came.paths())
        parts = []
        if missing := [
            leaf.path for leaf, path in zip(self.leaves, self.tree.paths(), strict=True) if path not in theirs
        ]:
            parts.append(f"{', '.join(missing)} missing")
        if added := [
            accessor.codify("") or "a single leaf"
            for accessor, path in zip(came.accessors(), came.paths(), strict=True)
            if path not in ours
        ]:
            parts.append(f"{', '.join(added)} unexpected")
        what = "; ".join(parts) or "the containers differ"
        return (
            f"its structure changed: {what}. Came {_tree_text(came)}, expected {_tree_text(self.tree)} as in example 0."
        )


def describe(path: str, value: Any) -> Leaf:
    """The `Leaf` that `value` is; raises `Misfit` when it is none."""
    where = f"at {path} " if path else ""
    python = PYTHON_NUMBERS.get(type(value))
    if python is not None:
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise Misfit(f"{where}it holds the int {value}, which needs more than 64 bits.")
        return Leaf(path, (), python)
    if value is None:
        raise Misfit(f"{where}it is None. Return arrays, numbers or bools (did a `return` go missing?).")
    if not hasattr(value, "__array__") and not hasattr(value, "__array_interface__"):
        raise Misfit(
            f"{where}it holds a {type(value).__name__}: {_short(value)}. A leaf must be an array, a number "
            "or a bool; containers are dict, list, tuple and namedtuple."
        )
    if isinstance(value, np.ma.MaskedArray):
        raise Misfit(f"{where}it holds a masked array, whose mask would be lost. Fill it: `array.filled(0)`.")
    array = np.asarray(value)
    if array.dtype.name not in DTYPES:
        raise Misfit(
            f"{where}it holds {array.dtype.name!r} of shape {array.shape}, a dtype that TensorFlow lacks "
            f"or that cannot lie in a batch. Convert it, for example with .astype('float32')."
        )
    return Leaf(path, array.shape, array.dtype.newbyteorder("="))


def _tree_text(tree: optree.PyTreeSpec) -> str:
    return str(tree).removeprefix("PyTreeSpec(").removesuffix(", NoneIsLeaf)").removesuffix(")")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
