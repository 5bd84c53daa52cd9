"""A tf.data.Dataset, whose elements go through slow Python in many processes.

TensorFlow's own steps stay where they are, in the trainer. The function that was called by `tf.numpy_function`, one
example at a time, becomes the transform and runs in the workers, which do not import TensorFlow.

    python examples/moving_from/tf_data.py
"""

# What changes:
#
# - signature = (tf.TensorSpec((8, 8), tf.float32), tf.TensorSpec((), tf.int64))
# - train = dataset.map(lambda *example: tf.numpy_function(enlarged, example, signature)).batch(32)
# - model.fit(train, epochs=3, verbose=2)
# + with stoker.Loader(dataset, batch_size=32, transform=enlarged, workers=2) as train:
# +     model.fit(train.to_tf(), epochs=3, verbose=2)

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import stoker


def enlarged(pixels: np.ndarray, label: np.int64) -> tuple[np.ndarray, np.int64]:
    """Return the picture at twice its size, and its label."""
    return np.kron(pixels, np.ones((2, 2), np.float32)), label


def dataset_of(count: int) -> tf.data.Dataset:
    """Noisy pictures in which the upper or the lower half is brighter, shuffled by TensorFlow."""
    rng = np.random.default_rng(count)
    labels = np.arange(count) % 2
    pictures = rng.normal(size=(count, 4, 4)).astype(np.float32)
    for picture, label in zip(pictures, labels, strict=True):
        picture[2 * label : 2 * label + 2] += 1.5
    return tf.data.Dataset.from_tensor_slices((pictures, labels)).shuffle(count)


def main() -> None:
    """Train for three epochs, then evaluate on other pictures."""
    dataset = dataset_of(3000)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    with stoker.Loader(dataset, batch_size=32, transform=enlarged, workers=2) as train:
        model.fit(train.to_tf(), epochs=3, verbose=2)
    with stoker.Loader(dataset_of(400), batch_size=100, transform=enlarged, workers=0) as test:
        _, accuracy = model.evaluate(test.to_tf(), verbose=0)
    print(f"accuracy on other elements: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
