"""The clock of a worker's tasks: what it counts adds up, and short tasks are timed seldom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stoker.memory.progress_page import words_here
from stoker.memory.worker_times import READY, Stage, WorkerTimes
from stoker.worker import stage_clock
from stoker.worker.stage_clock import StageClock

MS = 1_000_000


class Time:
    """A time that only passes where the test says so, in nanoseconds."""

    def __init__(self) -> None:
        self.now = 5 * MS

    def passes(self, milliseconds: float) -> None:
        self.now += round(milliseconds * MS)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(stage_clock, "_now", lambda: made.now)
    return made


@pytest.fixture
def words() -> memoryview:
    return words_here()


@pytest.fixture
def found(words: memoryview, time: Time) -> Callable[[], WorkerTimes]:
    return lambda: WorkerTimes.of(words.tolist(), time.now)


def test_the_stages_of_a_timed_task_add_up_to_its_time(words: memoryview, time: Time, found: Any) -> None:
    clock = StageClock(words)
    clock.begin(makes_rows=True)
    time.passes(1)
    inner = clock.of(Stage.COLLATE, time.passes)

    def outer() -> None:
        time.passes(2)
        inner(4)
        time.passes(8)

    clock.of(Stage.WRITE, outer)()
    clock.end(1)
    spent = [round(seconds * 1000) for seconds in found().spent]
    assert spent == [1, 0, 0, 4, 10]
    assert found().busy == pytest.approx(0.015)
    assert found().calls[Stage.WRITE] == found().calls[Stage.COLLATE] == 1


@pytest.mark.parametrize(("milliseconds", "timed"), [(0.01, 4), (1, 64)])
def test_short_tasks_are_timed_seldom_and_long_ones_each(
    words: memoryview, time: Time, found: Any, milliseconds: float, timed: int
) -> None:
    clock = StageClock(words)
    for _ in range(64):
        clock.begin(makes_rows=True)
        clock.of(Stage.READ, time.passes)(milliseconds)
        clock.end(1)
    assert (found().tasks, found().examples) == (64, 64)
    assert found().calls[Stage.READ] == timed
    assert found().seconds(Stage.READ) == pytest.approx(64 * milliseconds / 1000)


def test_tasks_that_make_no_example_do_not_make_the_next_one_timed(words: memoryview, time: Time, found: Any) -> None:
    clock = StageClock(words)
    for number in range(64):
        clock.begin(makes_rows=True)
        clock.of(Stage.READ, time.passes)(0.01)
        clock.end(number % 2)
    assert found().calls[Stage.READ] == 4


def test_other_requests_count_as_setup_only(words: memoryview, time: Time, found: Any) -> None:
    clock = StageClock(words)
    clock.begin(makes_rows=False)
    assert clock.of(Stage.READ, time.passes) == time.passes
    time.passes(10)
    clock.end(0)
    assert found().setup == pytest.approx(0.01)
    assert (found().tasks, found().busy, sum(found().spent)) == (0, 0.0, 0.0)


@pytest.mark.parametrize("makes_rows", [True, False])
def test_the_task_at_work_counts_too(words: memoryview, time: Time, found: Any, makes_rows: bool) -> None:
    clock = StageClock(words)
    clock.ready()
    assert words[READY]
    time.passes(1)
    clock.begin(makes_rows=makes_rows)
    time.passes(20)
    assert (found().busy if makes_rows else found().setup) == pytest.approx(0.02)
    assert found().waiting == pytest.approx(0.001)


def test_an_error_ends_its_stage(words: memoryview, time: Time, found: Any) -> None:
    def fails() -> None:
        raise ValueError

    clock = StageClock(words)
    clock.begin(makes_rows=True)
    with pytest.raises(ValueError, match=r"^$"):
        clock.of(Stage.TRANSFORM, fails)()
    time.passes(10)
    clock.end(1)
    assert found().seconds(Stage.OWN) == pytest.approx(0.01)
