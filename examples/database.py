"""Rows of a database, decoded in many processes.

A cursor cannot be copied to a worker or split into parts, and reading it is cheap. So one thread of the trainer pulls
its rows (`stoker.from_iterable`). The work on the rows, here unpacking and a Fourier transform, is a `transform`, which
runs in the workers. Batches arrive in the order of the query.

The script prints the size of the database, that all rows arrived in order, a line for each epoch of `model.fit`, and
the accuracy on rows that another query selects. Keras warns that its input ran out of data, because a cursor
does not report its number of rows. The warning is harmless: Keras only does not know where the first epoch ends.

    python examples/database.py
"""

from __future__ import annotations

import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import keras
import numpy as np

import stoker

SAMPLES, BANDS = 8192, 64
PITCHES = (55.0, 70.0, 90.0, 115.0)  # of four machines, in periods per recording
Row = tuple[int, bytes, int]


def write_database(path: Path, count: int) -> None:
    """Write compressed recordings of SAMPLES 16-bit samples: each is a machine's hum with overtones, plus noise."""
    rng = np.random.default_rng(5)
    time = np.linspace(0, 2 * np.pi, SAMPLES)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE recordings (id INTEGER PRIMARY KEY, signal BLOB, machine INTEGER)")
        for number in range(count):
            machine = int(rng.integers(len(PITCHES)))
            pitch = PITCHES[machine] * rng.uniform(0.97, 1.03)
            hum = sum(np.sin(n * pitch * time + rng.uniform(0, 6)) / n for n in (1, 2, 3))
            signal = (2000 * (hum + 2 * rng.standard_normal(SAMPLES))).astype(np.int16)
            blob = zlib.compress(signal.tobytes(), level=1)
            database.execute("INSERT INTO recordings VALUES (?, ?, ?)", (number, blob, machine))


def rows(path: Path, condition: str) -> Iterator[Row]:
    """Yield the rows of a query in this process. `from_iterable` calls this for each epoch, in its own thread."""
    with closing(sqlite3.connect(path)) as database:
        yield from database.execute(f"SELECT id, signal, machine FROM recordings WHERE {condition} ORDER BY id")


def decode(row: Row) -> tuple[np.ndarray, int]:
    """Return the loudness of the lowest BANDS bands, and the machine. A transform, which runs in the workers."""
    _, blob, machine = row
    signal = np.frombuffer(zlib.decompress(blob), np.int16) * np.hanning(SAMPLES)
    loudness = np.abs(np.fft.rfft(signal))[: 8 * BANDS].reshape(BANDS, 8).mean(axis=1)
    return np.log1p(loudness).astype(np.float32), machine


def loader(path: Path, condition: str) -> stoker.Loader:
    """Return a Loader of batches of 32 decoded rows."""
    return stoker.Loader(stoker.from_iterable(lambda: rows(path, condition)), batch_size=32, transform=decode)


def main() -> None:
    """Train on four fifths of the rows and test on the rest."""
    keras.utils.set_random_seed(5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recordings.sqlite"
        write_database(path, count=1500)
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        with loader(path, "id % 5 != 0") as train, loader(path, "id % 5 = 0") as held_out:
            bands, machines = map(np.concatenate, zip(*train, strict=True))  # iterating a Loader gives NumPy arrays
            assert machines.tolist() == [machine for _, _, machine in rows(path, "id % 5 != 0")]
            print(f"{len(machines):,} rows came, in the order of the query")

            normalise = keras.layers.Normalization()
            normalise.adapt(bands)
            model = keras.Sequential([normalise, keras.layers.Dense(len(PITCHES), "softmax")])
            model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
            model.fit(train.to_tf(), epochs=4, verbose=2)
            _, accuracy = model.evaluate(held_out.to_tf(), verbose=0)

    print(f"accuracy on other rows: {accuracy:.1%}")
    assert accuracy > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
