"""A Hugging Face Dataset, whose rows are decoded and augmented in many processes.

`columns` makes pairs (x, y) of the rows. Workers map the dataset's Arrow data and copy none of it. A streamed
`IterableDataset` is given in the same way.

    python examples/moving_from/hugging_face.py
"""

# What changes:
#
# - train = rows["train"].to_tf_dataset(batch_size=32, columns="image", label_cols="label", shuffle=True)
# - model.fit(train.map(tensor_augmented), epochs=3, verbose=2)
# + pairs = stoker.from_hugging_face(rows["train"], columns=("image", "label"))
# + with stoker.Loader(pairs, batch_size=32, shuffle=True, transform=augmented, workers=2) as train:
# +     model.fit(train.to_tf(), epochs=3, verbose=2)

from __future__ import annotations

from typing import Any

import datasets
import keras
import numpy as np
from PIL import Image

import stoker


def pictures(count: int) -> datasets.Dataset:
    """A dataset of PNGs in which the upper or the lower half is brighter."""
    rng = np.random.default_rng(count)
    labels = rng.integers(2, size=count)
    pixels = rng.normal(100, 30, (count, 8, 8))
    for picture, label in zip(pixels, labels, strict=True):
        picture[4 * label : 4 * label + 4] += 50
    images = [Image.fromarray(picture.clip(0, 255).astype(np.uint8)) for picture in pixels]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["up", "down"])})
    return datasets.Dataset.from_dict({"image": images, "label": labels.tolist()}, features=features)


def augmented(image: Any, label: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Return a picture that is mirrored half of the time, and its label. Runs in the workers."""
    pixels = np.asarray(image, np.float32) / 128 - 1
    return pixels[:, :: rng.choice([-1, 1])], label


def main() -> None:
    """Train for three epochs, then evaluate on other rows."""
    rows = datasets.DatasetDict({"train": pictures(2000), "test": pictures(400)})
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    pairs = stoker.from_hugging_face(rows["train"], columns=("image", "label"))
    with stoker.Loader(pairs, batch_size=32, shuffle=True, transform=augmented, workers=2) as train:
        model.fit(train.to_tf(), epochs=3, verbose=2)
    others = stoker.from_hugging_face(rows["test"], columns=("image", "label"))
    with stoker.Loader(others, batch_size=100, transform=augmented, workers=0) as test:
        _, accuracy = model.evaluate(test.to_tf(), verbose=0)
    print(f"accuracy on other rows of the dataset: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
