"""Sources whose elements are batches already: every kind of source, and Keras' own, which are known by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import stoker

ROWS = [3, 1, 4, 1, 5, 2, 6]


class PyDataset:
    """Stands for Keras' class of that name, which is known by it."""

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> Any:
        return batch(index)


PyDataset.__module__ = "keras.src.trainers.data_adapters.py_dataset_adapter"


class Ready(PyDataset):
    pass


class Plain:
    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> Any:
        return batch(index)


def batch(index: int) -> Any:
    rows = ROWS[index]
    return {"x": np.full((rows, 2), index, np.float32), "text": [f"ü{index}"] * rows}, np.arange(rows)


def batches(shard: Any = None) -> Iterator[Any]:
    yield from map(batch, range(len(ROWS)))


SOURCES: dict[str, Any] = {
    "keras": lambda: (Ready(), {}),
    "map-style": lambda: (Plain(), {"batched": True}),
    "generator": lambda: (stoker.from_generator(batches, 1, len(ROWS), batched=True), {}),
    "generator, told by the loader": lambda: (stoker.from_generator(batches, 1), {"batched": True}),
    "iterable": lambda: (stoker.from_iterable(batches, batched=True), {}),
    "iterable, told by the loader": lambda: (stoker.from_iterable(batches), {"batched": True, "batch_size": None}),
}


def doubled(some: Any) -> Any:
    x, y = some
    return {**x, "x": x["x"] * 2}, y


def numbers(loader: stoker.Loader) -> list[int]:
    """Which batches came, each as it is made, doubled."""
    found = []
    for x, y in loader:
        index = int(x["x"][0, 0]) // 2
        expected, rows = batch(index)
        assert np.array_equal(x["x"], expected["x"] * 2)
        assert x["text"].tolist() == [text.encode() for text in expected["text"]]
        assert np.array_equal(y, rows)
        found.append(index)
    return found


@pytest.mark.parametrize("how", SOURCES)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_pass_as_they_are_from_every_source(how: str, workers: int) -> None:
    source, options = SOURCES[how]()
    with stoker.Loader(source, transform=doubled, workers=workers, **options) as loader:
        assert numbers(loader) == list(range(len(ROWS)))
        if how in ("keras", "map-style", "generator"):
            assert len(loader) == len(ROWS)


def test_shuffling_permutes_the_batches_and_a_state_counts_them() -> None:
    with stoker.Loader(Ready(), shuffle=True, transform=doubled, workers=0) as loader:
        first, second = numbers(loader), numbers(loader)
        iterator = iter(loader)
        taken = [next(iterator) for _ in range(3)]
        state = loader.state_dict()
        rest = numbers(iterator)  # type: ignore[arg-type]
    assert sorted(first) == sorted(second) == list(range(len(ROWS)))
    assert first != second
    assert (state["batches"], len(taken) + len(rest)) == (3, len(ROWS))
    with stoker.Loader(Ready(), shuffle=True, transform=doubled, workers=2) as again:
        again.load_state_dict(state)
        assert numbers(again) == rest


def test_what_has_no_meaning_for_batches_is_refused_in_their_words() -> None:
    for source in (Ready(), stoker.from_iterable(Ready())):
        with pytest.raises(stoker.OptionError, match=r"batch.*batch_size must be omitted or None, got 32"):
            stoker.Loader(source, batch_size=32)
    with pytest.raises(stoker.OptionError, match=r"Ready is a Keras dataset.*collate='pad' does not apply"):
        stoker.Loader(Ready(), collate="pad")
    with pytest.raises(stoker.OptionError, match="drop_remainder=True does not apply"):
        stoker.Loader(Plain(), batched=True, drop_remainder=True)
    for option in ({"shard_count": 2}, {"pad_remainder": True}):
        with pytest.raises(stoker.OptionError, match=r"needs to split batches, .* makes them itself \(batched=True\)"):
            stoker.Loader(Ready(), **option)


def test_a_size_that_differs_only_in_later_batches_is_told_by_the_signature() -> None:
    tf = pytest.importorskip("tensorflow")
    source = [np.zeros((2, 3 + n // 5)) for n in range(6)]
    with (
        stoker.Loader(source, batched=True, workers=0) as loader,
        pytest.raises(stoker.SpecError, match="declare it as None in `output_signature`"),
    ):
        list(loader)
    signature = tf.TensorSpec((None, None), tf.float64)
    with stoker.Loader(source, batched=True, output_signature=signature, workers=0) as loader:
        assert [came.shape for came in loader] == [one.shape for one in source]


def test_a_keras_dataset_is_fitted_as_keras_itself_fits_it() -> None:
    keras = pytest.importorskip("keras")

    class Rows(keras.utils.PyDataset):  # type: ignore[name-defined, misc]
        def __len__(self) -> int:
            return len(ROWS)

        def __getitem__(self, index: int) -> Any:
            x = np.random.default_rng(index).normal(size=(ROWS[index], 3)).astype(np.float32)
            return x, x.sum(1)

    def fitted(data: Any) -> list[float]:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return [float(loss) for loss in model.fit(data, epochs=2, shuffle=False, verbose=0).history["loss"]]

    with stoker.Loader(Rows(), workers=0) as loader:
        dataset = loader.to_tf()
        assert int(dataset.cardinality()) == len(ROWS)
        assert fitted(dataset) == pytest.approx(fitted(Rows()), rel=1e-5)
