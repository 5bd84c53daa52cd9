"""What Keras computes from `to_keras()` and from the same arrays in memory: `python -m tests.feed.keras_cells`.

Each cell trains with a Loader, waits until all cells have done so without TensorFlow (on other backends), and then
compares with the same arrays in memory, for which Keras itself imports TensorFlow. A line of JSON tells how each ended.
"""

from __future__ import annotations

import collections
import json
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import stoker

LENGTH, BATCH, CLASSES = 53, 8, 3


class Examples:
    """Examples in the form that a cell asks for; each is a function of its index."""

    def __init__(self, form: str, length: int = LENGTH) -> None:
        self.form, self.length = form, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        random = np.random.default_rng(index)
        x, number = random.normal(size=4).astype(np.float32), np.float32(random.normal())
        label = np.int32(index % CLASSES)
        match self.form:
            case "x":
                return x
            case "x, y":
                return x, number
            case "x, y, weight":
                return x, number, np.float32(index % 4) / 2
            case "x, label":
                return x, label
            case "x, one-hot":
                return x, np.eye(CLASSES, dtype=np.float32)[label]
            case "dict":
                return {"one": x[:3], "two": {"three": x[3:]}}, number
            case "list":
                return [x[:3], x[3:]], number
            case "several outputs":
                return x, {"first": number, "second": -number}
            case "bfloat16":
                import ml_dtypes

                return x.astype(ml_dtypes.bfloat16), number
            case "uint16":
                return np.abs(x * 100).astype(np.uint16), number
            case "words":
                return np.arange(1, 2 + index % 5), number
        raise ValueError(self.form)


def arrays(form: str, length: int = LENGTH) -> Any:
    """All examples as nested arrays."""
    import optree

    source = Examples(form, length)
    columns = zip(*(optree.tree_leaves(source[n]) for n in range(length)), strict=True)
    return optree.tree_unflatten(optree.tree_structure(source[0]), [np.stack(column) for column in columns])


def loader(form: str, **options: Any) -> stoker.Loader:
    return stoker.Loader(Examples(form), **{"batch_size": BATCH, "workers": 1, **options})


_models: dict[str, tuple[Any, list[Any]]] = {}


def model(form: str = "", *, built: bool = True) -> Any:
    """A model for examples of this form; the same each time. It is compiled once, as that takes most of the time."""
    if not built:
        return new_model(form, built=False)
    if form not in _models:
        made = new_model(form)
        made.optimizer.build(made.trainable_variables)
        _models[form] = made, [np.array(variable) for variable in [*made.variables, *made.optimizer.variables]]
    made, values = _models[form]
    for variable, value in zip([*made.variables, *made.optimizer.variables], values, strict=True):
        variable.assign(value)
    return made


def new_model(form: str = "", *, built: bool = True) -> Any:
    """A model of this form, the same each time.

    `keras.utils.set_random_seed` would import TensorFlow, and PyTorch's own DataLoader, to which ours is compared,
    draws from the generator of Dropout. So no other random numbers are used than those of the first weights.
    """
    import keras

    layers = [keras.layers.Dense(8, "relu", kernel_initializer=_first_weights())]
    loss: Any = "mse"
    match form:
        case "dict" | "list":
            parts = [keras.Input((3,)), keras.Input((1,))]
            inputs: Any = {"one": parts[0], "two": {"three": parts[1]}} if form == "dict" else parts
            made = keras.Model(
                inputs,
                keras.layers.Dense(1, kernel_initializer=_first_weights())(layers[0](keras.layers.concatenate(parts))),
            )
        case "several outputs":
            inner = layers[0](inputs := keras.Input((4,)))
            outputs = {
                name: keras.layers.Dense(1, name=name, kernel_initializer=_first_weights())(inner)
                for name in ("first", "second")
            }
            made, loss = keras.Model(inputs, outputs), {"first": "mse", "second": "mae"}
        case "x, label" | "x, one-hot":
            made = keras.Sequential(
                [
                    keras.Input((4,)),
                    *layers,
                    keras.layers.Dense(CLASSES, "softmax", kernel_initializer=_first_weights()),
                ]
            )
            loss = "sparse_categorical_crossentropy" if form == "x, label" else "categorical_crossentropy"
        case _:
            made = keras.Sequential(
                [
                    *([keras.Input((4,))] if built else []),
                    *layers,
                    keras.layers.Dense(1, kernel_initializer=_first_weights()),
                ]
            )
    made.compile("adam", loss)
    return made


