"""With `on_error="skip"`, an example that is unlike the others is left out as one that raises is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import stoker

SHAPE, LENGTH, SIZE = (4, 4, 3), 40, 8
GREY, SMALL = np.zeros(SHAPE[:2], np.uint8), np.zeros((3, 4, 3), np.uint8)
#: Examples that are unlike the others, and what their reasons tell.
ODD: dict[int, tuple[Any, str]] = {
    0: (None, "it is None"),
    3: ((GREY, 3), r"at \[0\] it holds uint8 of shape \(4, 4\), expected uint8 of shape \(4, 4, 3\) as in the others"),
    7: ((SMALL, 7), r"shape \(3, 4, 3\), expected"),
    11: ((np.zeros(SHAPE), 11), "holds float64 .*expected uint8"),
    12: ({"x": 1}, "structure changed"),
    13: ((np.zeros(SHAPE, np.uint8), "13"), r"at \[1\] it holds string"),
    14: ({1, 2}, "structure changed"),
    21: ((np.zeros(SHAPE, np.uint8), None), r"at \[1\] it is None"),
}


def photo(index: int) -> Any:
    return ODD[index][0] if index in ODD else (np.full(SHAPE, index, np.uint8), index)


class Photos:
    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return photo(index)


def shards(shard: stoker.Shard) -> Iterator[Any]:
    yield from map(photo, shard.split(range(LENGTH)))


def named(example: Any) -> Any:
    return (*example, "name") if type(example) is tuple else example


def source(how: str) -> tuple[Any, dict[str, Any]]:
    match how:
        case "generator":
            return stoker.from_generator(shards, 2), {}
        case "iterable":
            return stoker.from_iterable(range(LENGTH)), {"transform": photo}
        case "strings":
            return Photos(), {"transform": named}
    return Photos(), {}


@pytest.mark.parametrize("how", ["map-style", "generator", "iterable", "strings"])
def test_examples_that_are_unlike_the_others_are_left_out_and_named(how: str) -> None:
    made = []
    for workers in (0, 1, 3):
        data, options = source(how)
        with stoker.Loader(data, batch_size=SIZE, workers=workers, on_error="skip", **options) as loader:
            made.append([batch[1].tolist() for batch in loader])
            stats = loader.stats()
    assert made[0] == made[1] == made[2]
    assert [len(labels) for labels in made[0]] == [SIZE] * 4
    assert sorted(itertools.chain(*made[0])) == [index for index in range(LENGTH) if index not in ODD]
    assert stats.skips == len(ODD)
    reasons = {one.example + (one.shard or 0) * LENGTH // 2: one.reason for one in stats.skipped}
    for index, (_, told) in ODD.items():
        assert re.search(told, reasons[index]), reasons[index]


@pytest.mark.parametrize("collate", ["pad", "ragged", stoker.pad(to=3)])
def test_sizes_may_differ_where_they_are_joined_and_the_rest_may_not(collate: Any) -> None:
    rows: list[Any] = [[1.5], [1.0, 2.0], None, np.zeros((2, 2)), ["a"], np.ones(9), [3.0] * 3]
    with stoker.Loader(rows, batch_size=4, collate=collate, workers=0, on_error="skip") as loader:
        made = [[row.tolist() for row in batch] for batch in loader]
        left_out = [one.example for one in loader.stats().skipped]
    fits = isinstance(collate, str)
    assert left_out == ([2, 3, 4] if fits else [2, 3, 4, 5])
    firsts = [row[0] for batch in made for row in batch]
    assert firsts == [1.5, 1.0, *([1.0] if fits else []), 3.0]


def test_what_most_of_the_first_examples_look_like_counts() -> None:
    pictures = [GREY, *[np.full(SHAPE, n, np.uint8) for n in range(1, 9)]]
    for options in ({}, {"transform": lambda picture: {"picture": picture, "name": "a"}}):
        with stoker.Loader(pictures, batch_size=4, workers=0, on_error="skip", **options) as loader:
            made = [batch["picture"] if options else batch for batch in loader]
            assert [one.example for one in loader.stats().skipped] == [0]
        assert [batch[:, 0, 0, 0].tolist() for batch in made] == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_values_that_do_not_fit_the_signature_are_left_out() -> None:
    tf = pytest.importorskip("tensorflow")
    spec = tf.TensorSpec((), tf.uint8)
    with stoker.Loader([1, 300, 2, None], batch_size=2, output_signature=spec, workers=0, on_error="skip") as loader:
        assert [batch.tolist() for batch in loader] == [[1, 2]]
        assert [one.example for one in loader.stats().skipped] == [1, 3]


def test_what_a_function_collates_is_the_same_each_time_or_an_error() -> None:
    def joined(examples: list[Any]) -> Any:
        return np.zeros(len(examples), np.int32 if 77 in examples else np.int64)

    with (
        stoker.Loader(range(80), batch_size=4, collate=joined, workers=0, on_error="skip") as loader,
        pytest.raises(stoker.SpecError, match="holds int32"),
    ):
        list(loader)


def test_a_source_without_an_example_that_can_be_batched_is_an_error() -> None:
    with (
        stoker.Loader([None] * 40, workers=0, on_error="skip") as loader,
        pytest.raises(stoker.SpecError, match=r"example 0 .*is None"),
    ):
        list(loader)
