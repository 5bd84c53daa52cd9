"""A Loader as a `tf.data.Dataset`, without copying (except strings, for which TensorFlow has its own format).

TensorFlow takes over the memory of a 64-byte-aligned array that a `tf.numpy_function` returns.
It drops the array when the last tensor over that memory is gone, which ends the lease.

The dataset is built on the op beneath `Dataset.from_generator`, which distinguishes concurrent
iterators and reports when one is abandoned. `from_generator` itself checks each element again in
Python, and so costs 1.5 times as much per batch (docs/decisions.md).
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache, partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import optree

from stoker.coordinator.producer import AT_ONCE, BatchProducer
from stoker.errors import OptionError
from stoker.feed import padded
from stoker.feed.iterators import Iterators, NoIterators, StackedIterators, weak
from stoker.memory.layout import Layout
from stoker.plan.batching import Outline
from stoker.plan.host_shard import HostShard
from stoker.plan.position import Iteration, Position
from stoker.runtime.ctrl_c import listen_for_interrupts
from stoker.runtime.interpreter_exit import close_before_others
from stoker.structure.collation import Form
from stoker.structure.forms import STRING
from stoker.structure.leaf import Kind, Leaf
from stoker.structure.spec import Spec

if TYPE_CHECKING:
    import tensorflow as tf


#: Batches that tf.data pulls ahead, so that the pull overlaps with the training step: normally 2. For small batches,
#: which cost less than the pull, as many as fit into 4 MiB, up to 6. For batches beyond 64 MiB, only 1.
_AHEAD, _AHEAD_SMALL, _SMALL_BYTES, _LARGE_BYTES = 2, 6, 4 << 20, 64 << 20
#: The most arrays of a batch with which one pull may return several batches. TensorFlow is slow with very large graphs.
_FEW = 64


def shard(producer: BatchProducer, owner: object, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """The rows of one input pipeline among several, in batches for one replica; see `Loader.to_tf_shard`."""
    batching, pipelines = producer.batching, context.num_input_pipelines
    if batching.host_shard.count > 1:
        raise OptionError(
            "to_tf_shard() deals the batches out itself; make the Loader without "
            f"shard_count={batching.host_shard.count}."
        )
    size, replicas = batching.size, context.num_replicas_in_sync
    host_shard = HostShard(context.input_pipeline_id, pipelines, batching.host_shard.pads)
    if not batching.is_ready and size % replicas:
        raise OptionError(f"batch_size={size} is that of all {replicas} replicas together: make it a multiple of that.")
    producer.counts.check(host_shard)
    made = dataset(
        producer,
        owner,
        producer.form(apart=True),
        producer.outline(host_shard),
        serialized=False,
        host_shard=host_shard,
    )
    return made if replicas == pipelines else made.rebatch(size // replicas)


def dataset(
    producer: BatchProducer,
    owner: object,
    form: Form,
    outline: Outline,
    *,
    serialized: bool,
    host_shard: HostShard | None = None,
    sums: bool | None = None,
) -> tf.data.Dataset:
    """The batches that `producer` makes; see `Loader.to_tf`.

    `owner` stops the producer when it is gone, and is kept alive. `sums` tells whether losses are sums; None means
    what the options say.
    """
    tf = _tensorflow()
    close_before_others()
    listen_for_interrupts()
    size = Layout.of(form.spec.leaves, outline.size).nbytes if form.in_place else _SMALL_BYTES // _AHEAD_SMALL
    ahead = 1 if size > _LARGE_BYTES else max(_AHEAD, min(_AHEAD_SMALL, _SMALL_BYTES // size))
    if producer.batching.bounded:
        ahead = 0
    order = _parts_of(form, _leaf_order(form.batch))
    several = ahead > _AHEAD and not outline.single and len(order) <= _FEW
    if producer.together > 1 and not serialized and ahead:
        iterators: Iterators = StackedIterators(producer, owner, form, order, serialized, 1, host_shard, {})
    else:
        scale = _scale(producer, host_shard, sums) if not serialized else {}
        iterators = Iterators(producer, owner, form, order, serialized, AT_ONCE if several else 1, host_shard, scale)
    made = _elements(form, iterators, outline, ahead)
    if outline.cardinality == math.inf:
        made = made.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    elif outline.cardinality is not None:
        # Append an empty `.repeat()`, then `take(n)`: declares the cardinality without asserting it. An iteration that
        # resumes from a state has fewer batches, and an asserted cardinality would not allow that.
        nothing = _elements(form, NoIterators(), outline, ahead).repeat()
        made = made.concatenate(nothing).take(int(outline.cardinality))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )  # each a part of a batch
    options.autotune.enabled = False  # nothing to tune, and its thread can delay the end of an iterator by seconds
    made = made.with_options(options)
    made = _counted(_never_ending(made) if outline.cardinality == math.inf else made, producer)
    return (
        _for_keras(made, producer, owner, form)
        if host_shard is None and producer.batching.host_shard.pads and not serialized
        else made
    )


def _scale(producer: BatchProducer, host_shard: HostShard | None, sums: bool | None) -> dict[int, float]:
    batching = producer.batching
    if not batching.weighs:
        return {}
    return padded.scale(producer, host_shard or batching.host_shard, sums=batching.sums if sums is None else sums)


def _for_keras(made: Any, producer: BatchProducer, owner: object, form: Form) -> Any:
    """`made`, whose last batch is filled up, with iterators adapted to Keras' own loops; see `padded`."""
    made.__class__ = _padded(made.__class__)
    made._stoker_producer, made._stoker_owner, made._stoker_form, made._stoker_others = producer, owner, form, {}
    return made


