"""The spec of an example or a batch: its nesting, and the shape and dtype of each leaf.

Pure: no I/O, no process, no TensorFlow. A structure is any nesting of dict, list, tuple and namedtuple. Other mappings
and dataclasses become dicts. `optree` flattens it. For the values allowed at a leaf, see `values`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import optree

from stoker.structure.forms import Misfit
from stoker.structure.leaf import Leaf, describe, described_as
from stoker.structure.lists import is_array
from stoker.structure.nesting import flattened, made_plain
from stoker.structure.values import short

#: Containers that need no conversion.
_KNOWN = frozenset([dict, tuple, list])


@dataclass(frozen=True)
class Spec:
    """The spec of one example or one batch: its nesting, and a `Leaf` for each value.

    >>> import numpy as np
    >>> spec = Spec.of({"image": np.zeros((2, 3), np.uint8), "label": 4})
    >>> [str(leaf) for leaf in spec.leaves]
    ['uint8 of shape (2, 3)', 'int64 of shape ()']
    >>> spec.leaves[0].path
    "['image']"
    """

    tree: optree.PyTreeSpec
    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, example: Any, is_leaf: Callable[[Any], bool] | None = None) -> Spec:
        """Describe `example`. Raises `Misfit` for a leaf that no tensor can hold.

        Args:
            example: the structure.
            is_leaf: decides whether a list is a single leaf; by default, lists that are arrays are. If given, the
                example must not contain dataclasses.
        """
        values, tree = flattened(example, is_leaf or is_array, is_plain=is_leaf is not None)
        if example is None:
            describe("", None)
        if not values:
            raise Misfit(f"it contains no array, number or string: {short(example)}. Return at least one.")
        paths = (accessor.codify("") for accessor in tree.accessors())
        return cls(tree, tuple(describe(path, value) for path, value in zip(paths, values, strict=True)))

    def merged(self, other: Spec) -> Spec:
        """The spec that fits both. Raises `Misfit` if the structures differ."""
        if self.tree != other.tree:
            raise Misfit(self._structure_misfit(other.tree))
        leaves = (mine.merged(its) for mine, its in zip(self.leaves, other.leaves, strict=True))
        return Spec(self.tree, tuple(leaves))

    def widened(self, example: Any) -> Spec:
        """The spec that also fits `example`. Raises `Misfit` if its structure differs."""
        values = self.flatten(example)
        leaves = tuple(leaf.merged(described_as(leaf, value)) for leaf, value in zip(self.leaves, values, strict=True))
        return Spec(self.tree, leaves)

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """Restore the nesting of the example around `leaves`."""
        return self.tree.unflatten(leaves)

    def is_flat_tuple(self) -> bool:
        """True if an example is a plain tuple of leaves."""
        return (
            self.tree.type is tuple
            and self.tree.num_children == len(self.leaves)
            and all(len(path) == 1 for path in self.tree.paths())
        )

    def flat_keys(self) -> list[Any] | None:
        """The keys in the order of the leaves if an example is a plain dict of leaves, else None."""
        is_flat = self.tree.type is dict and all(len(path) == 1 for path in self.tree.paths())
        return self.tree.entries() if is_flat and self.tree.num_children == len(self.leaves) else None

    def flatten(self, example: Any) -> list[Any]:
        """The values at the leaves. Raises `Misfit` if the structure differs."""
        if example is None:
            raise Misfit(
                f"it is None (is a `return` missing?). Expected {_tree_text(self.tree)} {self.leaves[0].origin}."
            )
        if type(example) not in _KNOWN and type(example) is not self.tree.type:
            example = made_plain(example)
        try:
            return self.tree.flatten_up_to(example)
        except Exception:  # another structure, other container types, or one that raises when read
            example = made_plain(example)
            try:
                return self.tree.flatten_up_to(example)
            except Exception:  # optree's own error, or one from a `repr` in its text
                # If a list was a container before, show lists as containers even if they could be arrays.
                _, came = flattened(example, None if _has_list(self.tree) else is_array, is_plain=True)
                raise Misfit(self._structure_misfit(came)) from None

    def _structure_misfit(self, came: optree.PyTreeSpec) -> str:
        """The message about the parts in which the structure `came` differs."""
        ours, theirs = set(self.tree.paths()), set(came.paths())
        parts = []
        if missing := [
            leaf.path or "a single leaf"
            for leaf, path in zip(self.leaves, self.tree.paths(), strict=True)
            if path not in theirs
        ]:
            parts.append(f"{', '.join(missing)} missing")
        if added := [
            accessor.codify("") or "a single leaf"
            for accessor, path in zip(came.accessors(), came.paths(), strict=True)
            if path not in ours
        ]:
            parts.append(f"{', '.join(added)} unexpected")
        what = "; ".join(parts) or "the containers differ"
        lists = " A list of anything but numbers of one kind, or strings, is a container: pass np.array(…) for an "
        repair = lists + "array." if _has_list(self.tree) or _has_list(came) else ""
        return (
            f"its structure changed: {what}. Got {_tree_text(came)}, expected {_tree_text(self.tree)} "
            f"{self.leaves[0].origin}.{repair}"
        )


def _has_list(tree: optree.PyTreeSpec) -> bool:
    """True if the tree contains a list as a container."""
    return tree.type is list or any(map(_has_list, tree.children()))


def _tree_text(tree: optree.PyTreeSpec) -> str:
    text = str(tree).removeprefix("PyTreeSpec(").removesuffix(")")
    return "a single leaf" if text == "*" else text
