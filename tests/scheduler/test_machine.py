"""The scheduler under any interleaving of completions, deaths, errors, releases and pulls."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.scheduler import RETRIES, RowsStream, Scheduler
from stoker.scheduler.messages import Died, GiveUp, Joined, Pulled, Respawn, Rows, Submit
from tests.scheduler.world import Expected, Row, World, dice

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
        wrong = min((row for batch in batches for row in batch if row in self.bad), default=None)
        return Expected(batches if wrong is None else batches[: wrong[1] // SIZE], wrong)

    def shard(self, index: int) -> list[Row]:
        return [(index, position) for position in range(self.length)]

    def stream(self, number: int) -> RowsStream:
        rows_of = [min(SIZE, self.length - start) for start in range(0, self.length, SIZE)]
        batches = None if self.is_fed else self.batches
        return RowsStream(number, batches, rows_of.__getitem__, SIZE, keep_rest=self.keep_rest, whole=self.whole)


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
)


@settings(max_examples=400, deadline=None)
@given(worlds, dice, st.booleans())
def test_whatever_happens_each_batch_comes_once_in_order_and_nothing_is_stuck(
    world: World, thrown: list[int], one_by_one: bool
) -> None:
    world.throw(thrown)
    world.run_to_the_end(one_by_one=one_by_one)


def test_rows_that_kill_every_worker_fail_after_three_more_tries() -> None:
    world = World([Numbered(SIZE)], workers=2, slots=2, leases=1)
    world.pull(0)
    while 0 not in world.ended:
        world.join(min(world.down))
        holders = [worker for worker, tasks in world.up.items() if any(_first(task.work) == 0 for task in tasks)]
        world.die(holders[0])
    assert (world.deaths, world.ended[0]) == (RETRIES + 1, "failed")


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
    answers = [machine.on(Died(0, "no numpy")) for _ in range(RETRIES + 1)]
    assert answers == [[Respawn(0)]] * RETRIES + [[GiveUp("no numpy")]]


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
    stream = RowsStream(0, 5, lambda batch: 64, 64)
    machine = Scheduler(workers=3, open_stream=lambda number: stream, slots=2, leases=1)
    for worker in range(3):
        machine.on(Joined(worker))
    submits = [command for command in machine.on(Pulled(0)) if isinstance(command, Submit)]
    works = [(submit.worker, submit.task.work) for submit in submits]
    assert {worker for worker, work in works if isinstance(work, Rows) and work.batch == 0} == {0, 1, 2}


def _first(work: object) -> int:
    assert isinstance(work, Rows)
    return work.first
