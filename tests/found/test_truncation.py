"""`pad(to=…, truncate=True)` cuts what is longer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stoker


def padded(examples: list[Any], workers: int = 0, **options: Any) -> Any:
    collate = stoker.pad(**options)
    with stoker.Loader(examples, batch_size=len(examples), collate=collate, workers=workers) as loader:
        return next(iter(loader)).tolist()


sizes = st.integers(0, 4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4), st.tuples(sizes, sizes | st.none()))
def test_every_example_is_cut_or_filled_to_the_size(shapes: list[tuple[int, int]], to: tuple[int, int | None]) -> None:
    examples = [1 + np.arange(a * b).reshape(a, b) for a, b in shapes]
    wide = max(b for _, b in shapes) if to[1] is None else to[1]
    expected = np.full((len(examples), to[0], wide), -1)
    for row, example in zip(expected, examples, strict=True):
        part = example[: to[0], :wide]
        row[: part.shape[0], : part.shape[1]] = part
    assert padded(examples, to=to, values=-1, truncate=True) == expected.tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_lists_strings_and_lists_of_lists_are_cut_too(workers: int) -> None:
    assert padded([[1, 2, 3], [4]], workers, to=2, truncate=True) == [[1, 2], [4, 0]]
    assert padded([["a", "b"], ["c"]], workers, to=1, truncate=True) == [[b"a"], [b"c"]]
    assert padded([[[1, 2, 3], [4]], [[5]]], workers, to=(None, 2), truncate=True) == [
        [[1, 2], [4, 0]],
        [[5, 0], [0, 0]],
    ]


def test_truncation_without_a_size_or_a_meaning_is_refused() -> None:
    for to in (None, (None, None)):
        with pytest.raises(
            stoker.OptionError, match=r"truncate=True\) cuts examples to the sizes in `to`, which gives none"
        ):
            stoker.pad(to=to, truncate=True)
    with pytest.raises(stoker.OptionError, match="must be True or False, got 'left'"):
        stoker.pad(to=3, truncate="left")  # type: ignore[arg-type]
    with pytest.raises(stoker.SpecError, match=r"size 3 in dimension 0, more than pad\(to=2\).*truncate=True"):
        padded([[1], [1, 2, 3]], to=2)
