"""One big array, read by many processes, in memory once.

Freshly started processes each get a copy of what they are sent. `stoker.from_arrays` instead moves an array into shared
memory, where each worker reads the rows that it needs. This example has 256 MiB of images, read by 1 worker,
then by 8.

For each, the script prints the memory of all processes together and how many rows each worker read. Memory is PSS,
which counts a page shared by n processes as 1/n in each. Then it prints the accuracy of a model trained from the shared
array. It needs `pip install psutil`.

    python examples/shared_memory.py
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import keras
import numpy as np
import psutil

import stoker

IMAGES, SIDE = 16_384, 128
MIB = 1 << 20


def make_images() -> tuple[np.ndarray, np.ndarray]:
    """Make noise of shape (IMAGES, SIDE, SIDE), uint8, with one quarter brighter, and that quarter's number, 0 to 3."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 128, (IMAGES, SIDE, SIDE), np.uint8)
    quarters = rng.integers(0, 4, IMAGES)
    half = SIDE // 2
    for image, quarter in zip(images, quarters, strict=True):
        top, left = divmod(int(quarter), 2)
        image[top * half :, left * half :][:half, :half] += 20
    return images, quarters


def note_worker(example: Any) -> Any:
    """Add the worker's process ID to the example. A transform, which runs in the workers."""
    return {**example, "worker": os.getpid()}


def memory_of_all_processes() -> int:
    """Return the bytes that this process and its workers use together (PSS)."""
    trainer = psutil.Process()
    return sum(process.memory_full_info().pss for process in [trainer, *trainer.children(recursive=True)])


def new_loader(workers: int) -> stoker.Loader:
    """Return a Loader of batches of 64 from a new array."""
    images, quarters = make_images()
    source = stoker.from_arrays({"image": images, "quarter": quarters})
    return stoker.Loader(source, batch_size=64, shuffle=True, transform=note_worker, workers=workers)


def measure(loader: stoker.Loader, workers: int) -> int:
    """Read every row three times, print how many each worker read, and return the memory of all processes."""
    rows: Counter[int] = Counter()
    for _ in range(3):  # in the first epoch, some workers are still starting
        for batch in loader:
            rows.update(batch["worker"].tolist())
    taken = memory_of_all_processes()
    shares = ", ".join(f"{count:,}" for count in sorted(rows.values(), reverse=True))
    print(f"workers: {workers}, memory: {taken / MIB:,.0f} MiB, rows read by each: {shares}")
    assert rows.total() == 3 * IMAGES
    return taken


def train(loader: stoker.Loader) -> float:
    """Train a small model on the images and return its accuracy in the last epoch."""
    keras.utils.set_random_seed(2)
    pairs = loader.to_tf().map(lambda example: (example["image"][..., None], example["quarter"]))
    model = keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.AveragePooling2D(SIDE // 4)])
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(4, "softmax"))
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return float(model.fit(pairs, epochs=2, verbose=2).history["accuracy"][-1])


def main() -> None:
    """Compare the memory of 1 and 8 workers, then train."""
    array = IMAGES * SIDE * SIDE
    print(f"the array alone: {array / MIB:,.0f} MiB")
    with new_loader(workers=1) as loader:
        one = measure(loader, workers=1)
    with new_loader(workers=8) as loader:
        eight = measure(loader, workers=8)
        print(f"7 more workers took {(eight - one) / MIB:,.0f} MiB more; 7 copies would take {7 * array / MIB:,.0f}")
        assert eight - one < array, "the array was copied"
        accuracy = train(loader)
    print(f"accuracy: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
