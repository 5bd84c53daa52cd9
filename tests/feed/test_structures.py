"""Structures, sources and what crosses to TensorFlow: ragged, sparse and string tensors, with the real TensorFlow."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import stoker
from tests.sources_of_tests import DTYPES, LENGTH, ByIndex, endless_pairs, example, odd, plainly, source, tensors
from tests.test_structures import CASES, SIZE, SOURCES, Scattered, Uneven, batches_of


def same(tensor: Any, expected: Any) -> bool:
    if isinstance(expected, Uneven):
        rows = [tensor[row] for row in range(tensor.shape[0])]
        return (
            isinstance(tensor, tf.RaggedTensor)
            and len(rows) == len(expected.rows)
            and all(map(same, rows, expected.rows))
        )
    if isinstance(expected, Scattered):
        return np.array_equal(tf.sparse.to_dense(tensor).numpy(), expected.dense)
    wanted = tf.string if expected.dtype == object else tf.as_dtype(expected.dtype)
    return tensor.dtype == wanted and np.array_equal(tensor.numpy(), expected)


def tuples(structure: Any) -> Any:
    """tf.data has no lists."""
    if isinstance(structure, dict):
        return {key: tuples(part) for key, part in structure.items()}
    if isinstance(structure, list | tuple):
        parts = map(tuples, structure)
        return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)
    return structure


def compare(batch: Any, expected: Any, path: str = "") -> None:
    if isinstance(expected, dict):
        assert list(batch) == list(expected)
        for key in expected:
            compare(batch[key], expected[key], f"{path}[{key!r}]")
    elif isinstance(expected, tuple):
        assert type(batch) is type(expected)
        for place, (one, other) in enumerate(zip(batch, expected, strict=True)):
            compare(one, other, f"{path}[{place}]")
    elif expected is None:
        assert batch is None
    else:
        assert same(batch, expected), (path, batch, expected)


@pytest.mark.parametrize("case", CASES)
def test_tensors_are_what_plain_python_makes(case: str) -> None:
    kind, collate, expected = CASES[case].kind, CASES[case].collate, CASES[case].expected
    data, transform = source("generator", functools.partial(example, kind))
    with stoker.Loader(data, batch_size=SIZE, transform=transform, collate=collate, workers=2) as loader:
        dataset = loader.to_tf()
        spec = dataset.element_spec
        assert spec == loader.element_spec
        for batch, ns in zip(dataset, batches_of("generator"), strict=True):
            compare(batch, tuples(expected(ns)))
            for one, told in zip(tf.nest.flatten(batch), tf.nest.flatten(spec), strict=True):
                assert told.is_compatible_with(one), (one, told)


@pytest.mark.parametrize("collate", ["pad", lambda texts: {"a": np.array([text["a"] for text in texts])}])
def test_any_text_arrives_as_its_bytes(collate: Any) -> None:
    texts = ["", "plain", "a\0b", "Straße", "日本語 🙂", "", "x" * 70_000]
    with stoker.Loader([{"a": text} for text in texts], batch_size=3, collate=collate, workers=0) as loader:
        wanted = [text.encode() for text in texts]
        in_numpy = [batch["a"].tolist() for batch in loader]
        assert in_numpy == [batch["a"].numpy().tolist() for batch in loader.to_tf()]
        assert [text for batch in in_numpy for text in batch] == wanted


@pytest.mark.parametrize("how", SOURCES)
def test_single_examples_are_tensors_of_their_own_size(how: str) -> None:
    data, transform = source(how, functools.partial(example, "single"))
    with stoker.Loader(data, batch_size=None, transform=transform, workers=1) as loader:
        for came, n in zip(loader.to_tf(), itertools.chain(*batches_of(how, size=LENGTH)), strict=True):
            ids, grid, words, nothing, parts, texts, sparse = came
            assert nothing is None
            compare(ids, np.arange(n % 5, dtype=np.int32) + n)
            compare(grid, np.full((n % 3, (n + 1) % 4), n, np.float32))
            compare(words, np.array([b"w" * place for place in range(n % 3)], object))
            compare(parts, Uneven([np.arange(place + n % 2, dtype=np.int16) for place in range(n % 3)]))
            assert [text.numpy() for text in texts] == [("ü" * n).encode(), b"\xff" * n, n]
            compare(sparse, Scattered(np.eye(3, k=n % 3)))


def expected_tensors(ns: list[int]) -> Any:
    deeper = [[[[n], []], [], [[1, 2]]][: n % 3 + 1] for n in ns]
    words = np.full((len(ns), 1, 2), b"", object)
    words[:, 0, 1] = [b"w" * n for n in ns]
    return {
        "dense": np.array([np.full((2, 3), n) for n in ns], np.float32),
        "texts": np.array([["é".encode() * n, b"b"] for n in ns], object),
        "ragged": Uneven([Uneven([np.array(part, np.int32) for part in ([n] * (n % 3), [1], [])]) for n in ns]),
        "deeper": Uneven(
            [Uneven([Uneven([np.array(row, np.int64) for row in part]) for part in parts]) for parts in deeper]
        ),
        "sparse": Scattered(np.array([[[0, n], [1, 0]] for n in ns], np.int32)),
        "words": Scattered(words),
        **{str(np.dtype(dtype)): np.array([n % 2 for n in ns]).astype(dtype) for dtype in DTYPES},
    }


def test_tensors_that_workers_make_arrive_as_they_are() -> None:
    for workers in (0, 1):
        with stoker.Loader(ByIndex(tensors, 7), batch_size=3, collate="stack", workers=workers) as loader:
            for batch, ns in zip(loader.to_tf(), ([0, 1, 2], [3, 4, 5], [6]), strict=True):
                compare(batch, expected_tensors(ns))


# ── specs, cardinality, serialisation ────────────────────────────────────────────────────────
def test_a_signature_is_the_spec_of_the_batches() -> None:
    signature = {
        "ids": tf.TensorSpec((None,), tf.int32),
        "grid": tf.TensorSpec((None, None), tf.float32),
        "label": tf.TensorSpec((), tf.uint8),
        "tokens": tf.RaggedTensorSpec((None,), tf.int64, ragged_rank=0),
        "sparse": tf.SparseTensorSpec((4, 3), tf.float32),
        "text": tf.TensorSpec((), tf.string),
    }

    def signed(n: int) -> Any:
        leaves = example("varying", n)
        rest = {"sparse": example("foreign", n)["csr"], "text": "é" * n}
        return {name: leaves[name] for name in ("ids", "grid", "label", "tokens")} | rest

    collate = {"ids": "pad", "grid": "pad", "tokens": "ragged"}
    data = ByIndex(signed, LENGTH)
    with stoker.Loader(data, batch_size=SIZE, collate=collate, output_signature=signature, workers=1) as loader:
        dataset = loader.to_tf()
        assert dataset.element_spec == {
            "ids": tf.TensorSpec((None, None), tf.int32),
            "grid": tf.TensorSpec((None, None, None), tf.float32),
            "label": tf.TensorSpec((None,), tf.uint8),
            "tokens": tf.RaggedTensorSpec((None, None), tf.int64, ragged_rank=1),
            "sparse": tf.SparseTensorSpec((None, 4, 3), tf.float32),
            "text": tf.TensorSpec((None,), tf.string),
        }
        for batch, ns in zip(dataset, batches_of("map"), strict=True):
            assert batch["label"].numpy().tolist() == ns
            assert batch["tokens"].to_list() == [[n] * (n % 4) for n in ns]


@pytest.mark.parametrize(
    ("how", "length"), [("map", LENGTH), ("arrays", LENGTH), ("generator", None), ("iterable", None)]
)
def test_the_cardinality_is_told_to_tensorflow(how: str, length: int | None) -> None:
    unknown, endless = tf.data.UNKNOWN_CARDINALITY, tf.data.INFINITE_CARDINALITY
    data, transform = source(how, plainly)
    for options, expected in (
        ({"batch_size": SIZE}, 6),
        ({"batch_size": SIZE, "drop_remainder": True}, 5),
        ({"batch_size": None}, LENGTH),
        ({"batch_size": SIZE, "transform": odd}, unknown),
    ):
        with stoker.Loader(data, **{"transform": transform, **options}, workers=0) as loader:
            dataset = loader.to_tf()
            told = dataset.cardinality().numpy()
            assert told == (expected if length else unknown)
            assert len(list(dataset)) == expected or expected == unknown
    with stoker.Loader(stoker.from_generator(endless_pairs, 2, length=math.inf), workers=0) as loader:
        assert loader.to_tf().cardinality().numpy() == endless


@pytest.mark.parametrize("how", ["map", "generator"])
def test_serialised_components_are_restored_by_parse_tensor(how: str) -> None:
    def leaves(n: int) -> Any:
        some = example("varying", n)
        dtypes = [np.full((2, 1), n % 2, dtype) for dtype in DTYPES]
        return {name: some[name] for name in ("ids", "grid", "words", "label")} | {
            "sparse": example("foreign", n)["csr"],
            "dtypes": dtypes,
        }

    collate = {"ids": "pad", "grid": "ragged", "words": "ragged"}
    for workers in (0, 1):
        data, transform = source(how, leaves)
        with stoker.Loader(data, batch_size=SIZE, transform=transform, collate=collate, workers=workers) as loader:
            written = list(loader.to_tf(serialized=True))
            plain = list(loader.to_tf())
        for ours, batch in zip(written, plain, strict=True):
            assert all(part.dtype == tf.string and part.shape == () for part in tf.nest.flatten(ours))
            for name in ("ids", "label"):
                restored = tf.io.parse_tensor(ours[name], batch[name].dtype)
                assert np.array_equal(restored.numpy(), batch[name].numpy())
            for restored, tensor in zip(ours["dtypes"], batch["dtypes"], strict=True):
                assert np.array_equal(tf.io.parse_tensor(restored, tensor.dtype).numpy(), tensor.numpy())
            for name in ("grid", "words"):
                parts, tensor = ours[name], batch[name]
                splits = [tf.io.parse_tensor(part, tf.int64) for part in parts["nested_row_splits"]]
                values = tf.io.parse_tensor(parts["flat_values"], tensor.dtype)
                restored = tf.RaggedTensor.from_nested_row_splits(values, splits)
                assert restored.to_list() == tensor.to_list()
            sparse = tf.SparseTensor(
                tf.io.parse_tensor(ours["sparse"]["indices"], tf.int64),
                tf.io.parse_tensor(ours["sparse"]["values"], tf.float32),
                tf.io.parse_tensor(ours["sparse"]["dense_shape"], tf.int64),
            )
            assert np.array_equal(tf.sparse.to_dense(sparse).numpy(), tf.sparse.to_dense(batch["sparse"]).numpy())


def test_batches_of_a_source_of_batches_are_tensors() -> None:
    def batches(shard: stoker.Shard) -> Iterator[Any]:
        for n in range(1, 4):
            yield np.full((n, 2), n, np.float32), np.array(["é"] * n)

    data = stoker.from_generator(batches, 1, batched=True, length=3)
    with stoker.Loader(data, batch_size=None, workers=1) as loader:
        dataset = loader.to_tf()
        assert dataset.element_spec == (tf.TensorSpec((None, 2), tf.float32), tf.TensorSpec((None,), tf.string))
        assert dataset.cardinality().numpy() == 3
        assert [x.numpy().tolist() for x, _ in dataset] == [[[n, n]] * n for n in (1, 2, 3)]


# ── Keras ────────────────────────────────────────────────────────────────────────────────────
class Noting(keras.Model):
    """Notes what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.seen = keras.layers.Dense(1), []

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        self.seen.append(int(data[0][0, 0]))
        return super().train_step(data)


