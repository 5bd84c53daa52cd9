"""An iterable with a length has one as a source, so Keras shows a total; a length that is wrong is an error."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stoker


class Stream:
    """Has a length, and no index; says what it is told to say."""

    def __init__(self, count: int, says: Any) -> None:
        self.count, self.says = count, says

    def __len__(self) -> Any:
        if isinstance(self.says, type):
            raise self.says("no length")
        return self.says

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


def loader(source: Any, **options: Any) -> stoker.Loader:
    return stoker.Loader(source, **{"batch_size": 4, "workers": 0, **options})


def rows(made: stoker.Loader) -> list[int]:
    with made:
        return sorted(itertools.chain.from_iterable(batch.tolist() for batch in made))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(1, 7), st.sampled_from([0, 5]), st.booleans())
def test_the_length_of_an_iterable_is_that_of_its_loader(count: int, size: int, shuffle: int, tell: bool) -> None:
    source = stoker.from_iterable(lambda: range(count), length=count) if tell else stoker.from_iterable(range(count))
    made = loader(source, batch_size=size, shuffle=shuffle)
    assert len(made) == -(-count // size)
    assert rows(made) == list(range(count))


def test_tensorflow_knows_it_too() -> None:
    pytest.importorskip("tensorflow")
    with loader(stoker.from_iterable(Stream(10, 10))) as made:
        data = made.to_tf()
        assert int(data.cardinality()) == len(made) == 3
        assert [len(batch) for batch in data] == [4, 4, 2]
    with loader(stoker.from_iterable(lambda: itertools.count(), length=math.inf)) as made:
        data = made.to_tf()
        assert int(data.cardinality()) == -1
        assert next(iter(data)).shape == (4,)
    with loader(stoker.from_iterable(lambda: iter(range(12)), length=np.int64(8))) as made:
        data = made.to_tf()
        with pytest.raises(Exception, match="length=8 was declared, but the iterable gave more than 8 items"):
            list(data)


@pytest.mark.parametrize("says", [TypeError, NotImplementedError, -1])
def test_an_iterable_whose_len_raises_has_no_length(says: Any) -> None:
    made = loader(stoker.from_iterable(Stream(6, says)))
    with pytest.raises(TypeError, match="its length is unknown"):
        len(made)
    assert rows(made) == list(range(6))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stoker.from_iterable(Stream(9, 8)), r"len\(\) of this Stream is 8, but .* gave more than 8 items"),
        (lambda: stoker.from_iterable(Stream(7, 8)), r"len\(\) of this Stream is 8, but .* gave 7 items.*lambda"),
        (
            lambda: stoker.from_iterable(Stream(9, 9), length=8),
            "length=8 was declared, but the iterable gave more than 8 items",
        ),
        (
            lambda: stoker.from_iterable(range(3), length=math.inf),
            r"length=math\.inf was declared, but the iterable gave 3 items",
        ),
    ],
)
def test_a_length_that_is_wrong_is_an_error(make: Callable[[], Any], message: str, workers: int) -> None:
    with loader(make(), workers=workers) as made, pytest.raises(stoker.SourceError, match=message):
        list(made)


def test_a_function_hides_a_length_that_lies() -> None:
    assert rows(loader(stoker.from_iterable(lambda: Stream(9, 8)))) == list(range(9))


def test_examples_that_are_left_out_make_the_length_unknown_and_no_error() -> None:
    made = loader(stoker.from_iterable(range(9)), transform=lambda n: stoker.SKIP if n % 2 else n)
    with pytest.raises(TypeError, match="its length is unknown"):
        len(made)
    assert rows(made) == [0, 2, 4, 6, 8]


def test_it_goes_on_in_mid_epoch() -> None:
    with loader(stoker.from_iterable(range(10))) as first:
        iterator = iter(first)
        next(iterator)
        state = first.state_dict()
    with loader(stoker.from_iterable(range(10))) as second:
        second.load_state_dict(state)
        assert [batch.tolist() for batch in second] == [[4, 5, 6, 7], [8, 9]]
