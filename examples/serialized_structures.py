"""Images and labels of varying shapes: as serialised tensors, and as they are.

Tensors of varying shapes can be sent as strings, with `tf.io.serialize_tensor` on one side and `tf.io.parse_tensor` on
the other. People write this by hand where only strings may vary in size, and it works here. Stoker can also write the
strings itself, with `to_tf(serialized=True)`. Or you omit them: `to_tf()` gives the tensors.

The script prints the seconds per epoch for each of the three ways and checks that they give the same pictures. It also
prints how well a small convolutional network recognises the kinds of stripes in new ones.

    python examples/serialized_structures.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import stoker

KINDS = 3
SPEC = (tf.TensorSpec((None, None, 1), tf.uint8), tf.TensorSpec((None,), tf.int64))
STRINGS = (tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.string))


def picture(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a picture of shape (height, width, 1), 40 to 80 pixels each, and its kinds of stripes, shape (1 to 3,)."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 100, (*rng.integers(40, 80, 2), 1), np.uint8)
    kinds = rng.permutation(KINDS)[: rng.integers(1, KINDS + 1)]
    for kind, part in zip(kinds, np.array_split(image, KINDS, axis=1), strict=False):
        rows, columns, _ = np.indices(part.shape)
        across = (rows, columns, rows + columns)[kind]  # horizontal, vertical or diagonal
        part += (across // 2 % 2 * 100).astype(np.uint8)
    return image, kinds


def pictures(shard: stoker.Shard, numbers: range) -> Iterator[Any]:
    """Yield this shard's pictures."""
    for number in shard.split(numbers):
        yield picture(number)


def serialized_pictures(shard: stoker.Shard, numbers: range) -> Iterator[Any]:
    """Yield the same pictures as strings. Workers import TensorFlow because this function uses it."""
    for image, kinds in pictures(shard, numbers):
        yield tf.io.serialize_tensor(image), tf.io.serialize_tensor(kinds)


def parse(image: tf.Tensor, kinds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Convert strings to tensors, in TensorFlow. A string does not carry the static shape."""
    image, kinds = tf.io.parse_tensor(image, tf.uint8), tf.io.parse_tensor(kinds, tf.int64)
    return tf.ensure_shape(image, SPEC[0].shape), tf.ensure_shape(kinds, SPEC[1].shape)


def loader(function: Callable[..., Any], numbers: range, signature: Any, shuffle: int = 0) -> stoker.Loader:
    """Return a Loader of single pictures (batch_size=None, as their shapes differ), made in the workers."""
    source = stoker.from_generator(lambda shard: function(shard, numbers), shards=8, length=len(numbers))
    return stoker.Loader(source, batch_size=None, output_signature=signature, shuffle=shuffle, seed=3)


def epoch(name: str, dataset: tf.data.Dataset) -> list[Any]:
    """Return all examples of a dataset. Reads it twice: the first time starts the workers, the second is timed."""
    for _ in dataset:
        pass
    start = perf_counter()
    examples = list(dataset)
    print(f"{name:32} {perf_counter() - start:.2f} s an epoch")
    return examples


def batches(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return batches for Keras: pictures padded to the largest in the batch, kinds as ones and zeros."""
    pairs = dataset.map(lambda image, kinds: (image, tf.reduce_max(tf.one_hot(kinds, KINDS), axis=0)))
    return pairs.padded_batch(32)


def main() -> None:
    """Compare the three ways, then train on the last one."""
    keras.utils.set_random_seed(3)
    some = range(400)
    with loader(serialized_pictures, some, STRINGS) as by_hand, loader(pictures, some, SPEC) as by_stoker:
        first = epoch("serialised by your generator", by_hand.to_tf().map(parse))
        second = epoch("serialised by Stoker", by_stoker.to_tf(serialized=True).map(parse))
        third = epoch("as they are", by_stoker.to_tf())
    for way in (first, second):
        for (image, kinds), (same_image, same_kinds) in zip(way, third, strict=True):
            assert np.array_equal(image, same_image)
            assert np.array_equal(kinds, same_kinds)
    print(f"all three gave the same {len(third):,} pictures of {len({tuple(x.shape) for x, _ in third})} shapes")

    model = keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(16, 7, 2, activation="relu")])
    model.add(keras.layers.GlobalMaxPooling2D())  # for pictures of any size
    model.add(keras.layers.Dense(KINDS, "sigmoid"))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["binary_accuracy"])
    with loader(pictures, range(900), SPEC, shuffle=100) as train, loader(pictures, range(900, 1100), SPEC) as new:
        model.fit(batches(train.to_tf()), epochs=4, verbose=2)
        _, accuracy = model.evaluate(batches(new.to_tf()), verbose=0)
    print(f"kinds told rightly in new pictures: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