def test_fit_goes_on_where_an_endless_source_stopped() -> None:
    model = Noting()
    model.compile("sgd", "mse", run_eagerly=True)
    data = stoker.from_generator(endless_pairs, shards=1, length=math.inf)
    with stoker.Loader(data, batch_size=4, workers=2) as loader:
        endless = loader.to_tf()
        model.fit(endless, epochs=3, steps_per_epoch=5, validation_data=endless, validation_steps=2, verbose=0)
    assert model.seen == [4 * step for step in range(15)]


def test_keras_trains_on_padded_numbers_beside_texts() -> None:
    def rows(n: int) -> Any:
        return {"ids": np.arange(n % 5 + 1) % 9, "text": "some words"[: n + 1]}, np.float32(n % 2)

    inputs = {
        "ids": keras.Input((None,), dtype="int64", name="ids"),
        "text": keras.Input((), dtype="string", name="text"),
    }
    hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 4)(inputs["ids"]))
    sizes = keras.layers.Lambda(lambda text: tf.strings.length(text)[:, None], (1,), dtype="int32")(inputs["text"])
    both = keras.layers.Concatenate()([hidden, keras.ops.cast(sizes, "float32")])
    model = keras.Model(inputs, keras.layers.Dense(1)(both))
    model.compile("sgd", "mse")
    data = stoker.from_generator(lambda shard: map(rows, shard.split(range(16))), shards=2, length=16)
    with stoker.Loader(data, batch_size=4, collate="pad", workers=2) as loader:
        history = model.fit(loader.to_tf(), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
