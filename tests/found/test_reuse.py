"""No example is held by reference while user code runs on: whatever object it uses again, all examples are right."""

from __future__ import annotations

import importlib.util
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stoker
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


@pytest.mark.parametrize("source", ["generator", "transform", "many"])
@pytest.mark.parametrize("collate", ["stack", "pad", "function"])
def test_workers_give_the_right_examples_too(source: str, collate: str) -> None:
    kinds = ["dict", "large array", "foreign"]
    for kind, shuffle in zip(kinds, (True, False, True), strict=True):
        came = _delivered(kind, 4, source, collate, shuffle and source == "generator", workers=2)
        assert Counter(came) == Counter(range(COUNT))
