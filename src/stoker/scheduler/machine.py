"""The scheduler's state machine.

Life cycle of a batch in its slot:

    (WAITING ──a slot──▶) FILLING ──all rows done──▶ READY ──pulled──▶ LEASED ──Released──▶ (slot free)
       │  ├──a row failed────▶ FAILED ──pulled──▶ Fail, the stream ends
       │  └──only leftover examples of a shard──▶ parked (slot free)
       └──stream closed, or slot reclaimed──▶ DROPPED ──last writer gone──▶ (slot free)

Invariants (tests/scheduler):
    - A stream's batches are delivered exactly once and in order.
    - A worker gets rows only while no other live worker holds them.
    - A slot is free, in use for a batch in the making, or leased; never two of these. At most `leases` slots are
      leased. A batch delivered beyond that says `copy`: its slot is only lent until the copy is done.
    - A stream that is pulled gets a slot, whatever the other streams hold.
    - One worker at a time reads a shard, and does its tasks in order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable

from stoker.scheduler.commands import (
    Command,
    DeliverCommand,
    FailCommand,
    FinishCommand,
    GiveUpCommand,
    KilledReason,
    LeaveOutCommand,
    RespawnCommand,
    SubmitCommand,
)
from stoker.scheduler.events import (
    CloseEvent,
    Event,
    ItemsEvent,
    PullEvent,
    SlotReleasedEvent,
    SlotsSizedEvent,
    TaskDoneEvent,
    TaskFailedEvent,
    WorkerDiedEvent,
    WorkerReadyEvent,
)
from stoker.scheduler.fault_attribution import FaultAttribution, Verdict
from stoker.scheduler.in_flight import TaskInFlight, first_row, repeated
from stoker.scheduler.streams import BatchFailure, BatchInMaking, BatchState, ShardState, Stream
from stoker.scheduler.work import FailureReason, IndexWork, ShardWork, Task, TrialWork, is_apart

#: Default number of times a task is repeated after a worker died at it.
RETRIES = 2
#: Consecutive failed starts of a worker after which the scheduler gives up: before any worker has come up, and after.
#: Once one has come up, starts are still retried while other workers are up. A start that may have been killed from
#: outside counts half.
STARTS, STARTS_PROVEN = 2, 12
#: Tasks that a worker holds, so that it never waits for the trainer: the current one and the next. Short tasks are
#: queued deeper, up to `DEPTH_SHORT` but at most `DEPTH_SECONDS` of work.
DEPTH, DEPTH_SHORT, DEPTH_SECONDS = 2, 8, 0.004
#: Slots reserved for streams that are pulled while the other streams hold all slots.
SPARE = 1
#: Target duration of a task, in seconds: long compared with a message, so that messages cost little, and short enough
#: that an abandoned epoch wastes little work.
TASK_SECONDS = 0.016
#: Maximum rows per task. Keeps all pending messages to a worker far below the size of the socket's buffer.
TASK_ROWS = 1024


class Scheduler:
    """Decides what workers do and what consumers get. Call `on(events)` and carry out the commands in order.

    Args:
        workers: number of workers. A worker is up only after its `WorkerReadyEvent`.
        open_stream: creates the stream with a given number, at its first pull.
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
        self._skips, self._bound = skips, bound
        self._open_stream, self._run, self._ahead, self._whole = open_stream, run, ahead, False
        self._slots, self._leases, self._workers = slots, leases, workers
        self._total = slots + leases + SPARE
        self._free = list(range(self._total - 1, -1, -1))  # a stack: the most recently used slot is the warmest
        self._leased: set[int] = set()
        self._lent: set[int] = set()  # until their batch is copied out
        self._streams: dict[int, Stream] = {}  # ordered by last pull
        self._todo: deque[TaskInFlight] = deque()
        self._up: dict[int, deque[TaskInFlight]] = {}
        self._attribution = FaultAttribution(retries, self._task)
        self._failed_starts: defaultdict[int, float] = defaultdict(float)  # consecutive, by worker
        self._proven = False  # a worker has come up, so the program can be loaded
        self._next_task = 0
        self._row_seconds: float | None = None
        self._depth = DEPTH

    def on(self, *events: Event) -> list[Command]:
        """Process events in order. Returns the commands to carry out, in order."""
        out: list[Command] = []
        for event in events:
            self._take_in(event, out)
        self._advance(out)
        self._answer(out)
        self._start_batches(out)
        self._submit(out)
        return out

    def _take_in(self, event: Event, out: list[Command]) -> None:
        match event:
            case SlotReleasedEvent(slot):
                self._leased.discard(slot)
                self._lent.discard(slot)
                self._free.append(slot)
            case PullEvent(stream):
                self._pulled(stream)
            case TaskDoneEvent(worker):
                self._done(worker, event, out)
            case WorkerReadyEvent(worker):
                self._failed_starts.clear()
                self._proven = True
                self._up[worker] = deque()
            case SlotsSizedEvent(slots, whole, leases):
                self._slots, self._whole = slots, whole
                self._leases = self._leases if leases is None else leases
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
            case WorkerDiedEvent(worker, reason):
                if worker not in self._up:
                    self._failed_starts[worker] += 0.5 if event.killed else 1
                self._died(event, out)
                out.append(GiveUpCommand(reason) if self._is_hopeless(worker) else RespawnCommand(worker))

    def _is_hopeless(self, worker: int) -> bool:
        """True if a worker's starts have failed so often that the program or the machine is to blame."""
        failed = self._failed_starts[worker]
        return failed >= STARTS_PROVEN and not self._up if self._proven else failed >= STARTS

    def slots_in_use(self) -> int:
        """Number of slots that are not free: leased, lent, or holding a batch that is being made or ready."""
        return self._total - len(self._free)

    def ready(self, stream: int, most: int) -> int:
        """Number of batches, up to `most`, that a stream would deliver at once if they were pulled."""
        return self._streams[stream].ready(most) if stream in self._streams else 0

    def free_slots(self) -> list[int]:
        """The slots whose contents are no longer visible to or needed by anyone."""
        return list(self._free)

    def is_needless(self, worker: int) -> bool:
        """True if a worker's current task is no longer needed.

        Its iteration was closed, its slot was reclaimed for another stream, or its batch fails at an earlier row.
        """
        tasks = self._up.get(worker, deque())
        return bool(tasks) and tasks[0].is_vain

    # ── consumers ────────────────────────────────────────────────────────────────────────────
    def _pulled(self, number: int) -> None:
        stream = self._streams.pop(number, None) or self._open_stream(number)
        self._streams[number] = stream
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
                    if batch.writers or any(held.batch is batch for held in self._todo):
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
        copy = len(self._leased) >= self._leases
        (self._lent if copy else self._leased).add(batch.slot)
        out.append(DeliverCommand(batch.stream, batch.number, batch.slot, batch.rows, copy))

    def _close(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            for batch in stream.batches():
                self._drop(batch)

    def _drop(self, batch: BatchInMaking) -> None:
        batch.state = BatchState.DROPPED
        self._todo = deque(held for held in self._todo if held.batch is not batch)
        if not batch.writers and batch.slot is not None:
            self._free.append(batch.slot)

    # ── workers ──────────────────────────────────────────────────────────────────────────────
    def _finished(self, worker: int, task: int) -> TaskInFlight:
        """Removes and returns the oldest task of `worker`, which has just finished or failed."""
        held = self._up[worker].popleft()
        if held.task.id != task:
            raise AssertionError(f"worker {worker} reported task {task} while it held {held.task}")
        self._let_go(held)
        self._attribution.survived(task)
        return held

    def _let_go(self, held: TaskInFlight) -> None:
        held.batch.writers -= 1
        if held.batch.state is BatchState.DROPPED and not held.batch.writers:
            self._free.append(held.task.slot)

    def _done(self, worker: int, done: TaskDoneEvent, out: list[Command]) -> None:
        held = self._finished(worker, done.task)
        batch, work = held.batch, held.task.work
        self._attribution.done(done.task)
        if held.search is not None:
            self._judged(self._attribution.tried(held.search, None), out)
            return
        if done.seconds > 0 and isinstance(work, IndexWork):
            each = done.seconds / work.count
            self._row_seconds = each if self._row_seconds is None else 0.75 * self._row_seconds + 0.25 * each
            self._depth = max(DEPTH, min(DEPTH_SHORT, int(DEPTH_SECONDS / done.seconds)))
        if batch.shard is not None and not is_apart(work):
            batch.rows, batch.packed, batch.ended, batch.raw = done.rows, done.packed, done.ended, done.raw
            batch.come, batch.shard.ended = done.come, done.ended
        if done.again and not held.is_vain:
            self._todo.appendleft(
                TaskInFlight(self._task(held, repeated(held.task, done.since)), batch, made_by=worker)
            )
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
        first = first_row(batch.failure.task)
        self._todo = deque(h for h in self._todo if h.batch is not batch or h.first < first)

    def _died(self, died: WorkerDiedEvent, out: list[Command]) -> None:
        """Take back the tasks of a dead worker. Only the task it was working on may have killed it."""
        worker = died.worker
        for stream in self._streams.values():
            for shard in stream.shards():
                shard.owner = None if shard.owner == worker else shard.owner
        tasks = self._up.pop(worker, deque())
        for held in reversed(tasks):
            self._let_go(held)
            if held.is_vain:
                continue
            if held.task.id != died.task:
                self._todo.appendleft(held)
            elif held.search is not None:
                self._judged(self._attribution.tried(held.search, died), out)
            else:
                self._judged(self._attribution.died(held, died), out)

    def _judged(self, found: TaskInFlight | Verdict | None, out: list[Command]) -> None:
        """Act on what the attribution found about a task that workers died at."""
        match found:
            case TaskInFlight():
                self._todo.appendleft(found)
            case Verdict(TaskInFlight(Task(work=ShardWork(of=None))) as held, died) if self._skips and died.skippable:
                out.append(LeaveOutCommand(held.task, died.reason))
                self._todo.appendleft(held)
            case Verdict(TaskInFlight(Task(work=IndexWork(first=first, count=1))) as held, died):
                self._fail(held, KilledReason(first, died.reason))
            case Verdict(held, died, row):
                self._fail(held, KilledReason(row, died.reason))

    def _task(self, held: TaskInFlight, work: TrialWork | ShardWork) -> Task:
        """A new task for the same stream and slot as `held`."""
        self._next_task += 1
        return Task(self._next_task - 1, held.task.stream, held.task.slot, work)

    # ── choosing the next work ───────────────────────────────────────────────────────────────
    def _start_batches(self, out: list[Command]) -> None:
        """Give free slots to the streams: waiting streams first, and no stream more than its share.

        Short batches are started several at a time, once half of those ahead are delivered. Waking a worker for each
        one would cost more than the batch itself.
        """
        share = max(1, self._slots // max(1, sum(not stream.is_over() for stream in self._streams.values())))
        for stream in sorted(self._streams.values(), key=lambda stream: not stream.pulls):
            wanted = share if self._ahead else min(share, stream.pulls)
            if self._depth > DEPTH and stream.holding() > wanted // 2 and not stream.is_starved():
                continue
            while stream.holding() < wanted or (stream.pulls and stream.is_starved()):
                if not self._slot_at_hand() and not (stream.pulls and self._make_room(stream, share)):
                    break
                if not self._start(stream, out):
                    break

    def _slot_at_hand(self) -> bool:
        return bool(self._free) and self.slots_in_use() - len(self._leased) < self._slots

    def _make_room(self, needy: Stream, share: int) -> bool:
        """Find a slot for a stream that is pulled: another stream's, or the spare one. Returns whether there is one."""
        return self._take_back(needy, share) or (needy.is_starved() and bool(self._free))

    def _take_back(self, needy: Stream, share: int) -> bool:
        """Drop the last batch of another stream, which makes it again later. Returns whether a slot is free now.

        A stream gives up what exceeds its share. While it is not pulled, it gives up everything to a stream that has
        nothing.
        """
        coming_free = self.slots_in_use() - len(self._leased) - sum(s.holding() for s in self._streams.values())
        if coming_free > 0:
            return False
        holders = [
            stream
            for stream in self._streams.values()
            if stream.holding() > share or (stream.holding() and not stream.pulls and not needy.holding())
        ]
        for stream in sorted(holders, key=lambda stream: -stream.holding()):
            batch = stream.give_back()
            if batch is not None:
                self._drop(batch)
                return self._slot_at_hand()
        return False

    def _start(self, stream: Stream, out: list[Command]) -> bool:
        start = stream.start(self._task_rows)
        if start is None:
            return False
        batch = start.batch
        batch.slot = slot = self._free.pop()
        if start.before is not None:
            out.append(start.before(slot))
        for work in start.works:
            self._todo.append(TaskInFlight(Task(self._next_task, batch.stream, slot, work), batch))
            self._next_task += 1
        return True

    def _task_rows(self, rows: int) -> int:
        """Rows per task: an even part of the batch until the speed is known, then `TASK_SECONDS` of work.

        The number is limited so that the batches made ahead yield enough tasks to keep every worker busy.
        """
        if self._whole:
            return rows
        fair = rows / self._workers
        if self._row_seconds is not None:
            fair = min(TASK_SECONDS / self._row_seconds, rows * self._slots / (self._workers * DEPTH))
        parts = math.ceil(rows / max(1, min(fair, TASK_ROWS)))
        return math.ceil(rows / parts / self._run) * self._run

    def _submit(self, out: list[Command]) -> None:
        if not self._todo or not self._up:
            return
        waiting: deque[TaskInFlight] = deque()
        behind: set[ShardState] = set()  # shards with an earlier task that is still waiting
        while self._todo:
            entry = self._todo.popleft()
            shard = None if is_apart(entry.task.work) else entry.batch.shard
            is_late = shard is not None and (shard in behind or shard.on_trial)
            worker = None if is_late else self._worker_for(entry, shard)
            if worker is None:
                waiting.append(entry)
                if shard is not None:
                    behind.add(shard)
                if shard is not None or self._bound is not None:
                    continue
                break
            opens = shard is not None and shard.owner is None
            if shard is not None:
                shard.owner = worker
            entry.batch.writers += 1
            self._up[worker].append(entry)
            out.append(SubmitCommand(worker, entry.task, opens))
        self._todo.extendleft(reversed(waiting))

    def _worker_for(self, entry: TaskInFlight, shard: ShardState | None) -> int | None:
        """The worker that takes the next task, or None while that worker holds enough tasks.

        A shard stays with the worker that has it open. A new shard goes to the worker with the fewest shards. No
        worker gets more than its share of them, even while the others are still starting.
        """
        but, depth = entry.made_by, 1 if entry.batch.spread else self._depth
        if self._bound is not None:
            worker = self._bound(entry.task.stream)
            return worker if worker in self._up and len(self._up[worker]) < depth else None
        if shard is None and but is not None and self._workers > 1 and list(self._up) == [but]:
            return None
        if shard is None:
            worker = min(self._up, key=lambda worker: (worker == but, len(self._up[worker])))
        elif shard.owner is not None:
            worker = shard.owner
        else:
            owners = [s.owner for stream in self._streams.values() for s in stream.shards() if not s.ended]
            owned = Counter(owner for owner in owners if owner is not None)
            worker = min(self._up, key=lambda worker: (owned[worker], len(self._up[worker])))
            if not shard.ended and owned[worker] >= math.ceil(len(owners) / self._workers):
                return None
        return worker if len(self._up[worker]) < depth else None
