"""`ResumableData` in fit(): interrupted at any step and run again, it ends as if nothing had happened."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker
from tests.state import check
from tests.state.training import loader
from tests.warm import Warm

keras = pytest.importorskip("keras")
from stoker.keras import ResumableData  # noqa: E402

SOURCES = str(Path(__file__).parents[2] / "src")


class Interrupted(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    def __init__(self, step: int | None) -> None:
        super().__init__()
        self.step, self.batches = step, []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches.append(batch)
        if self.step is not None and int(self.model.optimizer.iterations) >= self.step:
            raise Interrupted


def train(path: Path, case: dict[str, Any], stop: int | None, workers: int = 0) -> Any:
    """Weights, history and the state at the end; None if it was interrupted at step `stop`."""
    fit, options = dict(case.get("fit", {})), case
    keras.utils.set_random_seed(1)
    inputs = [] if options.get("unbuilt") else [keras.Input((4,))]
    model = keras.Sequential([*inputs, keras.layers.Dense(4, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
    execution = options.get("steps_per_execution", 1)
    model.compile("adam", "mse", metrics=["mae"], steps_per_execution=execution)
    with loader(options.get("source", "map-style"), workers) as train, loader("plain", 0) as validation:
        data = options.get("data", lambda made: made)(train.to_tf())
        if options.get("validation"):
            fit["validation_data"] = validation.to_tf()
        data_state = ResumableData(train, path, save_every=options.get("every", 1))
        interrupt = Interrupt(stop)
        before, after = (
            [keras.callbacks.BackupAndRestore(path.with_name("backup"))] * (options.get("backup") == where)
            for where in ("before", "after")
        )
        callbacks = [*before, data_state, *after, interrupt]
        try:
            history = model.fit(data, **{"epochs": 3, **fit}, callbacks=callbacks, verbose=0)
        except Interrupted:
            return None
        assert not path.exists(), "training has ended"
        return [weight.tolist() for weight in model.get_weights()], history.epoch, history.history, train.state_dict()


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "behind other transformations": {"data": lambda data: data.map(lambda x, y: (x * 2, y)).prefetch(3)},
    "saved every four steps": {"every": 4},
    "saved at the epochs' ends": {"every": None},
    "steps_per_execution": {"steps_per_execution": 3},
    "steps_per_epoch, smaller than an epoch": {"fit": {"steps_per_epoch": 5, "epochs": 4}},
    "steps_per_epoch, larger than an epoch": {
        "fit": {"steps_per_epoch": 18, "epochs": 2},
        "data": lambda data: data.repeat(),
    },
    "initial_epoch": {"fit": {"initial_epoch": 1}},
    "validation_data in between": {"validation": True},
    "nobody knows the length": {"source": "generator"},
    "nobody knows the length, several steps at once": {"source": "generator", "steps_per_execution": 2},
    "an iterable": {"source": "iterable"},
    "behind BackupAndRestore": {"backup": "before", "every": 2},
    "before BackupAndRestore": {"backup": "after", "every": 2},
    "a model that is built by its first step": {"unbuilt": True},
}


#: Those that are run with the other tests.
QUICK = ("plain", "steps_per_epoch, smaller than an epoch", "nobody knows the length, several steps at once")


@pytest.mark.parametrize("name", [pytest.param(one, marks=[] if one in QUICK else pytest.mark.stress) for one in CASES])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, where it does not know the length
def test_a_run_that_is_interrupted_ends_like_one_that_is_not(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    expected = train(tmp_path / "quiet", case, None)
    for number, stop in enumerate((3, 14, 17)):
        assert train(tmp_path / "stopped", case, stop, workers=number % 2) is None
    assert train(tmp_path / "stopped", case, None) == expected


def test_the_steps_that_are_left_have_the_numbers_that_they_would_have_had(tmp_path: Path) -> None:
    steps = []
    for stop in (5, None):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        interrupt = Interrupt(stop)
        with loader("map-style", 0) as train, warnings.catch_warnings():
            callbacks = [ResumableData(train, tmp_path / "file", save_every=2), interrupt]
            try:
                model.fit(train.to_tf(), epochs=1, callbacks=callbacks, verbose=0)
            except Interrupted:
                assert train.state_dict()["batches"] == 5
        steps.append(interrupt.batches)
    assert steps == [[0, 1, 2, 3, 4], list(range(4, 14))]


def test_training_that_is_stopped_early_is_where_it_stopped(tmp_path: Path) -> None:
    class Enough(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = int(self.model.optimizer.iterations) == 20

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with loader("map-style", 0) as train:
        model.fit(train.to_tf(), epochs=5, callbacks=[ResumableData(train, tmp_path / "file"), Enough()], verbose=0)
        assert (train.state_dict()["epoch"], train.state_dict()["batches"]) == (1, 6)


def test_two_calls_of_fit_in_a_row_know_where_they_are(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with loader("map-style", 0) as train:
        where = []
        for options in ({"epochs": 2}, {"epochs": 1, "steps_per_epoch": 5}, {"epochs": 1}):
            model.fit(train.to_tf(), callbacks=[ResumableData(train, tmp_path / "file")], verbose=0, **options)
            state = train.state_dict()
            where.append((state["epoch"], state["batches"]))
    assert where == [(2, 0), (2, 5), (4, 0)]


def test_a_loader_that_training_does_not_read_or_not_alone_is_an_error(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with loader("map-style", 0) as train, loader("map-style", 0) as other:
        kept = [ResumableData(train, tmp_path / "file")]
        with pytest.raises(stoker.errors.StateError, match=r"fit\(\) does not read the Loader"):
            model.fit(other.to_tf(), callbacks=kept, verbose=0)
        with pytest.raises(stoker.errors.StateError, match="validation reads the Loader"):
            model.fit(train.to_tf(), validation_data=train.to_tf(), callbacks=kept, verbose=0)


def test_killed_training_goes_on(tmp_path: Path) -> None:
    """The same with a real kill of the whole process group; `make resume-check` does it at length."""
    with Warm("tensorflow", "keras", PYTHONPATH=SOURCES) as warm:
        print(check.check("resumable generator", 1, 7, tmp_path, warm))


@pytest.mark.parametrize("backend", [pytest.param("jax", marks=pytest.mark.stress), "torch"])
def test_killed_training_goes_on_with_another_backend(backend: str, tmp_path: Path) -> None:
    with Warm(backend, "keras", KERAS_BACKEND=backend, PYTHONPATH=SOURCES) as warm:
        print(check.check("map-style", 1, 7, tmp_path, warm, UNBUILT="1", KERAS_BACKEND=backend))


#: What `fit` is given in these runs, and other options of `tests.state.training`.
BESIDE: dict[str, dict[str, Any]] = {
    "steps_per_epoch, smaller than an epoch": {"FIT": json.dumps({"steps_per_epoch": 5, "epochs": 4})},
    "steps_per_epoch, larger than an epoch": {"FIT": json.dumps({"steps_per_epoch": 18, "epochs": 2, "repeat": True})},
    "validation_data in between": {"FIT": json.dumps({"validation": True})},
    "saved every four steps": {"EVERY": 4},
    "nobody knows the length": {"SOURCE": "generator"},
}


@pytest.mark.stress
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("case", BESIDE)
def test_on_other_backends_too_a_killed_run_ends_like_one_that_is_not(case: str, backend: str, tmp_path: Path) -> None:
    options = {"KERAS_BACKEND": backend, **BESIDE[case]}
    for name in ("quiet", "killed"):
        (tmp_path / name).mkdir()
    assert check.start(tmp_path / "quiet", **options) == 0
    killed = check.killed_again_and_again(tmp_path / "killed", [3, 14, 17], **options)
    assert not killed.differs(check.Run.of(tmp_path / "quiet"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    assert train(tmp_path / "state", {}, 6) is None
    return tmp_path / "state"


def rewritten(path: Path, change: Any) -> None:
    """The file with its JSON changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["state.json"] = json.dumps(change(json.loads(members["state.json"]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "is damaged, or was not saved by stoker"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is damaged, or was not saved by stoker"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b'"epoch": ', b'"epoch":9')), "is damaged"),
        (lambda path: path.write_text("{}"), "is damaged, or was not saved by stoker"),
        (
            lambda path: rewritten(path, lambda told: {"format": "another"}),
            "was not saved by stoker. Pass",
        ),
        (
            lambda path: rewritten(path, lambda told: {**told, "version": 0}),
            "has version 0, but this stoker reads version 1",
        ),
    ],
)
def test_a_damaged_file_is_an_error_or_is_left_aside(damage: Any, message: str, saved: Path) -> None:
    damage(saved)
    with pytest.raises(stoker.StateError, match=message):
        train(saved, {}, None)
    with loader("map-style", 0) as data:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            callbacks = [ResumableData(data, saved, strict=False)]
            assert len(model.fit(data.to_tf(), epochs=1, callbacks=callbacks, verbose=0).epoch) == 1
        assert any("Training starts from scratch" in str(one.message) for one in told)
        assert int(model.optimizer.iterations) == 14


def test_another_model_or_loader_is_an_error(saved: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    with loader("map-style", 0) as data, pytest.raises(stoker.StateError, match="saved with another model"):
        model.fit(data.to_tf(), callbacks=[ResumableData(data, saved)], verbose=0)
    with pytest.raises(
        stoker.StateError, match="from another Loader, with other batches: source was 'map-style' and is 'generator'"
    ):
        train(saved, {"source": "generator"}, None)


def test_a_save_that_is_interrupted_leaves_the_one_before(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    with monkeypatch.context() as patch:

        def fails(*args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(np.lib.format, "write_array", fails)
        with pytest.raises(OSError, match="No space"):
            train(saved, {}, None)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["state"]


def test_a_state_costs_less_than_a_millisecond_beside_the_weights(tmp_path: Path) -> None:
    import time

    with loader("generator", 0) as train:
        next(iter(train))
        times = []
        for _ in range(50):
            begun = time.thread_time()
            json.dumps(train.state_dict())
            times.append(time.thread_time() - begun)
    assert sorted(times)[25] < 0.001


def test_checkpoints_of_tensorflow_hold_the_place_in_the_data(tmp_path: Path) -> None:
    import tensorflow as tf

    with loader("map-style", 0) as train:
        expected = [batch[1].numpy().tolist() for batch in train.to_tf()]
    with loader("map-style", 0) as train:
        batches = iter(train.to_tf())
        for _ in range(3):
            next(batches)
        path = tf.train.Checkpoint(data=train.trackable()).save(str(tmp_path / "checkpoint"))
    with loader("map-style", 0) as train:
        tf.train.Checkpoint(data=train.trackable()).restore(path).assert_consumed()
        assert [batch[1].numpy().tolist() for batch in train.to_tf()] == expected[3:]
        place = train.trackable()
        place.consumed = 2
        path = tf.train.Checkpoint(data=place).save(str(tmp_path / "checkpoint"))
    with loader("map-style", 0) as train:
        tf.train.Checkpoint(data=train.trackable()).restore(path)
        assert train.state_dict()["batches"] == 5
