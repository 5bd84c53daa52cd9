"""Filled-up batches (`pad_remainder`), adjusted so that Keras computes the same results as without fillers.

Keras divides by the number of rows in a batch, whatever their weights are. Its own loops (`fit`, `evaluate`,
`predict`) therefore get the last batch without fillers where possible: with one replica. All other consumers get it
filled up, with weights scaled so that the sum over all rows, divided by their number, is the mean over the examples.
"""

from __future__ import annotations

import sys
from typing import Any

from stoker.coordinator.producer import BatchProducer
from stoker.errors import OptionError
from stoker.plan.host_shard import HostShard

#: The most frames between a Keras loop and the call that makes an iterator.
_FRAMES = 16


def scale(producer: BatchProducer, host_shard: HostShard, *, sums: bool) -> dict[int, float]:
    """The factors for the weights in the last batch, by leaf number.

    Args:
        producer: makes the batches.
        host_shard: the rows of each batch to hand out.
        sums: True if the loss is the sum over the examples, not their mean.
    """
    whole = producer.counts.rest()
    first, stop = host_shard.span(whole, producer.batching.size)
    factor = 1.0 if sums else (stop - first) * host_shard.count / whole
    leaves = producer.form().batch.leaves
    return {number: factor for number, leaf in enumerate(leaves) if leaf.path.startswith("[2]") and factor != 1}


def of_keras_loop(producer: BatchProducer, frame: Any) -> tuple[HostShard, bool] | None:
    """The rows, and whether losses are sums, for a Keras loop that makes an iterator in this frame.

    None if the frame is not Keras', or if Keras distributes the batches.
    """
    if not frame.f_globals.get("__name__", "").startswith(("keras.", "tf_keras.")) or is_distributed():
        return None
    batching = producer.batching
    host_shard, whole = batching.host_shard, producer.counts.rest()
    if whole >= host_shard.count:
        host_shard = HostShard(host_shard.index, host_shard.count)
    first, stop = host_shard.span(whole, batching.size)
    if (stop - first) * host_shard.count == whole:
        return host_shard, False
    return host_shard, _sums(_model(frame), batching.sums)


def is_distributed() -> bool:
    """True if Keras distributes each batch to several devices."""
    keras: Any = sys.modules.get("keras")
    return keras is not None and keras.distribution.distribution() is not None


def _model(frame: Any) -> Any:
    for _ in range(_FRAMES):
        its = frame.f_locals.get("self")
        if hasattr(its, "_compile_loss"):
            return its
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


def _sums(model: Any, default: bool) -> bool:
    """True if the model's losses are sums over the examples of a batch; `default` if the model has none."""
    losses = getattr(getattr(model, "_compile_loss", None), "_user_loss", None)
    if losses is None:
        return default
    from keras import tree

    kinds = {
        getattr(loss, "reduction", "sum_over_batch_size") in ("sum", None, "none")
        for loss in tree.flatten(losses)
        if loss is not None
    }
    if len(kinds) > 1:
        raise OptionError(
            "some of the model's losses are sums over a batch and some are means, and the last batch is not divided "
            "evenly, so no example weight is right for both. Use one `reduction` for all, or pass drop_remainder=True."
        )
    return kinds.pop() if kinds else default
