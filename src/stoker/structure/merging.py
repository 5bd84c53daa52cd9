"""One spec of the specs of several examples or batches. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from stoker.structure.collation import Rule
from stoker.structure.spec import Kind, Leaf, Misfit, Spec


def leaves_open(spec: Spec, rules: Sequence[Rule]) -> bool:
    """Whether nothing stood somewhere so far, where something may stand later."""
    return any(leaf.untold > 0 and rule != "stack" for leaf, rule in zip(spec.leaves, rules, strict=True))


def merged(specs: list[Spec]) -> Spec:
    """The spec that fits all of them; raises `Misfit`."""
    spec = specs[0]
    for other in specs[1:]:
        spec = spec.merged(other)
    return spec


def loose(spec: Spec, *, scalars: bool) -> Spec:
    """The spec of a batch without the size of its first dimension, of which later batches may have any.

    `scalars`: a function of the user's made it: it may have no dimension at all.
    """
    origin = "as collate made of the first examples" if scalars else "as in the first batches"

    def loosened(leaf: Leaf) -> Leaf:
        leaf = dataclasses.replace(leaf, origin=origin)
        if leaf.shape:
            return dataclasses.replace(leaf, shape=(None, *leaf.shape[1:]))
        if scalars and leaf.kind is Kind.DENSE:
            return leaf
        raise Misfit(
            f"{leaf.path or 'the batch'} has no first dimension, which would count the examples: it holds {leaf}"
        )

    return Spec(spec.tree, tuple(map(loosened, spec.leaves)))
