"""Whichever row it is that kills, it is found, and in few trials."""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from stoker.scheduler.bisection import TIMES, Bisection, Span

firsts, counts = st.integers(0, 10**6), st.integers(2, 40) | st.integers(2, 1024)
#: Where in the rows, from 0 (the first) to 1 (the last).
places = st.floats(0, 1)


def searched(rows: range, hint: int | None, kills: Callable[[range], bool]) -> tuple[int | None, list[range]]:
    """What is found when trials end so, and which were made; each is of some of the rows."""
    bisection = Bisection(Span(rows.start, len(rows)), hint)
    tried = []
    while (trial := bisection.trial) is not None:
        tried.append(range(trial.first, trial.first + trial.count))
        assert trial.count > 0
        assert set(tried[-1]) < set(rows), "all of them together have been tried often enough"
        assert bisection.found is None
        assert len(tried) <= 2 * len(rows) + 2, "it ends: a row is tried twice at most, the hinted one twice more"
        bisection.record(kills(tried[-1]))
    return bisection.found, tried


@st.composite
def spans(draw: st.DrawFn) -> tuple[range, int | None]:
    """Rows and a hint: one of them, or a row beyond them, or none."""
    first, count = draw(firsts), draw(counts)
    return range(first, first + count), draw(st.none() | st.integers(first - 3, first + count + 2))


@given(spans(), places)
def test_a_row_that_kills_is_found_in_few_trials_whatever_the_hint(
    attribution: tuple[range, int | None], place: float
) -> None:
    rows, hint = attribution
    killer = rows[round(place * (len(rows) - 1))]
    found, tried = searched(rows, hint, lambda trial: killer in trial)
    assert found == killer
    halvings = math.ceil(math.log2(len(rows)))
    assert len(tried) <= 1 + halvings + TIMES, "the hint, the halves, and the row alone"
    assert sum(killer in trial for trial in tried) <= halvings + TIMES, "so many workers die"


@given(firsts, counts, places)
def test_a_row_that_is_hinted_at_is_tried_alone(first: int, count: int, place: float) -> None:
    killer = first + round(place * (count - 1))
    assert searched(range(first, first + count), killer, lambda trial: killer in trial) == (
        killer,
        TIMES * [range(killer, killer + 1)],
    )


@given(spans())
def test_when_nothing_kills_alone_nothing_is_found(attribution: tuple[range, int | None]) -> None:
    rows, hint = attribution
    found, tried = searched(rows, hint, lambda trial: False)
    assert found is None
    assert len(tried) <= 2 + math.ceil(math.log2(len(rows)))


@given(spans(), places, places)
def test_rows_that_kill_only_together_are_not_found(
    attribution: tuple[range, int | None], one: float, other: float
) -> None:
    rows, hint = attribution
    pair = {rows[round(place * (len(rows) - 1))] for place in (one, other)}
    pair = pair if len(pair) > 1 else {rows[0], rows[-1]}
    found, _ = searched(rows, hint, lambda trial: pair.issubset(trial))
    assert found is None


@given(spans(), st.lists(places, min_size=1, max_size=5))
def test_of_several_rows_that_kill_one_is_found(attribution: tuple[range, int | None], chosen: list[float]) -> None:
    rows, hint = attribution
    killers = {rows[round(place * (len(rows) - 1))] for place in chosen}
    found, _ = searched(rows, hint, lambda trial: not killers.isdisjoint(trial))
    assert found == (hint if hint in killers else min(killers)), "the one that was hinted at, or the first"


@given(spans(), st.lists(st.booleans(), min_size=30, max_size=30))
def test_the_search_ends_whatever_kills_the_workers(attribution: tuple[range, int | None], kills: list[bool]) -> None:
    rows, hint = attribution
    answers = iter(kills)
    found, tried = searched(rows, hint, lambda trial: next(answers))
    assert found is None or tried[-1] == range(found, found + 1), "only a row that killed alone is named"
