"""The model: a convolutional network so small that its input is the bottleneck."""

from __future__ import annotations

from typing import Any

from .digits import SIDE


def build(seed: int, steps: int) -> Any:
    """Builds and compiles the network, with the same initial weights for the same seed.

    Args:
        seed: Seed of the weights.
        steps: Steps of the whole training, over which the learning rate falls to zero along a cosine.

    Returns:
        A compiled `keras.Model` from (batch, SIDE, SIDE, 1) to ten logits.
    """
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            layers.Conv2D(16, 5, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(96, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model
