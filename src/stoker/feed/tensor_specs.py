"""The facts about batches that TensorFlow gets in advance: specs, dtypes, and the order of the arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree

from stoker.feed.lazy_tensorflow import tensorflow
from stoker.structure.collation import Form
from stoker.structure.forms import STRING
from stoker.structure.leaf import Kind, Leaf
from stoker.structure.spec import Spec


def element_spec(form: Form, rows: int | None) -> Any:
    """The spec of batches with `rows` rows (None if that varies), as nested `tf.TensorSpec`s and the like."""
    tf = tensorflow()

    def spec(leaf: Leaf) -> Any:
        dtype = tf.string if leaf.dtype == STRING else tf.as_dtype(leaf.dtype)
        shape = _with_rows(leaf.shape, rows)
        if leaf.kind is Kind.RAGGED:
            return tf.RaggedTensorSpec(shape, dtype, leaf.ragged_rank)
        if leaf.kind is Kind.VARYING:
            shapes = tf.TensorSpec((None, len(leaf.shape) - 1), tf.int64)
            return tf.RaggedTensorSpec((None, None), dtype, 1), shapes
        return tf.SparseTensorSpec(shape, dtype) if leaf.kind is Kind.SPARSE else tf.TensorSpec(shape, dtype)

    nothing = tf.data.Dataset.from_tensors((0, None)).element_spec[1]
    nested = tuples(form.batch.unflatten(map(spec, form.batch.leaves)))
    return optree.tree_map(lambda part: nothing if part is None else part, nested, none_is_leaf=True)


def encoded_specs(leaf: Leaf, rows: int | None) -> list[Any]:
    """The specs with which tf.data holds this leaf: a ragged one as a variant, a sparse one as three."""
    tf = tensorflow()
    dtype = tf.string if leaf.dtype == STRING else tf.as_dtype(leaf.dtype)
    match leaf.kind:
        case Kind.DENSE:
            return [tf.TensorSpec(_with_rows(leaf.shape, rows), dtype)]
        case Kind.RAGGED:
            return [tf.TensorSpec((), tf.variant)]
        case Kind.SPARSE:
            return [tf.TensorSpec((3,), tf.variant)]
        case Kind.VARYING:
            return [tf.TensorSpec((), tf.variant), tf.TensorSpec((None, len(leaf.shape) - 1), tf.int64)]


def array_dtypes(leaf: Leaf) -> list[Any]:
    """The dtypes of the arrays that represent a leaf in TensorFlow: its parts, without the ends of strings."""
    tf = tensorflow()
    parts = leaf.parts()
    if leaf.dtype == STRING:
        return [tf.string, *(tf.as_dtype(part.dtype) for part in parts[2:])]
    return [tf.as_dtype(part.dtype) for part in parts]


def leaf_order(spec: Spec) -> list[int]:
    """For each leaf in tf.nest's order, its position among the leaves of `spec`."""
    places = tensorflow().nest.flatten(tuples(spec.unflatten(range(len(spec.leaves)))))
    return [place for place in places if place is not None]


def array_order(form: Form) -> list[int]:
    """The positions of the arrays of a batch that are handed to TensorFlow, in tf.nest's order of the leaves."""
    starts = np.cumsum([0, *(len(leaf.parts()) for leaf in form.batch.leaves)]).tolist()
    places = []
    for place in leaf_order(form.batch):
        leaf = form.batch.leaves[place]
        ends = 1 if leaf.dtype == STRING else None
        places += [starts[place] + part for part in range(len(leaf.parts())) if part != ends]
    return places


def tuples(structure: Any) -> Any:
    """The structure with tuples instead of lists, because tf.data takes lists for tensors."""
    return optree.tree_map(
        lambda part: tuple(map(tuples, part)) if type(part) is list else part,
        structure,
        is_leaf=lambda part: type(part) is list,
    )


def _with_rows(shape: Any, rows: int | None) -> tuple[int | None, ...]:
    """The shape of a batch with `rows` rows, unless the shape gives the number itself."""
    return (rows if shape[0] is None else shape[0], *shape[1:]) if shape else ()
