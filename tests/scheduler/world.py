"""Workers and consumers around a scheduler, which they hold to its promises at every command."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from hypothesis import strategies as st

from stoker.scheduler import RETRIES, SPARE, Scheduler, Stream
from stoker.scheduler.messages import (
    Closed,
    Command,
    Deliver,
    Died,
    Done,
    Event,
    Fail,
    Failed,
    Fed,
    Finish,
    Gather,
    GiveUp,
    Joined,
    Joint,
    Load,
    Park,
    Pulled,
    Released,
    Respawn,
    Rows,
    Stride,
    Submit,
    Task,
)

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
    misfits: frozenset[Row]  # rows that cannot be joined with others
    raws: int  # raw examples that one row is made of
    in_turn: bool

    @property
    def expected(self) -> Expected: ...

    def stream(self, number: int) -> Stream: ...

    def shard(self, index: int) -> list[Row]: ...


@dataclass
class World:
    """Whatever may happen can be done to it; whatever must not happen is an AssertionError."""

    sources: list[Source]
    workers: int = 2
    slots: int = 2
    leases: int = 1
    ahead: bool = True
    up: dict[int, deque[Task]] = field(default_factory=dict)
    lanes: dict[int, dict[tuple[int, int], int]] = field(default_factory=dict)  # by worker: its open shards
    progress: dict[tuple[int, int], int] = field(default_factory=dict)  # rows of a shard that are done
    gone: set[tuple[int, int]] = field(default_factory=set)  # parts that have ended: their items are dropped
    deaths: int = 0
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
        self.expected = [source.expected for source in self.sources]
        self.machine = Scheduler(
            workers=self.workers,
            open_stream=self.open_stream,
            slots=self.slots,
            leases=self.leases,
            ahead=self.ahead,
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

    def open_stream(self, number: int) -> Stream:
        if self.sources[number].items is not None:
            self.events.append(self.fed(number))
        return self.sources[number].stream(number)

    def carry_out(self, command: Command) -> None:
        match command:
            case Submit(worker, task, opens):
                self.submitted(worker, task, opens)
            case Deliver():
                self.deliver(command)
            case Finish(stream):
                assert self.delivered[stream] == self.expected[stream].batches, "it ends when all is delivered"
                assert self.expected[stream].error is None, "no error is lost"
                self.answer(stream, "finished")
            case Fail(stream, batch, _, reason):
                assert batch == len(self.delivered[stream]), "an error comes in its batch's turn"
                if reason == KILLED:
                    assert self.deaths > RETRIES, "one death, or a few, are no error"
                else:
                    assert reason == self.expected[stream].error, "the first error is told"
                    assert self.delivered[stream] == self.expected[stream].batches, "what is before it was delivered"
                self.answer(stream, "failed")
            case Load(stream, slot, rows):
                first = self.loaded.get(stream, 0)
                assert first + rows <= self.arrived.get(stream, 0), "only what has arrived is used"
                self.loaded[stream] = first + rows
                self.inbox[slot] = [(0, row) for row in range(first, first + rows)]
            case Park(stream, parked, slot, rows):
                self.nobody_writes(slot)
                assert (stream, parked) not in self.parked, "a number is used once"
                self.parked[stream, parked] = self.rows_in(slot, rows)
            case Gather(stream, slot, pieces):
                some = [self.parked[stream, piece.parked][piece.start : piece.stop] for piece in pieces]
                self.inbox[slot] = [row for rows in some for row in rows]
            case Respawn(worker):
                self.down.add(worker)
            case GiveUp():
                raise AssertionError("workers that had joined were given up")

    def submitted(self, worker: int, task: Task, opens: bool) -> None:
        assert 0 <= task.slot < self.slots + self.leases + SPARE
        assert task.slot not in self.held, "a leased slot is not written"
        assert task.stream not in self.ended, "nobody works for a stream that has ended"
        for other in (t for tasks in self.up.values() for t in tasks if t.slot == task.slot):
            mine, its = task.work, other.work
            assert isinstance(mine, Rows), "a shard's rows and joined ones have one writer"
            assert isinstance(its, Rows), "a shard's rows and joined ones have one writer"
            assert (other.stream, its.batch) == (task.stream, mine.batch), "a slot has one batch at a time"
            assert its.first + its.count <= mine.first or mine.first + mine.count <= its.first, "rows have one writer"
        if isinstance(task.work, Stride):
            self.reads(worker, task, (task.stream, task.work.shard), opens)
        else:
            assert not opens
        self.up[worker].append(task)

    def reads(self, worker: int, task: Task, key: tuple[int, int], opens: bool) -> None:
        source = self.sources[task.stream]
        readers = [reader for reader, lanes in self.lanes.items() if key in lanes]
        assert readers == ([] if opens else [worker]), "a shard has one reader, which opens it once"
        if opens:
            self.lanes[worker][key] = self.progress.get(key, 0)
        if not source.in_turn:
            others = [other for tasks in self.up.values() for other in tasks if other.stream == task.stream]
            assert all(other.work != task.work for other in others), "of a part nothing is asked ahead"
            assert key not in self.gone, "of a part that has ended nothing is asked"
        if source.items is not None:
            needed = min((key[1] + 1) * source.size, source.items)
            assert self.arrived[task.stream] >= needed, "only what has arrived is used"

    def deliver(self, told: Deliver) -> None:
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
            self.on(Released(slot))
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
        self.up[worker], self.lanes[worker] = deque(), {}
        self.on(Joined(worker))

    def work(self, worker: int) -> None:
        """A worker does the oldest task that it holds."""
        task = self.up[worker].popleft()
        source = self.sources[task.stream]
        done, first, bad = Done(worker, task.id, 0.001), 0, source.bad
        match task.work:
            case Rows(batch, first, some, _):
                start = batch * source.size
                rows = self.inbox[task.slot] if source.items is not None else source.shard(0)[start:]
                rows = rows[first : first + some]
            case Joint():
                rows, bad = self.inbox[task.slot], source.misfits
                assert len(rows) == task.work.rows
            case Stride(shard):
                lanes, key, all_rows = self.lanes[worker], (task.stream, shard), source.shard(shard)
                rows = all_rows[lanes[key] : lanes[key] + source.size]
                lanes[key] += len(rows)
                if bad.intersection(rows):
                    lanes[key] = len(all_rows)  # a generator that has raised gives nothing more
                else:
                    self.progress[key] = lanes[key]
                ended = len(rows) < source.size
                if ended and not source.in_turn:
                    self.gone.add(key)
                parcel, raw = ended or not source.in_turn, lanes[key] * source.raws
                done = Done(worker, task.id, 0.001, len(rows), ended, parcel, raw)
        if not isinstance(task.work, Rows):
            self.memory[task.slot] = {}
        self.memory.setdefault(task.slot, {}).update(enumerate(rows, first))
        wrong = next((row for row in rows if row in bad), None)
        self.on(done if wrong is None else Failed(worker, task.id, wrong))

    def die(self, worker: int) -> None:
        self.deaths += 1
        del self.up[worker], self.lanes[worker]
        self.on(Died(worker, KILLED))

    def pull(self, stream: int) -> None:
        self.delivered.setdefault(stream, [])
        self.pulling.add(stream)
        self.on(Pulled(stream))

    def close(self, stream: int) -> None:
        self.pulling.discard(stream)
        self.ended[stream] = "closed"
        self.on(Closed(stream))

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

    def fed(self, stream: int) -> Fed:
        return Fed(stream, self.arrived.get(stream, 0), stream in self.all_told)

    def release(self, _: int = 0) -> None:
        self.on(Released(self.held.pop(0)))

    def choices(self) -> list[tuple[str, int]]:
        """What may happen next; deaths stay so few that no row may be given up for them."""
        living = [stream for stream in range(len(self.sources)) if stream not in self.ended]
        hungry = [s for s in living if self.sources[s].items is not None and s not in self.all_told]
        often = (
            [("work", worker) for worker, tasks in self.up.items() if tasks]
            + [("pull", stream) for stream in living if stream not in self.pulling]
            + [(what, stream) for stream in hungry for what in ("feed", "flood")]
        )
        seldom = (
            [("join", worker) for worker in self.down]
            + [("die", worker) for worker in self.up if self.deaths < RETRIES]
            + [("close", stream) for stream in living if stream in self.delivered]
            + [("release", 0)] * bool(self.held)
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
        """From here on nothing dies, all items arrive, nothing is released: all streams must end, all slots come back.

        Consumers pull together, or each when the one before has ended.
        """
        for stream, source in enumerate(self.sources):
            while source.items is not None and stream not in self.all_told:
                self.feed(stream, source.items)
        for worker in list(self.down):
            self.join(worker)
        everybody = list(range(len(self.sources)))
        for group in [[stream] for stream in everybody] if one_by_one else [everybody]:
            self.run(group, luck)
        for worker in self.up:
            while self.up[worker]:
                self.work(worker)
        while self.held:
            self.release()
        assert self.machine.slots_in_use() == 0, "every slot comes back"
        assert sorted(self.machine.free_slots()) == list(range(self.slots + self.leases + SPARE))

    def run(self, group: list[int], luck: int = 0) -> None:
        for turn in count():
            for stream in group:
                while stream not in self.ended and stream not in self.pulling:
                    self.pull(stream)
            if all(stream in self.ended for stream in group):
                return
            busy = [worker for worker, tasks in self.up.items() if tasks]
            assert busy, f"stuck: {self.ended} of {group}"
            self.work(busy[(turn * luck) % len(busy)])