def _first_weights() -> Any:
    import keras

    return keras.initializers.GlorotUniform(seed=1)


#: How `fit` takes arrays in the order and the batches of a Loader.
_PLAIN: dict[str, Any] = {"batch_size": BATCH, "shuffle": False}
Result = tuple[list[Any], dict[str, list[float]]]


def fit(made: Any, *data: Any, **options: Any) -> Result:
    """The weights and the history of a training."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data|`shuffle=True` was passed")
        history = made.fit(*data, **{"epochs": 3, **options}, verbose=0)
    return made.get_weights(), history.history


def same(ours: Result, theirs: Result) -> None:
    assert all(np.array_equal(a, b) for a, b in zip(ours[0], theirs[0], strict=True)), "other weights"
    assert ours[1] == theirs[1], (ours[1], theirs[1])


def similar(ours: Result, theirs: Result) -> None:
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(ours[0], theirs[0], strict=True)), "other weights"
    assert all(np.allclose(ours[1][key], theirs[1][key]) for key in theirs[1]), (ours[1], theirs[1])


def in_memory(form: str, **options: Any) -> Result:
    """The same training on arrays."""
    x, y, *weight = arrays(form)
    return fit(model(form), x, y, sample_weight=weight[0] if weight else None, **_PLAIN, **options)


Cell = Callable[[], Iterator[None]]
CELLS: dict[str, Cell] = {}


def cell(function: Cell) -> Cell:
    CELLS[function.__name__.replace("_", " ")] = function
    return function


def simple(form: str, **options: Any) -> Iterator[None]:
    """A training of three epochs, with these options of `fit`."""
    with loader(form) as train:
        ours = fit(model(form), train.to_keras(), **options)
    yield
    same(ours, in_memory(form, **options))


for name, form, fitting in (
    ("finite", "x, y", {}),
    ("sample weights", "x, y, weight", {}),
    ("dict inputs", "dict", {}),
    ("list of inputs", "list", {}),
    ("several outputs", "several outputs", {}),
    ("steps_per_epoch, smaller", "x, y", {"steps_per_epoch": 5}),
    ("steps_per_epoch, larger", "x, y", {"steps_per_epoch": 20}),
    ("steps_per_epoch, one", "x, y", {"steps_per_epoch": 1}),
):
    CELLS[name] = lambda form=form, fitting=fitting: simple(form, **fitting)  # type: ignore[misc]


def of_batches(form: str, epochs: int, **options: Any) -> Any:
    """The NumPy batches of the first epochs of a Loader, as a generator."""
    with loader(form, **options) as train:
        for _ in range(epochs):
            yield from train


@cell
def shuffled_epochs_each_come_once() -> Iterator[None]:
    results = []
    for built in (True, False):
        with loader("x, y", shuffle=True, seed=3) as train:
            results.append(fit(model(built=built), train.to_keras()))
            assert train._producer.last_epoch().number == 2, "three epochs were begun"
    yield
    for ours in results:
        same(ours, fit(model(), of_batches("x, y", 3, shuffle=True, seed=3), steps_per_epoch=7))


@cell
def repeated() -> Iterator[None]:
    with loader("x, y", shuffle=True, workers=2) as train:
        ours = fit(model(built=False), train.to_keras().repeat(), steps_per_epoch=5)
    yield
    same(ours, fit(model(), of_batches("x, y", 3, shuffle=True), steps_per_epoch=5))


def endless_numbers(shard: stoker.Shard) -> Iterator[Any]:
    source = Examples("x, y")
    number = 0
    while True:
        yield source[number % LENGTH]
        number += 1


@cell
def endless() -> Iterator[None]:
    source = stoker.from_generator(endless_numbers, shards=1, length=math.inf)
    with stoker.Loader(source, batch_size=BATCH, workers=1) as train:
        ours = fit(model(), train.to_keras(), steps_per_epoch=9, validation_data=train.to_keras(), validation_steps=2)
        some = next(iter(train))
        for call in (model().evaluate, model().predict, lambda data: fit(model(), *some, validation_data=data)):
            with raises(stoker.OptionError, "this source never ends"):
                call(train.to_keras())
    yield

    def batches() -> Iterator[Any]:
        data, start = arrays("x, y"), 0
        while True:
            places = np.arange(start, start + BATCH) % LENGTH
            yield tuple(part[places] for part in data)
            start += BATCH

    theirs = fit(model(), batches(), steps_per_epoch=9)
    assert ours[1]["loss"][0] == theirs[1]["loss"][0]


def numbers(shard: stoker.Shard) -> Iterator[Any]:
    yield from map(Examples("x, y").__getitem__, range(LENGTH))


@cell
def of_unknown_length() -> Iterator[None]:
    results = []
    for built in (True, False):
        with stoker.Loader(stoker.from_generator(numbers, shards=1), batch_size=BATCH, workers=1) as train:
            made = model(built=built)
            data = train.to_keras()
            results.append((fit(made, data), made.predict(data, verbose=0)))
    yield
    x, y = arrays("x, y")
    for (ours, predicted), built in zip(results, (True, False), strict=True):
        made = model(built=built)
        same(ours, fit_unknown(made, x, y))
        assert np.array_equal(predicted, made.predict(x, batch_size=BATCH, verbose=0))


def fit_unknown(made: Any, x: Any, y: Any) -> Result:
    """What to compare with: on TensorFlow, Keras counts one step more at the end of any dataset of unknown length."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return fit(made, x, y, **_PLAIN)
    import tensorflow as tf

    return fit(made, tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).filter(lambda *batch: True))