@cache
def _padded(kind: Hashable) -> Any:
    class Padded(kind):  # type: ignore[valid-type, misc]  # the base class is known only here
        def __iter__(self) -> Any:
            producer, owner, form = self._stoker_producer, self._stoker_owner, self._stoker_form
            wanted = padded.of_keras_loop(producer, sys._getframe(1))
            if wanted is None:
                return super().__iter__()
            if wanted not in self._stoker_others:
                host_shard, sums = wanted
                self._stoker_others[wanted] = dataset(
                    producer,
                    owner,
                    form,
                    producer.outline(host_shard),
                    serialized=False,
                    host_shard=host_shard,
                    sums=sums,
                )
            return iter(self._stoker_others[wanted])

    return Padded


def _elements(form: Form, iterators: Iterators | NoIterators, outline: Outline, ahead: int) -> tf.data.Dataset:
    """The elements to hand out: batches, with `ahead` of them (or none) prefetched, or examples one by one."""
    made = _batches(form, iterators, outline.static_rows)
    made = made.prefetch(ahead) if ahead else made
    if outline.single:
        made = made.unbatch()
        if any(leaf.kind is Kind.VARYING for leaf in form.batch.leaves):
            made = made.map(_native(partial(_example, form)))
        made = made.prefetch(outline.size) if ahead else made
    return made


