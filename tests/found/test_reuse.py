"""No example is held by reference while user code runs on: whatever object it uses again, all examples are right."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import optree
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stoker
from stoker.worker.batching.keeping import Keeper
from tests.found.reuse import COUNT, KINDS, Ring, joined, number_of

_COLLATES: dict[str, Any] = {"stack": "stack", "pad": "pad", "ragged": "ragged", "function": joined, "single": None}
_KINDS = [kind for kind in KINDS if kind != "torch" or importlib.util.find_spec("torch")]
#: What cannot be batched, or pickled.
_REFUSED = {("object array", "stack"), ("object array", "single"), ("memoryview", "pulled")}


def _delivered(kind: str, size: int, source: str, collate: str, shuffle: bool, workers: int) -> list[int]:
    """The number in each example that comes out."""
    ring = Ring(kind, size)
    options: dict[str, Any] = {"batch_size": 7, "workers": workers, "collate": _COLLATES[collate]}
    if collate == "single":
        options |= {"batch_size": None, "collate": "stack"}
    given: Any = stoker.from_generator(ring.generate, shards=3)
    match source:
        case "map-style":
            given = ring
        case "transform":
            given, options["transform"] = range(COUNT), ring.transform
        case "many":
            given, options["transform"] = range(COUNT // 2), ring.many
        case "iterable":
            given, options["transform"] = stoker.from_iterable(range(COUNT)), ring.transform
        case "pulled":
            given = stoker.from_iterable(lambda: ring.generate(stoker.Shard(0, 1, None, None)))  # type: ignore[arg-type]
    if shuffle:
        options["shuffle"] = True if source in ("map-style", "transform", "many") else 9
    with stoker.Loader(given, **options) as loader:
        batches = list(loader)
    if collate == "single":
        return [number_of(batch) for batch in batches]
    return [number_of(row) for batch in batches for row in _rows(batch)]


def _rows(batch: Any) -> list[Any]:
    if isinstance(batch, dict):
        return [dict(zip(batch, row, strict=True)) for row in zip(*map(_rows, batch.values()), strict=True)]
    if isinstance(batch, list | tuple):
        return list(zip(*map(_rows, batch), strict=True))
    return list(batch)


@given(
    kind=st.sampled_from(_KINDS),
    size=st.sampled_from([1, 2, 3, 4, 8]),
    source=st.sampled_from(["generator", "map-style", "transform", "many", "iterable", "pulled"]),
    collate=st.sampled_from(list(_COLLATES)),
    shuffle=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_objects_that_are_used_again_give_the_right_examples(
    kind: str, size: int, source: str, collate: str, shuffle: bool
) -> None:
    if {(kind, collate), (kind, source)} & _REFUSED:
        return
    came = _delivered(kind, size, source, collate, shuffle, workers=0)
    assert Counter(came) == Counter(range(COUNT))


class Windows:
    """Fills one buffer for each example, and returns two views of it."""

    def __init__(self) -> None:
        self.buffer: Any = None

    def __call__(self, number: int) -> stoker.Many:
        if self.buffer is None:
            self.buffer = np.zeros(2)
        self.buffer[:] = 2 * number, 2 * number + 1
        return stoker.Many([self.buffer[:1], self.buffer[1:]])


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("collate", ["stack", "pad"])
def test_views_of_a_buffer_wait_for_their_turn_unchanged(on_error: Any, collate: str) -> None:
    source = stoker.from_generator(lambda shard: iter(shard.split(range(30))), shards=5)
    options: dict[str, Any] = {"transform": Windows(), "collate": collate, "on_error": on_error}
    with stoker.Loader(source, batch_size=3, workers=0, **options) as loader:
        came = [int(number) for batch in loader for number in batch[:, 0]]
    assert sorted(came) == list(range(60))


class Lazy:
    """Fills one buffer for each example, and reads it when the examples that are made of it are asked for."""

    def __init__(self) -> None:
        self.buffer: Any = None

    def __call__(self, number: int) -> stoker.Many:
        if self.buffer is None:
            self.buffer = np.zeros(1)
        self.buffer[:] = number
        return stoker.Many(self.parts())

    def parts(self) -> Iterator[Any]:
        for _ in range(4):
            yield self.buffer


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("collate", ["stack", "pad"])
def test_a_generator_of_many_examples_does_not_see_what_other_examples_fill(on_error: Any, collate: str) -> None:
    source = stoker.from_generator(lambda shard: iter(shard.split(range(30))), shards=5)
    options: dict[str, Any] = {"transform": Lazy(), "collate": collate, "on_error": on_error}
    with stoker.Loader(source, batch_size=3, workers=0, **options) as loader:
        came = Counter(int(number) for batch in loader for number in batch[:, 0])
    assert came == Counter(4 * list(range(30)))


def test_an_endless_generator_of_many_examples_is_read_as_it_is_needed() -> None:
    source = stoker.from_generator(lambda shard: iter(range(1)), shards=1)
    with stoker.Loader(source, batch_size=900, transform=lambda number: stoker.Many(count()), workers=0) as loader:
        came = [int(number) for batch in islice(loader, 4) for number in batch]
    assert came == list(range(3600))


class Failing:
    """The third of the examples that are made of one raises."""

    def __call__(self, number: int) -> stoker.Many:
        return stoker.Many(10 * number + 30 // (2 - part) for part in range(3))


def test_what_a_generator_of_many_examples_raises_comes_in_its_turn() -> None:
    source = stoker.from_generator(lambda shard: iter(range(2)), shards=1)
    with stoker.Loader(source, batch_size=1, transform=Failing(), workers=0) as loader:
        batches = iter(loader)
        assert [int(next(batches)[0]), int(next(batches)[0])] == [15, 30]
        with pytest.raises(stoker.WorkerError, match="ZeroDivisionError"):
            next(batches)


@pytest.mark.parametrize("source", ["generator", "transform", pytest.param("many", marks=pytest.mark.stress)])
@pytest.mark.parametrize("collate", ["stack", pytest.param("pad", marks=pytest.mark.stress), "function"])
def test_workers_give_the_right_examples_too(source: str, collate: str) -> None:
    kinds = ["dict", "large array", "foreign"]
    for kind, shuffle in zip(kinds, (True, False, True), strict=True):
        came = _delivered(kind, 4, source, collate, shuffle and source == "generator", workers=2)
        assert Counter(came) == Counter(range(COUNT))


_WRAPS: dict[str, Any] = {
    "alone": lambda array: array,
    "tuple": lambda array: (array, 1),
    "list": lambda array: [array],
    "dict": lambda array: {"a": array},
    "nested": lambda array: {"a": {"b": array}},
}


@pytest.mark.parametrize("wrap", _WRAPS.values(), ids=list(_WRAPS))
def test_a_large_array_is_copied_if_somebody_else_may_hold_it_and_only_then(wrap: Any) -> None:
    keep, made, held = Keeper().keep, list[int](), list[Any]()

    def example() -> Any:
        array = np.zeros(10_000)
        made.append(id(array))
        return wrap(array)

    def held_example() -> Any:
        held.append(example())
        return held[-1]

    def example_of_held() -> Any:
        held.append(np.zeros(10_000))
        made.append(id(held[-1]))
        return wrap(held[-1])

    assert id(optree.tree_leaves(keep(example()))[0]) == made[-1]
    for make in (held_example, example_of_held):
        assert id(optree.tree_leaves(keep(make()))[0]) != made[-1]
