from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.plan.permutation import Permutation, mix


@pytest.mark.parametrize("key", [0, 7, -3])
def test_every_small_permutation_is_a_bijection(key: int) -> None:
    for n in range(1, 601):
        assert np.array_equal(np.sort(Permutation(n, key)(np.arange(n))), np.arange(n)), n


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10**6), st.integers())
def test_random_permutations_are_bijections(n: int, key: int) -> None:
    assert np.bincount(Permutation(n, key)(np.arange(n)), minlength=n).max() == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(10**6, 2**63 - 1), st.integers(), st.data())
def test_huge_permutations_keep_positions_apart_and_within_bounds(n: int, key: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, n - 1000))
    found = Permutation(n, key)(np.arange(start, start + 1000))
    assert len(np.unique(found)) == 1000
    assert 0 <= found.min() <= found.max() < n


def test_a_billion_examples_start_as_fast_as_ten() -> None:
    def start(n: int) -> float:
        begun = time.perf_counter()
        Permutation(n, 1)(np.arange(10))
        return time.perf_counter() - begun

    assert min(start(10**9) for _ in range(20)) < 10 * min(start(10) for _ in range(20)) + 0.001


def chi_square(counts: np.ndarray) -> float:
    """How many standard deviations the chi-square statistic of equally likely cells lies above its mean."""
    expected = counts.sum() / counts.size
    degrees = counts.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees))


@pytest.mark.parametrize("n", [5, 8, 12])
def test_pairs_of_small_permutations_look_random(n: int) -> None:
    """Over many keys, each ordered pair of examples stands at positions 0 and 1, and at the last two, equally often."""
    orders = np.array([Permutation(n, mix(5, key))(np.arange(n)) for key in range(3000)])
    for first, second in ((0, 1), (n - 2, n - 1)):
        pairs = np.bincount(orders[:, first] * n + orders[:, second], minlength=n * n).reshape(n, n)
        assert chi_square(pairs[~np.eye(n, dtype=bool)]) < 4.5


@pytest.mark.parametrize("n", [1000, 4097, 10**6])
def test_neighbours_of_large_permutations_are_uncorrelated(n: int) -> None:
    for key in range(5):
        order = Permutation(n, key)(np.arange(n)).astype(float)
        bound = 4.5 / math.sqrt(n)
        for lag in (1, 2, 64):
            assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < bound
        assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < bound
        steps = np.bincount((np.diff(order) % n * 50 // n).astype(int), minlength=50)
        assert chi_square(steps) < 4.5
    one, other = (Permutation(n, key)(np.arange(n)) for key in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < bound
    assert (one == other).sum() < 10


@pytest.mark.parametrize("n", [0, -1, 2**63])
def test_sizes_without_a_permutation_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=str(n)):
        Permutation(n, 0)
