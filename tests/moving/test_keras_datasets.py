"""A Keras PyDataset gives the batches that Keras itself takes from it, made in workers."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.trainers.data_adapters.py_dataset_adapter import OrderedEnqueuer

import stoker
from tests.moving.compare import assert_same

ROWS, SIZE = 22, 4


class Shuffled(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
    """Shuffles itself between epochs, as the guides of Keras do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.order = np.arange(ROWS)
        self.begun = 0

    def __len__(self) -> int:
        return -(-ROWS // SIZE)

    def __getitem__(self, index: int) -> Any:
        rows = self.order[index * SIZE : (index + 1) * SIZE]
        return (
            {"x": rows.astype(np.float32)[:, None] / 3, "text": rows.astype(str)},
            rows,
            np.full(len(rows), self.begun),
        )

    def on_epoch_begin(self) -> None:
        self.begun += 1

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)


class Numbered(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
    """Has `num_batches` and no `__len__`; it never ends if that is None."""

    def __init__(self, count: int | None) -> None:
        super().__init__()
        self.count = count

    @property
    def num_batches(self) -> int | None:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return np.full((2, 3), index, np.float32), np.array([index, -index])


class Unnumbered(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
    def __getitem__(self, index: int) -> Any:
        return np.full((2, 3), index, np.float32), np.array([index, -index])


class Growing(Numbered):
    def on_epoch_end(self) -> None:
        self.count = (self.count or 0) + 1


def batches_of_keras(dataset: Any, count: int) -> list[Any]:
    """What `fit` would get from Keras' own queue."""
    queue = OrderedEnqueuer(dataset, workers=2)
    dataset.on_epoch_begin()
    queue.start()
    try:
        return list(itertools.islice(queue.get(), count))
    finally:
        queue.stop()


def labels(batches: Iterator[Any] | list[Any]) -> list[list[int]]:
    return [batch[1].tolist() for batch in batches]


def test_batches_are_those_of_keras_and_a_dataset_that_shuffles_itself_stays_exactly_once() -> None:
    expected = batches_of_keras(Shuffled(), len(Shuffled()))
    epochs = {}
    for workers in (0, 2):
        with stoker.Loader(Shuffled(), seed=3, workers=workers) as loader:
            assert len(loader) == len(expected)
            first = list(loader)
            assert_same(first, expected)
            epochs[workers] = [labels(loader) for _ in range(2)]
            assert [set(batch[2].tolist()) for batch in loader] == [{4}] * len(expected)  # `on_epoch_begin`
    assert epochs[0] == epochs[2]
    second, third = (list(itertools.chain(*epoch)) for epoch in epochs[0])
    assert sorted(second) == sorted(third) == list(range(ROWS))
    assert second != third != list(range(ROWS)) != second


def test_num_batches_counts_and_none_of_it_never_ends() -> None:
    with stoker.Loader(Numbered(3), workers=0) as loader:
        assert_same(list(loader), batches_of_keras(Numbered(3), 3))
    for dataset, workers in ((Numbered(None), 2), (Unnumbered(), 0)):
        with stoker.Loader(dataset, workers=workers) as loader:
            batches = iter(loader)
            assert_same(list(itertools.islice(batches, 40)), batches_of_keras(Numbered(None), 40))
            with pytest.raises(TypeError, match="it never ends"):
                len(loader)
            state = loader.state_dict()
        with stoker.Loader(dataset, workers=0) as loader:
            loader.load_state_dict(state)
            assert labels(itertools.islice(loader, 2)) == [[40, -40], [41, -41]]
            assert int(loader.to_tf().cardinality()) == -1
    with pytest.raises(stoker.OptionError, match=r"the source, a Numbered, never ends\. Shuffle within the source"):
        stoker.Loader(Numbered(None), shuffle=True)


def test_an_endless_one_trains_for_the_steps_that_fit_is_given() -> None:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with stoker.Loader(Numbered(None), workers=0, transform=lambda x, y: (x / 100, y / 100)) as loader:
        history = model.fit(loader.to_tf(), steps_per_epoch=5, epochs=2, verbose=0)
        assert len(history.history["loss"]) == 2


def test_settings_of_its_own_that_are_not_used_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stoker"):
        stoker.Loader(Shuffled(workers=1, max_queue_size=10), workers=0).close()
        assert not caplog.messages
        stoker.Loader(Shuffled(workers=4, use_multiprocessing=True), workers=0).close()
    (message,) = caplog.messages
    assert message.startswith("workers=4 and use_multiprocessing=True of this Shuffled: not used. The Loader's own")


def test_a_length_that_changes_is_an_error() -> None:
    dataset = Numbered(3)
    with stoker.Loader(dataset, workers=0) as loader:
        assert len(list(loader)) == 3
        dataset.count = 4
        with pytest.raises(stoker.SourceError, match="3 examples when the Loader was created and has 4 now"):
            next(iter(loader))
    for workers in (0, 2):
        with stoker.Loader(Growing(3), workers=workers) as loader:
            assert len(list(loader)) == 3
            with pytest.raises(stoker.SourceError, match="3 examples when the Loader was created and has 4 now"):
                list(loader)


def test_an_image_generator_that_shuffles_itself_is_refused() -> None:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    def flow(shuffle: bool) -> Any:
        return ImageDataGenerator().flow(np.zeros((8, 4, 4, 3)), np.arange(8), batch_size=4, shuffle=shuffle)

    with pytest.raises(stoker.SourceError, match="shuffle=True to the Loader"):
        stoker.Loader(flow(True))
    with stoker.Loader(flow(False), workers=0) as loader:
        assert [labels.tolist() for _, labels in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]]
