"""A Grain MapDataset, read by index in many processes.

Its own steps (`shuffle`, `map`, `random_map`, `filter`) run in the workers and draw Grain's own random numbers. Epoch n
of the Loader is the n-th repetition of the dataset. What a `filter` leaves out is left out, and batches stay full.

    python examples/moving_from/grain_dataset.py
"""

# What changes:
#
# - batches = dataset.to_iter_dataset().batch(32).mp_prefetch(grain.MultiprocessingOptions(num_workers=2))
# - model.fit(batches, epochs=3, verbose=2)
# + with stoker.Loader(dataset, batch_size=32, workers=2) as train:
# +     model.fit(train.to_tf(), epochs=3, verbose=2)

from __future__ import annotations

import warnings

import grain
import keras
import numpy as np

import stoker


def picture(number: int) -> tuple[np.ndarray, int]:
    """Return a noisy picture in which the upper or the lower half is brighter, and which half that is."""
    pixels, label = np.random.default_rng(number).normal(size=(8, 8)).astype(np.float32), number % 2
    pixels[4 * label : 4 * label + 4] += 1
    return pixels, label


def mirrored(example: tuple[np.ndarray, int], rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Return a picture that is mirrored half of the time, and its label."""
    pixels, label = example
    return pixels[:, :: rng.choice([-1, 1])], label


def is_clean(number: int) -> bool:
    """Leave out one number in seven."""
    return number % 7 != 0


def main() -> None:
    """Train for three epochs, then evaluate on other pictures."""
    warnings.filterwarnings("ignore", "Your input ran out of data")  # with a filter, nobody knows the number of batches
    dataset = grain.MapDataset.range(3000).seed(1).shuffle().filter(is_clean).map(picture).random_map(mirrored)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    with stoker.Loader(dataset, batch_size=32, workers=2) as train:
        model.fit(train.to_tf(), epochs=3, verbose=2)
    with stoker.Loader(grain.MapDataset.range(3000, 3400).map(picture), batch_size=100, workers=0) as test:
        _, accuracy = model.evaluate(test.to_tf(), verbose=0)
    print(f"accuracy on other pictures of Grain's: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