def _batches(form: Form, iterators: Iterators | NoIterators, rows: int | None) -> tf.data.Dataset:
    """The batches, in which examples of varying shapes are still ragged values beside their shapes.

    Args:
        form: the form of the batches.
        iterators: the iterators that deliver the batches.
        rows: the rows of each batch, or None.
    """
    tf = _tensorflow()
    most = iterators.most
    leaves = [form.batch.leaves[place] for place in _leaf_order(form.batch)]
    begin, pull, end = weak(iterators)
    number = tf.TensorSpec((), tf.int64)
    nested = element_spec(form, None if form.single else rows)
    encoded = [encoded for leaf in leaves for encoded in _encoded_specs(leaf, None if form.single else rows)]
    types = [dtype for leaf in leaves for dtype in _types(leaf)]

    def pull_batches(n: Any) -> Any:
        count, *arrays = tf.numpy_function(pull, [n], [tf.int64] + types * most)
        tensors = [_encode(leaf, [arrays.pop(0) for _ in _types(leaf)]) for _ in range(most) for leaf in leaves]
        return ([] if most == 1 else [count]) + list(itertools.chain.from_iterable(tensors))

    def part(count: Any, *tensors: Any) -> Any:
        batches = (tensors[start : start + len(encoded)] for start in range(0, len(tensors), len(encoded)))
        parts = map(tf.data.Dataset.from_tensors, batches)
        return reduce(lambda some, other: some.concatenate(other), parts).take(count)

    specs = encoded if most == 1 else [number, *encoded * most]
    if stacked := isinstance(iterators, StackedIterators):
        specs = [tf.TensorSpec((None, *spec.shape), spec.dtype) for spec in encoded]
    variant = tf.raw_ops.GeneratorDataset(
        init_func_other_args=[],
        next_func_other_args=[],
        finalize_func_other_args=[],
        init_func=_graph(lambda: tf.numpy_function(begin, [], tf.int64), []),
        next_func=_graph(pull_batches, [number]),
        finalize_func=_graph(lambda n: tf.numpy_function(end, [n], tf.int64), [number]),
        output_types=[spec.dtype for spec in specs],
        output_shapes=[spec.shape for spec in specs],
    )
    parting: Callable[..., Any] | None = _slices if stacked else part if most > 1 else None
    parted = None
    if parting is not None:
        parted = tf.data.experimental.from_variant(variant, tuple(specs)).flat_map(_native(parting))
        variant = tf.data.experimental.to_variant(parted)
    made = tf.data.experimental.from_variant(variant, nested)
    made._stoker = iterators, parted  # kept alive by derived datasets and their iterators
    if not tf.executing_eagerly():
        # The dataset is made within a function (of `flat_map`, say) that outlives it: the graph keeps the iterators.
        graph = tf.compat.v1.get_default_graph()
        graph._stoker = [*getattr(graph, "_stoker", ()), iterators]
    return made


def _slices(*stacks: Any) -> Any:
    """The single batches in arrays that hold several along their first axis, without copying."""
    return _tensorflow().data.Dataset.from_tensor_slices(stacks)


def _graph(function: Callable[..., Any], signature: list[Any]) -> Any:
    return _tensorflow().function(_native(function), input_signature=signature).get_concrete_function()


