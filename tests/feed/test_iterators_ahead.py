"""`fit` on TensorFlow finds the iterator of its next epoch made; what it reads stays the same."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import pytest
import tensorflow as tf
from tensorflow.python.data.ops import iterator_ops

import stoker
from tests.feed.pairs import pair, two_of_three

SIZE, STEPS = 4, 6


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads in which TensorFlow created iterators, one name for each."""
    names: list[str] = []
    create = iterator_ops.OwnedIterator._create_iterator

    def noting(self: Any, dataset: Any) -> None:
        names.append(threading.current_thread().name)
        create(self, dataset)

    monkeypatch.setattr(iterator_ops.OwnedIterator, "_create_iterator", noting)
    return names


class Noting(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Passes its input on, and notes it."""

    def __init__(self, seen: list[list[float]]) -> None:
        super().__init__()
        self._append = seen.append  # Keras would copy a list

    def call(self, inputs: Any) -> Any:
        def note(values: Any) -> Any:
            self._append(values.numpy()[:, 0].tolist())
            return values

        noted = tf.py_function(note, [inputs], tf.float32)
        noted.set_shape(inputs.shape)
        return noted


def model(seen: list[list[float]]) -> Any:
    made = keras.Sequential([keras.Input((1,)), Noting(seen), keras.layers.Dense(1)])
    made.compile(loss="mse", optimizer="sgd", jit_compile=False)
    return made


@pytest.fixture
def loader() -> Iterator[Any]:
    with stoker.Loader(range(SIZE * STEPS), batch_size=SIZE, transform=pair, workers=1) as loader:
        yield loader


def test_each_later_epoch_of_fit_finds_its_iterator_made(loader: Any, made: list[str]) -> None:
    seen: list[list[float]] = []
    data = loader.to_tf()
    model(seen).fit(data, epochs=4, verbose=0)
    expected = [batch.numpy()[:, 0].tolist() for batch, _ in data] * 4
    assert seen == expected
    fits = made[:-1]  # the last one is that of the loop above
    assert fits.count("stoker-iterator") == 3
    assert fits.count("MainThread") <= 2, "one for the first epoch, and one after the last, which Keras drops"


def test_training_and_validation_take_turns_with_iterators_made_ahead(loader: Any, made: list[str]) -> None:
    seen: list[list[float]] = []
    with stoker.Loader(range(100, 100 + 2 * SIZE), batch_size=SIZE, transform=pair, workers=1) as held_out:
        model(seen).fit(loader.to_tf(), epochs=3, validation_data=held_out.to_tf(), verbose=0)
    starts = [*range(0, SIZE * STEPS, SIZE), 100, 104]
    assert [values[0] for values in seen] == starts * 3
    assert made.count("stoker-iterator") == 4
    assert made.count("MainThread") <= 4, "the first of each, and one of each after its last epoch, which Keras drops"


def test_evaluating_in_a_callback_makes_nothing_ahead(loader: Any, made: list[str]) -> None:
    data, seen = loader.to_tf(), list[list[float]]()

    class Evaluates(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.evaluate(data, verbose=0)

    model(seen).fit(data, epochs=2, callbacks=[Evaluates()], verbose=0)
    assert len(seen) == 4 * STEPS
    assert made.count("stoker-iterator") == 1


def test_no_variable_of_a_caller_is_kept(loader: Any) -> None:
    class Marked:
        """Something that the caller deletes."""

    data, marked = loader.to_tf(), Marked()
    reference = weakref.ref(marked)
    iter(data)
    del marked
    assert reference() is None


@pytest.mark.parametrize("more", [{"epochs": 1}, {"epochs": 3, "steps_per_epoch": 2}])
def test_nothing_is_made_ahead_where_keras_needs_one_iterator(loader: Any, made: list[str], more: Any) -> None:
    seen: list[list[float]] = []
    model(seen).fit(loader.to_tf(), verbose=0, **more)
    assert len(seen) == STEPS
    assert "stoker-iterator" not in made


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras says so of any dataset of unknown length
def test_epochs_of_unknown_length_find_their_iterators_made(made: list[str]) -> None:
    seen: list[list[float]] = []
    with stoker.Loader(range(SIZE * STEPS), batch_size=SIZE, transform=two_of_three, workers=1) as loader:
        model(seen).fit(loader.to_tf(), epochs=3, verbose=0)
    assert [number for values in seen for number in values] == [n for n in range(SIZE * STEPS) if n % 3 != 1] * 3
    assert made.count("stoker-iterator") == 2


def test_an_iterator_that_cannot_be_made_ahead_is_made_when_it_is_needed(
    loader: Any, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create = iterator_ops.OwnedIterator._create_iterator

    def failing(self: Any, dataset: Any) -> None:
        create(self, dataset)
        if made[-1] == "stoker-iterator":
            raise RuntimeError("this is a test")

    monkeypatch.setattr(iterator_ops.OwnedIterator, "_create_iterator", failing)
    seen: list[list[float]] = []
    model(seen).fit(loader.to_tf(), epochs=3, verbose=0)
    assert [values[0] for values in seen] == [*range(0, SIZE * STEPS, SIZE)] * 3
    assert made.count("stoker-iterator") == 2
