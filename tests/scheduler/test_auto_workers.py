"""`workers="auto"` finds the number of workers, for a training that is simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.scheduler.auto_workers import AutoWorkers, Observation

SLOTS = 8


@dataclass
class Training:
    """Steps of a trainer that takes `step` seconds for each batch, fed by workers that make `speed(n)` a second."""

    auto: AutoWorkers
    speed: Callable[[int], float]
    step: float
    time: float = 0.0
    ready: float = 0.0
    noise: tuple[float, ...] = (0.0,)
    steps: int = 0

    def run(self, seconds: float) -> float:
        """Train for a while. Returns the steps a second."""
        begun, end, before = self.time, self.time + seconds, self.steps
        while self.time < end:
            self.make(self.step)
            waited = 0.0
            if self.ready < 1:
                waited = (1 - self.ready) / self.rate()
                self.make(waited)
            self.ready -= 1
            self.steps += 1
            self.auto.observe(Observation(self.time, waited, 1, int(self.ready), is_first=self.steps == 1))
        return (self.steps - before) / (self.time - begun)

    def rate(self) -> float:
        return self.speed(self.auto.workers) * (1 + self.noise[self.steps % len(self.noise)])

    def make(self, seconds: float) -> None:
        self.time += seconds
        self.ready = min(SLOTS, self.ready + seconds * self.rate())


def best(speed: Callable[[int], float], step: float, most: int) -> float:
    return max(1 / (step + max(0.0, 1 / speed(n) - step)) for n in range(1, most + 1))


@settings(max_examples=60, deadline=None)
@given(
    one=st.floats(5.0, 500.0),
    cpus=st.integers(1, 16),
    step=st.floats(0.001, 0.1),
    waits=st.booleans(),
    noise=st.lists(st.floats(-0.02, 0.02), min_size=1, max_size=20),
)
def test_after_half_a_minute_it_is_near_the_best_number(
    one: float, cpus: int, step: float, waits: bool, noise: list[float]
) -> None:
    def speed(workers: int) -> float:
        """Workers that wait for a disk add up; those that compute do as long as there are CPUs."""
        return one * (workers if waits else min(workers, cpus))

    training = Training(AutoWorkers(cpus, 4 * cpus), speed, step, noise=tuple(noise))
    training.run(30)
    assert training.run(20) >= 0.95 * best(speed, step, 4 * cpus)


def test_a_slow_model_needs_one_worker_and_a_quicker_one_more() -> None:
    training = Training(AutoWorkers(8, 32), lambda workers: 100.0 * min(workers, 8), step=0.05)
    training.run(40)
    assert training.auto.workers == 1
    training.step = 0.002
    training.run(20)
    assert training.auto.workers >= 5, "what was found holds only until the training changes"
    training.step = 0.05
    training.run(40)
    assert training.auto.workers == 1


def test_an_epoch_between_two_others_that_computes_something_else_changes_nothing() -> None:
    """The trainer pulls nothing while it validates or saves."""
    training = Training(AutoWorkers(2, 8), lambda workers: 50.0 * min(workers, 2), step=0.001)
    for _ in range(10):
        training.run(3)
        training.time += 5.0
        training.ready = SLOTS
    assert training.auto.workers == 2


def test_no_worker_is_added_where_memory_is_short() -> None:
    auto, time = AutoWorkers(2, 8, has_room=lambda: False), 0.0
    for _ in range(100):
        time += 0.1
        auto.observe(Observation(time, 0.1, 1, 0))
    assert max([2, *(change.workers for change in auto.changes)]) == 2


def test_each_change_says_why() -> None:
    training = Training(AutoWorkers(2, 8), lambda workers: 50.0 * min(workers, 2), step=0.001)
    training.run(10)
    reasons = [(change.workers, change.reason) for change in training.auto.changes]
    assert reasons[:4] == [
        (4, "the trainer waits 90% of the time: trying more"),
        (2, "4 workers bring 1.00 times as many batches"),
        (1, "the trainer waits 90% of the time: trying fewer"),
        (2, "1 are too few: the trainer waits"),
    ]


def test_the_first_pull_of_all_says_nothing_whatever_the_clock_shows() -> None:
    auto = AutoWorkers(4, 16)
    for pull in range(20):  # the clock began long before, and the trainer is always busy for 1 ms
        assert auto.observe(Observation(1e6 + pull / 1000, 0.0, 1, 0)) is None
