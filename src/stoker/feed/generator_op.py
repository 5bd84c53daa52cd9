"""The batches as a dataset, on the op beneath `Dataset.from_generator`.

The op distinguishes concurrent iterators and reports when one is abandoned. `from_generator` itself checks each
element again in Python, and so costs 1.5 times as much per batch (docs/decisions.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any

from stoker.feed.iterators import Iterators, NoIterators, StackedIterators, weak
from stoker.feed.lazy_tensorflow import tensorflow
from stoker.feed.tensor_specs import array_dtypes, element_spec, encoded_specs, leaf_order
from stoker.structure.collation import Form
from stoker.structure.leaf import Kind, Leaf

if TYPE_CHECKING:
    import tensorflow as tf


def batches(form: Form, iterators: Iterators | NoIterators, rows: int | None) -> tf.data.Dataset:
    """The batches, in which examples of varying shapes are still ragged values beside their shapes.

    Args:
        form: the form of the batches.
        iterators: the iterators that deliver the batches.
        rows: the rows of each batch, or None.
    """
    tf = tensorflow()
    rows = None if form.single else rows
    leaves = [form.batch.leaves[place] for place in leaf_order(form.batch)]
    encoded = [spec for leaf in leaves for spec in encoded_specs(leaf, rows)]
    pulled, split = _of_one_pull(iterators, encoded)
    variant = _generator(iterators, leaves, pulled)
    parted = None
    if split is not None:
        parted = tf.data.experimental.from_variant(variant, tuple(pulled)).flat_map(native(split))
        variant = tf.data.experimental.to_variant(parted)
    made = tf.data.experimental.from_variant(variant, element_spec(form, rows))
    made._stoker = iterators, parted  # kept alive by derived datasets and their iterators
    if not tf.executing_eagerly():
        # The dataset is made within a function (of `flat_map`, say) that outlives it: the graph keeps the iterators.
        graph = tf.compat.v1.get_default_graph()
        graph._stoker = [*getattr(graph, "_stoker", ()), iterators]
    return made


def _of_one_pull(
    iterators: Iterators | NoIterators, encoded: list[Any]
) -> tuple[list[Any], Callable[..., tf.data.Dataset] | None]:
    """The specs of what one pull returns, and the function that splits it into batches; None if it is one batch."""
    tf = tensorflow()
    if isinstance(iterators, StackedIterators):
        return [tf.TensorSpec((None, *spec.shape), spec.dtype) for spec in encoded], _slices
    if iterators.most == 1:
        return encoded, None

    def split(count: Any, *tensors: Any) -> Any:
        batches = (tensors[start : start + len(encoded)] for start in range(0, len(tensors), len(encoded)))
        parts = map(tf.data.Dataset.from_tensors, batches)
        return reduce(lambda some, other: some.concatenate(other), parts).take(count)

    return [tf.TensorSpec((), tf.int64), *encoded * iterators.most], split


def _generator(iterators: Iterators | NoIterators, leaves: list[Leaf], specs: list[Any]) -> Any:
    """The dataset, as a variant, whose elements are the pulls from `iterators`, with these specs."""
    tf = tensorflow()
    begin, pull, end = weak(iterators)
    most = iterators.most
    types = [dtype for leaf in leaves for dtype in array_dtypes(leaf)]
    number = tf.TensorSpec((), tf.int64)

    def pull_batches(n: Any) -> Any:
        count, *arrays = tf.numpy_function(pull, [n], [tf.int64] + types * most)
        tensors = [_encode(leaf, [arrays.pop(0) for _ in array_dtypes(leaf)]) for _ in range(most) for leaf in leaves]
        return ([] if most == 1 else [count]) + list(itertools.chain.from_iterable(tensors))

    return tf.raw_ops.GeneratorDataset(
        init_func_other_args=[],
        next_func_other_args=[],
        finalize_func_other_args=[],
        init_func=_graph(lambda: tf.numpy_function(begin, [], tf.int64), []),
        next_func=_graph(pull_batches, [number]),
        finalize_func=_graph(lambda n: tf.numpy_function(end, [n], tf.int64), [number]),
        output_types=[spec.dtype for spec in specs],
        output_shapes=[spec.shape for spec in specs],
    )


def _slices(*stacks: Any) -> Any:
    """The single batches in arrays that hold several along their first axis, without copying."""
    return tensorflow().data.Dataset.from_tensor_slices(stacks)


def _graph(function: Callable[..., Any], signature: list[Any]) -> Any:
    """`function` as a concrete function of TensorFlow, whose arguments have these specs."""
    return tensorflow().function(native(function), input_signature=signature).get_concrete_function()


def native(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, protected from being rewritten by AutoGraph."""
    unconverted: Callable[..., Any] = tensorflow().autograph.experimental.do_not_convert(function)
    return unconverted


def _encode(leaf: Leaf, arrays: list[Any]) -> list[Any]:
    """The arrays of a leaf in the form in which tf.data holds it."""
    tf = tensorflow()
    values, *rest = arrays
    match leaf.kind:
        case Kind.DENSE:
            return [values]
        case Kind.RAGGED:
            return [_ragged(values, rest)]
        case Kind.SPARSE:
            indices, shape = rest
            sparse = tf.raw_ops.SerializeSparse(
                sparse_indices=indices, sparse_values=values, sparse_shape=shape, out_type=tf.variant
            )
            return [sparse]
        case Kind.VARYING:
            splits, shapes = rest
            return [_ragged(values, [splits]), shapes]


def _ragged(values: Any, splits: list[Any]) -> Any:
    """A ragged tensor in the form in which tf.data holds it."""
    tf = tensorflow()
    return tf.raw_ops.RaggedTensorToVariant(rt_nested_splits=splits, rt_dense_values=values, batched_input=False)
