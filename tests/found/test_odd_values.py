"""Whatever user code returns, what comes is a batch or an error in the user's words, never one from inside."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stoker
from tests.sources_of_tests import ByIndex


@dataclasses.dataclass
class Unset:
    here: Any
    missing: Any = dataclasses.field(init=False)


class Raising:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} here")

    def __repr__(self) -> str:
        raise RuntimeError("no text either")


def objects(*items: Any) -> Any:
    made = np.empty(len(items), object)
    for place, item in enumerate(items):
        made[place] = item
    return made


within_itself: list[Any] = []
within_itself.append(within_itself)

LEAVES = [
    *(None, 1, 2.5, True, "a", b"b", "\udcff", 2**63, 2**70, 1j, float("nan"), decimal.Decimal(1), ..., int, np),
    *(np.datetime64("2020"), np.timedelta64(1), np.void(b"ab"), np.longdouble(1), np.str_("x"), np.ma.masked),
    *(object(), Raising(), Unset(1), mock.MagicMock(), lambda: 0, iter([1]), {1, 2}, range(3), slice(3)),
    *(memoryview(b"ab"), bytearray(b"ab"), array.array("d", [1]), datetime.datetime(2020, 1, 1), ValueError("x")),
    *(np.zeros(2, [("a", "i4")]), np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]), np.zeros(2, "V3")),
    *(np.ma.masked_array([1, 2], [0, 1]), np.zeros((2, 0)), np.zeros(0), np.array("x"), np.zeros(2, ">i8")),
    *(within_itself, collections.UserDict(a=1), types.SimpleNamespace(a=1), collections.deque([1]), {}, []),
]
leaves = st.integers(0, len(LEAVES) - 1).map(lambda place: LEAVES[place])  # Hypothesis would look at them itself
odd = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(lambda items: objects(*items)),
        inner.map(lambda item: objects(item).reshape(())),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(["a", 1, None]), inner, max_size=2),
    ),
    max_leaves=5,
)
OPTIONS: list[dict[str, Any]] = [
    {"batch_size": 2},
    {"batch_size": 2, "collate": "pad"},
    {"batch_size": 2, "collate": "ragged"},
    {"batch_size": 2, "collate": {"x": "pad"}},
    {"batch_size": None},
    {"batched": True},
]


def entrances(values: list[Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The ways in which these examples reach a Loader."""
    yield ByIndex(values.__getitem__, len(values)), {}
    yield stoker.from_generator(lambda shard: iter(values), 1), {}
    yield stoker.from_iterable(lambda: iter(values)), {}
    yield range(len(values)), {"transform": values.__getitem__}
    yield range(len(values)), {"collate": lambda numbers: values[numbers[0]], "batch_size": 1, "batched": False}


def refusal(source: Callable[[], Any], **options: Any) -> str:
    """What the Loader says about this source; nothing where it reads it to the end."""
    try:
        with stoker.Loader(source(), workers=0, **options) as loader:
            list(loader)
    except stoker.StokerError as error:
        return str(error)
    return ""


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(odd, min_size=1, max_size=3), odd, st.sampled_from(OPTIONS), st.integers(0, 4))
@pytest.mark.filterwarnings("ignore")  # of NumPy and of what stands for user code
def test_odd_values_are_batched_or_refused_in_the_users_words(
    values: list[Any], usual: Any, options: dict[str, Any], way: int
) -> None:
    some = [{"x": value, "y": 1} for value in (usual, usual, *values)]
    source, more = list(entrances(some))[way]
    assert "/stoker/" not in refusal(lambda: source, **{**options, **more})


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(odd, st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_arrays_of_odd_values_are_read_or_refused_in_the_users_words(value: Any, nested: bool) -> None:
    text = refusal(lambda: stoker.from_arrays({"x": value} if nested else value), batch_size=2)
    assert "/stoker/" not in text


@pytest.mark.parametrize(
    "nested", [lambda value: value, lambda value: {"x": value}, lambda value: (np.zeros(2), value)]
)
def test_an_array_that_raises_as_it_is_looked_at_is_named(nested: Callable[[Any], Any]) -> None:
    with pytest.raises(stoker.SourceError, match="cannot read the Raising: RuntimeError: no columns here"):
        stoker.from_arrays(nested(Raising()))


def test_a_row_of_a_table_is_an_array_of_numbers() -> None:
    row, other = objects(1, 2.5, np.float32(3)), objects(4, np.int8(5), 6)
    for source in ([row, other], stoker.from_arrays(np.stack([row, other]))):
        with stoker.Loader(source, batch_size=2, workers=0) as loader:
            ((first, second),) = loader
        assert (first.tolist(), second.tolist()) == ([1, 2.5, 3], [4, 5, 6])
    with (
        stoker.Loader([objects(1, None)], workers=0) as loader,
        pytest.raises(stoker.SpecError, match="contains a NoneType"),
    ):
        list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_odd_values_in_workers_are_refused_in_the_same_words(workers: int) -> None:
    for value, said in [
        (objects(1, "a"), "an object array that contains a str"),
        ([1, "a", [2]], None),
        (Unset(1), "Unset"),
    ]:
        with (
            stoker.Loader([{"x": 1}, {"x": value}], batch_size=2, workers=workers) as loader,
            pytest.raises(stoker.SpecError, match=said),
        ):
            list(loader)


def test_integers_beyond_64_bits_lose_no_digit_in_silence() -> None:
    for value in ([2**63, 1], [[2**63], [1]], objects(2**63, -1), [np.uint64(1), np.int64(-1)]):
        with (
            stoker.Loader([value], collate="pad", workers=0) as loader,
            pytest.raises(stoker.SpecError, match="64 bits"),
        ):
            list(loader)
