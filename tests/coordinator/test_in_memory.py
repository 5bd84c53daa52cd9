"""Arrays in memory are taken without workers; the batches are those that workers would make."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stoker
from tests.test_structures import assert_same


def same(example: Any) -> Any:
    """With it, workers are needed."""
    return example


def arrays(length: int, width: int = 3) -> tuple[Any, Any]:
    x = np.arange(length * width, dtype=np.float32).reshape(length, width)
    return {"x": x, "flag": np.arange(length) % 2 == 0}, np.arange(length)


def epochs(loader: stoker.Loader, count: int = 2) -> list[Any]:
    return [list(loader) for _ in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 200),
    batch_size=st.integers(1, 40),
    shuffle=st.booleans(),
    drop=st.booleans(),
    width=st.sampled_from([1, 3, 100_000]),  # of the last only few batches are taken at once, or one
)
def test_batches_are_those_of_the_same_loader_with_a_transform(
    length: int, batch_size: int, shuffle: bool, drop: bool, width: int
) -> None:
    length = min(length, 30) if width > 3 else length
    options: Any = {"batch_size": min(batch_size, length), "shuffle": shuffle, "drop_remainder": drop, "seed": 5}
    source = stoker.from_arrays(*arrays(length, width))
    with (
        stoker.Loader(source, **options) as taken,
        stoker.Loader(source, transform=same, workers=0, **options) as made,
    ):
        assert len(taken) == len(made)
        for one, other in zip(epochs(taken), epochs(made), strict=True):
            for mine, theirs in zip(one, other, strict=True):
                assert_same(mine, theirs)


@pytest.mark.parametrize("width", [3, 200_000])
def test_tensorflow_gets_the_same_and_no_process_is_started(width: int) -> None:
    import tensorflow as tf

    source = stoker.from_arrays(*arrays(50, width))
    with stoker.Loader(source, batch_size=8, shuffle=True, workers=2) as loader:
        expected = epochs(loader)
    with stoker.Loader(source, batch_size=8, shuffle=True, workers=2) as loader:
        dataset = loader.to_tf()
        assert dataset.cardinality() == 7
        kept = [list(dataset), list(dataset)]  # all are held while the others are made
        assert not any("stoker." in " ".join(child.cmdline()) for child in psutil.Process().children())
    for epoch, wanted in zip(kept, expected, strict=True):
        for batch, other in zip(epoch, wanted, strict=True):
            assert_same(tf.nest.map_structure(lambda tensor: tensor.numpy(), batch), other)


@pytest.mark.parametrize("transform", [None, same])
def test_training_goes_on_from_any_batch_with_workers_or_without(transform: Any) -> None:
    source = stoker.from_arrays(np.arange(100))
    with stoker.Loader(source, batch_size=3, shuffle=True) as loader:
        whole = [batch.tolist() for batch in loader]
        later = [batch.tolist() for batch in loader]
    with stoker.Loader(source, batch_size=3, shuffle=True) as loader:
        batches = iter(loader)
        for _ in range(20):
            next(batches)
        state = loader.state_dict()
    assert (state["epoch"], state["batches"]) == (0, 20)
    with stoker.Loader(source, batch_size=3, shuffle=True, transform=transform, workers=1) as loader:
        loader.load_state_dict(state)
        assert [batch.numpy().tolist() for batch in loader.to_tf()] == whole[20:]
        assert [batch.tolist() for batch in loader] == later


def test_trainers_share_each_batch() -> None:
    with stoker.Loader(stoker.from_arrays(np.arange(30)), batch_size=8, shuffle=True) as loader:
        whole = [batch.tolist() for batch in loader]
    parts = []
    for index in range(2):
        options: Any = {"batch_size": 8, "shuffle": True, "shard_index": index, "shard_count": 2}
        with stoker.Loader(stoker.from_arrays(np.arange(30)), **options) as loader:
            parts.append([batch.numpy().tolist() for batch in loader.to_tf()])
    assert [one + other for one, other in zip(*parts, strict=True)] == whole


def test_what_is_kept_stays_as_it_is() -> None:
    with stoker.Loader(stoker.from_arrays(*arrays(2000)), batch_size=4) as loader:
        rows = [batch[0]["x"][2] for _ in range(3) for batch in loader]
    assert [row[0] for row in rows] == [3 * number for number in range(2, 2000, 4)] * 3
    assert not rows[0].flags.writeable


def test_components_are_serialised_too() -> None:
    import tensorflow as tf

    with stoker.Loader(stoker.from_arrays(*arrays(50)), batch_size=8) as loader:
        plain = list(loader)
        for (x, y), (features, labels) in zip(loader.to_tf(serialized=True), plain, strict=True):
            assert np.array_equal(tf.io.parse_tensor(x["x"], tf.float32), features["x"])
            assert np.array_equal(tf.io.parse_tensor(y, tf.int64), labels)


def test_ends_are_told_as_with_workers() -> None:
    loader = stoker.Loader(stoker.from_arrays(np.arange(10)), batch_size=2)
    batches = iter(loader)
    first = next(batches)
    child = os.fork()
    if not child:
        try:
            next(iter(loader))
        except stoker.ClosedError as error:
            os._exit(0 if "fork" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    loader.close()
    assert first.tolist() == [0, 1]
    with pytest.raises(stoker.ClosedError):
        next(iter(loader))
    with pytest.raises(stoker.OptionError, match=r"takes 8,000,000 bytes, more than memory_limit=1,000"):
        stoker.Loader(stoker.from_arrays(np.zeros((20, 100_000))), batch_size=10, memory_limit=1000)
