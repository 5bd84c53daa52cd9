"""The scheduler under any interleaving of completions, deaths, errors, releases and pulls."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.scheduler import (
    RETRIES,
    Closed,
    Command,
    Deliver,
    Died,
    Done,
    Event,
    Fail,
    Failed,
    Finish,
    GiveUp,
    Joined,
    Pulled,
    Released,
    Respawn,
    Scheduler,
    Submit,
    Task,
)

ROWS = 6


@dataclass
class World:
    """Workers and consumers around a scheduler, which they hold to its promises at every command."""

    workers: int
    slots: int
    leases: int
    totals: list[int]
    ahead: bool = True
    poison: frozenset[tuple[int, int, int]] = frozenset()  # (stream, batch, row) whose user code raises
    up: dict[int, list[Task]] = field(default_factory=dict)
    down: set[int] = field(default_factory=set)
    pulling: set[int] = field(default_factory=set)
    delivered: dict[int, list[int]] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)
    rows: Counter[tuple[int, int, int]] = field(default_factory=Counter)  # (slot, batch, row) done since its last start

    events: deque[Event] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.down = set(range(self.workers))
        self.machine = Scheduler(
            workers=self.workers,
            batches=lambda stream: self.totals[stream],
            rows=lambda stream, batch: ROWS,
            slots=self.slots,
            leases=self.leases,
            ahead=self.ahead,
        )

    def on(self, event: Event) -> None:
        """Events wait until the commands of the one before are carried out."""
        self.events.append(event)
        if len(self.events) > 1:
            return
        while self.events:
            self.carry_out(self.machine.on(self.events[0]))
            self.events.popleft()

    def carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Submit(worker, task):
                    self.submitted(worker, task)
                case Deliver(stream, batch, slot, copy):
                    self.deliver(stream, batch, slot, copy)
                case Finish(stream):
                    assert stream in self.pulling, "the end is an answer to a pull"
                    assert len(self.delivered[stream]) == self.totals[stream], "an epoch ends when all is delivered"
                    self.end(stream, "finished")
                case Fail(stream, task, reason):
                    assert task.batch == len(self.delivered[stream]), "an error comes in its batch's turn"
                    self.end(stream, str(reason))
                case Respawn(worker):
                    self.down.add(worker)
                case GiveUp():
                    raise AssertionError("workers that had joined were given up")

    def submitted(self, worker: int, task: Task) -> None:
        assert task.slot not in self.held, "a leased slot is not written"
        assert task.stream not in self.ended, "nobody works for a stream that has ended"
        for other in (t for tasks in self.up.values() for t in tasks if t.slot == task.slot):
            assert (other.stream, other.batch) == (task.stream, task.batch), "a slot has one batch at a time"
            apart = other.first + other.count <= task.first or task.first + task.count <= other.first
            assert apart, "rows have one writer"
        self.up[worker].append(task)

    def deliver(self, stream: int, batch: int, slot: int, copy: bool) -> None:
        assert stream in self.pulling, "a batch is an answer to a pull"
        assert batch == len(self.delivered[stream]), "batches come in order, each once"
        assert not any(task.slot == slot for tasks in self.up.values() for task in tasks), "no writer is left"
        assert all(self.rows.pop((slot, batch, row), 0) for row in range(ROWS)), "all rows were made, in this slot"
        self.pulling.remove(stream)
        self.delivered[stream].append(batch)
        assert slot not in self.held
        if copy:
            assert len(self.held) == self.leases, "a copy is made only when all leases are out"
            self.on(Released(slot))
        else:
            self.held.append(slot)
            assert len(self.held) <= self.leases, "the lease limit is kept"

    def end(self, stream: int, how: str) -> None:
        self.pulling.discard(stream)
        self.ended[stream] = how

    # what may happen
    def join(self, worker: int) -> None:
        self.down.discard(worker)
        self.up[worker] = []
        self.on(Joined(worker))

    def work(self, worker: int) -> None:
        task = self.up[worker].pop(0)
        bad = [
            row for row in range(task.first, task.first + task.count) if (task.stream, task.batch, row) in self.poison
        ]
        if bad:
            self.on(Failed(worker, task.id, f"row {bad[0]}"))
            return
        for row in range(task.first, task.first + task.count):
            self.rows[task.slot, task.batch, row] += 1
        self.on(Done(worker, task.id, 0.001))

    def die(self, worker: int) -> None:
        self.up.pop(worker, None)
        self.on(Died(worker, "killed"))

    def pull(self, stream: int) -> None:
        self.delivered.setdefault(stream, [])
        self.pulling.add(stream)
        self.on(Pulled(stream))

    def close(self, stream: int) -> None:
        self.end(stream, "closed")
        self.on(Closed(stream))

    def release(self) -> None:
        slot = self.held.pop(0)
        self.rows = Counter({key: n for key, n in self.rows.items() if key[0] != slot})
        self.on(Released(slot))

    def choices(self) -> list[tuple[str, int]]:
        open_streams = [stream for stream in range(len(self.totals)) if stream not in self.ended]
        return (
            [("join", worker) for worker in self.down]
            + [("work", worker) for worker, tasks in self.up.items() if tasks]
            + [("die", worker) for worker in self.up]
            + [("pull", stream) for stream in open_streams if stream not in self.pulling]
            + [("close", stream) for stream in open_streams if stream in self.delivered]
            + ([("release", 0)] if self.held else [])
        )

    def act(self, what: str, which: int) -> None:
        self.release() if what == "release" else getattr(self, what)(which)

    def run_to_the_end(self) -> None:
        """From here on nothing dies and everybody pulls; nothing is released. All streams must end."""
        for _ in range(10_000):
            for worker in list(self.down):
                self.join(worker)
            for stream in range(len(self.totals)):
                if stream not in self.ended and stream not in self.pulling:
                    self.pull(stream)
            busy = [worker for worker, tasks in self.up.items() if tasks]
            if busy:
                self.work(busy[0])
            elif all(stream in self.pulling or stream in self.ended for stream in range(len(self.totals))):
                break
        assert set(self.ended) == set(range(len(self.totals))), f"stuck: {self.ended} of {self.totals}"


worlds = st.builds(
    World,
    workers=st.integers(1, 5),
    slots=st.integers(1, 5),
    leases=st.integers(0, 4),
    totals=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    ahead=st.booleans(),
    poison=st.frozensets(st.tuples(st.integers(0, 3), st.integers(0, 11), st.integers(0, ROWS - 1)), max_size=2),
)


@settings(max_examples=400, deadline=None)
@given(worlds, st.lists(st.integers(0, 10**6), max_size=120))
def test_whatever_happens_each_batch_comes_once_in_order_and_nothing_is_stuck(world: World, dice: list[int]) -> None:
    deaths = 0
    for die in dice:
        options = world.choices()
        what, which = options[die % len(options)]
        if what == "die":
            deaths += 1
            if deaths > RETRIES:  # more could rightly end a stream: see the next test
                continue
        world.act(what, which)
    world.run_to_the_end()
    for stream, how in world.ended.items():
        bad = sorted((batch, row) for s, batch, row in world.poison if s == stream and batch < world.totals[stream])
        if how == "finished":
            assert not bad
            assert world.delivered[stream] == list(range(world.totals[stream]))
        elif how != "closed":
            assert world.delivered[stream] == list(range(bad[0][0])), "the batches before the error were delivered"


def test_rows_that_kill_every_worker_fail_after_three_more_tries() -> None:
    world = World(workers=2, slots=2, leases=1, totals=[1])
    world.pull(0)
    deaths = 0
    while 0 not in world.ended:
        world.join(min(world.down))
        victim = next(worker for worker, tasks in world.up.items() if any(task.first == 0 for task in tasks))
        world.up[victim].clear()
        world.on(Died(victim, "killed"))
        deaths += 1
    assert (deaths, world.ended[0]) == (RETRIES + 1, "killed")


def test_workers_that_never_come_up_are_given_up() -> None:
    machine = Scheduler(workers=1, batches=lambda _: 1, rows=lambda *_: 1, slots=1, leases=1)
    answers = [machine.on(Died(0, "no numpy")) for _ in range(RETRIES + 1)]
    assert answers == [[Respawn(0)]] * RETRIES + [[GiveUp("no numpy")]]


def test_a_paused_stream_lends_its_slots_to_one_that_is_pulled() -> None:
    world = World(workers=1, slots=2, leases=0, totals=[9, 9])
    world.join(0)
    world.pull(0)
    while any(world.up.values()):
        world.work(0)
    assert world.machine.slots_in_use() == 2, "the first stream made batches ahead into all slots"
    world.pull(1)
    while 1 in world.pulling:
        world.work(0)
    assert world.delivered == {0: [0], 1: [0]}


def test_a_stream_that_has_delivered_all_takes_no_share() -> None:
    world = World(workers=1, slots=4, leases=4, totals=[1, 9])
    world.join(0)
    for stream in (0, 1):
        world.pull(stream)
        while stream in world.pulling:
            world.work(0)
    assert 0 not in world.ended, "its end has not been asked for"
    while any(world.up.values()):
        world.work(0)
    assert world.machine.slots_in_use() - len(world.held) > 2, "more than half of the slots are the other stream's"


def test_the_first_batch_is_made_by_all_workers() -> None:
    machine = Scheduler(workers=3, batches=lambda _: 5, rows=lambda *_: 64, slots=2, leases=1)
    for worker in range(3):
        machine.on(Joined(worker))
    submits = [command for command in machine.on(Pulled(0)) if isinstance(command, Submit)]
    assert {submit.worker for submit in submits if submit.task.batch == 0} == {0, 1, 2}
