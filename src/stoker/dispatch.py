"""The one place where consumers, scheduler, engine and slots meet.

Every event goes through `_step`, under one lock: the scheduler says what to do, and it is done.
Pulling threads bring pulls and carry out what follows from them themselves; the engine's thread
brings what workers say. No user code, no copy and no wait happens under the lock.
"""

from __future__ import annotations

import atexit
import os
import pickle
import threading
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stoker.engines import Answer, Death, Engine
from stoker.engines.deaths import died_at_start, died_at_work
from stoker.errors import ClosedError, StokerError
from stoker.memory import Layout, Leases, Slot
from stoker.memory.layout import aligned_copy
from stoker.plan import Order, Plan
from stoker.scheduler import (
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
    Sized,
    Submit,
    Task,
)
from stoker.spec import Spec
from stoker.worker.messages import Describe, Described, Failure, Finished, Hello, SpecKnown, Work
from stoker.worker.report import raisable

#: The stream whose only batch is the answer to "what does example 0 look like?".
_PROBE: Final = 0
#: Slots that consumers may hold; batches beyond are copied out. TensorFlow holds what it prefetches (up to 6) and 2.
LEASES = 10
#: Slots for batches made ahead when the user does not say: as many as fit into this many bytes, within the bounds.
_AHEAD_BYTES, _AHEAD_LEAST, AHEAD_MOST = 64 << 20, 2, 16


@dataclass
class _Epoch:
    number: int
    order: Order


@dataclass
class _Outbox:
    """What waits for the consumer of a stream, and whether it has asked."""

    asked: bool = False
    outcomes: deque[Deliver | Finish | Fail] = field(default_factory=deque)


@dataclass(frozen=True)
class _Told:
    """A failure, and the worker that told of it."""

    worker: int
    failure: Failure


class _Probe:
    """One attempt to find the spec, and how it failed."""

    error: StokerError | None = None