@cell
def epochs_of_differing_length() -> Iterator[None]:
    import keras

    steps: list[int] = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    with loader("x, y", order=lambda epoch, rng: np.arange(BATCH * (epoch + 1))) as train:
        fit(model(), train.to_keras(), callbacks=[count])
    yield
    assert steps == [0, 0, 1, 0, 1, 2], steps


@cell
def class_weights_of_named_pairs() -> Iterator[None]:
    pair = collections.namedtuple("pair", "x y")
    examples = [pair(np.full(4, number, np.float32), number % 3) for number in range(8)]
    with stoker.Loader(examples, batch_size=4, workers=0) as train:
        fit(model("x, label"), train.to_keras(class_weight={0: 2.0}), epochs=1)
    yield


@cell
def validation() -> Iterator[None]:
    options: list[dict[str, Any]] = [{}, {"validation_freq": 2}, {"validation_steps": 3}, {"validation_steps": 1}]
    results = []
    for more in options:
        with loader("x, y") as train, loader("x, y", batch_size=5) as val:
            results.append(fit(model(), train.to_keras(), validation_data=val.to_keras(), **more))
    yield
    for ours, more in zip(results, options, strict=True):
        same(ours, in_memory("x, y", validation_data=arrays("x, y"), validation_batch_size=5, **more))


@cell
def class_weights() -> Iterator[None]:
    weights, results = {0: 1.0, 1: 2.5, 2: 0.5}, {}
    for form in ("x, label", "x, one-hot"):
        with loader(form) as train:
            results[form] = fit(model(form), train.to_keras(class_weight=weights))
            some = next(iter(_numpy_batches(train.to_keras({np.int64(1): 2}))))
            assert some[2].tolist() == [2.0 if n % CLASSES == 1 else 1.0 for n in range(BATCH)], "others weigh 1"
    yield
    for form, ours in results.items():
        same(ours, in_memory(form, class_weight=weights))


def _numpy_batches(data: Any) -> Any:
    from keras.src.trainers.data_adapters import get_data_adapter

    return data.as_numpy_iterator() if hasattr(data, "cardinality") else get_data_adapter(data).get_numpy_iterator()


@cell
def evaluate_and_predict() -> Iterator[None]:
    made, results = model(), []
    with loader("x, y") as pairs, loader("x") as inputs:
        data, alone = pairs.to_keras(), inputs.to_keras()
        for _ in range(2):
            results.append((made.evaluate(data, verbose=0), made.evaluate(data, steps=2, verbose=0)))
            results.append((made.predict(alone, verbose=0), made.predict(data, steps=3, verbose=0)))
        unbuilt = model(built=False)
        first = unbuilt.predict(alone, verbose=0), unbuilt.predict(alone, verbose=0)
        assert first[0].shape == (LENGTH, 1), "the incomplete last batch is there"
    yield
    (x, y), made, unbuilt = arrays("x, y"), model(), model(built=False)
    for number in (0, 2):
        assert results[number] == (
            made.evaluate(x, y, batch_size=BATCH, verbose=0),
            made.evaluate(x[:16], y[:16], batch_size=BATCH, verbose=0),
        )
        assert np.array_equal(results[number + 1][0], made.predict(x, batch_size=BATCH, verbose=0))
        assert np.array_equal(results[number + 1][1], made.predict(x[:24], batch_size=BATCH, verbose=0))
    assert all(np.array_equal(one, unbuilt.predict(x, batch_size=BATCH, verbose=0)) for one in first)


