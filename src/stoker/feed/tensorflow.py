"""A Loader as a `tf.data.Dataset`, without copying (except strings, for which TensorFlow has its own format).

TensorFlow takes over the memory of a 64-byte-aligned array that a `tf.numpy_function` returns.
It drops the array when the last tensor over that memory is gone, which ends the lease.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from stoker.coordinator.producer import AT_ONCE, BatchProducer
from stoker.errors import OptionError
from stoker.feed import padded
from stoker.feed.class_weights import ClassWeights
from stoker.feed.dataset_classes import counted, for_keras, never_ending, varying
from stoker.feed.generator_op import batches, native
from stoker.feed.iterators import Iterators, NoIterators, StackedIterators
from stoker.feed.lazy_tensorflow import tensorflow
from stoker.feed.tensor_specs import array_order
from stoker.feed.unbatched import example
from stoker.memory.layout import Layout
from stoker.plan.batching import Outline
from stoker.plan.host_shard import HostShard
from stoker.runtime.ctrl_c import listen_for_interrupts
from stoker.runtime.interpreter_exit import close_before_others
from stoker.structure.collation import Form
from stoker.structure.leaf import Kind

if TYPE_CHECKING:
    import tensorflow as tf


#: Batches that tf.data pulls ahead, so that the pull overlaps with the training step: normally 2. For small batches,
#: which cost less than the pull, as many as fit into 4 MiB, up to 6. Of batches beyond 64 MiB, none that workers make
#: ahead, as each would take one more slot, and 1 of others.
_AHEAD, _AHEAD_SMALL, _SMALL_BYTES, _LARGE_BYTES = 2, 6, 4 << 20, 64 << 20
#: The most arrays of a batch with which one pull may return several batches. TensorFlow is slow with very large graphs.
_FEW = 64


def shard(producer: BatchProducer, owner: object, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """The rows of one input pipeline among several, in batches for one replica; see `Loader.to_tf_shard`."""
    batching, pipelines = producer.batching, context.num_input_pipelines
    if batching.host_shard.count > 1:
        raise OptionError(
            "to_tf_shard() divides the batches itself. Create the Loader without "
            f"shard_count={batching.host_shard.count}."
        )
    size, replicas = batching.size, context.num_replicas_in_sync
    host_shard = HostShard(context.input_pipeline_id, pipelines, batching.host_shard.pads)
    if batching.is_ordered and replicas != pipelines:
        raise OptionError(
            f"order= gives whole batches, which cannot be cut up for {replicas} replicas of {pipelines} input "
            "pipelines. Give single indices and a batch_size."
        )
    if not (batching.is_batched or batching.is_ordered) and size % replicas:
        raise OptionError(f"batch_size={size} covers all {replicas} replicas together. Make it a multiple of that.")
    producer.counts.check(host_shard)
    made = _of_host_shard(producer, owner, producer.form(apart=True), host_shard)
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
    class_weights: ClassWeights | None = None,
) -> tf.data.Dataset:
    """The batches that `producer` makes; see `Loader.to_tf`.

    `owner` stops the producer when it is gone, and is kept alive. `sums` says whether losses are sums; None uses the
    options. `class_weights` are added to the batches, as their third part.
    """
    tensorflow()  # raise now if it is not installed
    close_before_others()
    listen_for_interrupts()
    ahead = _ahead(producer, form, outline)
    order = array_order(form)
    if producer.together > 1 and not serialized and ahead:
        iterators: Iterators = StackedIterators(producer, owner, form, order, host_shard=host_shard)
    else:
        several = ahead > _AHEAD and not outline.single and len(order) <= _FEW
        iterators = Iterators(
            producer,
            owner,
            form,
            order,
            serialized=serialized,
            most=AT_ONCE if several else 1,
            host_shard=host_shard,
            scale=_scale(producer, host_shard, sums) if not serialized else {},
        )
    made = _with_cardinality(_elements(form, iterators, outline, ahead), form, outline, ahead)
    if class_weights is not None:
        made = made.map(native(class_weights.weighted))
    made = made.with_options(_options())
    if outline.cardinality is None:
        made = varying(made)
    made = counted(never_ending(made) if outline.cardinality == math.inf else made, producer)
    if host_shard is not None or serialized or not producer.batching.host_shard.pads:
        return made
    return for_keras(made, producer, partial(_of_host_shard, producer, owner, form))


def _of_host_shard(
    producer: BatchProducer, owner: object, form: Form, host_shard: HostShard, sums: bool | None = None
) -> tf.data.Dataset:
    """The dataset of these rows of each batch."""
    outline = producer.outline(host_shard)
    return dataset(producer, owner, form, outline, serialized=False, host_shard=host_shard, sums=sums)


def _ahead(producer: BatchProducer, form: Form, outline: Outline) -> int:
    """The number of batches that tf.data pulls ahead."""
    if producer.batching.bounded:
        return 0
    size = Layout.of(form.spec.leaves, outline.size).nbytes if form.in_place else _SMALL_BYTES // _AHEAD_SMALL
    if size > _LARGE_BYTES:
        return 0 if producer.makes_ahead and not outline.single else 1
    return max(_AHEAD, min(_AHEAD_SMALL, _SMALL_BYTES // size))


def _scale(producer: BatchProducer, host_shard: HostShard | None, sums: bool | None) -> dict[int, float]:
    """The factors for the weights in the last batch, by leaf number; see `padded.scale`."""
    batching = producer.batching
    if not batching.weighs:
        return {}
    return padded.scale(producer, host_shard or batching.host_shard, sums=batching.sums if sums is None else sums)


def _with_cardinality(made: Any, form: Form, outline: Outline, ahead: int) -> tf.data.Dataset:
    """`made`, which knows the number of its elements, as far as that is known."""
    tf = tensorflow()
    if outline.cardinality is None:
        return made
    if outline.cardinality == math.inf:
        return made.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    # Append an empty `.repeat()`, then `take(n)`: declares the cardinality without asserting it. An iteration that
    # resumes from a state has fewer batches, and an asserted cardinality would not allow that.
    nothing = _elements(form, NoIterators(), outline, ahead).repeat()
    return made.concatenate(nothing).take(int(outline.cardinality))


def _options() -> tf.data.Options:
    """The options of the dataset."""
    tf = tensorflow()
    options = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA  # each a part of a batch
    options.experimental_distribute.auto_shard_policy = policy
    options.autotune.enabled = False  # nothing to tune, and its thread can delay the end of an iterator by seconds
    return options


def _elements(form: Form, iterators: Iterators | NoIterators, outline: Outline, ahead: int) -> tf.data.Dataset:
    """The elements to hand out: batches, with `ahead` of them (or none) prefetched, or examples one by one."""
    made = batches(form, iterators, outline.static_rows)
    made = made.prefetch(ahead) if ahead else made
    if outline.single:
        made = made.unbatch()
        if any(leaf.kind is Kind.VARYING for leaf in form.batch.leaves):
            made = made.map(native(partial(example, form)))
        made = made.prefetch(outline.size) if ahead else made
    return made