class Dispatcher:
    """Serves the streams of one Loader.

    Args:
        plan: which examples make which batch.
        slots: the slots, `LEASES` of them for consumers.
        engine: who runs the workers; started at the first pull.
        workers: how many.
        prefetch: batches made ahead, or None to choose by their size.
        run: rows that a task's boundaries are multiples of.
    """

    def __init__(
        self, plan: Plan, slots: list[Slot], engine: Engine, *, workers: int, prefetch: int | None, run: int
    ) -> None:
        self._plan, self._slots, self._engine = plan, slots, engine
        self._prefetch, self._inline = prefetch, workers == 0
        self._scheduler = Scheduler(
            workers=max(1, workers),
            batches=lambda stream: 1 if stream == _PROBE else plan.batches,
            rows=lambda stream, batch: 1 if stream == _PROBE else plan.rows(batch),
            slots=len(slots) - LEASES,
            leases=LEASES,
            run=run,
            ahead=not self._inline,
        )
        self._changed = threading.Condition(threading.Lock())
        self._events: deque[Event] = deque()
        self._leases = Leases()
        self._dropped: deque[int] = deque()
        self._outboxes: dict[int, _Outbox] = {}
        self._epochs: dict[int, _Epoch] = {}
        self._streams = 0
        self._next_epoch = 0
        self._spec: Spec | None = None
        self._probe: _Probe | None = None
        self._layout: Layout | None = None
        self._pid = os.getpid()
        self._started = self._closed = False
        self._broken: StokerError | None = None
        _live.add(self)

    # ── consumers, from any thread ───────────────────────────────────────────────────────────
    def open_stream(self) -> int:
        """A number for a new stream; its epoch begins at its first pull."""
        with self._changed:
            self._streams += 1
            return self._streams

    def spec(self) -> Spec:
        """What an example looks like; finds it out at the first call."""
        with self._changed:
            self._check()
            if not self._started:
                self._engine.start(self)
                self._started = True
            probe = self._probe
            if self._spec is None and probe is None:
                probe = self._probe = _Probe()
                self._step(Pulled(_PROBE))
            while self._spec is None:
                if probe is not None and probe.error is not None:
                    raise probe.error
                self._check()
                self._engine.idle(self._changed)
            return self._spec

    def pull(self, stream: int) -> list[npt.NDArray[Any]]:
        """The leaves of a stream's next batch; raises StopIteration at the epoch's end."""
        self.spec()
        with self._changed:
            if stream not in self._epochs:
                self._epochs[stream] = _Epoch(self._next_epoch, self._plan.order(self._next_epoch))
                self._next_epoch += 1
            outcome = self._wait(stream)
            if isinstance(outcome, Fail):
                error = self._error(outcome)
            if not isinstance(outcome, Deliver):
                self._forget(stream)
            else:
                leaves = self._view(outcome)
        if isinstance(outcome, Finish):
            raise StopIteration
        if isinstance(outcome, Fail):
            raise error
        return self._copied(outcome, leaves) if outcome.copy else leaves

    def _copied(self, outcome: Deliver, leaves: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Copies of the leaves; their slot is free then, in any case."""
        try:
            return [aligned_copy(leaf) for leaf in leaves]
        finally:
            with self._changed:
                self._step(Released(outcome.slot))

    def close_stream(self, stream: int) -> None:
        """Nobody will pull this stream again."""
        with self._changed:
            self._step(Closed(stream))
            self._tell()

    def drop_stream(self, stream: int) -> None:
        """`close_stream` for finalizers: takes no lock, and is carried out with the next event."""
        self._dropped.append(stream)

    # ── the end ──────────────────────────────────────────────────────────────────────────────
    def request_stop(self) -> None:
        """Let the workers go, without waiting and without a lock: for finalizers."""
        if os.getpid() == self._pid:
            self._closed = True
            self._engine.request_stop()

    def close(self) -> None:
        """End the workers, and wake whoever waits for a batch."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            first, self._closed = not self._closed, True
            self._tell()
        self._engine.stop()
        if first:
            for slot in self._slots:
                slot.close()

    # ── Listener: from the engine ────────────────────────────────────────────────────────────
    def heard(self, worker: int, answer: Answer) -> None:
        with self._changed:
            match answer:
                case Hello():
                    self._step(Joined(worker))
                case Finished(task, seconds):
                    self._step(Done(worker, task, seconds))
                case Described(task, pickled):
                    self._known = SpecKnown(pickled)
                    self._step(Done(worker, task, 0.0))
                case Failure(task=-1):
                    self._give_up(raisable(answer, epoch=None, batch=None, worker=worker))
                case Failure(task):
                    self._step(Failed(worker, task, _Told(worker, answer)))

    def died(self, death: Death) -> None:
        with self._changed:
            self._step(Died(death.worker, death))

    def collapsed(self, error: BaseException) -> None:
        with self._changed:
            self._cut_short(error)

    # ── under the lock ───────────────────────────────────────────────────────────────────────
    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise ClosedError(
                "this Loader belongs to the process that made it, and this is a fork of it. Make a new Loader here."
            )
        if self._closed:
            raise ClosedError(
                "this Loader is closed. Make a new one, or iterate before `close()` or the end of `with`."
            )
        if self._broken is not None:
            raise self._broken

    def _wait(self, stream: int) -> Deliver | Finish | Fail:
        """Ask for the next outcome of a stream, once, and wait for it; an interrupted wait asks no second time."""
        outbox = self._outboxes.setdefault(stream, _Outbox())
        if not outbox.asked:
            outbox.asked = True
            self._step(Pulled(stream))
        self._check()
        while not outbox.outcomes:
            self._engine.idle(self._changed)
            self._check()
            if stream != _PROBE and self._outboxes.get(stream) is not outbox:
                raise StopIteration  # another thread closed the iteration
        outbox.asked = False
        return outbox.outcomes.popleft()

    def _forget(self, stream: int) -> None:
        outbox = self._outboxes.pop(stream, None)
        self._epochs.pop(stream, None)
        if outbox is not None:  # what was delivered and never taken, because the pull was interrupted
            self._events += [Released(o.slot) for o in outbox.outcomes if isinstance(o, Deliver)]

    def _tell(self) -> None:
        """Wake all threads that wait for an outcome."""
        self._changed.notify_all()
        self._engine.nudge()

    def _step(self, event: Event) -> None:
        """Take in an event, with the releases and drops that finalizers noted, and do what follows from each."""
        if self._closed or self._broken is not None:
            return
        try:
            self._events.extend(Released(slot) for slot in self._leases.ended())
            while self._dropped:
                self._events.append(Closed(self._dropped.popleft()))
            self._events.append(event)
            while self._events:
                now = self._events.popleft()
                for command in self._scheduler.on(now):
                    self._do(command)
                if isinstance(now, Closed):
                    self._forget(now.stream)
        except BaseException as error:  # Ctrl-C too: half of an event is worse than an end
            self._cut_short(error)
            raise

    def _do(self, command: Command) -> None:
        match command:
            case Submit(worker, task):
                self._engine.submit(worker, self._message(task))
            case Deliver(stream=0):
                self._learn(command)
            case Fail(stream=0):
                assert self._probe is not None
                self._probe.error, self._probe = self._error(command), None
                self._tell()
            case Deliver(stream) | Finish(stream) | Fail(stream):
                self._outboxes[stream].outcomes.append(command)
                self._tell()
            case Respawn(worker):
                if not self._closed:
                    self._engine.respawn(worker)
            case GiveUp(reason):
                self._give_up(died_at_start(reason))

    def _message(self, task: Task) -> Describe | Work:
        if task.stream == _PROBE:
            return Describe(task.id)
        epoch = self._epochs[task.stream]
        return Work(task.id, epoch.number, task.slot, task.first, self._plan.rows(task.batch), self._examples(task))

    def _examples(self, task: Task) -> npt.NDArray[np.int64]:
        if task.stream == _PROBE:
            return np.zeros(1, np.int64)
        start = task.batch * self._plan.batch_size + task.first
        return self._epochs[task.stream].order.indices(start, start + task.count)

    def _learn(self, answer: Deliver) -> None:
        """The first worker has described example 0: give the slots their size, and tell all workers."""
        spec: Spec = pickle.loads(self._known.pickled)
        layout = self._layout = Layout.of(spec.leaves, self._plan.batch_size)
        for slot in self._slots:
            slot.resize(layout.nbytes)
        self._engine.tell(self._known)
        most = len(self._slots) - LEASES
        fitting = min(most, max(_AHEAD_LEAST, _AHEAD_BYTES // layout.nbytes))
        self._spec = spec
        self._events += [Closed(_PROBE), Sized(self._prefetch or fitting), Released(answer.slot)]
        self._tell()

    def _view(self, delivered: Deliver) -> list[npt.NDArray[Any]]:
        assert self._layout is not None
        leaves = self._layout.view(self._slots[delivered.slot].readable(), self._plan.rows(delivered.batch))
        if not delivered.copy:
            self._leases.grant(delivered.slot, leaves)
        return leaves

    def _cut_short(self, error: BaseException) -> None:
        """An event was not carried out to its end: whoever waits is told, rather than waiting for ever."""
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        broken = StokerError(f"this Loader was cut short at work ({what}) and cannot go on. Make a new one.")
        broken.__cause__ = error
        self._give_up(broken)

    def _give_up(self, error: StokerError) -> None:
        """No stream gets any further; the first reason counts."""
        self._broken = self._broken or error
        self._engine.request_stop()
        self._tell()

    def _error(self, fail: Fail) -> StokerError:
        epoch = self._epochs[fail.stream].number if fail.stream != _PROBE else 0
        if isinstance(fail.reason, Death):
            return died_at_work(fail.reason, self._examples(fail.task).tolist(), epoch, fail.task.batch)
        assert isinstance(fail.reason, _Told)
        worker = None if self._inline else fail.reason.worker
        return raisable(fail.reason.failure, epoch=epoch, batch=fail.task.batch, worker=worker)


# ── the end of the interpreter ───────────────────────────────────────────────────────────────
_live: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
_exiting = False


def exiting() -> bool:
    """Whether the interpreter is on its way out."""
    return _exiting


@atexit.register
def _close_all() -> None:
    global _exiting
    _exiting = True
    for dispatcher in list(_live):
        dispatcher.close()


def close_before_others() -> None:
    """Let this module's exit hook run before those of the libraries imported so far."""
    atexit.unregister(_close_all)
    atexit.register(_close_all)