@cell
def an_epoch_that_is_stopped() -> Iterator[None]:
    import keras

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == 3

    def trained(made: Any, *data: Any, **options: Any) -> Result:
        fit(made, *data, callbacks=[Stop()], **options)
        return fit(made, *data, **options)

    with loader("x, y", workers=2) as train:
        ours = trained(model(), train.to_keras())
    yield
    same(ours, trained(model(), *arrays("x, y"), **_PLAIN))


@cell
def the_number_of_steps_is_known() -> Iterator[None]:
    import contextlib
    import io

    with loader("x, y") as train, contextlib.redirect_stdout(text := io.StringIO()):
        model().fit(train.to_keras(), verbose=2)
    assert "7/7" in text.getvalue()
    yield


@cell
def filled_up_last_batches() -> Iterator[None]:
    with loader("x, y", pad_remainder=True) as train:
        ours = fit(model(), train.to_keras())
        with raises(stoker.OptionError, "which have weights already"):
            train.to_keras({0: 1.0})
    yield
    similar(ours, in_memory("x, y"))  # there are weights of 1, and so other roundings


@cell
def an_error_of_the_users_code() -> Iterator[None]:
    import keras

    from tests.examples import Misbehaving

    with stoker.Loader(Misbehaving("raise"), batch_size=BATCH, workers=1) as train:
        with raises(Exception, "example 37 .epoch 0, batch 4, worker 0"):
            fit(model(), train.to_keras())
        assert isinstance(train.last_error, stoker.WorkerError)
        if keras.backend.backend() != "tensorflow":
            with raises(KeyError, "bad digit"):  # the user's own type, not wrapped
                fit(model(), train.to_keras())
        assert len(list(zip(range(4), _numpy_batches(train.to_keras()), strict=False))) == 4, "it goes on"
    yield


@cell
def arguments_that_keras_drops() -> Iterator[None]:
    _, y = arrays("x, y")
    ones = np.ones(LENGTH)
    with loader("x, y") as train:
        data = train.to_keras()
        for given in ({"class_weight": {0: 1.0}}, {"y": y}, {"sample_weight": ones}, {"validation_data": (data, y)}):
            if given.get("class_weight") is None or not hasattr(data, "cardinality"):  # a tf.data.Dataset is weighed
                with raises(ValueError, "y|sample_weight|class_weight"):
                    fit(model(), data, **given)
        assert len(fit(model(), data)[1]["loss"]) == 3
    yield


@cell
def examples_that_go_one_by_one() -> Iterator[None]:
    with loader("x, y", batch_size=None) as train, raises(stoker.OptionError, "Pass a batch_size"):
        train.to_keras()
    yield


class raises:
    """As `pytest.raises`: the tests' tools are not needed here."""

    def __init__(self, kind: type[BaseException], text: str) -> None:
        self.kind, self.text = kind, text

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        import re

        assert error is not None, f"no {self.kind.__name__} was raised"
        if isinstance(error, self.kind):
            assert re.search(self.text, str(error)), error
            return True
        return False


def advance(steps: Iterator[None]) -> str:
    try:
        next(steps)
        return "begun"
    except StopIteration:
        return "ok"
    except Exception:
        return traceback.format_exc()


def main(names: list[str]) -> None:
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        from tests.feed import keras_cells_beside_tensorflow as more

        CELLS.update(more.CELLS)
    chosen = {name: CELLS[name]() for name in names or CELLS}
    ended = {name: advance(steps) for name, steps in chosen.items()}
    tensorflow = "tensorflow" in sys.modules
    for name, steps in chosen.items():
        if ended[name] == "begun":
            ended[name] = advance(steps)
        if tensorflow and backend != "tensorflow":
            ended[name] += ", but TensorFlow was imported"
        print(json.dumps([name, ended[name]]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
