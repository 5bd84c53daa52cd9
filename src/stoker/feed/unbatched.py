"""The single examples of a batch in TensorFlow, with the shapes that they had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stoker.feed.lazy_tensorflow import tensorflow
from stoker.feed.tensor_specs import tuples
from stoker.structure.collation import Form
from stoker.structure.leaf import Kind


def example(form: Form, *parts: Any) -> Any:
    """One example of an unbatched batch, with the shapes of varying leaves restored."""
    tf = tensorflow()
    tree = tuples(form.batch.unflatten(_LeafNumber(number) for number in range(len(form.batch.leaves))))
    structure = parts[0] if type(tree) is not tuple else parts

    def shaped(place: _LeafNumber, value: Any) -> Any:
        leaf = form.batch.leaves[place.number]
        if leaf.kind is not Kind.VARYING:
            return value
        flat, shape = value
        example = tf.reshape(flat, shape)
        example.set_shape(leaf.shape[1:])
        return example

    return _zip(shaped, tree, structure)


@dataclass(frozen=True)
class _LeafNumber:
    """A placeholder for the leaf with this number."""

    number: int


def _zip(function: Callable[[_LeafNumber, Any], Any], tree: Any, values: Any) -> Any:
    """`values` with `function` applied where `tree` has a placeholder."""
    if isinstance(tree, _LeafNumber):
        return function(tree, values)
    if isinstance(tree, dict):
        return type(tree)((key, _zip(function, part, values[key])) for key, part in tree.items())
    if isinstance(tree, tuple):
        parts = [_zip(function, part, value) for part, value in zip(tree, values, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return values
