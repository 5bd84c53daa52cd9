"""A tf.data.Dataset is pulled in the trainer; its elements are those that TensorFlow's own iteration gives."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import stoker
from tests.moving.compare import assert_same

ROWS, SIZE = 22, 4


class Pair(NamedTuple):
    left: Any
    right: Any


def numbers() -> tf.data.Dataset:
    return tf.data.Dataset.range(ROWS)


def parts(number: Any) -> Any:
    value = tf.cast(number, tf.float32)
    return {
        "x": tf.fill((2, 3), value / 7),
        "pair": (tf.strings.as_string(number), tf.cast(number, tf.uint8)),
        "flag": number % 2 == 0,
        "half": tf.cast(value, tf.float16),
    }


DATASETS: dict[str, Any] = {
    "nested": lambda: numbers().map(parts),
    "named": lambda: numbers().map(lambda number: Pair(number, -number)),
    "filtered": lambda: numbers().filter(lambda number: number % 3 > 0),
    "slices": lambda: tf.data.Dataset.from_tensor_slices((np.eye(ROWS, 3, dtype=np.float32), np.arange(ROWS))),
    "texts": lambda: tf.data.Dataset.from_tensor_slices([["é", "b"], ["c", ""]] * 11),
    "flat": lambda: numbers().batch(3).unbatch(),
    "windows": lambda: numbers().window(3, drop_remainder=True).flat_map(lambda part: part.batch(3)),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_batches_are_those_of_tensorflow(kind: str) -> None:
    dataset = DATASETS[kind]()
    expected = list(dataset.batch(SIZE).as_numpy_iterator())
    for workers in (0, 2) if kind == "nested" else (0,):
        with stoker.Loader(dataset, batch_size=SIZE, workers=workers) as loader:
            if kind in ("filtered", "flat", "windows"):
                with pytest.raises(TypeError, match="its length is unknown"):
                    len(loader)
            else:
                assert len(loader) == len(expected)
            for _ in range(2):
                came = [tuple(batch) if isinstance(batch, Pair) else batch for batch in loader]
                assert_same(came, [tuple(batch) if isinstance(batch, Pair) else batch for batch in expected])


def scattered() -> tf.data.Dataset:
    values = np.where(np.arange(ROWS * 5).reshape(ROWS, 5) % 3 == 0, 1.5, 0).astype(np.float32)
    ragged = tf.ragged.constant([[number] * (number % 4) for number in range(ROWS)], dtype=tf.int32)
    deep = tf.ragged.constant([[[number], []][: number % 3] for number in range(ROWS)], ragged_rank=2, dtype=tf.int64)
    return tf.data.Dataset.from_tensor_slices({"sparse": tf.sparse.from_dense(values), "rows": ragged, "deep": deep})


def as_tensors(batch: Any) -> Any:
    """Ragged values as lists, sparse ones as dense arrays."""
    return {
        "sparse": tf.sparse.to_dense(batch["sparse"]).numpy(),
        "rows": np.array(str(batch["rows"].to_list())),
        "deep": np.array(str(batch["deep"].to_list())),
    }


def test_ragged_and_sparse_components_stay_what_they_are() -> None:
    expected = [as_tensors(batch) for batch in scattered().batch(SIZE)]
    for workers in (0, 2):
        collate = {"rows": "ragged", "deep": "ragged"}
        with stoker.Loader(scattered(), batch_size=SIZE, collate=collate, workers=workers) as loader:
            assert_same([as_tensors(batch) for batch in loader.to_tf()], expected)
        with stoker.Loader(scattered().batch(SIZE), workers=workers) as loader:
            assert_same([as_tensors(batch) for batch in loader.to_tf()], expected)


BATCHED: dict[str, Any] = {
    "last": lambda: numbers().batch(SIZE),
    "then more": lambda: numbers().take(9).batch(SIZE, num_parallel_calls=2).map(lambda x: 2 * x).cache(),
    "padded": lambda: numbers().map(lambda n: tf.fill((n % 5,), n)).padded_batch(SIZE).prefetch(1),
    "zipped": lambda: tf.data.Dataset.zip((numbers().batch(SIZE), numbers().batch(SIZE))),
    "rebatched": lambda: numbers().batch(9).rebatch(SIZE),
    "sampled": lambda: tf.data.Dataset.sample_from_datasets([numbers().batch(SIZE), numbers().batch(3)], seed=1),
}


@pytest.mark.parametrize("kind", BATCHED)
def test_batches_made_by_tensorflow_pass_as_they_are(kind: str) -> None:
    dataset = BATCHED[kind]()
    with stoker.Loader(dataset, workers=0) as loader:
        assert_same(list(loader), list(dataset.as_numpy_iterator()))
    message = r"makes batches, with `\.batch\(\.\.\.\)`.* got 8\. Pass it before `\.batch"
    with pytest.raises(stoker.OptionError, match=message):
        stoker.Loader(dataset, batch_size=8)


def test_batches_may_be_examples_and_examples_batches() -> None:
    with stoker.Loader(stoker.from_tf(numbers().batch(2), batched=False), batch_size=SIZE, workers=0) as loader:
        assert next(iter(loader)).shape == (SIZE, 2)
    grouped = numbers().bucket_by_sequence_length(lambda n: tf.cast(n % 3, tf.int32), [1, 2], [SIZE] * 3)
    with pytest.raises(stoker.SourceError, match=r"from_tf\(dataset, batched=True\)`, or False for examples"):
        stoker.Loader(grouped)
    with stoker.Loader(stoker.from_tf(grouped, batched=True), workers=0) as loader:
        assert_same(list(loader), list(grouped.as_numpy_iterator()))


def test_a_transform_runs_in_workers_that_do_not_import_tensorflow() -> None:
    def imported(example: Any) -> Any:
        import sys

        return example["pair"][1], "tensorflow" in sys.modules

    with stoker.Loader(numbers().map(parts), batch_size=SIZE, transform=imported, workers=2) as loader:
        found = [(values.tolist(), any(flags)) for values, flags in loader]
    assert [flag for _, flag in found] == [False] * 6
    assert list(itertools.chain(*(values for values, _ in found))) == list(range(ROWS))


def test_cardinality_is_known_unknown_infinite_or_wrong() -> None:
    with stoker.Loader(numbers().repeat(), batch_size=SIZE, workers=0) as loader:
        with pytest.raises(TypeError, match="it never ends"):
            len(loader)
        assert [batch.tolist() for batch in itertools.islice(loader, 6)][-1] == [20, 21, 0, 1]
    wrong = numbers().apply(tf.data.experimental.assert_cardinality(ROWS))
    with stoker.Loader(wrong, batch_size=SIZE, workers=0) as loader:
        assert len(loader) == len(list(loader)) == 6
    with stoker.Loader(numbers().map(lambda n: (n, None)), batch_size=SIZE, workers=0) as loader:
        assert next(iter(loader))[1] is None


def test_training_goes_on_where_it_was() -> None:
    dataset = numbers().shuffle(ROWS, seed=4, reshuffle_each_iteration=False)
    expected = list(dataset.batch(SIZE).as_numpy_iterator())
    with stoker.Loader(dataset, batch_size=SIZE, workers=0) as loader:
        batches = iter(loader)
        assert_same([next(batches) for _ in range(2)], expected[:2])
        state = loader.state_dict()
        batches.close()
    with stoker.Loader(dataset, batch_size=SIZE, workers=0) as loader:
        loader.load_state_dict(state)
        assert_same(list(loader), expected[2:])


def test_errors_of_tensorflow_reach_the_user_as_they_are() -> None:
    broken = numbers().map(lambda n: tf.debugging.check_numerics(1 / (tf.cast(n, tf.float32) - 9), "at nine"))
    with (
        stoker.Loader(broken, batch_size=SIZE, workers=0) as loader,
        pytest.raises(tf.errors.InvalidArgumentError, match="at nine"),
    ):
        list(loader)
    with pytest.raises(stoker.SourceError, match=r"hold a Dataset, which has no form in NumPy.*\.flat_map\("):
        stoker.Loader(numbers().window(3))
    with pytest.raises(stoker.SourceError, match=r"from_tf needs a tf\.data\.Dataset, got a list"):
        stoker.from_tf([1])