def _native(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, protected from being rewritten by AutoGraph."""
    native: Callable[..., Any] = _tensorflow().autograph.experimental.do_not_convert(function)
    return native


def _types(leaf: Leaf) -> list[Any]:
    """The dtypes of the arrays that represent a leaf in TensorFlow: its parts, without the bounds of strings."""
    tf = _tensorflow()
    parts = leaf.parts()
    if leaf.dtype == STRING:
        return [tf.string, *(tf.as_dtype(part.dtype) for part in parts[2:])]
    return [tf.as_dtype(part.dtype) for part in parts]


def _encoded_specs(leaf: Leaf, rows: int | None) -> list[Any]:
    """The specs with which tf.data holds this leaf: a ragged one as a variant, a sparse one as three."""
    tf = _tensorflow()
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


def _encode(leaf: Leaf, arrays: list[Any]) -> list[Any]:
    """Encodes the arrays of a leaf in the form in which tf.data holds it."""
    tf = _tensorflow()
    values, *rest = arrays
    if leaf.dtype == STRING:
        values = tf.io.parse_tensor(values, tf.string)
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
    tf = _tensorflow()
    return tf.raw_ops.RaggedTensorToVariant(rt_nested_splits=splits, rt_dense_values=values, batched_input=False)


def _parts_of(form: Form, order: list[int]) -> list[int]:
    """The positions of the arrays of a batch that are handed to TensorFlow, for the leaves in this order."""
    starts = np.cumsum([0, *(len(leaf.parts()) for leaf in form.batch.leaves)]).tolist()
    places = []
    for place in order:
        leaf = form.batch.leaves[place]
        bounds = 1 if leaf.dtype == STRING else None
        places += [starts[place] + part for part in range(len(leaf.parts())) if part != bounds]
    return places


def _example(form: Form, *parts: Any) -> Any:
    """One example of an unbatched batch, with the shapes of varying leaves restored."""
    tf = _tensorflow()
    tree = _tuples(form.batch.unflatten(_LeafNumber(number) for number in range(len(form.batch.leaves))))
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


def _never_ending(made: Any) -> Any:
    """`made`, with an error if `evaluate` or `predict` reads it without a number of steps and would never return."""
    made.__class__ = _refusing(made.__class__)
    return made


# Dataset classes must not hold a producer: TensorFlow keeps each class that it has inspected, for the whole process.
@cache
def _refusing(kind: Hashable) -> Any:
    class NeverEnding(kind):  # type: ignore[valid-type, misc]  # likewise
        def __iter__(self) -> Any:
            frame = sys._getframe(1)
            for _ in range(12):
                its: Any = frame.f_locals.get("self")
                if type(its).__name__ == "TFEpochIterator" and its.steps_per_epoch is None and _is_evaluating(frame):
                    raise OptionError(
                        "this source never ends (length=math.inf): give `validation_steps` to fit(), or `steps` to "
                        "evaluate() and predict(), or they would run for ever."
                    )
                if frame.f_back is None:
                    break
                frame = frame.f_back
            return super().__iter__()

    return NeverEnding


def _counted(made: Any, producer: BatchProducer) -> Any:
    """`made`, with iterators that tell the producer how many elements an eager loop takes."""
    made.__class__ = _telling(made.__class__)
    made._stoker_producer = producer
    return made


@cache
def _telling(kind: Hashable) -> Any:
    class Counted(kind):  # type: ignore[valid-type, misc]  # likewise
        def __iter__(self) -> Any:
            listen_for_interrupts()
            iterator = super().__iter__()
            if _tensorflow().executing_eagerly():
                iterator.__class__ = _counting(iterator.__class__)
                iterator._stoker_producer = self._stoker_producer
            return iterator

    return Counted


@cache
def _counting(kind: Hashable) -> Any:
    """A class of iterators that count the elements taken in Python; elements taken in a graph go unseen."""

    class Counting(kind):  # type: ignore[valid-type, misc]  # likewise
        _stoker_iteration: Iteration | None = None

        def __next__(self) -> Any:
            return self._stoker_count(self._stoker_take(super().__next__))

        def get_next(self) -> Any:
            element = self._stoker_take(super().get_next)
            return self._stoker_count(element) if _tensorflow().executing_eagerly() else element

        def _stoker_take(self, take: Callable[[], Any]) -> Any:
            try:
                return take()
            except _tensorflow().errors.OpError as error:
                last = self._stoker_producer.last_error
                if last is not None and str(last) in str(error):
                    error.__cause__ = last
                raise

        def _stoker_count(self, element: Any) -> Any:
            if self._stoker_iteration is None:
                epoch = self._stoker_producer.last_epoch()
                self._stoker_iteration = epoch.iteration if epoch is not None else Iteration(Position())
            self._stoker_iteration.taken = (self._stoker_iteration.taken or 0) + 1
            return element

    return Counting


def _is_evaluating(frame: Any) -> bool:
    while frame is not None:
        if frame.f_code.co_name in ("evaluate", "predict") and "keras" in frame.f_globals.get("__name__", ""):
            return True
        frame = frame.f_back
    return False


def element_spec(form: Form, rows: int | None) -> Any:
    """The spec of batches with `rows` rows (None if that varies), as nested `tf.TensorSpec`s and the like."""
    tf = _tensorflow()

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
    nested = _tuples(form.batch.unflatten(map(spec, form.batch.leaves)))
    return optree.tree_map(lambda part: nothing if part is None else part, nested, none_is_leaf=True)


def _with_rows(shape: Any, rows: int | None) -> tuple[int | None, ...]:
    """The shape of a batch with `rows` rows, unless the shape gives the number itself."""
    return (rows if shape[0] is None else shape[0], *shape[1:]) if shape else ()


def _leaf_order(spec: Spec) -> list[int]:
    """For each leaf in tf.nest's order, its position among the leaves of `spec`."""
    places = _tensorflow().nest.flatten(_tuples(spec.unflatten(range(len(spec.leaves)))))
    return [place for place in places if place is not None]


def _tuples(structure: Any) -> Any:
    """The structure with tuples instead of lists, because tf.data takes lists for tensors."""
    return optree.tree_map(
        lambda part: tuple(map(_tuples, part)) if type(part) is list else part,
        structure,
        is_leaf=lambda part: type(part) is list,
    )


def _tensorflow() -> Any:
    try:
        import tensorflow
    except ImportError as error:
        raise ImportError(
            "to_tf() and element_spec need TensorFlow: pip install tensorflow (or tensorflow-cpu)"
        ) from error
    return tensorflow
