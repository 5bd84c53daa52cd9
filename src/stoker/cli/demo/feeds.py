"""The contenders: two ways to feed the same source and the same augmentation into `fit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import stoker

from .digits import SIDE, Digits, Example, augment

BATCH = 64


def steps_per_epoch(digits: Digits) -> int:
    """The number of batches per epoch, including a short last one."""
    return -(-len(digits) // BATCH)


def one_process(digits: Digits, seed: int) -> Any:
    """The TensorFlow-only version: a generator, batched and prefetched by tf.data.

    Returns:
        A `tf.data.Dataset` of (images, labels).
    """
    import tensorflow as tf

    rng = np.random.default_rng(seed)

    def generate() -> Iterator[Example]:
        for index in rng.permutation(len(digits)):
            yield augment(digits[index], rng)

    signature = (tf.TensorSpec((SIDE, SIDE, 1), tf.float32), tf.TensorSpec((), tf.int64))
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    dataset = dataset.batch(BATCH).prefetch(2)
    # In this contender's favour: with the tuner on, TensorFlow 2.21 may sleep for seconds when an epoch's
    # iterator is destroyed, until the tuner wakes (after 0.01, 0.03, 0.07, ... 5.11, 10.23 s).
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    return dataset.apply(tf.data.experimental.assert_cardinality(steps_per_epoch(digits)))


def many_processes(digits: Digits, seed: int, workers: int) -> stoker.Loader:
    """The Stoker version.

    Returns:
        A Loader, which the caller must close.
    """
    return stoker.Loader(digits, batch_size=BATCH, shuffle=True, seed=seed, transform=augment, workers=workers)
