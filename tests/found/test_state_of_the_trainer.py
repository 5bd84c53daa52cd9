"""With workers=0 user code draws from NumPy's global state, and the trainer's own draws stay what they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import stoker
from stoker.worker.user_code.seeding import KeptState, Seeder


@pytest.fixture(autouse=True)
def _state() -> Iterator[None]:
    before = np.random.get_state()
    yield
    np.random.set_state(before)


# Functions of their own: NumPy's bound methods hold its global generator, which is then kept as one of the user's.
_USES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: 0.0,
    "a draw": lambda: np.random.rand(),
    "a normal number": lambda: np.random.randn(),
    "a seed": lambda: np.random.seed(3) or 0.0,
}


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("use", list(_USES))
def test_draws_of_user_code_do_not_change_the_trainers(use: str, kept: int) -> None:
    """`kept`: normal numbers drawn before each batch: NumPy keeps the second of two for the next call."""

    def draws(batches: Iterator[Any] | None) -> list[float]:
        np.random.seed(7)
        came = []
        for number in range(6):
            came += [float(np.random.randn()) for _ in range(kept)]
            if batches is not None:
                next(batches)
            came += [float(np.random.rand())] if number % 2 else []
            came += [float(np.random.randn()) for _ in range(kept)]
        return came

    alone = draws(None)
    with stoker.Loader(range(12), batch_size=2, transform=lambda _: float(_USES[use]()), workers=0) as loader:
        assert draws(iter(loader)) == alone


def test_the_normal_number_that_numpy_keeps_is_put_back() -> None:
    kept = KeptState([], Seeder(1, None, seeds_globals=True, held=[]))
    np.random.seed(7)
    wanted = np.random.randn(2)
    np.random.seed(7)
    came = [np.random.randn()]
    with kept:
        np.random.randn()  # nothing is drawn for it
    assert [*came, np.random.randn()] == wanted.tolist()


def _draw() -> None:
    random.random()
    np.random.rand()


def test_worker_init_leaves_the_trainers_libraries_alone() -> None:
    """It is called in the trainer with workers=0, where Keras and TensorFlow are at work for the model too."""
    keras: Any = pytest.importorskip("keras")
    tf: Any = pytest.importorskip("tensorflow")

    def begun() -> tuple[list[float], float, list[float]]:
        keras.utils.set_random_seed(1)
        with stoker.Loader([1.0, 2.0], batch_size=2, workers=0, worker_init=_draw) as loader:
            list(loader)
        layer = keras.layers.Dense(2)
        layer.build((None, 2))
        return layer.get_weights()[0].ravel().tolist(), random.random(), tf.random.uniform((2,)).numpy().tolist()

    keras.utils.set_random_seed(1)
    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    expected = layer.get_weights()[0].ravel().tolist(), random.random(), tf.random.uniform((2,)).numpy().tolist()
    assert begun() == expected
    assert begun() == expected
