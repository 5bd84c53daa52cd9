"""A PyTorch Dataset, as it is, whose examples are made in many processes.

The batches have the values and dtypes that a DataLoader gives them. The script compares some, trains, and prints the
accuracy on pictures never trained on.

    python examples/moving_from/torch_dataset.py
"""

# What changes, in a script that gives Keras a PyTorch DataLoader:
#
# - train = DataLoader(pictures, batch_size=32, shuffle=True, num_workers=2)
# - model.fit(train, epochs=3, verbose=2)
# + with stoker.Loader(pictures, batch_size=32, shuffle=True, workers=2) as train:
# +     model.fit(train.to_tf(), epochs=3, verbose=2)

from __future__ import annotations

import keras
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

import stoker

SIDE = 16


class Bars(Dataset):
    """Noisy pictures of a bar, each drawn from its number, and whether the bar is upright."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        picture = 0.3 * torch.rand(SIDE, SIDE, generator=generator)
        place = int(torch.randint(SIDE, (), generator=generator))
        picture[place] += 0.7
        upright = index % 2
        return (picture.T if upright else picture).unsqueeze(-1), upright


def main() -> None:
    """Compare batches with PyTorch's, then train on 2,000 pictures and test on 400 others."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            keras.layers.Conv2D(8, 5, activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])

    pictures, others = Subset(Bars(2400), range(2000)), Subset(Bars(2400), range(2000, 2400))
    with stoker.Loader(pictures, batch_size=32, shuffle=True, workers=2) as train:
        model.fit(train.to_tf(), epochs=3, verbose=2)
    with stoker.Loader(others, batch_size=32, workers=2) as held_out:
        for (x, y), (their_x, their_y) in zip(held_out, DataLoader(others, batch_size=32), strict=True):
            assert np.array_equal(x, their_x.numpy())
            assert np.array_equal(y, their_y.numpy())
        print("the 13 batches of other pictures equal those of a DataLoader")
        _, accuracy = model.evaluate(held_out.to_tf(), verbose=0)

    print(f"accuracy on pictures never trained on: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
