"""Workers and consumers around a scheduler, which they hold to its promises at every command."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

from hypothesis import strategies as st

from stoker.scheduler.commands import (
    Command,
    DeliverCommand,
    FailCommand,
    FinishCommand,
    GatherCommand,
    GiveUpCommand,
    KilledReason,
    LeaveOutCommand,
    LoadItemsCommand,
    ParkCommand,
    RetireWorkerCommand,
    StartWorkerCommand,
    SubmitCommand,
)
from stoker.scheduler.events import (
    CloseEvent,
    Event,
    ItemsEvent,
    OpenEvent,
    PullEvent,
    SlotReleasedEvent,
    TaskDoneEvent,
    TaskFailedEvent,
    WorkerDiedEvent,
    WorkerReadyEvent,
    WorkersEvent,
)
from stoker.scheduler.machine import RETRIES, Scheduler
from stoker.scheduler.slot_ledger import SPARE
from stoker.scheduler.streams import Stream
from stoker.scheduler.work import IndexWork, JoinWork, ShardWork, Task, TrialWork
from stoker.scheduler.worker_starts import STARTS, STARTS_PROVEN

#: An example: the shard that it is of, and its position there.
Row = tuple[int, int]
KILLED = "killed"
#: What happens. A list's length is drawn first: Hypothesis makes most lists very short.
dice = st.integers(0, 150).flatmap(lambda n: st.lists(st.integers(0, 10**6), min_size=n, max_size=n))


@dataclass(frozen=True)
class Expected:
    """What a stream must deliver, and the reason for which it then fails, if it does."""

    batches: list[list[Row]]
    error: object = None


class Source(Protocol):
    """What a stream reads."""

    size: int  # of a full batch
    items: int | None  # of an iterable
    bad: frozenset[Row]  # rows that cannot be made
    kills: frozenset[Row]  # rows that kill whoever makes them
    misfits: frozenset[Row]  # rows that cannot be joined with others
    raws: int  # raw examples that one row is made of
    in_turn: bool

    @property
    def expected(self) -> Expected: ...

    def stream(self, number: int) -> Stream: ...

    def shard(self, index: int) -> list[Row]: ...

    def deadly(self, rows: list[Row]) -> Row | None:
        """The row at which a worker that makes these dies."""


@dataclass
class World:
    """Whatever may happen can be done to it; whatever must not happen is an AssertionError.

    Attributes:
        skips: whether rows of shards that kill are left out.
        hint: how many rows the row that a dead worker is said to have been at is away from the right one;
            None when nobody knows where it was.
        skippable: whether it was at something that can be left out.
        verify: every so many tasks one is done a second time, to see whether the same comes out; 0 for none.
    """

    sources: list[Source]
    workers: int = 2
    slots: int = 2
    leases: int = 1
    ahead: bool = True
    skips: bool = False
    hint: int | None = 0
    skippable: bool = True
    verify: int = 0
    up: dict[int, deque[Task]] = field(default_factory=dict)
    shard_readers: dict[int, dict[tuple[int, int], int]] = field(default_factory=dict)  # by worker: its open shards
    progress: dict[tuple[int, int], int] = field(default_factory=dict)  # rows of a shard that are done
    gone: set[tuple[int, int]] = field(default_factory=set)  # parts that have ended: their items are dropped
    deaths: int = 0
    died_at: Counter[int] = field(default_factory=Counter)  # deaths at work, by task
    deadly: dict[int, Row] = field(default_factory=dict)  # by task: the row at which its last worker died
    left_out: dict[int, set[Row]] = field(default_factory=dict)  # by stream
    finished: set[int] = field(default_factory=set)  # tasks that are done
    trials: int = 0
    made_by: dict[int, int] = field(default_factory=dict)  # by task: the worker that did it, where it is done twice
    failed_starts: Counter[int] = field(default_factory=Counter)  # by worker, since any worker joined
    is_proven: bool = False  # a worker has come up
    opened: set[int] = field(default_factory=set)  # streams that were opened and not pulled yet
    pulling: set[int] = field(default_factory=set)
    delivered: dict[int, list[list[Row]]] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)
    memory: dict[int, dict[int, Row]] = field(default_factory=dict)  # by slot: the rows that lie there
    inbox: dict[int, list[Row]] = field(default_factory=dict)
    parked: dict[tuple[int, int], list[Row]] = field(default_factory=dict)
    arrived: dict[int, int] = field(default_factory=dict)  # items of an iterable
    loaded: dict[int, int] = field(default_factory=dict)
    all_told: set[int] = field(default_factory=set)  # streams whose iterable has ended
    events: deque[Event] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.down = set(range(self.workers))
        self.wanted, self.leaving = self.workers, set[int]()
        self.expected = [source.expected for source in self.sources]
        self.machine = Scheduler(
            workers=self.workers,
            open_stream=self.open_stream,
            slots=self.slots,
            leases=self.leases,
            ahead=self.ahead,
            skips=self.skips,
        )

    # ── commands ─────────────────────────────────────────────────────────────────────────────
    def on(self, event: Event) -> None:
        """Events wait until the commands of the one before are carried out."""
        self.events.append(event)
        if len(self.events) > 1:
            return
        while self.events:
            for command in self.machine.on(self.events[0]):
                self.carry_out(command)
            self.events.popleft()
        early = sum(self.machine.ready(stream, 99) for stream in self.opened)
        assert early <= self.slots, "streams that are opened early use only the slots that there are anyway"

    def open_stream(self, number: int) -> Stream:
        if self.sources[number].items is not None:
            self.events.append(self.fed(number))
        return self.sources[number].stream(number)

    def carry_out(self, command: Command) -> None:
        match command:
            case SubmitCommand(worker, task, opens):
                self.submitted(worker, task, opens)
            case DeliverCommand():
                self.deliver(command)
            case FinishCommand(stream):
                assert self.delivered[stream] == self.expected[stream].batches, "it ends when all is delivered"
                assert self.expected[stream].error is None, "no error is lost"
                self.answer(stream, "finished")
            case FailCommand(stream, batch, task, reason):
                assert batch == len(self.delivered[stream]), "an error comes in its batch's turn"
                assert reason == self.expected[stream].error, "the first error is told, and the row at fault"
                assert self.delivered[stream] == self.expected[stream].batches, "what is before it was delivered"
                if isinstance(reason, KilledReason):
                    assert task is not None
                    assert self.died_at[task.id] > RETRIES, "one death, or a few, are no error"
                    assert not (self.skips and self.skippable and isinstance(task.work, ShardWork)), "it is left out"
                self.answer(stream, "failed")
            case LoadItemsCommand(stream, slot, rows):
                first = self.loaded.get(stream, 0)
                assert first + rows <= self.arrived.get(stream, 0), "only what has arrived is used"
                self.loaded[stream] = first + rows
                self.inbox[slot] = [(0, row) for row in range(first, first + rows)]
            case ParkCommand(stream, parked, slot, rows):
                self.nobody_writes(slot)
                assert (stream, parked) not in self.parked, "a number is used once"
                self.parked[stream, parked] = self.rows_in(slot, rows)
            case GatherCommand(stream, slot, pieces):
                some = [self.parked[stream, piece.parked][piece.start : piece.stop] for piece in pieces]
                self.inbox[slot] = [row for rows in some for row in rows]
            case LeaveOutCommand(task, reason):
                assert self.skips
                assert isinstance(task.work, ShardWork), "where one more or less changes no other batch's number"
                assert reason == KILLED
                assert self.died_at.pop(task.id) > RETRIES, "one death, or a few, are no reason"
                self.left_out.setdefault(task.stream, set()).add(self.deadly[task.id])
            case StartWorkerCommand(worker):
                assert worker < self.wanted, "only workers that are wanted are started"
                assert worker not in {*self.up, *self.down, *self.leaving}, "a worker has one process at a time"
                self.down.add(worker)
            case RetireWorkerCommand(worker):
                assert worker >= self.wanted, "workers that are wanted stay"
                assert not self.up.pop(worker), "its work is done"
                del self.shard_readers[worker]
                self.leaving.add(worker)
            case GiveUpCommand():
                raise AssertionError("given up, though workers come up")

    def submitted(self, worker: int, task: Task, opens: bool) -> None:
        assert 0 <= task.slot < self.slots + self.leases + SPARE
        assert task.slot not in self.held, "a leased slot is not written"
        assert task.stream not in self.ended, "nobody works for a stream that has ended"
        assert task.id not in self.finished, "what is done is kept, whoever dies"
        for other in (t for tasks in self.up.values() for t in tasks if t.slot == task.slot):
            mine, its = task.work, other.work
            assert isinstance(mine, IndexWork | TrialWork), "a shard's rows and joined ones have one writer"
            assert isinstance(its, IndexWork | TrialWork), "a shard's rows and joined ones have one writer"
            assert (other.stream, its.batch) == (task.stream, mine.batch), "a slot has one batch at a time"
            assert its.first + its.count <= mine.first or mine.first + mine.count <= its.first, "rows have one writer"
        if isinstance(task.work, ShardWork) and task.work.until is not None:
            assert not opens
        elif isinstance(task.work, TrialWork | ShardWork) and task.work.of is not None:
            assert not opens
            assert worker != self.made_by[task.work.of] or self.wanted == 1, "another worker does it again"
        elif isinstance(task.work, ShardWork):
            self.reads(worker, task, (task.stream, task.work.shard), opens)
        else:
            assert not opens
        self.up[worker].append(task)

    def reads(self, worker: int, task: Task, key: tuple[int, int], opens: bool) -> None:
        source = self.sources[task.stream]
        readers = [reader for reader, shard_readers in self.shard_readers.items() if key in shard_readers]
        assert readers == ([] if opens else [worker]), "a shard has one reader, which opens it once"
        if opens:
            self.shard_readers[worker][key] = self.progress.get(key, 0)
        if not source.in_turn:
            others = [other for tasks in self.up.values() for other in tasks if other.stream == task.stream]
            assert all(other.work != task.work for other in others), "of a part nothing is asked ahead"
            assert key not in self.gone, "of a part that has ended nothing is asked"
        if source.items is not None:
            needed = min((key[1] + 1) * source.size, source.items)
            assert self.arrived[task.stream] >= needed, "only what has arrived is used"

    def deliver(self, told: DeliverCommand) -> None:
        stream, slot = told.stream, told.slot
        self.nobody_writes(slot)
        assert slot not in self.held
        assert told.batch == len(self.delivered[stream]), "batches come in order, each once"
        rows = self.rows_in(slot, told.rows)
        assert rows == self.expected[stream].batches[told.batch], "the order depends on the source alone"
        self.delivered[stream].append(rows)
        self.answer(stream)
        self.memory.pop(slot)
        if told.copy:
            assert len(self.held) == self.leases, "a copy is made only when all leases are out"
            self.on(SlotReleasedEvent(slot))
        else:
            self.held.append(slot)
            assert len(self.held) <= self.leases, "the lease limit is kept"

    def answer(self, stream: int, end: str = "") -> None:
        assert stream in self.pulling, "batches and ends are answers to pulls"
        self.pulling.remove(stream)
        if end:
            self.ended[stream] = end

    def nobody_writes(self, slot: int) -> None:
        assert not any(task.slot == slot for tasks in self.up.values() for task in tasks), "no writer is left"

    def rows_in(self, slot: int, rows: int) -> list[Row]:
        assert all(row in self.memory[slot] for row in range(rows)), "all rows were made, in this slot"
        return [self.memory[slot][row] for row in range(rows)]

    # ── what may happen ──────────────────────────────────────────────────────────────────────
    def join(self, worker: int) -> None:
        self.down.discard(worker)
        self.failed_starts.clear()
        self.is_proven = True
        self.up[worker], self.shard_readers[worker] = deque(), {}
        self.on(WorkerReadyEvent(worker))

    def work(self, worker: int) -> None:
        """A worker does the oldest task that it holds, or dies of it."""
        task = self.up[worker][0]
        source, work = self.sources[task.stream], task.work
        first, since, position, rows = 0, 0, 0, []
        is_apart = isinstance(work, ShardWork) and (work.of is not None or work.until is not None)
        match work:
            case IndexWork(batch, first, some, _) | TrialWork(batch, first, some, _):
                start = batch * source.size
                rows = self.inbox[task.slot] if source.items is not None else source.shard(0)[start:]
                rows = rows[first : first + some]
                self.trials += isinstance(work, TrialWork) and work.of is None
            case JoinWork():
                rows = self.inbox[task.slot]
                assert len(rows) == work.rows
            case ShardWork(shard, until=int(until)):
                rows = source.shard(shard)[self.progress.get((task.stream, shard), 0) : until + 1]
                rows = [row for row in rows if row not in self.left_out.get(task.stream, ())]
                self.trials += 1
            case ShardWork(shard, since=int(since), of=int()):
                rows, position = self.next_of_shard(task.stream, shard, since)
            case ShardWork(shard):
                since = self.shard_readers[worker][task.stream, shard]
                rows, position = self.next_of_shard(task.stream, shard, since)
        bad = source.misfits if isinstance(work, JoinWork) else source.bad
        wrong = next((row for row in rows if row in bad), None)
        made = rows if wrong is None else rows[: rows.index(wrong)]
        deadly = None if isinstance(work, JoinWork) else source.deadly(made)
        if deadly is not None:
            self.deadly[task.id] = deadly
            self.die(worker, None if self.hint is None else deadly[1] % source.size + self.hint, deadly[1])
            return
        self.up[worker].popleft()
        done = TaskDoneEvent(worker, task.id, 0.001)
        if isinstance(work, ShardWork) and not is_apart:
            done = self.step(worker, task, len(rows), position, wrong)
        if (
            isinstance(work, IndexWork | ShardWork)
            and not is_apart
            and rows
            and self.verify
            and not task.id % self.verify
        ):
            self.made_by[task.id] = worker
            done = replace(done, again=True, since=since)
        if not isinstance(work, TrialWork) and not is_apart:
            self.memory[task.slot] = self.memory.get(task.slot, {}) if isinstance(work, IndexWork) else {}
            self.memory[task.slot].update(enumerate(rows, first))
            self.finished.add(task.id)
        self.on(done if wrong is None else TaskFailedEvent(worker, task.id, wrong))

    def next_of_shard(self, stream: int, shard: int, position: int) -> tuple[list[Row], int]:
        """The next rows of a shard, without those that are left out, and the position after them."""
        source, rows = self.sources[stream], []
        for row in source.shard(shard)[position:]:
            if len(rows) == source.size:
                break
            position += 1
            if row not in self.left_out.get(stream, ()):
                rows.append(row)
        return rows, position

    def step(self, worker: int, task: Task, rows: int, position: int, wrong: Row | None) -> TaskDoneEvent:
        assert isinstance(task.work, ShardWork)
        source, key = self.sources[task.stream], (task.stream, task.work.shard)
        self.shard_readers[worker][key] = position
        if wrong is None:
            self.progress[key] = position
        else:
            self.shard_readers[worker][key] = len(
                source.shard(key[1])
            )  # a generator that has raised gives nothing more
        ended = rows < source.size
        if ended and not source.in_turn:
            self.gone.add(key)
        return TaskDoneEvent(worker, task.id, 0.001, rows, ended, ended or not source.in_turn, position * source.raws)

    def die(self, worker: int, row: int | None = None, example: int | None = None) -> None:
        self.deaths += 1
        tasks = self.up.pop(worker)
        if tasks:
            self.died_at[tasks[0].id] += 1
        del self.shard_readers[worker]
        at_work = tasks[0].id if tasks else None
        self.on(WorkerDiedEvent(worker, KILLED, at_work, row, example, self.skippable))

    def is_killable(self, worker: int) -> bool:
        """Whether one more death is no reason to suspect what this worker is at; nor is it being found out."""
        tasks = self.up[worker]
        is_tried = bool(tasks) and isinstance(work := tasks[0].work, TrialWork) and work.of is None
        return not tasks or (self.died_at[tasks[0].id] < RETRIES and not is_tried)

    def fail_to_start(self, worker: int) -> None:
        """A worker dies before it joins."""
        self.down.discard(worker)
        self.failed_starts[worker] += 1
        self.on(WorkerDiedEvent(worker, "no numpy"))

    def want(self, workers: int) -> None:
        """Another number of workers is wanted."""
        self.wanted = workers
        self.on(WorkersEvent(workers))

    def leave(self, worker: int) -> None:
        """A worker that is no longer wanted ends."""
        self.leaving.discard(worker)
        self.on(WorkerDiedEvent(worker, "retired"))

    def open(self, stream: int) -> None:
        self.opened.add(stream)
        self.on(OpenEvent(stream))

    def pull(self, stream: int) -> None:
        self.opened.discard(stream)
        self.delivered.setdefault(stream, [])
        self.pulling.add(stream)
        self.on(PullEvent(stream))

    def close(self, stream: int) -> None:
        self.opened.discard(stream)
        self.pulling.discard(stream)
        self.ended[stream] = "closed"
        self.on(CloseEvent(stream))

    def feed(self, stream: int, items: int = 1) -> None:
        """Items arrive; that there are no more is told after the last one."""
        before, most = self.arrived.get(stream, 0), self.sources[stream].items
        assert most is not None
        self.arrived[stream] = min(most, before + items)
        if before == most:
            self.all_told.add(stream)
        self.on(self.fed(stream))

    def flood(self, stream: int) -> None:
        self.feed(stream, 10)

    def fed(self, stream: int) -> ItemsEvent:
        return ItemsEvent(stream, self.arrived.get(stream, 0), stream in self.all_told)

    def release(self, _: int = 0) -> None:
        self.on(SlotReleasedEvent(self.held.pop(0)))

    def choices(self) -> list[tuple[str, int]]:
        """What may happen next; kills stay so few that no task, and no start, may be given up for them."""
        living = [stream for stream in range(len(self.sources)) if stream not in self.ended]
        hungry = [s for s in living if self.sources[s].items is not None and s not in self.all_told]
        starts = STARTS_PROVEN if self.is_proven else STARTS
        often = (
            [("work", worker) for worker, tasks in self.up.items() if tasks]
            + [("pull", stream) for stream in living if stream not in self.pulling]
            + [(what, stream) for stream in hungry for what in ("feed", "flood")]
        )
        seldom = (
            [("join", worker) for worker in self.down]
            + [("fail_to_start", worker) for worker in self.down if self.failed_starts[worker] + 1 < starts]
            + [("die", worker) for worker in self.up if self.is_killable(worker)]
            + [("close", stream) for stream in living if stream in self.delivered or stream in self.opened]
            + [("open", stream) for stream in living if stream not in self.delivered and stream not in self.opened]
            + [("release", 0)] * bool(self.held)
            + [("want", workers) for workers in (1, self.workers, self.workers + 2)]
            + [("leave", worker) for worker in self.leaving]
        )
        return 6 * often + seldom

    def throw(self, thrown: list[int]) -> None:
        """Each die chooses what happens next."""
        for die in thrown:
            options = self.choices()
            if options:
                what, which = options[die % len(options)]
                getattr(self, what)(which)

    def run_to_the_end(self, *, one_by_one: bool = False, luck: int = 0) -> None:
        """From here on nothing is killed from outside, all items arrive, nothing is released.

        All streams must end, all slots come back. Consumers pull together, or each when the one before has ended.
        """
        for stream, source in enumerate(self.sources):
            while source.items is not None and stream not in self.all_told:
                self.feed(stream, source.items)
        everybody = list(range(len(self.sources)))
        for group in [[stream] for stream in everybody] if one_by_one else [everybody]:
            self.run(group, luck)
        self.work_off()
        assert self.up.keys() <= set(range(self.wanted)), "workers that are not wanted end"
        while self.held:
            self.release()
        assert self.machine.slots_in_use() == 0, "every slot comes back"
        assert sorted(self.machine.free_slots()) == list(range(self.slots + self.leases + SPARE))

    def join_all(self) -> None:
        for worker in list(self.leaving):
            self.leave(worker)
        for worker in list(self.down):
            self.join(worker)

    def work_off(self) -> None:
        """Until nobody has anything to do."""
        self.join_all()
        while busy := [worker for worker, tasks in self.up.items() if tasks]:
            self.work(busy[0])
            self.join_all()

    def run(self, group: list[int], luck: int = 0) -> None:
        for turn in count():
            for stream in group:
                while stream not in self.ended and stream not in self.pulling:
                    self.pull(stream)
            if all(stream in self.ended for stream in group):
                return
            self.join_all()
            busy = [worker for worker, tasks in self.up.items() if tasks]
            assert busy, f"stuck: {self.ended} of {group}"
            self.work(busy[(turn * luck) % len(busy)])
