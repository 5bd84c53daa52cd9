"""A new kind of source is one class: it has workers, order, resume and `fit()` like Stoker's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker
from tests.csv_source import CsvSource

ROWS = [(17, 0), (5, 1), (0, 2), (23, 3)]  # of each file: how many, and the file's number


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    for rows, file in ROWS:
        lines = [f"{file},{row},{file * 100 + row}" for row in range(rows)]
        (tmp_path / f"{file}.csv").write_text("".join(line + "\n" for line in lines))
    return sorted(tmp_path.iterdir())


def labels(batches: Iterator[Any]) -> list[list[float]]:
    return [batch[1].tolist() for batch in batches]


@pytest.mark.parametrize("workers", [0, 3])
def test_each_row_comes_once_and_a_saved_state_goes_on(paths: list[Path], workers: int) -> None:
    with stoker.Loader(CsvSource(paths), batch_size=4, workers=1) as loader:
        whole = labels(iter(loader))
    assert sorted(chain.from_iterable(whole)) == [file * 100 + row for rows, file in ROWS for row in range(rows)]
    with stoker.Loader(CsvSource(paths), batch_size=4, workers=workers) as loader:
        batches = iter(loader)
        assert labels(islice(batches, 5)) == whole[:5]
        state = loader.state_dict()
    with stoker.Loader(CsvSource(paths), batch_size=4, workers=workers) as loader:
        loader.load_state_dict(state)
        assert labels(iter(loader)) == whole[5:]
    with (
        stoker.Loader(CsvSource(paths[:2]), batch_size=4, workers=workers) as other,
        pytest.raises(stoker.StateError, match="files"),
    ):
        other.load_state_dict(state)


def killing_once(example: Any, flag: Path) -> Any:
    if example[1] == 310 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return example


def test_a_killed_worker_changes_no_batch(paths: list[Path], tmp_path: Path) -> None:
    with stoker.Loader(CsvSource(paths), batch_size=4, workers=0) as loader:
        whole = labels(iter(loader))
    kill = partial(killing_once, flag=tmp_path / "killed")
    with stoker.Loader(CsvSource(paths), batch_size=4, workers=2, transform=kill) as loader:
        assert labels(iter(loader)) == whole
        assert loader.stats().deaths == 1


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras learns an epoch's length when it ends
def test_it_trains_and_training_goes_on_where_it_was_interrupted(paths: list[Path], tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    from stoker.keras import ResumableData

    class Interrupt(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(self.model.optimizer.iterations) == stop:
                raise KeyboardInterrupt

    def train(path: Path) -> list[Any]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        with stoker.Loader(CsvSource(paths), batch_size=4, workers=2) as loader:
            callbacks = [ResumableData(loader, path), Interrupt()]
            model.fit(loader.to_tf(), epochs=2, callbacks=callbacks, verbose=0)
        return [weight.tolist() for weight in model.get_weights()]

    stop: int | None = None
    quiet = train(tmp_path / "quiet.state")
    stop = 8
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed.state")
    stop = None
    np.testing.assert_array_equal(train(tmp_path / "killed.state")[0], quiet[0])


def test_what_it_lacks_is_said_in_its_own_words(paths: list[Path]) -> None:
    with (
        stoker.Loader(CsvSource(paths), workers=0) as loader,
        pytest.raises(stoker.OptionError, match="a set of CSV files has none"),
    ):
        loader.update(paths=[])


class TunedCsvSource(CsvSource):
    """Determines how it is read, in words of its own."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(paths)
        self.implied = {"batch_size": 7, "drop_remainder": True, "seed": 5}
        self.own_names = {"drop_remainder": "drop_last"}


def test_a_source_may_determine_arguments_of_the_loader(paths: list[Path]) -> None:
    rows = sum(rows for rows, _ in ROWS)
    for given in ({}, {"batch_size": 7, "seed": 5}, {"batch_size": np.int64(7), "drop_remainder": True}):
        with stoker.Loader(TunedCsvSource(paths), workers=0, **given) as loader:
            assert [len(labels) for labels in labels(iter(loader))] == [7] * (rows // 7)
            assert loader.state_dict()["seed"] == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 32}, "batch_size=32 was given, but the source, a set of CSV files, has batch_size=7"),
        ({"batch_size": None}, "batch_size=None was given, but .* Omit batch_size, or change batch_size there"),
        (
            {"drop_remainder": 2},
            "drop_remainder=2 was given, but .* has drop_last=True. Omit drop_remainder, or change",
        ),
        ({"seed": np.zeros(2)}, r"seed=array\(\[0., 0.\]\) was given, but .* has seed=5"),
    ],
)
def test_an_argument_that_contradicts_the_source_is_refused(paths: list[Path], given: Any, message: str) -> None:
    with pytest.raises(stoker.OptionError, match=message):
        stoker.Loader(TunedCsvSource(paths), workers=0, **given)
