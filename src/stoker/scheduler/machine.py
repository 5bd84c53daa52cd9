"""The state machine.

The life of a batch in its slot:

    FILLING ──all rows done──▶ READY ──pulled──▶ LEASED ──Released──▶ (slot free)
       │  └──a row failed────▶ FAILED ──pulled──▶ Fail, the stream ends
       └──stream closed, or slot taken back──▶ DROPPED ──last writer gone──▶ (slot free)

What always holds (tests/test_scheduler.py):
    - a stream's batches are delivered once each and in order;
    - rows are given to a worker only while no other live worker holds them;
    - a slot is free, being made, or leased, never two of these; at most `leases` are leased,
      and a batch delivered beyond that says `copy`: its slot is only lent for the copying;
    - a stream that is pulled gets a slot, whatever the other streams hold.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from stoker.scheduler.messages import (
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
    Sized,
    Submit,
    Task,
)

#: Deaths after which rows are given to yet another worker; one more death ends the stream.
RETRIES = 3
#: Tasks that a worker holds, so that it never waits for the trainer: the one at work and the next;
#: of short tasks more, up to `DEPTH_SHORT`, but no more than `DEPTH_SECONDS` of work.
DEPTH, DEPTH_SHORT, DEPTH_SECONDS = 2, 8, 0.004
#: What a task should take, in seconds: long against a message, short against an abandoned epoch.
TASK_SECONDS = 0.016
#: Rows of one task at most: all messages to a worker together stay far below the socket's buffer.
TASK_ROWS = 1024


# ── state ────────────────────────────────────────────────────────────────────────────────────
class _State(enum.Enum):
    FILLING = "rows are being made, or wait to be"
    READY = "all rows lie in the slot"
    FAILED = "a row cannot be made; its error waits for its turn"
    DROPPED = "nobody wants it; its slot is free when the last writer is gone"


@dataclass
class _Batch:
    stream: int
    number: int
    slot: int
    unfinished: int  # tasks that are not done, waiting or held by a worker
    state: _State = _State.FILLING
    writers: int = 0  # tasks that live workers hold
    failure: Fail | None = None


@dataclass
class _Stream:
    total: int
    delivered: int = 0
    pulls: int = 0  # unanswered pulls
    batches: dict[int, _Batch] = field(default_factory=dict)  # numbers delivered … next-1, in order

    @property
    def next(self) -> int:
        return self.delivered + len(self.batches)


@dataclass
class _Held:
    task: Task
    batch: _Batch


class Scheduler:
    """The state machine. Call `on(event)` and carry out the commands, in order.

    Args:
        workers: number of workers; none is up before its `Joined`.
        batches: batches of a stream, asked when it opens.
        rows: rows of a batch, by its number.
        slots: slots in which batches are made, at least 1; all are used after `Sized` only.
        leases: slots beyond these that consumers may hold.
        run: tasks begin and end at multiples of so many rows (or at the batch's end).
        ahead: whether batches are made before they are pulled.
    """

    def __init__(
        self,
        *,
        workers: int,
        batches: Callable[[int], int],
        rows: Callable[[int, int], int],
        slots: int,
        leases: int,
        run: int = 1,
        ahead: bool = True,
    ) -> None:
        self._batches, self._rows, self._run, self._ahead = batches, rows, run, ahead
        self._slots, self._leases, self._workers = slots, leases, workers
        self._total = slots + leases
        self._free = list(range(self._total - 1, -1, -1))  # a stack: the slot used last is the warmest
        self._leased: set[int] = set()
        self._lent: set[int] = set()  # being copied out
        self._streams: dict[int, _Stream] = {}  # in the order of their last pull
        self._todo: deque[_Held] = deque()
        self._up: dict[int, deque[_Held]] = {}
        self._deaths: dict[int, int] = {}  # of a task, by its id
        self._failed_starts = 0  # in a row
        self._next_task = 0
        self._row_seconds: float | None = None
        self._depth = DEPTH

    def on(self, event: Event) -> list[Command]:
        """Take in one event; returns what is to be done about it, in order."""
        out: list[Command] = []
        match event:
            case Sized(slots):
                self._slots = slots
            case Joined(worker):
                self._failed_starts = 0
                self._up[worker] = deque()
            case Pulled(stream):
                self._pulled(stream)
            case Closed(stream):
                self._close(stream)
            case Done(worker, task, seconds):
                self._done(worker, task, seconds)
            case Failed(worker, task, reason):
                held = self._finished(worker, task)
                self._fail(held, reason)
            case Died(worker, reason):
                self._failed_starts += worker not in self._up
                self._died(worker, reason)
                out.append(Respawn(worker) if self._failed_starts <= RETRIES else GiveUp(reason))
            case Released(slot):
                self._leased.discard(slot)
                self._lent.discard(slot)
                self._free.append(slot)
        self._answer(out)
        self._start_batches()
        self._submit(out)
        return out

    def slots_in_use(self) -> int:
        """Slots that are not free: leased, being made, or ready."""
        return self._total - len(self._free)

    # ── consumers ────────────────────────────────────────────────────────────────────────────
    def _pulled(self, stream: int) -> None:
        state = self._streams.pop(stream, None) or _Stream(self._batches(stream))
        self._streams[stream] = state
        state.pulls += 1

    def _answer(self, out: list[Command]) -> None:
        """Deliver what is pulled and ready, in each stream's order."""
        for stream, state in list(self._streams.items()):
            while state.pulls:
                if state.delivered == state.total:
                    out.append(Finish(stream))
                    self._close(stream)
                    break
                batch = state.batches.get(state.delivered)
                if batch is None or batch.state is _State.FILLING:
                    break
                if batch.failure is not None:
                    if batch.writers or any(held.batch is batch for held in self._todo):
                        break  # a row before it may fail too: the first one is reported
                    out.append(batch.failure)
                    self._close(stream)
                    break
                state.pulls -= 1
                self._deliver(state, batch, out)

    def _deliver(self, state: _Stream, batch: _Batch, out: list[Command]) -> None:
        del state.batches[batch.number]
        state.delivered += 1
        copy = len(self._leased) >= self._leases
        (self._lent if copy else self._leased).add(batch.slot)
        out.append(Deliver(batch.stream, batch.number, batch.slot, copy))

    def _close(self, stream: int) -> None:
        state = self._streams.pop(stream, None)
        if state is not None:
            for batch in state.batches.values():
                self._drop(batch)

    def _drop(self, batch: _Batch) -> None:
        batch.state = _State.DROPPED
        self._todo = deque(held for held in self._todo if held.batch is not batch)
        if not batch.writers:
            self._free.append(batch.slot)

    # ── workers ──────────────────────────────────────────────────────────────────────────────
    def _finished(self, worker: int, task: int) -> _Held:
        """The oldest task that `worker` held, which it has just finished or failed."""
        held = self._up[worker].popleft()
        if held.task.id != task:
            raise AssertionError(f"worker {worker} reported task {task} while it held {held.task}")
        self._let_go(held)
        self._deaths.pop(task, None)
        return held

    def _let_go(self, held: _Held) -> None:
        held.batch.writers -= 1
        if held.batch.state is _State.DROPPED and not held.batch.writers:
            self._free.append(held.batch.slot)

    def _done(self, worker: int, task: int, seconds: float) -> None:
        held = self._finished(worker, task)
        if seconds > 0:
            each = seconds / held.task.count
            self._row_seconds = each if self._row_seconds is None else 0.75 * self._row_seconds + 0.25 * each
            self._depth = max(DEPTH, min(DEPTH_SHORT, int(DEPTH_SECONDS / seconds)))
        held.batch.unfinished -= 1
        if held.batch.state is _State.FILLING and not held.batch.unfinished:
            held.batch.state = _State.READY

    def _fail(self, held: _Held, reason: object) -> None:
        """Mark the batch as failed, by its first row that fails; its other writers are waited for."""
        batch = held.batch
        if batch.state is _State.DROPPED:
            return
        if batch.failure is None or held.task.first < batch.failure.task.first:
            batch.failure = Fail(batch.stream, held.task, reason)
        batch.state = _State.FAILED
        first = batch.failure.task.first
        self._todo = deque(h for h in self._todo if h.batch is not batch or h.task.first < first)

    def _died(self, worker: int, reason: object) -> None:
        """Take back what a dead worker held; only the task at work, the oldest, may have killed it."""
        tasks = self._up.pop(worker, deque())
        for at_work, held in reversed([(number == 0, held) for number, held in enumerate(tasks)]):
            self._let_go(held)
            if held.batch.state is _State.DROPPED:
                continue
            deaths = self._deaths.get(held.task.id, 0) + at_work
            self._deaths[held.task.id] = deaths
            if deaths > RETRIES:
                del self._deaths[held.task.id]
                self._fail(held, reason)
            elif held.batch.failure is None or held.task.first < held.batch.failure.task.first:
                self._todo.appendleft(held)

    # ── what to make next ────────────────────────────────────────────────────────────────────
    def _start_batches(self) -> None:
        """Give free slots to the streams, those that wait first, none more than its share.

        Short batches are started several at a time, when half of those ahead are delivered: to wake
        a worker for each would cost more than the batch.
        """
        unfinished = sum(state.delivered < state.total for state in self._streams.values())
        share = max(1, self._slots // max(1, unfinished))
        for stream, state in sorted(self._streams.items(), key=lambda item: not item[1].pulls):
            wanted = share if self._ahead else min(share, state.pulls)
            if self._depth > DEPTH and len(state.batches) > wanted // 2:
                continue
            while len(state.batches) < wanted and state.next < state.total:
                if any(batch.failure for batch in state.batches.values()):
                    break
                if not self._slot_at_hand() and not (state.pulls and self._take_back(state, share)):
                    return
                self._start(stream, state)

    def _slot_at_hand(self) -> bool:
        return bool(self._free) and self.slots_in_use() - len(self._leased) < self._slots

    def _take_back(self, taker: _Stream, share: int) -> bool:
        """Drop the last batch of another stream, which makes it again later; whether a slot is free now.

        A stream gives what exceeds its share, and, to one that has nothing, all while nobody pulls it.
        """
        coming_free = self.slots_in_use() - len(self._leased) - sum(len(s.batches) for s in self._streams.values())
        if coming_free:
            return False
        holders = [
            state
            for state in self._streams.values()
            if len(state.batches) > share or (state.batches and not state.pulls and not taker.batches)
        ]
        if not holders:
            return False
        richest = max(holders, key=lambda state: len(state.batches))
        self._drop(richest.batches.pop(richest.next - 1))
        return self._slot_at_hand()

    def _start(self, stream: int, state: _Stream) -> None:
        number, slot = state.next, self._free.pop()
        rows = self._rows(stream, number)
        size = self._task_rows(rows)
        batch = _Batch(stream, number, slot, unfinished=math.ceil(rows / size))
        state.batches[number] = batch
        for first in range(0, rows, size):
            task = Task(self._next_task, stream, number, first, min(size, rows - first), slot)
            self._todo.append(_Held(task, batch))
            self._next_task += 1

    def _task_rows(self, rows: int) -> int:
        """Rows of a task: an even part of the batch until their speed is known, then `TASK_SECONDS` of work.

        Never so many that the batches made ahead are too few tasks to keep every worker busy.
        """
        fair = rows / self._workers
        if self._row_seconds is not None:
            fair = min(TASK_SECONDS / self._row_seconds, rows * self._slots / (self._workers * DEPTH))
        parts = math.ceil(rows / max(1, min(fair, TASK_ROWS)))
        return math.ceil(rows / parts / self._run) * self._run

    def _submit(self, out: list[Command]) -> None:
        while self._todo and self._up:
            worker, held = min(self._up.items(), key=lambda item: len(item[1]))
            if len(held) >= self._depth:
                return
            entry = self._todo.popleft()
            entry.batch.writers += 1
            held.append(entry)
            out.append(Submit(worker, entry.task))
