"""The scheduler's state machine.

Life cycle of a batch in its slot:

    (WAITING ──a slot──▶) FILLING ──all rows done──▶ READY ──pulled──▶ leased ──released──▶ (slot free)
       │  ├──a row failed────▶ FAILED ──pulled──▶ FailCommand; the stream ends
       │  └──only leftover examples of a shard──▶ parked (slot free)
       └──stream closed, or slot reclaimed──▶ DROPPED ──last writer gone──▶ (slot free)

Invariants (tests/scheduler):
    - A stream's batches are delivered exactly once and in order.
    - A worker gets rows only while no other live worker holds them.
    - A slot is free, in use for a batch in the making, or leased; never two of these. At most `leases` slots are
      leased. A batch delivered beyond that says `copy`: its slot is only lent until the copy is done.
    - A stream that is pulled gets a slot, whatever the other streams hold.
    - A stream that was never pulled gets slots only while the others have begun all their batches.
    - One worker at a time reads a shard, and does its tasks in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from stoker.scheduler.commands import (
    Command,
    DeliverCommand,
    FailCommand,
    FinishCommand,
    GiveUpCommand,
    KilledReason,
    LeaveOutCommand,
    RetireWorkerCommand,
    StartWorkerCommand,
)
from stoker.scheduler.events import (
    CloseEvent,
    Event,
    ItemsEvent,
    OpenEvent,
    PullEvent,
    SlotReleasedEvent,
    SlotsSizedEvent,
    TaskDoneEvent,
    TaskFailedEvent,
    WorkerDiedEvent,
    WorkerReadyEvent,
    WorkersEvent,
)
from stoker.scheduler.fault_attribution import FaultAttribution, Verdict
from stoker.scheduler.in_flight import TaskInFlight, first_row, repeated
from stoker.scheduler.pace import Pace
from stoker.scheduler.slot_ledger import SlotLedger
from stoker.scheduler.streams import BatchFailure, BatchInMaking, BatchState, Stream
from stoker.scheduler.task_queue import TaskQueue
from stoker.scheduler.work import FailureReason, IndexWork, ShardWork, Task, is_apart
from stoker.scheduler.worker_starts import WorkerStarts

#: Default number of times a task is repeated after a worker died at it.
RETRIES = 2


class Scheduler:
    """Decides what workers do and what consumers get. Call `on(events)` and carry out the commands in order.

    Args:
        workers: number of workers at first. A worker is up only after its `WorkerReadyEvent`.
        open_stream: creates the stream with a given number, at its first pull or before.
        slots: slots in which batches are made, at least 1. All of them are used only after `SlotsSizedEvent`. One
            more slot is reserved for a stream that is pulled while the others hold all slots.
        leases: additional slots that consumers may hold.
        run: tasks begin and end at multiples of this many rows, or at the end of the batch.
        ahead: whether batches are made before they are pulled.
        retries: how often a task is repeated after a worker died at it.
        skips: whether examples that kill workers are left out.
        bound: the worker that makes all of a given stream; None if any worker may.
    """

    def __init__(
        self,
        *,
        workers: int,
        open_stream: Callable[[int], Stream],
        slots: int,
        leases: int,
        run: int = 1,
        ahead: bool = True,
        retries: int = RETRIES,
        skips: bool = False,
        bound: Callable[[int], int] | None = None,
    ) -> None:
        self._open_stream, self._ahead, self._skips = open_stream, ahead, skips
        self._slots = SlotLedger(slots, leases)
        self._starts_late = False
        self._tasks = TaskQueue(workers, bound)
        self._pace = Pace(workers, run)
        self._starts = WorkerStarts()
        self._running = set(range(workers))  # workers with a process, up or not
        self._retired: set[int] = set()  # those of them that end because they are not wanted
        self._attribution = FaultAttribution(retries, self._tasks.make)
        self._streams: dict[int, Stream] = {}  # ordered by last pull
        self._unpulled: set[int] = set()  # those of them that no consumer has pulled yet

    def on(self, *events: Event) -> list[Command]:
        """Process events in order. Returns the commands to carry out, in order."""
        out: list[Command] = []
        for event in events:
            self._take_in(event, out)
        self._advance(out)
        self._answer(out)
        self._start_batches(out)
        out += self._tasks.submit(self._streams.values(), self._pace.depth)
        if len(self._running) > self._tasks.workers:
            self._retire(out)
        return out

    def _take_in(self, event: Event, out: list[Command]) -> None:
        match event:
            case SlotReleasedEvent(slot):
                self._slots.released(slot)
            case OpenEvent(stream):
                self._streams[stream] = self._open_stream(stream)
                self._unpulled.add(stream)
            case PullEvent(stream):
                self._pulled(stream)
            case TaskDoneEvent(worker):
                self._done(worker, event, out)
            case WorkerReadyEvent(worker):
                self._starts.came_up()
                self._tasks.up[worker] = deque()
            case SlotsSizedEvent(slots, whole, leases, late):
                self._slots.resize(slots, leases)
                self._pace.whole, self._starts_late = whole, late
            case ItemsEvent(stream, items, ended):
                if stream in self._streams:
                    self._streams[stream].fed(items, ended)
            case CloseEvent(stream):
                self._close(stream)
            case TaskFailedEvent(worker, task, reason):
                held = self._finished(worker, task)
                if held.search is not None:
                    self._judged(self._attribution.tried(held.search, None), out)
                else:
                    self._fail(held, reason)
            case WorkersEvent(workers):
                self._tasks.workers = self._pace.workers = workers
                out += [StartWorkerCommand(worker) for worker in range(workers) if worker not in self._running]
                self._running.update(range(workers))
            case WorkerDiedEvent(worker):
                self._died(event, out)
                self._replace(event, out)

    def slots_in_use(self) -> int:
        """Number of slots that are not free: leased, lent, or holding a batch that is being made or ready."""
        return self._slots.in_use()

    def ready(self, stream: int, most: int) -> int:
        """Number of batches, up to `most`, that a stream would deliver at once if they were pulled."""
        return self._streams[stream].ready(most) if stream in self._streams else 0

    def has_begun_all(self) -> bool:
        """True if every stream has begun all its batches, so that workers will soon have nothing to do."""
        return all(stream.has_begun_all() for stream in self._streams.values())

    def free_slots(self) -> list[int]:
        """The slots whose contents are no longer visible to or needed by anyone."""
        return list(self._slots.free)

    @property
    def workers(self) -> int:
        """The number of workers that are wanted, up or not."""
        return self._tasks.workers

    def has_all_workers(self) -> bool:
        """True if exactly the workers that are wanted are up."""
        return len(self._tasks.up) == len(self._running) == self._tasks.workers

    def is_retired(self, worker: int) -> bool:
        """True if a worker ends because it is no longer wanted."""
        return worker in self._retired

    def is_needless(self, worker: int) -> bool:
        """True if a worker's current task is no longer needed.

        Its iteration was closed, its slot was reclaimed for another stream, or its batch fails at an earlier row.
        """
        tasks = self._tasks.up.get(worker, deque())
        return bool(tasks) and tasks[0].is_vain

    # ── consumers ────────────────────────────────────────────────────────────────────────────
    def _pulled(self, number: int) -> None:
        stream = self._streams.pop(number, None) or self._open_stream(number)
        self._streams[number] = stream
        self._unpulled.discard(number)
        stream.pulls += 1

    def _advance(self, out: list[Command]) -> None:
        for stream in self._streams.values():
            commands, free = stream.advance()
            out += commands
            for batch in free:
                self._drop(batch)

    def _answer(self, out: list[Command]) -> None:
        """Deliver batches that are pulled and ready, in each stream's order."""
        for number, stream in list(self._streams.items()):
            while stream.pulls:
                if stream.is_over():
                    out.append(FinishCommand(number))
                    self._close(number)
                    break
                batch = stream.head()
                if batch is None or batch.state in (BatchState.FILLING, BatchState.WAITING):
                    break
                if batch.failure is not None:
                    if batch.writers or self._tasks.is_waiting(batch):
                        break  # an earlier row may fail too: the first failure is reported
                    assert batch.number is not None
                    out.append(FailCommand(number, batch.number, batch.failure.task, batch.failure.reason))
                    self._close(number)
                    break
                stream.pulls -= 1
                self._deliver(stream, batch, out)

    def _deliver(self, stream: Stream, batch: BatchInMaking, out: list[Command]) -> None:
        assert batch.number is not None
        assert batch.slot is not None
        stream.take()
        copy = self._slots.hand_out(batch.slot)
        out.append(DeliverCommand(batch.stream, batch.number, batch.slot, batch.rows, copy))

    def _close(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        self._unpulled.discard(number)
        if stream is not None:
            for batch in stream.batches():
                self._drop(batch)

    def _drop(self, batch: BatchInMaking) -> None:
        batch.state = BatchState.DROPPED
        self._tasks.withdraw(batch)
        if not batch.writers and batch.slot is not None:
            self._slots.free.append(batch.slot)

    # ── workers ──────────────────────────────────────────────────────────────────────────────
    def _finished(self, worker: int, task: int) -> TaskInFlight:
        """The oldest task of `worker`, which has just finished or failed. The worker no longer holds it."""
        held = self._tasks.pop(worker, task)
        self._let_go(held)
        self._attribution.survived(task)
        return held

    def _let_go(self, held: TaskInFlight) -> None:
        held.batch.writers -= 1
        if held.batch.state is BatchState.DROPPED and not held.batch.writers:
            self._slots.free.append(held.task.slot)

    def _done(self, worker: int, done: TaskDoneEvent, out: list[Command]) -> None:
        held = self._finished(worker, done.task)
        batch, work = held.batch, held.task.work
        self._attribution.done(done.task)
        if held.search is not None:
            self._judged(self._attribution.tried(held.search, None), out)
            return
        if done.seconds > 0 and isinstance(work, IndexWork):
            self._pace.measured(done.seconds, work.count)
        if batch.shard is not None and not is_apart(work):
            batch.rows, batch.packed, batch.ended, batch.raw = done.rows, done.packed, done.ended, done.raw
            batch.progress, batch.shard.ended = done.progress, done.ended
        if done.again and not held.is_vain:
            again = self._tasks.make(held, repeated(held.task, done.since))
            self._tasks.add_first(TaskInFlight(again, batch, made_by=worker))
            return
        batch.unfinished -= 1
        if batch.state is BatchState.FILLING and not batch.unfinished:
            batch.state = BatchState.READY

    def _fail(self, held: TaskInFlight, reason: FailureReason) -> None:
        """Mark the batch as failed at its first failing row. Its other writers are waited for."""
        batch = held.batch
        if batch.state is BatchState.DROPPED:
            return
        if batch.failure is None or held.first < first_row(batch.failure.task):
            batch.failure = BatchFailure(held.task, reason)
        batch.state = BatchState.FAILED
        self._tasks.withdraw(batch, first_row(batch.failure.task))

    def _died(self, died: WorkerDiedEvent, out: list[Command]) -> None:
        """Take back the tasks of a dead worker. Only the task it was working on may have killed it."""
        worker = died.worker
        if worker not in self._tasks.up and worker not in self._retired and not died.elsewhere:
            self._starts.failed(worker, killed=died.killed)
        for stream in self._streams.values():
            for shard in stream.shards():
                shard.owner = None if shard.owner == worker else shard.owner
        tasks = self._tasks.up.pop(worker, deque())
        for held in reversed(tasks):
            self._let_go(held)
            if held.is_vain:
                continue
            if held.task.id != died.task:
                self._tasks.add_first(held)
            elif held.search is not None:
                self._judged(self._attribution.tried(held.search, died), out)
            else:
                self._judged(self._attribution.died(held, died), out)

    def _replace(self, died: WorkerDiedEvent, out: list[Command]) -> None:
        """Start a dead worker again if it is wanted."""
        self._retired.discard(died.worker)
        if died.worker >= self._tasks.workers and died.worker in self._running:
            self._running.discard(died.worker)
        elif self._starts.is_hopeless(died.worker, any_up=bool(self._tasks.up)):
            out.append(GiveUpCommand(died.reason))
        else:
            out.append(StartWorkerCommand(died.worker))

    def _retire(self, out: list[Command]) -> None:
        for worker in self._tasks.unwanted(self._streams.values()):
            if worker in self._running:
                del self._tasks.up[worker]
                self._retired.add(worker)
                out.append(RetireWorkerCommand(worker))

    def _judged(self, found: TaskInFlight | Verdict | None, out: list[Command]) -> None:
        """Act on what the attribution found about a task that workers died at."""
        match found:
            case TaskInFlight():
                self._tasks.add_first(found)
            case Verdict(TaskInFlight(Task(work=ShardWork(of=None))) as held, died) if self._skips and died.skippable:
                out.append(LeaveOutCommand(held.task, died.reason))
                self._tasks.add_first(held)
            case Verdict(TaskInFlight(Task(work=IndexWork(first=first, count=1))) as held, died):
                self._fail(held, KilledReason(first, died.reason))
            case Verdict(held, died, row):
                self._fail(held, KilledReason(row, died.reason))

    # ── choosing the next work ───────────────────────────────────────────────────────────────
    def _start_batches(self, out: list[Command]) -> None:
        """Give free slots to the streams: waiting streams first, and no stream more than its share.

        A stream that was never pulled comes last, once the others have begun all their batches.
        Short batches are started several at a time, once half of those ahead are delivered. Waking a worker for each
        one would cost more than the batch itself. Large ones are started one at a time, once no task waits: until then
        the consumer may have released a slot, and the batch needs no other.
        """
        pulled = [stream for stream in self._streams.values() if stream.number not in self._unpulled]
        share = max(1, self._slots.most // max(1, sum(not stream.is_over() for stream in pulled)))
        for stream in sorted(self._streams.values(), key=lambda one: (one.number in self._unpulled, not one.pulls)):
            wanted = share if self._ahead else min(share, stream.pulls)
            if stream.has_begun_all() or (stream not in pulled and not all(one.has_begun_all() for one in pulled)):
                continue
            if self._pace.is_short() and stream.holding() > wanted // 2 and not stream.is_starved():
                continue
            while stream.holding() < wanted or (stream.pulls and stream.is_starved()):
                if self._starts_late and self._tasks.are_waiting() and not (stream.pulls and stream.is_starved()):
                    break
                if not self._slots.is_at_hand() and not self._make_room(stream, share):
                    break
                if not self._start(stream, out):
                    break

    def _make_room(self, needy: Stream, share: int) -> bool:
        """Find a slot: another stream's or, for one that is pulled, the spare one. Returns whether there is one."""
        return self._take_back(needy, share) or (needy.pulls > 0 and needy.is_starved() and bool(self._slots.free))

    def _take_back(self, needy: Stream, share: int) -> bool:
        """Drop the last batch of another stream, which makes it again later. Returns whether a slot is free now.

        A stream that was never pulled gives up everything. To a stream that is pulled, others give up what exceeds
        their share and, while they are not pulled, everything if that stream has nothing.
        """
        if needy.number in self._unpulled:
            return False
        coming_free = self._slots.not_leased() - sum(s.holding() for s in self._streams.values())
        if coming_free > 0:
            return False
        holders = [
            stream
            for stream in self._streams.values()
            if stream.number in self._unpulled
            or (needy.pulls and (stream.holding() > share or (not stream.pulls and not needy.holding())))
        ]
        for stream in sorted(holders, key=lambda stream: (stream.number not in self._unpulled, -stream.holding())):
            batch = stream.give_back()
            if batch is not None:
                self._drop(batch)
                return self._slots.is_at_hand()
        return False

    def _start(self, stream: Stream, out: list[Command]) -> bool:
        start = stream.start(lambda rows: self._pace.task_rows(rows, self._slots.most))
        if start is None:
            return False
        slot = start.batch.slot = self._slots.free.pop()
        if start.before is not None:
            out.append(start.before(slot))
        self._tasks.add(start.batch, slot, start.works)
        return True
