"""One spec from the specs of several examples or batches. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from stoker.structure.collation import Collation, Rule
from stoker.structure.forms import Misfit
from stoker.structure.leaf import Kind, Leaf
from stoker.structure.spec import Spec

#: How the spec of a collate function's batches is known.
FROM_FUNCTION = "as in collate's results for the first examples"


def leaves_open(spec: Spec, rules: Sequence[Rule]) -> bool:
    """True if some leaf was empty in all examples so far and may hold values later."""
    return any(leaf.undetermined > 0 and rule != "stack" for leaf, rule in zip(spec.leaves, rules, strict=True))


def merged(specs: list[Spec]) -> Spec:
    """The spec that fits all of `specs`. Raises `Misfit`."""
    spec = specs[0]
    for other in specs[1:]:
        spec = spec.merged(other)
    return spec


def ready(collation: Collation, batch: Any) -> Spec:
    """The spec of a batch that the source made. Its first dimension is left open."""
    return loose(collation.spec(batch), scalars=collation.as_torch)


def loose(spec: Spec, *, scalars: bool, origin: str = "as in the first batches") -> Spec:
    """The spec of a batch with its first dimension left open, because later batches may have any size.

    `scalars`: leaves may be scalars.
    """

    def loosened(leaf: Leaf) -> Leaf:
        leaf = dataclasses.replace(leaf, origin=origin)
        if leaf.shape:
            return dataclasses.replace(leaf, shape=(None, *leaf.shape[1:]))
        if scalars and leaf.kind is Kind.DENSE:
            return leaf
        raise Misfit(f"{leaf.path or 'the batch'} has no first dimension to count the examples: it holds {leaf}")

    return Spec(spec.tree, tuple(map(loosened, spec.leaves)))
