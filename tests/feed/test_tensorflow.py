"""The hand-over to tf.data and Keras, with the real ones."""

from __future__ import annotations

import gc
from typing import Any

import keras
import ml_dtypes
import numpy as np
import optree
import pytest
import tensorflow as tf

import stoker
from stoker.coordinator.slot_table import SlotTable
from tests.examples import Labelled, Large, Misbehaving, Nested, Pair, Squares
from tests.test_ends import run

DTYPES = [
    *"bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split(),
    *"float16 float32 float64 complex64 complex128".split(),
    ml_dtypes.bfloat16,
]


def test_tensors_lie_where_the_slot_has_the_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero copy, with prefetch, for every leaf of a nested structure, until consumers hold too many batches."""
    with stoker.Loader(Nested(64), batch_size=4, workers=2) as loader:
        places: set[int] = set()
        view = SlotTable.view

        def noting(self: SlotTable, delivered: Any) -> Any:
            leaves = view(self, delivered)
            assert not delivered.copy
            places.update(leaf.ctypes.data for leaf in leaves)
            return leaves

        monkeypatch.setattr(SlotTable, "view", noting)
        for batch in loader.to_tf():
            for tensor in tf.nest.flatten(batch):
                assert np.asarray(memoryview(tensor)).ctypes.data in places


def test_large_batches_take_three_slots_where_the_consumer_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the consumer holds, one that is filled, one that is begun; TensorFlow prefetches none."""
    tables: list[SlotTable] = []
    view = SlotTable.view

    def noting(self: SlotTable, delivered: Any) -> Any:
        tables.append(self)
        return view(self, delivered)

    monkeypatch.setattr(SlotTable, "view", noting)
    with stoker.Loader(Large(), batch_size=68, workers=2) as loader:
        for n, batch in enumerate(loader.to_tf()):
            assert batch[-1, -1] == (68 * n + 67) % 251
        assert sum(slot.taken() > 1 << 20 for slot in tables[0]._slots) <= 3


def test_tensors_have_the_content_and_the_spec_that_was_announced() -> None:
    with stoker.Loader(Nested(50), batch_size=8, shuffle=True, workers=2) as loader:
        dataset = loader.to_tf()
        assert loader.element_spec == dataset.element_spec
        assert dataset.element_spec == {
            "image": tf.TensorSpec((None, 5, 3), tf.uint8),
            "pair": Pair(
                tf.TensorSpec((None,), tf.float32), (tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None,), tf.bool))
            ),
            "deep": ({"x": tf.TensorSpec((None, 7), tf.float64)}, tf.TensorSpec((None,), tf.complex64)),
        }
        assert dataset.cardinality().numpy() == len(loader) == 7
        tensors = list(dataset)
    with stoker.Loader(Nested(50), batch_size=8, shuffle=True, workers=0) as loader:
        for batch, arrays in zip(tensors, loader, strict=True):
            ours, theirs = tf.nest.flatten(batch), tf.nest.flatten(arrays)
            assert all(np.array_equal(tensor.numpy(), array) for tensor, array in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("options", "rows"), [({}, None), ({"drop_remainder": True}, 8), ({"batch_size": 10}, 10)])
def test_the_batch_dimension_is_static_where_it_can_be(options: dict[str, Any], rows: int | None) -> None:
    with stoker.Loader(Squares(50), **{"batch_size": 8, **options}, workers=0) as loader:
        assert loader.element_spec[0].shape == tf.TensorShape((rows, 4))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_arrives_as_it_is(dtype: Any) -> None:
    values = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    swapped = values if dtype is ml_dtypes.bfloat16 else values.astype(values.dtype.newbyteorder())
    source = [(row, row[0], other) for row, other in zip(values, swapped, strict=True)]
    with stoker.Loader(source, batch_size=3, workers=1) as loader:
        (batch,) = loader.to_tf()
    for tensor, expected in zip(batch, (values, values[:, 0], values), strict=True):
        assert tensor.dtype == tf.as_dtype(np.dtype(dtype))
        assert np.array_equal(tensor.numpy().astype(np.complex128), expected.astype(np.complex128))


