"""A Loader as a `tf.data.Dataset`, without copying.

TensorFlow takes over the memory of a 64-byte-aligned array that a `tf.numpy_function` returns,
and drops the array when its last tensor over that memory is gone; that ends the lease.

The dataset is built on the op under `Dataset.from_generator`, which tells concurrent iterators
apart and tells when one is abandoned. `from_generator` itself checks each element again in
Python: it costs 1.5 times as much a batch (docs/decisions.md).
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import optree

from stoker.dispatch import close_before_others, exiting
from stoker.errors import ClosedError
from stoker.memory import Layout
from stoker.plan import Plan
from stoker.spec import Spec

if TYPE_CHECKING:
    import tensorflow as tf

    from stoker.loader import Batches, Loader

#: Batches that tf.data pulls ahead of the training step, so that the pull overlaps with it: 2; of small ones,
#: of which a pull costs more than they do, as many as fit into 4 MiB, up to 6; of those beyond 64 MiB only 1.
_AHEAD, _AHEAD_SMALL, _SMALL_BYTES, _LARGE_BYTES = 2, 6, 4 << 20, 64 << 20


def dataset(loader: Loader, spec: Spec, plan: Plan) -> tf.data.Dataset:
    """The batches of `loader`; see `Loader.to_tf`."""
    tf = _tensorflow()
    close_before_others()
    nested = element_spec(spec, plan.static_rows())
    flat = tf.nest.flatten(nested)
    iterators = _Iterators(loader, _leaf_order(spec))
    begin, pull, end = _weak(iterators)
    number = tf.TensorSpec((), tf.int64)

    begin_op = tf.function(lambda: tf.numpy_function(begin, [], tf.int64), input_signature=[])
    pull_op = tf.function(lambda n: tf.numpy_function(pull, [n], [leaf.dtype for leaf in flat]), [number])
    end_op = tf.function(lambda n: tf.numpy_function(end, [n], tf.int64), [number])
    variant = tf.raw_ops.GeneratorDataset(
        init_func_other_args=[],
        next_func_other_args=[],
        finalize_func_other_args=[],
        init_func=begin_op.get_concrete_function(),
        next_func=pull_op.get_concrete_function(),
        finalize_func=end_op.get_concrete_function(),
        output_types=[leaf.dtype for leaf in flat],
        output_shapes=[leaf.shape for leaf in flat],
    )
    made = tf.data.experimental.from_variant(variant, nested)
    made._stoker = iterators  # datasets derived from it, and their iterators, keep it
    options = tf.data.Options()
    options.autotune.enabled = False  # there is nothing to tune, and its thread can delay an iterator's end by seconds
    counted = made.apply(tf.data.experimental.assert_cardinality(plan.batches))
    size = Layout.of(spec.leaves, plan.batch_size).nbytes
    ahead = 1 if size > _LARGE_BYTES else max(_AHEAD, min(_AHEAD_SMALL, _SMALL_BYTES // size))
    return counted.prefetch(ahead).with_options(options)


class _Iterators:
    """The open iterators of one dataset, by number. Called by TensorFlow, from its threads."""

    def __init__(self, loader: Loader, order: list[int]) -> None:
        self._loader, self._order = loader, order
        self._numbers = itertools.count()
        self._open: dict[int, Batches] = {}

    def begin(self) -> int:
        number = next(self._numbers)
        self._open[number] = iter(self._loader)
        return number

    def pull(self, number: int) -> list[npt.NDArray[Any]]:
        try:
            leaves = self._open[number].leaves()
        except ClosedError:
            if exiting():  # an error here would let TensorFlow pull again while the interpreter goes
                raise StopIteration from None
            raise
        return [leaves[place] for place in self._order]

    def end(self, number: int) -> None:
        self._open.pop(number).close()


def _weak(iterators: _Iterators) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """The methods of `iterators` as functions for TensorFlow, which never lets go of a function that it was given.

    So they hold a weak reference. The dataset holds the strong one, and each iterator its dataset.
    """
    reference = weakref.ref(iterators)

    def begin() -> Any:
        alive = reference()
        assert alive is not None, "an iterator was made over a dataset that is gone"
        return np.int64(alive.begin())

    def pull(number: np.int64) -> list[npt.NDArray[Any]]:
        alive = reference()
        if alive is None:
            raise StopIteration
        return alive.pull(int(number))

    def end(number: np.int64) -> Any:
        alive = reference()
        if alive is not None:
            alive.end(int(number))
        return np.int64(0)

    return begin, pull, end


def element_spec(spec: Spec, rows: int | None) -> Any:
    """`spec` for batches of so many rows (None: it varies) as nested `tf.TensorSpec`s."""
    tf = _tensorflow()
    return _tuples(spec.unflatten(tf.TensorSpec((rows, *leaf.shape), tf.as_dtype(leaf.dtype)) for leaf in spec.leaves))


def _leaf_order(spec: Spec) -> list[int]:
    """Where tf.nest's n-th leaf stands among the leaves of `spec`."""
    return list(_tensorflow().nest.flatten(_tuples(spec.unflatten(range(len(spec.leaves))))))


def _tuples(structure: Any) -> Any:
    """The structure with tuples for lists, which tf.data takes for tensors."""
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
