"""A Keras PyDataset, as it is, whose batches are made in many processes.

Its items are batches, and `len()` counts batches. Its `on_epoch_end` is called in each worker with the same random
numbers, so that it shuffles itself and every example still comes exactly once an epoch.

    python examples/moving_from/keras_pydataset.py
"""

# What changes:
#
# - model.fit(Pictures(4000, workers=2, use_multiprocessing=True), validation_data=Pictures(500), epochs=3, verbose=2)
# + with stoker.Loader(Pictures(4000), workers=2) as train, stoker.Loader(Pictures(500), workers=0) as held_out:
# +     history = model.fit(train.to_tf(), validation_data=held_out.to_tf(), epochs=3, verbose=2)

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import stoker


class Pictures(keras.utils.PyDataset):
    """Batches of noisy pictures in which one of four quadrants is brighter."""

    def __init__(self, count: int, batch_size: int = 32, **options: Any) -> None:
        super().__init__(**options)
        self.order, self.batch_size = np.arange(count), batch_size

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        pictures = np.stack([np.random.default_rng(number).normal(size=(8, 8)) for number in numbers])
        for picture, number in zip(pictures, numbers, strict=True):
            top, left = divmod(number % 4, 2)
            picture[4 * top : 4 * top + 4, 4 * left : 4 * left + 4] += 1
        return pictures.astype(np.float32), numbers % 4

    def on_epoch_end(self) -> None:
        """Shuffle the rows."""
        np.random.shuffle(self.order)


def main() -> None:
    """Train for three epochs."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    with stoker.Loader(Pictures(4000), workers=2) as train, stoker.Loader(Pictures(500), workers=0) as held_out:
        history = model.fit(train.to_tf(), validation_data=held_out.to_tf(), epochs=3, verbose=2)
    accuracy = history.history["val_accuracy"][-1]
    print(f"accuracy of a PyDataset's model: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