def content(batches: Any) -> list[list[int]]:
    return [batch[1].numpy().tolist() for batch in batches]


def test_holding_caching_and_shuffling_tensors_corrupts_nothing() -> None:
    expected = [[n * n for n in range(start, start + 8)] for start in range(0, 4000, 8)]
    with stoker.Loader(Squares(4000), batch_size=8, workers=2) as loader:
        held = list(loader.to_tf())
        rows = [batch[0][2] for batch in loader.to_tf()]
        cached = loader.to_tf().cache()
        assert content(cached) == expected
        assert content(cached) == expected
        assert sorted(content(loader.to_tf().shuffle(1000))) == expected
        assert sorted(content(loader.to_tf().repeat(2))) == sorted(expected * 2)
        assert content(held) == expected
        assert [float(row[0]) for row in rows] == [8 * n + 2 for n in range(500)]


def test_abandoned_iterators_give_their_slots_back() -> None:
    with stoker.Loader(Squares(400), batch_size=4, workers=2, prefetch=2) as loader:
        for _ in range(20):
            assert len(list(loader.to_tf().take(3))) == 3
        dataset = loader.to_tf()
        for _ in range(5):
            next(iter(dataset))
        gc.collect()
        assert len(list(dataset)) == 100
        producer: Any = loader._producer
        assert list(producer._epochs) == [producer._ahead.stream], "no iteration is left open"


def test_every_iteration_that_is_read_is_the_next_epoch() -> None:
    def epochs(dataset: Any) -> list[Any]:
        iter(dataset)  # never read
        return [content(dataset) for _ in range(3)]

    with stoker.Loader(Squares(60), batch_size=8, shuffle=True, seed=5, workers=2) as loader:
        made = epochs(loader.to_tf())
    with stoker.Loader(Squares(60), batch_size=8, shuffle=True, seed=5, workers=0) as loader:
        assert made == [[batch[1].tolist() for batch in loader] for _ in range(3)]


# ── Keras ────────────────────────────────────────────────────────────────────────────────────
def model(form: str = "") -> keras.Model:
    keras.utils.set_random_seed(0)
    if form == "dict":
        inputs: Any = {name: keras.Input((2,), name=name) for name in ("one", "two")}
        outputs = keras.layers.Dense(2)(keras.layers.concatenate(list(inputs.values())))
    else:
        inputs = keras.Input((4,))
        outputs = keras.layers.Dense(2)(inputs)
    made = keras.Model(inputs, outputs)
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), weighted_metrics=["accuracy"])
    return made


@pytest.mark.parametrize(
    "form",
    [pytest.param("x, y", marks=pytest.mark.stress), "x, y, weight", pytest.param("dict", marks=pytest.mark.stress)],
)
def test_fit_gives_the_weights_that_it_gives_without_stoker(form: str) -> None:
    source = Labelled(form)
    with (
        stoker.Loader(source, batch_size=16, workers=2) as train,
        stoker.Loader(source, batch_size=7, workers=1) as val,
    ):
        ours = model(form)
        history = ours.fit(train.to_tf(), epochs=2, validation_data=val.to_tf(), verbose=0)
    arrays = [
        np.stack(leaves) for leaves in zip(*(optree.tree_leaves(source[n]) for n in range(len(source))), strict=True)
    ]
    nested = optree.tree_unflatten(optree.tree_structure(source[0]), arrays)
    plain = model(form)
    plain.fit(tf.data.Dataset.from_tensor_slices(nested).batch(16), epochs=2, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(ours.get_weights(), plain.get_weights(), strict=True))
    assert set(history.history) >= {"loss", "val_loss", "accuracy"}


