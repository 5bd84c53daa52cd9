"""The arrays of a batch as the batch that Keras gets on JAX and PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from stoker.errors import OptionError
from stoker.feed.class_weights import ClassWeights
from stoker.feed.densify import dense_sparse, padded_ragged
from stoker.feed.jax_arrays import sparse_array
from stoker.feed.keras_iterations import Leaves
from stoker.feed.torch_tensors import REFUSED, tensor_maker
from stoker.structure.collation import Form
from stoker.structure.forms import STRING, Array
from stoker.structure.leaf import Kind, Leaf

#: Makes the value of a leaf from its arrays.
OfLeaf = Callable[..., Any]


def require_numbers(form: Form, backend: str) -> None:
    """Raise `OptionError` if a leaf has no counterpart on this backend of Keras."""
    for leaf in form.batch.leaves:
        name = leaf.path or "the only leaf"
        if leaf.dtype == STRING:
            raise OptionError(
                f"{name} is a string, which only TensorFlow can represent, and Keras runs on {backend}. Convert it to "
                "numbers in the transform (a vocabulary, a hash), drop it, or set KERAS_BACKEND=tensorflow."
            )
        if backend == "torch" and leaf.dtype in REFUSED:
            raise OptionError(
                f"{name} has dtype {leaf.dtype}, which PyTorch lacks. Convert it to int64 in the transform."
            )


def batch_maker(form: Form, of_leaf: OfLeaf, finish: OfLeaf, weights: ClassWeights | None) -> Callable[[Leaves], Any]:
    """The function that makes a batch from its arrays.

    Args:
        form: the form of the batches.
        of_leaf: makes an array, or what stands for it, of a leaf and its arrays.
        finish: makes what Keras gets of an array.
        weights: the weights of classes, or None.
    """
    starts = list(itertools.accumulate(form.counts, initial=0))
    is_plain = all(leaf.kind is Kind.DENSE for leaf in form.batch.leaves)
    parts = list(zip(form.batch.leaves, starts, starts[1:], strict=False))

    def make(arrays: Leaves) -> Any:
        found = arrays if is_plain else [of_leaf(leaf, *arrays[start:stop]) for leaf, start, stop in parts]
        batch = form.batch.unflatten(map(finish, found))
        return batch if weights is None else (batch[0], batch[1], finish(weights.of(found[-1])))

    return make


def maker(form: Form, backend: str, weights: ClassWeights | None) -> Callable[[Leaves], Any]:
    """The function that makes the batch for this backend of Keras from the arrays of a batch."""
    if backend == "torch":
        return batch_maker(form, _dense, tensor_maker(), weights)
    return batch_maker(form, _dense_or_sparse, lambda array: array, weights)


def numpy_maker(form: Form, weights: ClassWeights | None) -> Callable[[Leaves], Any]:
    """The function that makes the same batch of NumPy arrays."""
    return batch_maker(form, _dense, lambda array: array, weights)


def _dense(leaf: Leaf, values: Array, *rest: Array) -> Any:
    match leaf.kind:
        case Kind.RAGGED:
            return padded_ragged(values, rest)
        case Kind.SPARSE:
            return dense_sparse(values, *rest)
        case _:
            return values


def _dense_or_sparse(leaf: Leaf, values: Array, *rest: Array) -> Any:
    return sparse_array(values, *rest) if leaf.kind is Kind.SPARSE else _dense(leaf, values, *rest)
