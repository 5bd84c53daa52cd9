"""Options that name a part of the examples which is not there are refused; the longest path counts."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest

import stoker

Pair = namedtuple("Pair", "x y")
EXAMPLES = [{"ids": np.arange(n % 3 + 1), "meta": (np.arange(2), 1.0)} for n in range(6)]


def first(source: Any, collate: Any, **options: Any) -> Any:
    with stoker.Loader(source, batch_size=3, collate=collate, **{"workers": 0, **options}) as loader:
        return next(iter(loader))


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("nope", None),
        ("idz", "['ids']"),
        ("['me", None),  # the start of a name is no path
        ("meta.0", "['meta'][0]"),
        (("meta", 2), "['meta'][1]"),
        (("ids", 0), "['ids']"),
        (-1, None),
    ],
)
@pytest.mark.parametrize("how", ["list", "generator", "iterable"])
def test_a_path_that_does_not_exist_is_an_error_that_lists_those_that_do(path: Any, meant: Any, how: str) -> None:
    source: Any = EXAMPLES
    if how == "generator":
        source = stoker.from_generator(lambda shard: iter(EXAMPLES), 1)
    if how == "iterable":
        source = stoker.from_iterable(EXAMPLES)
    with pytest.raises(stoker.OptionError, match="but the examples have no such path; they have") as caught:
        first(source, {"ids": "pad", path: "pad"})
    assert "['ids'], ['meta'][0], ['meta'][1]" in str(caught.value)
    assert ("Did you mean" in str(caught.value)) is (meant is not None)
    assert meant is None or f"Did you mean {meant}?" in str(caught.value)


def test_it_is_the_same_error_from_a_worker_with_a_signature_and_with_skipping() -> None:
    tf = pytest.importorskip("tensorflow")
    for options in (
        {"workers": 1},
        {"on_error": "skip"},
        {"output_signature": {"x": tf.TensorSpec((), tf.int64)}},
    ):
        with pytest.raises(stoker.OptionError, match="collate names"):
            first([{"x": 1}] * 4, {"nope": "pad"}, **options)


def test_arrays_are_known_at_once_and_so_is_a_wrong_path() -> None:
    with pytest.raises(stoker.OptionError, match=r"collate names \['nope'\]"):
        stoker.Loader(stoker.from_arrays({"x": np.zeros((4, 2))}), collate={"nope": "pad"})


def test_of_two_paths_that_lead_to_a_leaf_the_longer_one_counts() -> None:
    for collate in (
        {"meta": "stack", ("meta", 0): stoker.pad(to=5), "ids": "pad"},
        {("meta", 0): stoker.pad(to=5), "meta": "stack", "ids": "pad"},
        {(): "pad", "['meta'][0]": stoker.pad(to=5)},
    ):
        assert first(EXAMPLES, collate)["meta"][0].shape == (3, 5)


def test_keys_of_every_kind_are_paths() -> None:
    row = np.arange(2)
    wide = stoker.pad(to=4)
    for example, path in (
        ({0: row, 1: 1}, 0),
        ({("a", 1): row}, (("a", 1),)),
        ({"[CLS]": row}, "[CLS]"),
        ({".x": row}, ".x"),
        (Pair(row, 1), "x"),
        (Pair(row, 1), 0),
        (Pair(row, 1), ".x"),
        ((row, 1), np.int64(0)),
    ):
        batch = first([example] * 3, {path: wide})
        assert next(iter(batch.values() if isinstance(batch, dict) else batch)).shape == (3, 4), path


def test_sizes_of_dimensions_that_are_not_there_are_an_error() -> None:
    with pytest.raises(stoker.OptionError, match=r"gives sizes for 2 dimensions, but \['ids'\] has 1"):
        first(EXAMPLES, {"ids": stoker.pad(to=(4, 5))})
    assert first(EXAMPLES, stoker.pad(to=4))["ids"].shape == (3, 4), "numbers beside the arrays have none"