def test_evaluate_predict_class_weight_and_steps_per_epoch() -> None:
    with stoker.Loader(Labelled("x, y"), batch_size=16, workers=2) as loader:
        trained = model()
        dataset = loader.to_tf()
        trained.fit(dataset.repeat(), epochs=3, steps_per_epoch=4, class_weight={0: 1.0, 1: 2.0}, verbose=0)
        assert np.isfinite(trained.evaluate(dataset, verbose=0)).all()
    with stoker.Loader(Labelled("x"), batch_size=16, workers=1) as loader:
        assert trained.predict(loader.to_tf(), verbose=0).shape == (96, 2)


def test_keras_knows_the_number_of_steps(capfd: pytest.CaptureFixture[str]) -> None:
    with stoker.Loader(Labelled("x, y"), batch_size=16, workers=1) as loader:
        model().fit(loader.to_tf(), verbose=2)
    assert "6/6" in capfd.readouterr().out


def test_an_error_in_user_code_reaches_fit_first_of_all() -> None:
    with stoker.Loader(Misbehaving("raise"), batch_size=8, workers=2, transform=lambda e: (e[0], e[1] % 2)) as loader:
        trained = model()
        with pytest.raises(tf.errors.OpError) as caught:
            trained.fit(loader.to_tf(), verbose=0)
        shown = caught.value.message.split("<stack traces unavailable>\n")[-1]
        assert shown.startswith("WorkerError: example 37 (epoch 0, batch 4, worker ")
        assert "KeyError: 'bad digit'" in shown
        assert "examples.py" in shown
        assert len(content(loader.to_tf().take(4))) == 4, "the Loader can be iterated again"


def test_a_training_is_not_disturbed_by_a_dying_worker(tmp_path: Any) -> None:
    flag = tmp_path / "times"
    flag.write_text("3")
    weights = []
    for source in (Misbehaving("SIGKILL", flag=flag), Squares(100)):
        with stoker.Loader(source, batch_size=8, workers=2, transform=lambda e: (e[0], e[1] % 2)) as loader:
            trained = model()
            trained.fit(loader.to_tf(), verbose=0)
            weights.append(trained.get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
    assert flag.read_text() == "0"


def test_a_loader_lives_as_long_as_its_dataset() -> None:
    dataset = stoker.Loader(Squares(40), batch_size=8, workers=1).to_tf()
    gc.collect()
    assert len(list(dataset)) == 5


def test_tensorflow_may_work_in_place_on_parts_of_a_batch() -> None:
    """A part of a tensor is overwritten when nothing else refers to the tensor, whoever made its memory."""

    @tf.function(autograph=False)
    def step(batches: Any) -> Any:
        first, second = tf.split(batches.get_next(), 2)
        return tf.concat([first * 2 + 1, second * 2 + 1], 0)

    with stoker.Loader([np.full(1024, n, np.float32) for n in range(64)], batch_size=8, workers=1) as loader:
        for _ in range(3):
            batches = iter(loader.to_tf())
            assert [int(row) for _ in range(8) for row in step(batches)[:, 7]] == [2 * n + 1 for n in range(64)]


CYCLES = """
import gc, os, stoker
loader = stoker.Loader(range(10**6), batch_size=4, workers=1)
dataset, batches = loader.to_tf(), iter(loader)
gc.set_threshold(50, 5, 5)
for _ in range(60):
    iterator = iter(dataset)
    next(iterator)
    cycle = [iterator]
    cycle.append(cycle)
    del iterator, cycle
    for _ in range(10):
        next(batches)
os._exit(0)
"""


@pytest.mark.stress
def test_a_thread_that_listens_to_the_workers_collects_iterators_and_nobody_waits_for_it() -> None:
    """TensorFlow lets the collecting thread wait for an iterator's prefetching one, which waits for a batch.

    In a process of its own: TensorFlow lets that thread itself wait for ever, when it is the collecting one.
    """
    trainer = run(CYCLES)
    trainer.communicate(timeout=60)
    assert trainer.returncode == 0
