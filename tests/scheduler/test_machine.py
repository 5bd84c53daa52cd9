"""The scheduler under any interleaving of completions, deaths, errors, releases and pulls."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.scheduler.bisection import TIMES
from stoker.scheduler.commands import Command, GiveUpCommand, KilledReason, StartWorkerCommand, SubmitCommand
from stoker.scheduler.events import PullEvent, SlotsSizedEvent, TaskDoneEvent, WorkerDiedEvent, WorkerReadyEvent
from stoker.scheduler.fault_attribution import ROUNDS
from stoker.scheduler.machine import RETRIES, Scheduler
from stoker.scheduler.streams import IndexStream
from stoker.scheduler.work import IndexWork, Task, TrialWork
from stoker.scheduler.worker_starts import STARTS, STARTS_PROVEN
from tests.scheduler.world import KILLED, Expected, Row, World, dice

SIZE = 6


@dataclass(frozen=True)
class Numbered:
    """Examples that are read by their number; or, with `is_fed`, the items of an iterable."""

    length: int
    is_fed: bool = False
    keep_rest: bool = True
    whole: bool = False
    bad: frozenset[Row] = frozenset()
    misfits: frozenset[Row] = frozenset()
    kills: frozenset[Row] = frozenset()
    kill_together: frozenset[Row] = frozenset()  # when one worker makes them all
    size = SIZE
    raws = 1
    in_turn = True

    @property
    def items(self) -> int | None:
        return self.length if self.is_fed else None

    @property
    def batches(self) -> int:
        return -(-self.length // SIZE) if self.keep_rest else self.length // SIZE

    @property
    def expected(self) -> Expected:
        rows = self.shard(0)
        batches = [rows[start : start + SIZE] for start in range(0, self.batches * SIZE, SIZE)]
        wrong = min((row for batch in batches for row in batch if row in self.bad | self.kills), default=None)
        if wrong is None:
            return Expected(
                [] if self.kill_together else batches, KilledReason(None, KILLED) if self.kill_together else None
            )
        number, row = divmod(wrong[1], SIZE)
        return Expected(batches[:number], KilledReason(row, KILLED) if wrong in self.kills - self.bad else wrong)

    def shard(self, index: int) -> list[Row]:
        return [(index, position) for position in range(self.length)]

    def deadly(self, rows: list[Row]) -> Row | None:
        if self.kill_together and self.kill_together.issubset(rows):
            return max(self.kill_together)
        return next((row for row in rows if row in self.kills), None)

    def stream(self, number: int) -> IndexStream:
        rows_of = [min(SIZE, self.length - start) for start in range(0, self.length, SIZE)]
        batches = None if self.is_fed else self.batches
        return IndexStream(number, batches, rows_of.__getitem__, SIZE, keep_rest=self.keep_rest, whole=self.whole)


def near(start: int, steps: frozenset[int]) -> frozenset[Row]:
    """Rows that are mostly of one batch: the first of them is told, whichever was tried first."""
    return frozenset((0, start + step) for step in steps)


sources = st.builds(
    Numbered,
    length=st.integers(0, 12 * SIZE),
    is_fed=st.booleans(),
    keep_rest=st.booleans(),
    whole=st.booleans(),
    bad=st.builds(near, st.integers(0, 24 * SIZE), st.frozensets(st.integers(0, SIZE), max_size=3)),
)
worlds = st.builds(
    World,
    st.lists(sources, min_size=1, max_size=4),
    workers=st.integers(1, 5),
    slots=st.integers(1, 5),
    leases=st.integers(0, 4),
    ahead=st.booleans(),
    verify=st.integers(0, 3),
)


@settings(max_examples=400, deadline=None)
@given(worlds, dice, st.booleans())
def test_whatever_happens_each_batch_comes_once_in_order_and_nothing_is_stuck(
    world: World, thrown: list[int], one_by_one: bool
) -> None:
    world.throw(thrown)
    world.run_to_the_end(one_by_one=one_by_one)


poisonous = st.builds(
    Numbered,
    length=st.integers(0, 6 * SIZE),
    is_fed=st.booleans(),
    keep_rest=st.booleans(),
    whole=st.booleans(),
    bad=st.just(frozenset()) | st.builds(near, st.integers(0, 6 * SIZE), st.frozensets(st.integers(0, 2), max_size=1)),
    kills=st.builds(  # one of a batch
        lambda rows: frozenset((0, batch * SIZE + row) for batch, row in rows.items()),
        st.dictionaries(st.integers(0, 5), st.integers(0, SIZE - 1), max_size=2),
    ),
)
poisonous_worlds = st.builds(
    World,
    st.lists(poisonous, min_size=1, max_size=3),
    workers=st.integers(1, 5),
    slots=st.integers(1, 5),
    leases=st.integers(0, 2),
    ahead=st.booleans(),
    verify=st.integers(0, 3),
    skips=st.booleans(),
    hint=st.none() | st.integers(-SIZE, SIZE),
)


@settings(max_examples=400, deadline=None)
@given(poisonous_worlds, dice)
def test_whatever_happens_exactly_the_row_that_kills_is_named(world: World, thrown: list[int]) -> None:
    hold_poisonous(world, thrown)


@pytest.mark.stress
@settings(max_examples=5_000, deadline=None)
@given(poisonous_worlds, dice)
def test_the_same_for_many_more_poisonous_rows(world: World, thrown: list[int]) -> None:
    hold_poisonous(world, thrown)


def hold_poisonous(world: World, thrown: list[int]) -> None:
    world.throw(thrown)
    world.run_to_the_end()


@pytest.mark.parametrize(
    ("hint", "trials", "deaths"),
    [
        (0, 1, 1),  # the row itself
        (None, 3, 2),  # rows 0 1 2 3, 0 1, 2
        (1, 4, 2),  # row 3, and then as without a hint
        (-9, 3, 2),  # a row of another task is no hint
    ],
)
def test_a_row_that_kills_every_worker_is_searched_and_named(hint: int | None, trials: int, deaths: int) -> None:
    world = World([Numbered(2 * SIZE, kills=frozenset({(0, SIZE + 2)}), whole=True)], workers=2, hint=hint)
    world.run_to_the_end()
    again = TIMES - 1
    assert (world.trials, world.deaths) == (trials + again, RETRIES + 1 + deaths + again)
    assert (len(world.delivered[0]), world.ended[0]) == (1, "failed")


def test_a_single_row_that_kills_every_worker_fails_after_more_tries() -> None:
    world = World([Numbered(2, kills=frozenset({(0, 1)}))], workers=2, hint=None)
    world.run_to_the_end()
    assert (world.trials, world.deaths, world.ended) == (TIMES, RETRIES + 1 + TIMES, {0: "failed"})


def test_rows_that_kill_only_together_fail_without_a_name_when_they_kill_again() -> None:
    world = World([Numbered(SIZE, kill_together=frozenset({(0, 1), (0, 5)}))], workers=1)
    world.run_to_the_end()
    assert world.trials == ROUNDS * 4, "row 5, which the workers were at, and then rows 0 1 2, 3 4, 5"
    assert (world.deaths, world.ended) == ((ROUNDS + 1) * (RETRIES + 1), {0: "failed"}), (
        "it is done as often again as at first"
    )


def test_rows_whose_workers_were_killed_from_outside_are_tried_and_delivered() -> None:
    world = World([Numbered(SIZE)], workers=1, hint=None)
    world.pull(0)
    for _ in range(RETRIES + 1):
        world.join(0)
        world.die(0)
    world.join(0)
    assert [type(task.work) for task in world.up[0]] == [TrialWork]
    world.run_to_the_end()
    assert (world.trials, world.deaths, world.ended) == (3, RETRIES + 1, {0: "finished"})


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_so_many_retries_as_are_told(retries: int) -> None:
    machine = Scheduler(workers=1, open_stream=Numbered(SIZE).stream, slots=1, leases=0, retries=retries)
    (task,) = tasks_of(machine.on(WorkerReadyEvent(0), PullEvent(0)))
    for _ in range(retries):
        machine.on(WorkerDiedEvent(0, KILLED, task.id))
        assert tasks_of(machine.on(WorkerReadyEvent(0))) == [task]
    machine.on(WorkerDiedEvent(0, KILLED, task.id))
    assert [task.work for task in tasks_of(machine.on(WorkerReadyEvent(0)))] == [TrialWork(0, 0, 3, SIZE)]


def test_a_trial_that_had_not_begun_when_its_worker_died_tells_nothing() -> None:
    world = World([Numbered(2 * SIZE, kills=frozenset({(0, SIZE + 2)}), whole=True)], workers=3, hint=None)
    world.join_all()
    world.pull(0)
    for worker in (1, 2, 1):  # worker 0 holds the first batch
        world.work(worker)
        world.join_all()
    world.die(1)
    world.work(2)  # a trial, which kills
    assert [type(task.work) for task in world.up[0]] == [IndexWork, TrialWork]
    world.die(0)
    world.run_to_the_end()  # where the World expects row 2
    assert (world.trials, world.ended) == (3 + TIMES - 1, {0: "failed"})


def test_a_trial_that_raises_has_killed_nobody() -> None:
    rows = Numbered(SIZE, kills=frozenset({(0, 1)}), bad=frozenset({(0, 2)}))
    world = World([rows], workers=1, hint=1)  # row 2 is tried first
    world.run_to_the_end()  # where the World expects row 1
    assert (world.trials, world.ended) == (6, {0: "failed"}), "2, 0 1 2, 0 1, 0, 1, 1"


def test_a_closed_stream_ends_the_search() -> None:
    world = World([Numbered(SIZE, kills=frozenset({(0, 3)}))], workers=1, hint=None)
    world.pull(0)
    while not world.trials:
        world.join_all()
        world.work(0)
    world.close(0)
    world.run_to_the_end()
    assert (world.trials, world.deaths) == (2, RETRIES + 2), "the trial that a worker had been given is the last"


def test_of_rows_that_fail_the_first_is_told_whichever_failed_first() -> None:
    world = World([Numbered(SIZE, bad=frozenset({(0, 0), (0, SIZE - 1)}))], workers=2)
    world.join(0)
    world.join(1)
    world.pull(0)
    later = next(worker for worker, tasks in world.up.items() if tasks and _first(tasks[0].work) > 0)
    world.work(later)
    assert 0 in world.pulling, "the row before it may fail too"
    world.run_to_the_end()  # where the World expects row 0
    assert world.ended == {0: "failed"}


def test_workers_that_never_come_up_are_given_up() -> None:
    machine = Scheduler(workers=1, open_stream=Numbered(SIZE).stream, slots=1, leases=1)
    answers = [machine.on(WorkerDiedEvent(0, "no numpy")) for _ in range(STARTS)]
    assert answers == [[StartWorkerCommand(0)]] * (STARTS - 1) + [[GiveUpCommand("no numpy")]]


def test_starts_that_somebody_may_have_killed_count_half() -> None:
    machine = Scheduler(workers=1, open_stream=Numbered(SIZE).stream, slots=1, leases=1)
    answers = [machine.on(WorkerDiedEvent(0, KILLED, killed=True)) for _ in range(2 * STARTS)]
    assert answers == [[StartWorkerCommand(0)]] * (2 * STARTS - 1) + [[GiveUpCommand(KILLED)]]


def test_it_is_the_starts_of_one_worker_that_count() -> None:
    machine = Scheduler(workers=3, open_stream=Numbered(SIZE).stream, slots=1, leases=1)
    assert [machine.on(WorkerDiedEvent(worker, "slow")) for worker in range(3)] == [
        [StartWorkerCommand(worker)] for worker in range(3)
    ]
    assert machine.on(WorkerDiedEvent(2, "slow")) == [GiveUpCommand("slow")]


def test_a_worker_that_comes_up_clears_all_failed_starts() -> None:
    machine = Scheduler(workers=2, open_stream=Numbered(SIZE).stream, slots=1, leases=1)
    for _ in range(9):
        assert machine.on(WorkerDiedEvent(0, "slow")) == [StartWorkerCommand(0)]
        assert machine.on(WorkerReadyEvent(1)) == []
        assert machine.on(WorkerDiedEvent(1, KILLED)) == [StartWorkerCommand(1)], "it had come up"


def test_once_a_worker_has_come_up_more_starts_are_tried() -> None:
    machine = Scheduler(workers=1, open_stream=Numbered(SIZE).stream, slots=1, leases=1)
    machine.on(WorkerReadyEvent(0))
    answers = [machine.on(WorkerDiedEvent(0, "no memory")) for _ in range(1 + STARTS_PROVEN)]
    assert answers == [[StartWorkerCommand(0)]] * STARTS_PROVEN + [[GiveUpCommand("no memory")]]


def test_once_a_worker_has_come_up_starts_are_tried_while_another_one_is_up() -> None:
    machine = Scheduler(workers=2, open_stream=Numbered(SIZE).stream, slots=1, leases=1)
    machine.on(WorkerReadyEvent(1))
    assert [machine.on(WorkerDiedEvent(0, "no memory")) for _ in range(9 * STARTS_PROVEN)] == [
        [StartWorkerCommand(0)]
    ] * 9 * STARTS_PROVEN
    assert machine.on(WorkerDiedEvent(1, KILLED)) == [StartWorkerCommand(1)], "its own starts have not failed"
    assert machine.on(WorkerDiedEvent(0, "no memory")) == [GiveUpCommand("no memory")]


def test_a_paused_stream_lends_its_slots_to_one_that_is_pulled() -> None:
    world = World([Numbered(9 * SIZE)] * 2, workers=1, slots=2, leases=0)
    world.join(0)
    world.pull(0)
    while world.up[0]:
        world.work(0)
    assert world.machine.slots_in_use() == 2, "the first stream made batches ahead into all slots"
    world.pull(1)
    assert world.machine.slots_in_use() == 2, "its slot is used, and not the spare one"
    while 1 in world.pulling:
        world.work(0)
    assert [len(batches) for batches in world.delivered.values()] == [1, 1]


def opened_early(*batches: int) -> World:
    """Streams of so many batches, the first of which is open and has made all that it may, though no one pulls it."""
    world = World([Numbered(count * SIZE) for count in batches], workers=1, slots=4, leases=4)
    world.open(0)
    world.work_off()
    return world


def test_a_stream_that_is_opened_early_fills_the_slots_and_then_delivers_at_once() -> None:
    world = opened_early(9)
    assert (world.machine.slots_in_use(), world.machine.ready(0, 9), world.delivered) == (4, 4, {})
    for _ in range(4):
        world.pull(0)
    assert len(world.delivered[0]) == 4, "no worker had to work for these"
    world.run_to_the_end()


def test_a_stream_that_is_opened_early_waits_until_the_others_have_begun_their_last_batch() -> None:
    world = World([Numbered(9 * SIZE), Numbered(7 * SIZE)], workers=1, slots=4, leases=4)
    world.pull(1)
    world.open(0)
    ready = []
    while 1 not in world.ended:
        world.work_off()
        ready.append(world.machine.ready(0, 9))
        world.release()
        world.pull(1)
    assert ready[:3] == [0, 0, 0], "up to seven batches of the other stream are begun after these"
    assert ready[-1] >= 3, "the slots of short batches are filled up several at a time"
    world.run_to_the_end()


def test_a_stream_that_is_opened_early_gives_all_its_slots_to_one_that_is_pulled() -> None:
    world = opened_early(9, 9)
    world.pull(1)
    assert (world.machine.slots_in_use(), world.machine.ready(0, 9)) == (4, 0)
    world.work_off()
    assert (world.machine.ready(1, 9), world.machine.ready(0, 9)) == (3, 0), "one of four is delivered"
    world.run_to_the_end()


def test_a_stream_that_is_opened_early_and_closed_leaves_no_slot_and_no_task() -> None:
    world = opened_early(9, 1)
    world.close(0)
    assert world.machine.slots_in_use() == 0
    world.run_to_the_end()


def test_an_error_in_a_stream_that_is_opened_early_is_told_when_it_is_pulled() -> None:
    world = World([Numbered(3 * SIZE, bad=frozenset({(0, SIZE + 2)}))], workers=2, slots=4)
    world.open(0)
    world.work_off()
    assert (world.ended, world.delivered) == ({}, {})
    world.pull(0)
    assert (world.ended, len(world.delivered[0])) == ({}, 1)
    world.pull(0)
    assert world.ended == {0: "failed"}


@pytest.mark.parametrize("batches", [0, 1, 4])
def test_all_is_begun_once_the_last_batch_has_a_slot(batches: int) -> None:
    world = World([Numbered(batches * SIZE), Numbered(5 * SIZE)], workers=1, slots=4, leases=0)
    world.open(0)
    assert world.machine.has_begun_all()
    world.open(1)
    assert not world.machine.has_begun_all()


def test_a_stream_that_has_delivered_all_takes_no_share() -> None:
    world = World([Numbered(SIZE), Numbered(9 * SIZE)], workers=1, slots=4, leases=4)
    world.join(0)
    for stream in (0, 1):
        world.pull(stream)
        while stream in world.pulling:
            world.work(0)
    assert 0 not in world.ended, "its end has not been asked for"
    while world.up[0]:
        world.work(0)
    assert world.machine.slots_in_use() - len(world.held) > 2, "more than half of the slots are the other stream's"


def test_the_first_batch_is_made_by_all_workers() -> None:
    stream = IndexStream(0, 5, lambda batch: 64, 64)
    machine = Scheduler(workers=3, open_stream=lambda number: stream, slots=2, leases=1)
    for worker in range(3):
        machine.on(WorkerReadyEvent(worker))
    submits = [command for command in machine.on(PullEvent(0)) if isinstance(command, SubmitCommand)]
    works = [(submit.worker, submit.task.work) for submit in submits]
    assert {worker for worker, work in works if isinstance(work, IndexWork) and work.batch == 0} == {0, 1, 2}


@pytest.mark.parametrize("late", [False, True])
def test_a_large_batch_takes_a_slot_once_the_rows_before_it_are_with_workers(late: bool) -> None:
    stream = IndexStream(0, 5, lambda batch: 8, 8)
    machine = Scheduler(workers=1, open_stream=lambda number: stream, slots=2, leases=2)
    machine.on(WorkerReadyEvent(0), SlotsSizedEvent(2, late=late))
    held = tasks_of(machine.on(PullEvent(0)))
    held += tasks_of(machine.on(TaskDoneEvent(0, held.pop(0).id, seconds=8.0)))  # from now on, a row is a task
    assert machine.slots_in_use() == (2 if late else 3), "one is leased, one is filled"
    began = 0
    while not began:
        assert len(held) == 2, "the worker always has a task and the next one"
        held += tasks_of(machine.on(TaskDoneEvent(0, held.pop(0).id, seconds=1.0)))
        began = sum(isinstance(task.work, IndexWork) and task.work.batch > 1 for task in held)
    assert machine.slots_in_use() == 3


def tasks_of(commands: list[Command]) -> list[Task]:
    return [command.task for command in commands if isinstance(command, SubmitCommand)]


def _first(work: object) -> int:
    assert isinstance(work, IndexWork)
    return work.first
