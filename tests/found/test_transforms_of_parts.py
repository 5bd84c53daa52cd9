"""A transform of two arguments gets the parts of a pair, as from `tf.data.Dataset.map`; else one clear sentence."""

from __future__ import annotations

import functools
from collections import namedtuple
from typing import Any

import pytest

import stoker

PAIRS = [(n, float(n)) for n in range(6)]
Pair = namedtuple("Pair", "x y")


def first(source: Any, transform: Any, **options: Any) -> Any:
    with stoker.Loader(source, batch_size=2, transform=transform, **{"workers": 0, **options}) as loader:
        batch = next(iter(loader))
        return tuple(part.tolist() for part in batch) if isinstance(batch, tuple) else batch.tolist()


def with_random_numbers(x: Any, y: Any, rng: Any) -> Any:
    return x + 10, y + 0 * rng.random()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_parts_of_a_tuple_are_its_arguments(workers: int) -> None:
    options = {"workers": workers}
    assert first(PAIRS, lambda x, y: (x + 10, y), **options) == ([10, 11], [0.0, 1.0])
    assert first(PAIRS, with_random_numbers, **options) == ([10, 11], [0.0, 1.0])
    assert first([Pair(*pair) for pair in PAIRS], lambda x, y: y, **options) == [0.0, 1.0]
    assert first(stoker.from_iterable(PAIRS), lambda x, y: x, **options) == [0, 1]


def test_what_can_take_the_example_whole_gets_it_whole() -> None:
    def scaled(pair: Any, by: int = 2) -> Any:
        return pair[0] * by

    for transform in (
        scaled,
        functools.partial(scaled, by=2),
        lambda *pair: pair[0][0] * 2,
        lambda pair, **_: pair[0] * 2,
    ):
        assert first(PAIRS, transform) == [0, 2]


@pytest.mark.parametrize(
    ("source", "is_what"),
    [
        ([{"a": 1, "b": 2}] * 4, "a dict of 'a', 'b'"),
        ([(1, 2, 3)] * 4, "a tuple of 3"),
        ([5] * 4, "a int"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_another_example_is_told_in_one_sentence(source: Any, is_what: str, workers: int) -> None:
    message = rf"the transform takes 2 arguments \(x, y\), but the example is {is_what}: only a tuple of 2"
    with pytest.raises(stoker.SpecError, match=message):
        first(source, lambda x, y: x, workers=workers)


@pytest.mark.parametrize("transform", [lambda: 1, lambda x, *, scale: x, lambda rng, x: x])
def test_a_transform_that_cannot_be_called_is_refused_at_once(transform: Any) -> None:
    with pytest.raises(stoker.OptionError, match="cannot be called with an example"):
        stoker.Loader(PAIRS, transform=transform)
