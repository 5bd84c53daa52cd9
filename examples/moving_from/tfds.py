"""A data source of TensorFlow Datasets, decoded and augmented in many processes.

`as_data_source` reads examples by index, from a dataset that was prepared in the format "array_record". The workers do
not import TensorFlow.

    python examples/moving_from/tfds.py
"""

# What changes:
#
# - builder = Halves(data_dir=folder)
# + builder = Halves(data_dir=folder, file_format="array_record")
# - train = builder.as_dataset("train", as_supervised=True, shuffle_files=True).map(tensor_augmented)
# - model.fit(train.shuffle(1000).batch(32), epochs=3, verbose=2)
# + pairs = stoker.from_tfds(builder.as_data_source("train"), columns=("image", "label"))
# + with stoker.Loader(pairs, batch_size=32, shuffle=True, transform=augmented, workers=2) as train:
# +     model.fit(train.to_tf(), epochs=3, verbose=2)

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow_datasets as tfds

import stoker


class Halves(tfds.core.GeneratorBasedBuilder):
    """Noisy pictures in which the upper or the lower half is brighter. Nothing is downloaded."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(2000), "test": self._generate_examples(400)}

    def _generate_examples(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        rng = np.random.default_rng(count)
        for number in range(count):
            pixels, label = rng.normal(100, 30, (8, 8, 1)), number % 2
            pixels[4 * label : 4 * label + 4] += 50
            yield number, {"image": pixels.clip(0, 255).astype(np.uint8), "label": label}


def augmented(image: np.ndarray, label: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Return a picture that is mirrored half of the time, and its label. Runs in the workers."""
    return (image.astype(np.float32) / 128 - 1)[:, :: rng.choice([-1, 1])], label


def main() -> None:
    """Prepare the dataset, train for three epochs, then evaluate on the other split."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        builder = Halves(data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
        pairs = stoker.from_tfds(builder.as_data_source("train"), columns=("image", "label"))
        with stoker.Loader(pairs, batch_size=32, shuffle=True, transform=augmented, workers=2) as train:
            model.fit(train.to_tf(), epochs=3, verbose=2)
        others = stoker.from_tfds(builder.as_data_source("test"), columns=("image", "label"))
        with stoker.Loader(others, batch_size=100, transform=augmented, workers=0) as test:
            _, accuracy = model.evaluate(test.to_tf(), verbose=0)
    print(f"accuracy on the other split: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
