"""`to_keras(class_weight=…)`: a weight for each example, according to the class that its target names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stoker.errors import OptionError
from stoker.feed.lazy_tensorflow import tensorflow
from stoker.structure.collation import Form
from stoker.structure.forms import STRING, Array
from stoker.structure.leaf import Kind
from stoker.validation import index, real


class ClassWeights:
    """The weights of classes, with Keras' meaning: a target is one-hot, or a class number; other classes weigh 1.

    Args:
        given: weights by class.
        form: the form of the batches, which must be pairs (x, y).
        dtype: the dtype of the weights.

    Raises:
        OptionError: a class or a weight is none, or the batches are not such pairs.
    """

    def __init__(self, given: Any, form: Form, dtype: str) -> None:
        weights = _checked(given)
        _require_target(form)
        self._classes = np.array(sorted(weights), np.int64)
        self._weights = np.array([weights[number] for number in self._classes.tolist()], dtype)

    def of(self, targets: Array) -> Array:
        """The weights of a batch's examples."""
        if targets.ndim > 1:
            targets = targets.argmax(-1) if targets.shape[-1] != 1 else targets[..., 0]
        if targets.dtype.kind not in "iu":
            targets = np.rint(targets.astype(np.float32)).astype(np.int64)
        places = np.minimum(np.searchsorted(self._classes, targets), len(self._classes) - 1)
        found = self._weights[places]
        return np.where(self._classes[places] == targets, found, found.dtype.type(1))

    def weighted(self, *batch: Any) -> tuple[Any, Any, Any]:
        """A batch with the weights of its examples, in TensorFlow's ops. A named tuple comes as one argument."""
        tf = tensorflow()
        x, y = batch[0] if len(batch) == 1 else batch
        targets = tf.cast(y, tf.int64) if y.dtype.is_bool else y
        if y.shape.rank > 1:
            targets = tf.argmax(targets, -1) if y.shape[-1] != 1 else tf.squeeze(targets, -1)
        if not targets.dtype.is_integer:
            targets = tf.round(tf.cast(targets, tf.float32))
        targets = tf.cast(targets, tf.int64)
        places = tf.minimum(tf.searchsorted(self._classes, targets), len(self._classes) - 1)
        weights = tf.gather(self._weights, places)
        return x, y, tf.where(tf.gather(self._classes, places) == targets, weights, tf.ones_like(weights))


def _checked(given: Any) -> dict[int, float]:
    """The weights by class. Raises `OptionError`."""
    if not isinstance(given, Mapping) or not given:
        raise OptionError(f"class_weight must be a dict of weights by class, such as {{0: 1.0, 1: 2.5}}, got {given!r}")
    checked = {}
    for key, value in given.items():
        number, weight = index(key), real(value)
        if number is None or not 0 <= number < 1 << 63:
            raise OptionError(f"class_weight has the class {key!r}. Classes are whole numbers from 0.")
        if weight is None or not 0 <= weight <= float(np.finfo(np.float32).max):
            raise OptionError(
                f"class_weight has {value!r} for class {number}. A weight is a number of at least 0, within float32."
            )
        checked[number] = weight
    return checked


def _require_target(form: Form) -> None:
    """Raise `OptionError` unless a batch is a pair of inputs and a single array of targets."""
    tree, leaves = form.batch.tree, form.batch.leaves
    is_sequence = tree.type is not None and issubclass(tree.type, tuple | list)
    parts = tree.num_children if is_sequence else 1
    if parts == 3:
        raise OptionError(
            "class_weight= cannot be used with examples (x, y, sample_weight), which have weights already (so do those "
            "of pad_remainder=). Multiply the weights in the transform instead."
        )
    if parts != 2:
        raise OptionError(f"class_weight= needs examples (x, y), but these have {parts} part{'s' * (parts != 1)}.")
    if tree.children()[1].num_leaves != 1 or tree.children()[1].num_children:
        raise OptionError(
            "class_weight= needs a single array of targets, but the targets y are nested, or None. Let the transform "
            "return (x, y, sample_weight) instead, with a weight for each output."
        )
    target = leaves[-1]
    if target.kind is not Kind.DENSE or target.dtype == STRING or target.dtype.kind == "c" or len(target.shape) > 2:
        raise OptionError(
            f"class_weight= needs one class for each example, as a number or one-hot, but the targets are {target}. "
            "Let the transform return (x, y, sample_weight) instead."
        )
