"""The clock of a worker's tasks: what it counts adds up, and short tasks are timed seldom."""

from __future__ import annotations

import time
from typing import Any

import pytest

from stoker.memory.progress_page import words_here
from stoker.memory.worker_times import Stage, WorkerTimes
from stoker.worker.stage_clock import StageClock


@pytest.fixture
def words() -> memoryview:
    return words_here()


def times(words: memoryview) -> WorkerTimes:
    return WorkerTimes.of(words.tolist(), 0)


def test_the_stages_of_a_timed_task_add_up_to_its_time(words: memoryview) -> None:
    clock = StageClock(words)
    clock.begin(makes_rows=True)
    inner = clock.of(Stage.COLLATE, time.sleep)

    def outer(seconds: float) -> None:
        time.sleep(seconds)
        inner(seconds)

    clock.of(Stage.WRITE, outer)(0.01)
    clock.end(1)
    found = times(words)
    assert sum(found.spent) == pytest.approx(found.busy, rel=0.02)
    assert found.seconds(Stage.WRITE) == pytest.approx(found.seconds(Stage.COLLATE), rel=0.5)
    assert found.calls[Stage.WRITE] == found.calls[Stage.COLLATE] == 1


@pytest.mark.parametrize(("seconds", "timed"), [(0, 4), (0.001, 64)])
def test_short_tasks_are_timed_seldom_and_long_ones_each(words: memoryview, seconds: float, timed: int) -> None:
    work: Any = time.sleep if seconds else id
    rows = 1 if seconds else 1000  # however long another process runs in between
    clock = StageClock(words)
    for _ in range(64):
        clock.begin(makes_rows=True)
        clock.of(Stage.READ, work)(seconds)
        clock.end(rows)
    found = times(words)
    assert (found.tasks, found.examples) == (64, 64 * rows)
    assert found.calls[Stage.READ] == timed


def test_other_requests_count_as_setup_only(words: memoryview) -> None:
    clock = StageClock(words)
    clock.begin(makes_rows=False)
    assert clock.of(Stage.READ, time.sleep) is time.sleep
    time.sleep(0.01)
    clock.end(0)
    found = times(words)
    assert found.setup >= 0.01
    assert (found.tasks, found.busy, sum(found.spent)) == (0, 0.0, 0.0)


def test_an_error_ends_its_stage(words: memoryview) -> None:
    def fails(*args: Any) -> None:
        raise ValueError

    clock = StageClock(words)
    clock.begin(makes_rows=True)
    with pytest.raises(ValueError, match=r"^$"):
        clock.of(Stage.TRANSFORM, fails)()
    time.sleep(0.01)
    clock.end(1)
    assert times(words).seconds(Stage.OWN) > 0.9 * times(words).busy
