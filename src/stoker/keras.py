"""A Keras callback that saves the state of training, also in mid-epoch, and resumes from it.

Keras itself restores only the epoch. So when `fit` starts again, this module makes its enumeration of the steps
begin at the next step. Everything that Keras counts is then as if the run had never stopped.
Importing this module imports Keras.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from stoker.coordinator.producer import BatchProducer
from stoker.errors import StateError
from stoker.feed.resume_file import ResumeFile, randomness, restore_randomness
from stoker.validation import whole

if TYPE_CHECKING:
    from stoker.loader import Loader

#: The method of a Keras model that makes the logs of an epoch from those of its last step.
_LOGS = "_get_metrics_result_or_logs"


class ResumableData(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Saves model, optimizer, metrics, random state and data position, so that a second `fit` resumes there.

    Run the same script again after any kind of exit: `fit` continues with the batch after the last one that was
    saved, in the same epoch. It ends with the weights and the history of a run that never stopped (as
    far as the ops of Keras' backend are deterministic). The number of workers may differ. When `fit` completes, the
    file is removed, as `keras.callbacks.BackupAndRestore` does.

    Not saved: the state of other callbacks, such as the patience of `EarlyStopping`, and random states internal to
    TensorFlow (`tf.random.uniform` without a `tf.random.Generator` that the model holds).

    Args:
        loader: the Loader whose `to_keras()` or `to_tf()` is given to `fit`; the latter as it is or behind other
            transformations.
        path: a file, written atomically; missing parent folders are created. Or an existing folder: the file
            is then `resume.stoker` in it.
        save_every: train steps between two saves (with `steps_per_execution`, at the end of the execution). The end
            of each epoch is saved too. None to save only there.
        strict: False to continue, with a warning, despite a state that does not match. If the state is from a Loader
            with other batches, its epoch is restarted with the model as it was saved. If the file is damaged,
            training starts from scratch.

    Raises:
        StateError: when `fit` begins, if the file is damaged or from another Loader or model.
        OptionError: `save_every` is not a whole number of at least 1.

    Example:
        >>> import tempfile, keras, stoker
        >>> from stoker.keras import ResumableData
        >>> train = stoker.Loader([(float(n), 2.0 * n) for n in range(8)], batch_size=2, workers=0)
        >>> model = keras.Sequential([keras.Input(()), keras.layers.Reshape((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> with train, tempfile.TemporaryDirectory() as folder:
        ...     callbacks = [ResumableData(train, f"{folder}/run.stoker", save_every=2)]
        ...     _ = model.fit(train.to_tf(), epochs=2, callbacks=callbacks, verbose=0)
        ...     train.state_dict()["epoch"]
        2
    """

    def __init__(self, loader: Loader, path: str | Path, save_every: int | None = 100, *, strict: bool = True) -> None:
        super().__init__()
        save_every = None if save_every is None else whole("save_every", save_every, least=1)
        self._loader, self._save_every, self._strict = loader, save_every, strict
        self._producer: BatchProducer = loader._producer
        path = Path(path)
        self._file = ResumeFile(path / "resume.stoker" if path.is_dir() else path)
        self._epoch = self._step = self._since_save = 0
        self._resumed: dict[str, Any] | None = None
        self._before_test: object = None  # the iteration that was the current one
        self._values: dict[str, list[Any]] = {}  # of the variables, until the first epoch begins

    # ── Keras' events ────────────────────────────────────────────────────────────────────────
    def on_train_begin(self, logs: Any = None) -> None:
        """Restore the last save, if there is one."""
        self._epoch = self._step = self._since_save = 0
        self._resumed = None
        saved = self._read()
        if saved is not None:
            self._restore(*saved)
        with self._producer.consumption() as consumption:
            consumption.follow()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Restore the metrics of the resumed epoch, as Keras has just reset them."""
        self._epoch, self._step = epoch, 0
        if self._resumed is not None:
            saved, self._resumed = self._resumed, None
            self._step = saved["step"]
            self.model._initial_epoch = self._initial_epoch  # no longer needed
            values, self._values = self._values, {}
            if epoch != saved["epoch"]:
                raise StateError(
                    f"{self._file.path} resumes in epoch {saved['epoch']}, but fit() begins with epoch {epoch}: "
                    "another callback has set that. List ResumableData after it."
                )
            if not self._step:
                del values["metrics"]
            self._assign(values)  # again: BackupAndRestore may have loaded weights of its own meanwhile
            if self._step:
                _keep_logs(self.model, saved["logs"])
                _expect_no_step(self.model, saved["logs"])
            history = self.model.history
            history.epoch, history.history = list(saved["epochs"]), {k: list(v) for k, v in saved["history"].items()}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the steps of one execution, and save if a save is due."""
        steps, self._step = batch + 1 - self._step, batch + 1
        with self._producer.consumption() as consumption:
            consumption.took(steps)
            is_read = consumption.last() is not None
        if not is_read:
            raise StateError(
                "fit() does not read the Loader that was given to ResumableData, so the position in its data is "
                "unknown. Pass the Loader whose to_keras() or to_tf() is given to fit()."
            )
        self._since_save += steps
        if self._save_every is not None and self._since_save >= self._save_every:
            self._save(self._epoch, self._step, logs or {}, ended=False)

    def on_test_begin(self, logs: Any = None) -> None:
        """Note which iteration is the current one."""
        with self._producer.consumption() as consumption:
            self._before_test = consumption.last()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Raise `StateError` if validation reads the Loader whose position is to be saved."""
        with self._producer.consumption() as consumption:
            is_read = consumption.last() is not self._before_test
        if is_read:
            raise StateError(
                "validation reads the Loader that was given to ResumableData, so its epochs are not those of training. "
                "Create a Loader of its own for validation_data."
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save a state that resumes with the next epoch."""
        if _LOGS in vars(self.model):
            delattr(self.model, _LOGS)
        self._save(epoch + 1, 0, logs or {}, ended=True)

    def on_train_end(self, logs: Any = None) -> None:
        """Remove the file: training is complete, and there is nothing to resume."""
        with self._producer.consumption() as consumption:
            consumption.let_go()
        self._file.remove()

    # ── saving ───────────────────────────────────────────────────────────────────────────────
    def _save(self, epoch: int, step: int, logs: dict[str, Any], *, ended: bool) -> None:
        history = self.model.history
        epochs, kept = list(history.epoch), {key: list(values) for key, values in history.history.items()}
        if ended and epoch - 1 not in epochs:
            epochs.append(epoch - 1)
            for key, value in logs.items():
                kept.setdefault(key, []).append(value)
        # If Keras does not know the number of steps, the end of the dataset ends the epoch.
        state = self._producer.state(rolls=ended or bool(self.params.get("steps")))
        with self._producer.consumption() as consumption:
            seen = state["batches"] if ended else consumption.seen()
        where = {"epoch": epoch, "step": step, "seen": seen, "loader": state}
        saved = {**where, "logs": logs, "epochs": epochs, "history": kept}
        arrays = {
            f"{part}/{number}": keras.ops.convert_to_numpy(variable.value)
            for part, variables in _variables(self.model).items()
            for number, variable in enumerate(variables)
        }
        self._file.write({**saved, "random": randomness()}, arrays)
        self._since_save = 0

    # ── resuming ─────────────────────────────────────────────────────────────────────────────
    def _read(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        try:
            return self._file.read()
        except StateError as error:
            if self._strict:
                raise
            warnings.warn(f"{error} Training starts from scratch (strict=False).", stacklevel=4)
            return None

    def _restore(self, saved: dict[str, Any], arrays: dict[str, Any]) -> None:
        if keras.backend.backend() == "tensorflow":  # the others have looked at a batch by now, and built everything
            _build(self.model, self._loader.element_spec)
        values = _matched(self._file.path, _variables(self.model), arrays)
        step, seen = saved["step"], saved["seen"]
        try:
            self._loader.load_state_dict(saved["loader"])
        except StateError as error:
            if self._strict:
                raise
            warnings.warn(f"{error} Its epoch is restarted (strict=False).", stacklevel=4)
            self._loader.load_state_dict(saved["loader"], strict=False)
            step = seen = 0
        self._assign(values)
        restore_randomness(saved["random"])
        self._resumed, self._values = {**saved, "step": step}, values
        self._initial_epoch, self.model._initial_epoch = self.model._initial_epoch, saved["epoch"]
        _skip(_frame_of_fit().f_locals["epoch_iterator"], step, seen)

    def _assign(self, values: dict[str, list[Any]]) -> None:
        variables = _variables(self.model)
        for part, some in values.items():
            for variable, value in zip(variables[part], some, strict=True):
                variable.assign(value)


def _variables(model: Any) -> dict[str, list[Any]]:
    """Everything that a train step changes, apart from the data."""
    from keras.src.random.seed_generator import global_seed_generator

    optimizer = getattr(model, "optimizer", None)
    return {
        "model": list(model.variables),
        "optimizer": list(optimizer.variables) if optimizer is not None else [],
        "metrics": list(model.metrics_variables),
        "seed": [global_seed_generator().state],
    }


def _matched(path: Path, variables: dict[str, list[Any]], arrays: dict[str, Any]) -> dict[str, list[Any]]:
    """The saved values of the variables. Raises `StateError` if they are from another model."""
    expected = {f"{part}/{number}": its for part, some in variables.items() for number, its in enumerate(some)}
    if set(expected) != set(arrays):
        raise StateError(
            f"{path} was saved with another model: it had {len(arrays)} variables, this one has {len(expected)} "
            "(including optimizer and metrics). Build and compile the model as it was, or remove the file."
        )
    for name, variable in expected.items():
        if tuple(arrays[name].shape) != tuple(variable.shape):
            raise StateError(
                f"{path} was saved with another model: {variable.path} had shape {tuple(arrays[name].shape)} and now "
                f"has {tuple(variable.shape)}. Build the model as it was, or remove the file."
            )
        if arrays[name].dtype.kind == "V":  # a dtype that NumPy's format has no name for, such as bfloat16
            arrays[name] = arrays[name].view(np.asarray(keras.ops.convert_to_numpy(variable.value)).dtype)
    return {part: [arrays[f"{part}/{number}"] for number in range(len(some))] for part, some in variables.items()}


def _build(model: Any, spec: Any) -> None:
    """Create the variables of the model, its optimizer and its metrics, as the first step would do."""
    import tensorflow as tf

    def symbol(leaf: Any) -> Any:
        return keras.KerasTensor(leaf.shape, leaf.dtype.name, ragged=isinstance(leaf, tf.RaggedTensorSpec))

    model._symbolic_build(data_batch=tf.nest.map_structure(symbol, spec))


def _keep_logs(model: Any, last: dict[str, Any]) -> None:
    """End the epoch with the last step's logs if no step follows, because Keras has no logs then."""
    of_class = getattr(model, _LOGS, None)
    if of_class is not None:
        setattr(model, _LOGS, lambda logs: of_class(logs or last))


def _expect_no_step(model: Any, last: dict[str, Any]) -> None:
    """Give `fit` on JAX what it reads after an epoch, and what only a step sets: its variable `logs`, and the weights.

    Keras takes the weights out of the model before the step that finds no batch, and puts back those of the last step.
    """
    frame = _frame_of_fit()
    if keras.backend.backend() != "jax" or "logs" in frame.f_locals:
        return
    parts = "trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables"
    model._jax_state = dict(zip(parts, model._get_jax_state(**dict.fromkeys(parts, True)), strict=True))
    frame.f_locals["logs"] = last
    if sys.version_info < (3, 13):  # later versions write through
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))


def _frame_of_fit() -> FrameType:
    """The frame of `fit`, further up the stack, with the epoch iterator with which it enumerates its steps."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and "epoch_iterator" in frame.f_locals:
            return frame
        frame = frame.f_back  # type: ignore[assignment]  # None at the end
    raise StateError(f"fit() of Keras {keras.__version__} cannot be resumed in mid-epoch. Use another version.")


def _skip(iterator: Any, steps: int, seen: int) -> None:
    """Start the first epoch after `steps` of its steps, with `seen` batches of the dataset already consumed."""
    name = "_enumerate_iterator" if hasattr(iterator, "_enumerate_iterator") else "enumerate_epoch"
    enumerate_steps: Callable[[], Iterator[Any]] = getattr(iterator, name)

    def resumed() -> Iterator[Any]:
        delattr(iterator, name)  # the class' own serves the epochs that follow
        found = enumerate_steps()
        first = [] if steps else list(islice(found, 1))
        for _ in range(0, steps, iterator.steps_per_execution):
            next(found, None)
        iterator._steps_seen += seen - steps  # it differs where `steps_per_epoch` cuts the dataset's epochs up
        yield from first
        yield from found

    setattr(iterator, name, resumed)
