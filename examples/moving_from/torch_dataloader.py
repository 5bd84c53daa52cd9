"""PyTorch DataLoaders, as they are: with a sampler, a collate function, and a dataset that divides itself.

The Loader takes over `batch_size`, `sampler` and `collate_fn`. `num_workers` says into how many parts `Stream` divides
itself, and Stoker's own workers read these. For `Walks` it is not used, and a line on stderr says so.

The script prints how many walks of each class came, a line for each epoch, and the accuracy on walks never trained on.

    python examples/moving_from/torch_dataloader.py
"""

# What changes, in a script that gives Keras these DataLoaders:
#
# - model.fit(balanced, epochs=4, verbose=2)
# - _, accuracy = model.evaluate(others, verbose=0)
# + with stoker.Loader(balanced, workers=2) as train, stoker.Loader(others, workers=2) as held_out:
# +     model.fit(train.to_tf(), epochs=4, verbose=2)
# +     _, accuracy = model.evaluate(held_out.to_tf(), verbose=0)

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler, get_worker_info

import stoker

STEPS = 24  # at most
RARE = 10  # one of so many walks goes up
Walk = tuple[torch.Tensor, int]


def walk(number: int) -> Walk:
    """Return a random walk of 8 to 24 steps, and whether it tends upwards. Few do."""
    generator = torch.Generator().manual_seed(number)
    steps = torch.randn(int(torch.randint(8, STEPS + 1, (), generator=generator)), generator=generator)
    upwards = number % RARE == 0
    return steps + (0.8 if upwards else -0.2), int(upwards)


class Walks(Dataset):
    """Walks by number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Walk:
        return walk(index)


class Stream(IterableDataset):
    """Walks one after the other, divided among the workers as PyTorch's documentation shows."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def __iter__(self) -> Iterator[Walk]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        yield from map(walk, range(self.start + first, self.end, step))


def padded(walks: list[Walk]) -> tuple[torch.Tensor, torch.Tensor]:
    """Join walks of differing lengths."""
    steps, labels = zip(*walks, strict=True)
    steps = (*steps, torch.zeros(STEPS))  # all batches get the same width
    return pad_sequence(steps, batch_first=True)[:-1].unsqueeze(-1), torch.tensor(labels, dtype=torch.float32)


def main() -> None:
    """Train on walks of which half go up, as the sampler says, and test on others."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((STEPS, 1)),
            keras.layers.Conv1D(16, 5, activation="relu"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])

    weights = [RARE - 1.0 if number % RARE == 0 else 1.0 for number in range(3000)]
    sampler = WeightedRandomSampler(weights, num_samples=3000)
    balanced = DataLoader(Walks(3000), batch_size=32, sampler=sampler, collate_fn=padded, num_workers=2)
    others = DataLoader(Stream(3000, 3600), batch_size=32, collate_fn=padded, num_workers=2)
    with stoker.Loader(balanced, workers=2) as train, stoker.Loader(others, workers=2) as held_out:
        upwards = np.concatenate([labels for _, labels in train])
        assert len(upwards) == 3000
        assert sum(len(labels) for _, labels in held_out) == 600
        print(f"{upwards.mean():.0%} of the walks in an epoch go up; in the dataset {1 / RARE:.0%} do")
        model.fit(train.to_tf(), epochs=4, verbose=2)
        _, accuracy = model.evaluate(held_out.to_tf(), verbose=0)

    print(f"accuracy on walks never trained on: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
