"""Augmentation by Keras' random layers, as users write it: held, made on first use, made anew, compiled, global."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np


@functools.lru_cache
def noise(kind: int) -> Any:
    """A layer that is made when an example first wants it."""
    import keras

    return keras.layers.GaussianNoise(1.0)


@functools.lru_cache
def compiled() -> Any:
    import keras
    import tensorflow as tf

    layer = keras.layers.GaussianNoise(1.0)
    return tf.function(lambda x: layer(x, training=True))


class Augment:
    """Holds generators of Keras and TensorFlow; draws from all others too."""

    def __init__(self, generator: Any, tensorflows: Any) -> None:
        self.generator, self.tensorflows = generator, tensorflows

    def __call__(self, example: int) -> Any:
        import keras

        x = np.zeros((1, 2), np.float32)
        drawn = [
            noise(example % 3)(x, training=True),
            noise(0)(x, training=True),
            keras.layers.GaussianNoise(1.0)(x, training=True),
            compiled()(x),
            keras.random.normal((1, 2)),
            keras.random.normal((1, 2), seed=self.generator),
            keras.random.normal((1, 2), seed=self.generator),
            self.tensorflows.normal((1, 2)),
            [[random.random()] * 2],
        ]
        return np.concatenate([np.asarray(values, np.float64) for values in drawn])
