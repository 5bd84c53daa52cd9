"""A training run that can be killed at any step, and run again: `python -m tests.state.training FOLDER`.

What it leaves in the folder: which examples each step saw (a line each, by the optimizer's count of steps) and,
at its end, weights and history. Options by environment: KERAS_BACKEND, SOURCE, WORKERS, KILL_AT (a step), and others
below.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import stoker
from tests.state.code import SIZES

LENGTH = 53


class Points:
    """(features, target): the target is the example's number, a feature is random."""

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return point(index)


def point(number: int) -> Any:
    return np.append(np.random.rand(3), number / LENGTH).astype(np.float32), np.float32(number)


def of_shard(shard: stoker.Shard) -> Iterator[Any]:
    start = sum(SIZES[: shard.index])
    yield from map(point, range(start, start + SIZES[shard.index]))


class Resumable:
    def __init__(self, shard: stoker.Shard) -> None:
        self._start, self._size, self._at = sum(SIZES[: shard.index]), SIZES[shard.index], 0

    def __iter__(self) -> Resumable:
        return self

    def __next__(self) -> Any:
        if self._at == self._size:
            raise StopIteration
        self._at += 1
        return point(self._start + self._at - 1)

    def state_dict(self) -> Any:
        return {"at": self._at}

    def load_state_dict(self, state: Any) -> None:
        self._at = state["at"]


def noisy(number: int) -> Any:
    return point(number)


def loader(kind: str, workers: int) -> stoker.Loader:
    how: dict[str, dict[str, Any]] = {
        "map-style": {"source": Points(), "shuffle": True},
        "plain": {"source": [(np.full(4, number, np.float32), np.float32(number)) for number in range(LENGTH)]},
        "generator": {"source": stoker.from_generator(of_shard, shards=len(SIZES), open_shards=3), "shuffle": 4},
        "resumable generator": {"source": stoker.from_generator(Resumable, shards=len(SIZES), open_shards=3)},
        "iterable": {"source": stoker.from_iterable(lambda: range(LENGTH)), "transform": noisy, "shuffle": 8},
    }
    return stoker.Loader(**how[kind], batch_size=4, seed=3, workers=workers)


def noting(seen: Any) -> Any:
    """A class of models that write down which examples each step sees, on Keras' backend."""
    import keras

    def note(step: Any, targets: Any) -> None:
        seen.write(json.dumps([int(step), [int(target) for target in targets]]) + "\n")
        seen.flush()

    class Model(keras.Sequential):  # type: ignore[misc]
        def train_step(self, *arguments: Any) -> Any:
            *_, data = arguments
            match keras.backend.backend():
                case "tensorflow":
                    import tensorflow as tf

                    tf.numpy_function(note, [self.optimizer.iterations.value, data[1]], [])
                case "jax":
                    import jax

                    jax.debug.callback(note, arguments[0][2][0], data[1], ordered=True)
                case "torch":
                    note(self.optimizer.iterations, data[1])
            return super().train_step(*arguments)

    return Model


def main(folder: Path) -> None:
    import keras

    from stoker.keras import ResumableData

    backend = keras.backend.backend()
    random.seed(1)  # where nothing else is set, Keras takes its seeds from here
    np.random.seed(1)
    match backend:
        case "tensorflow":
            import tensorflow as tf

            keras.utils.set_random_seed(1)  # on other backends it would import TensorFlow too
            tf.config.experimental.enable_op_determinism()
        case "torch":
            import torch

            torch.manual_seed(1)
    kill_at = int(os.environ.get("KILL_AT", "-1"))

    class Killer(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if kill_at >= 0 and int(self.model.optimizer.iterations) == kill_at:
                if backend == "jax":
                    import jax

                    jax.effects_barrier()  # what the steps saw is written down
                os.killpg(0, signal.SIGKILL)

    layers = [keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
    inputs = [] if os.environ.get("UNBUILT") else [keras.Input((4,))]
    model = noting((folder / "seen").open("a"))([*inputs, *layers])
    model.compile("adam", "mse", metrics=["mae"], steps_per_execution=int(os.environ.get("PER_EXECUTION", "1")))
    options = json.loads(os.environ.get("FIT", "{}"))
    with (
        loader(os.environ.get("SOURCE", "map-style"), int(os.environ.get("WORKERS", "1"))) as train,
        loader("plain", 0) as validation,
    ):
        data = train.to_keras()
        if options.pop("repeat", False):
            data = data.repeat()
        if options.pop("validation", False):
            options["validation_data"] = validation.to_keras()
        resumable = ResumableData(train, folder / "run" / "state", save_every=int(os.environ.get("EVERY", "1")))
        history = model.fit(
            data, epochs=options.pop("epochs", 3), callbacks=[resumable, Killer()], verbose=0, **options
        )
        (folder / "history").write_text(json.dumps([history.epoch, history.history, train.state_dict()]))
    assert backend == "tensorflow" or "tensorflow" not in sys.modules
    np.savez(folder / "weights.npz", *model.get_weights())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
