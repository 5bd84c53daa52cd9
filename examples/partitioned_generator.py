"""A generator over parts of the data, in many processes: a parallel `Dataset.from_generator`.

The data are 40 CSV files of sensor readings. `tf.data.Dataset.from_generator` would run one generator in the process
that trains. Here the generator runs in the workers. It gets a `shard` and reads only its part of the files,
`shard.split(paths)`. You choose the number of shards, which affects the order; the number of workers does not.
`length` is optional: with it, Keras knows the number of steps.

The script prints the files and rows, a line for each epoch of `model.fit`, and the accuracy on files never trained on.

    python examples/partitioned_generator.py
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import stoker

SENSORS = 6
Example = tuple[np.ndarray, float]


def write_recordings(folder: Path, files: int) -> list[Path]:
    """Write CSV files of 150 to 250 rows: the readings of six sensors and whether the machine was faulty."""
    rng = np.random.default_rng(1)
    paths = []
    for number in range(files):
        readings = rng.normal(size=(rng.integers(150, 250), SENSORS)).round(3)
        faulty = readings[:, 0] + readings[:, 1] * readings[:, 2] > 0  # the rule that the model must find
        path = folder / f"machine-{number:02}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"sensor {n}" for n in range(SENSORS)), "faulty"])
            writer.writerows([*row, int(fault)] for row, fault in zip(readings.tolist(), faulty, strict=True))
        paths.append(path)
    return paths


def reader(paths: list[Path]) -> Callable[[stoker.Shard], Iterator[Example]]:
    """Return a generator function over these files. Workers call it; it may be any Python."""

    def examples(shard: stoker.Shard) -> Iterator[Example]:
        for path in shard.split(paths):  # the only line that knows about shards
            with path.open(newline="") as file:
                rows = csv.reader(file)
                next(rows)  # the column names
                for *readings, faulty in rows:
                    yield np.array(readings, np.float32), float(faulty)

    return examples


def count_rows(paths: list[Path]) -> int:
    """Return the number of rows in these files, without the column names."""
    return sum(len(path.read_text().splitlines()) - 1 for path in paths)


def loader(paths: list[Path], shuffle: int = 0) -> stoker.Loader:
    """Return a Loader of batches of 32 from these files, with each row once per epoch."""
    return stoker.Loader(
        stoker.from_generator(reader(paths), shards=8, length=count_rows(paths)),
        batch_size=32,
        shuffle=shuffle,  # the shuffle buffer of each shard, in rows; the order of shards is shuffled too
        output_signature=(tf.TensorSpec((SENSORS,), tf.float32), tf.TensorSpec((), tf.float32)),
    )


def main() -> None:
    """Train on 32 of the files and test on the other 8."""
    keras.utils.set_random_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_recordings(Path(folder), files=40)
        with loader(paths[:32], shuffle=500) as train, loader(paths[32:]) as held_out:
            rows = sum(len(faulty) for _, faulty in train)  # iterating a Loader gives NumPy arrays
            print(f"{rows:,} rows came from 32 files, read as 8 shards, in {len(train)} batches")
            assert rows == count_rows(paths[:32])

            model = keras.Sequential([keras.layers.Dense(32, "relu"), keras.layers.Dense(1, "sigmoid")])
            model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
            model.fit(train.to_tf(), epochs=5, verbose=2)
            _, accuracy = model.evaluate(held_out.to_tf(), verbose=0)

    print(f"accuracy on files never trained on: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
