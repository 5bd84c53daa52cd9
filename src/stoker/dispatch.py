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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stoker.collation import Form
from stoker.engines import Answer, Death, Engine
from stoker.engines.deaths import died_at_start, died_at_work
from stoker.epochs import Epoch, ItemEpoch
from stoker.errors import ClosedError, StokerError
from stoker.memory import Inbox, Layout, Leases, Slot
from stoker.memory.layout import aligned_copy
from stoker.scheduler import SPARE, RowsStream, Scheduler, Stream
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
    Load,
    Park,
    Pulled,
    Released,
    Respawn,
    Sized,
    Submit,
    Task,
    WrongLength,
)
from stoker.worker.messages import Describe, Described, Failure, Finished, FormKnown, Hello, Leave, Progress
from stoker.worker.report import raisable, wrong_length

#: The stream whose only batch is the answer to "what do the examples look like?".
_PROBE: Final = 0
#: Slots that consumers may hold; batches beyond are copied out. TensorFlow holds what it prefetches (up to 6) and 2.
LEASES = 10
#: Slots for batches made ahead when the user does not say: as many as fit into this many bytes, within the bounds.
_AHEAD_BYTES, _AHEAD_LEAST, AHEAD_MOST = 64 << 20, 2, 16


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
    """One attempt to find the form of the batches, and how it failed."""

    error: BaseException | None = None


class Dispatcher:
    """Serves the streams of one Loader.

    Args:
        make_epoch: makes the epoch with this number; gets the function to call with the number of items
            pulled and whether there are no more, and whether components are serialised.
        batch_size: rows of a full batch.
        slots: the slots, `LEASES` of them for consumers.
        inboxes: theirs.
        engine: who runs the workers; started at the first pull.
        workers: how many.
        prefetch: batches made ahead, or None to choose by their size.
        run: rows that a task's boundaries are multiples of.
        look: items of an iterable that are looked at to find out what batches look like.
        form: what batches look like, or None to find out.
        memory_limit: bytes that all slots together may take.
    """

    def __init__(
        self,
        make_epoch: Callable[[int, Callable[[int, bool], None], bool], Epoch],
        slots: list[Slot],
        inboxes: list[Inbox],
        engine: Engine,
        *,
        batch_size: int,
        workers: int,
        prefetch: int | None,
        run: int,
        look: int,
        form: Form | None,
        memory_limit: int,
    ) -> None:
        self._make_epoch, self._slots, self._inboxes, self._engine = make_epoch, slots, inboxes, engine
        self._batch_size, self._prefetch, self._workers, self._limit = batch_size, prefetch, workers, memory_limit
        self._look = look
        self._most = len(slots) - LEASES - SPARE
        self._scheduler = Scheduler(
            workers=max(1, workers),
            open_stream=self._open_stream,
            slots=self._most,
            leases=LEASES,
            run=run,
            ahead=workers > 0,
        )
        self._changed = threading.Condition(threading.Lock())
        self._events: deque[Event] = deque()
        self._leases = Leases()
        self._dropped: deque[int] = deque()
        self._outboxes: dict[int, _Outbox] = {}
        self._epochs: dict[int, Epoch] = {}
        self._first: Epoch | None = None  # the next epoch's, whose items the probe looks at
        self._serialized: set[int] = set()
        self._tasks: dict[int, Task] = {}
        self._streams = 0
        self._next_epoch = 0
        self._told_form = form
        self._form: Form | None = None
        self._probe: _Probe | None = None
        self._layout: Layout | None = None
        self._layouts: dict[int, Layout] = {}  # of batches whose sizes differ, by slot
        self._grown = dict.fromkeys(range(len(slots)), 0)
        self._largest = 0
        self._pid = os.getpid()
        self._started = self._closed = False
        self._broken: StokerError | None = None
        self.uneven = False  # a transform returned SKIP or Many
        _live.add(self)

    # ── consumers, from any thread ───────────────────────────────────────────────────────────
    def open_stream(self, serialized: bool = False) -> int:
        """A number for a new stream; its epoch begins at its first pull."""
        with self._changed:
            self._streams += 1
            if serialized:
                self._serialized.add(self._streams)
            return self._streams

    def form(self) -> Form:
        """What batches look like; finds it out at the first call."""
        with self._changed:
            self._check()
            if not self._started:
                self._engine.start(self)
                self._started = True
                if self._told_form is not None:
                    self._learn(self._told_form)
            probe = self._probe
            while self._form is None:
                if probe is not None and probe.error is not None:
                    raise probe.error
                self._check()
                if self._probe is None:
                    probe = self._probe = _Probe()
                    self._begin_probe()
                self._engine.idle(self._changed)
            return self._form

    def pull(self, stream: int) -> list[npt.NDArray[Any]]:
        """The arrays of a stream's next batch; raises StopIteration at the epoch's end."""
        self.form()
        with self._changed:
            self._begin(stream)
            outcome = self._wait(stream)
            if isinstance(outcome, Fail):
                error: BaseException | None = self._error(outcome)
            if not isinstance(outcome, Deliver):
                if isinstance(outcome, Finish):
                    error = self._raised(stream)
                self._forget(stream)
            else:
                leaves = self._view(outcome)
        if not isinstance(outcome, Deliver):
            if error is not None:
                raise error
            raise StopIteration
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
            epochs = [*self._epochs.values(), *([self._first] if self._first is not None else [])]
        for epoch in epochs:
            epoch.close()
        self._engine.stop()
        if first:
            for memory in (*self._slots, *self._inboxes):
                memory.close()

    # ── Listener: from the engine ────────────────────────────────────────────────────────────
    def heard(self, worker: int, answer: Answer) -> None:
        with self._changed:
            match answer:
                case Hello():
                    self._step(Joined(worker))
                case Finished():
                    self._finished(worker, answer)
                case Described(task, pickled):
                    self._known = FormKnown(pickled)
                    self._step(Done(worker, task, 0.0))
                case Failure(task=-1):
                    error = raisable(answer, epoch=None, batch=None, worker=worker)
                    assert isinstance(error, StokerError)
                    self._give_up(error)
                case Failure(task):
                    self._tasks.pop(task, None)
                    self._step(Failed(worker, task, _Told(worker, answer)))

    def died(self, death: Death) -> None:
        with self._changed:
            self._step(Died(death.worker, death))

    def collapsed(self, error: BaseException) -> None:
        with self._changed:
            self._cut_short(error)

    # ── from the threads that pull iterables ─────────────────────────────────────────────────
    def fed(self, epoch: int, items: int, ended: bool) -> None:
        """So many items of this epoch's iterable have been pulled."""
        with self._changed:
            for stream, its in self._epochs.items():
                if isinstance(its, ItemEpoch) and its.number == epoch and stream in self._outboxes:
                    self._step(Fed(stream, its.arrived(items), ended))
                    break
            self._tell()

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

    def _begin(self, stream: int) -> None:
        """Give the stream its epoch, if this is its first pull."""
        if stream not in self._epochs:
            self._epochs[stream] = self._first or self._new_epoch(stream in self._serialized)
            self._epochs[stream].serialized = stream in self._serialized
            self._first = None

    def _new_epoch(self, serialized: bool = False) -> Epoch:
        number = self._next_epoch
        self._next_epoch += 1
        epoch = self._make_epoch(number, lambda items, ended: self.fed(number, items, ended), serialized)
        epoch.uneven = epoch.uneven or self.uneven
        return epoch

    def _open_stream(self, number: int) -> Stream:
        if number == _PROBE:
            return RowsStream(_PROBE, 1, lambda batch: 1, 1)
        epoch = self._epochs[number]
        if isinstance(epoch, ItemEpoch):
            items, ended = epoch.puller.pulled, epoch.puller.ended is not None
            self._events.append(Fed(number, epoch.arrived(items), ended))
        return epoch.stream(number)

    def _begin_probe(self) -> None:
        """Ask for the form; of an iterable, once its first items are there."""
        self._first = self._first or self._new_epoch()
        if isinstance(self._first, ItemEpoch):
            puller = self._first.puller
            puller.want(self._look)
            while puller.count() < self._look and puller.ended is None:
                self._check()
                self._changed.wait(0.1)
            if puller.ended is not None and puller.ended.error is not None and not puller.count():
                epoch, self._first, self._probe = self._first, None, None
                epoch.close()
                assert puller.ended.error is not None
                raise puller.ended.error
        self._step(Pulled(_PROBE))

    def _can_look_further(self) -> bool:
        """Whether an iterable has more items than those in which no example was found."""
        first = self._first
        return isinstance(first, ItemEpoch) and (first.puller.ended is None or first.puller.count() > self._look)

    def _raised(self, stream: int) -> BaseException | None:
        """What a stream's iterable raised when it ended."""
        epoch = self._epochs.get(stream)
        if isinstance(epoch, ItemEpoch) and epoch.puller.ended is not None:
            return epoch.puller.ended.error
        return None

    def _forget(self, stream: int) -> None:
        outbox = self._outboxes.pop(stream, None)
        epoch = self._epochs.pop(stream, None)
        self._serialized.discard(stream)
        if outbox is not None:  # what was delivered and never taken, because the pull was interrupted
            self._events += [Released(o.slot) for o in outbox.outcomes if isinstance(o, Deliver)]
        if epoch is not None:
            epoch.close()
            if epoch.has_shards and not self._closed:
                self._engine.leave(Leave(epoch.number))

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
            self._engine.flush()
        except BaseException as error:  # Ctrl-C too: half of an event is worse than an end
            self._cut_short(error)
            raise

    def _do(self, command: Command) -> None:
        match command:
            case Submit(worker, task, opens):
                self._submit(worker, task, opens)
            case Deliver(stream=0):
                self._learn(pickle.loads(self._known.pickled))
                self._events += [Closed(_PROBE), Released(command.slot)]
            case Fail(stream=0, reason=_Told(failure=Failure(kind="source"))) if self._can_look_further():
                self._look *= 2
                self._probe = None  # whoever waits asks again
                self._tell()
            case Fail(stream=0):
                assert self._probe is not None
                self._probe.error, self._probe = self._error(command), None
                self._tell()
            case Fail(stream, batch, _, _Told(failure=Failure(kind="uneven"))):
                self.uneven = True
                self._epochs[stream].turn_uneven(batch)
                self._events.append(Pulled(stream))  # opens it again, as it is now
            case Deliver(stream) | Finish(stream) | Fail(stream):
                self._outboxes[stream].outcomes.append(command)
                if isinstance(command, Deliver):
                    self._epochs[stream].delivered()
                self._tell()
            case Load(stream, slot, count):
                self._inboxes[slot].put(self._epochs[stream].load(count))
            case Gather(stream, slot, pieces):
                self._inboxes[slot].put(self._epochs[stream].gather(pieces))
            case Park(stream, parked, slot, rows):
                self._epochs[stream].park(parked, segments(self._slots[slot].fd, rows))
            case Respawn(worker):
                if not self._closed:
                    self._engine.respawn(worker)
            case GiveUp(reason):
                self._give_up(died_at_start(reason))

    def _submit(self, worker: int, task: Task, opens: bool) -> None:
        self._tasks[task.id] = task
        if task.stream == _PROBE:
            self._engine.submit(worker, self._describe(task))
            return
        epoch = self._epochs[task.stream]
        if opens and (items := epoch.inbox(task)) is not None:
            self._inboxes[task.slot].put(items)
        self._engine.submit(worker, epoch.question(task, opens))

    def _describe(self, task: Task) -> Describe:
        if not isinstance(self._first, ItemEpoch):
            return Describe(task.id)
        items = self._first.puller.peek(self._look)
        self._inboxes[task.slot].put(b"".join(items))
        return Describe(task.id, task.slot, len(items))

    def _finished(self, worker: int, answer: Finished) -> None:
        task = self._tasks.pop(answer.task)
        epoch = self._epochs.get(task.stream)
        if epoch is not None:
            epoch.heard(task.work, answer)
            if answer.dims:
                self._sized(task, epoch.serialized, answer.dims)
        raw = (answer.progress or Progress()).raw
        done = Done(worker, answer.task, answer.seconds, answer.rows, answer.ended, answer.parcel, raw)
        self._step(done)

    def _sized(self, task: Task, serialized: bool, dims: tuple[int, ...]) -> None:
        """A batch whose size was not known beforehand lies in its slot."""
        assert self._form is not None
        form = self._form.serialized() if serialized else self._form
        layout = self._layouts[task.slot] = Layout.of_dims(form.parts, dims)
        self._grown[task.slot] = max(self._grown[task.slot], layout.nbytes)
        if layout.nbytes > self._largest:
            self._largest = layout.nbytes
            if not self._form.in_place:
                self._events.append(Sized(self._ahead(layout.nbytes), whole=True))
        if sum(self._grown.values()) > self._limit // 2:
            for slot in self._scheduler.free_slots():
                if self._grown[slot]:
                    self._slots[slot].empty()
                    self._grown[slot] = 0

    def _learn(self, form: Form) -> None:
        """The form of the batches is known: give the slots their size, and tell all workers."""
        import cloudpickle

        self._form = form
        self._known = FormKnown(cloudpickle.dumps(form, protocol=5))
        self._engine.tell(self._known)
        if form.in_place:
            layout = self._layout = Layout.of(form.spec.leaves, self._batch_size)
            if layout.nbytes > self._limit:
                self._give_up(
                    StokerError(
                        f"a batch of {self._batch_size} examples takes {layout.nbytes:,} bytes, more than memory_limit="
                        f"{self._limit:,}. Give a smaller batch_size or more memory_limit."
                    )
                )
                return
            for slot in self._slots:
                slot.resize(layout.nbytes)
            self._events.append(Sized(self._ahead(layout.nbytes)))
        else:
            self._events.append(Sized(self._prefetch or min(self._most, 2 * self._workers + 2), whole=True))
        self._tell()

    def _ahead(self, nbytes: int) -> int:
        """Batches to be made ahead when they have this size."""
        assert self._form is not None
        least = _AHEAD_LEAST if self._form.in_place or nbytes > _AHEAD_BYTES else self._workers + 2
        return self._prefetch or min(self._most, max(least, _AHEAD_BYTES // nbytes))

    def _view(self, delivered: Deliver) -> list[npt.NDArray[Any]]:
        layout, rows = self._layouts.get(delivered.slot), None
        if layout is None:
            assert self._layout is not None
            layout, rows = self._layout, delivered.rows
        leaves = layout.view(self._slots[delivered.slot].readable(layout.nbytes), rows)
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

    def _error(self, fail: Fail) -> BaseException:
        its = self._epochs.get(fail.stream)
        number = its.number if its is not None else 0
        match fail.reason:
            case WrongLength(told, came, ended):
                return wrong_length(told, came, ended)
            case Death() as death:
                return died_at_work(death, self._examples(fail.task), number, fail.batch)
            case _Told(worker, failure):
                told_by = None if not self._workers else worker
                return raisable(failure, epoch=number, batch=fail.batch, worker=told_by)
        raise AssertionError(fail)

    def _examples(self, task: Task | None) -> str:
        """Which examples a task is about, in words."""
        its = self._epochs.get(task.stream) if task is not None else None
        return its.examples(task.work) if its is not None and task is not None else "the first examples"


def segments(fd: int, rows: int) -> list[bytes]:
    """Copies of the single examples that a worker wrote to a slot: see `Output.parcel`."""
    ends = np.frombuffer(os.pread(fd, 8 * rows, 0), np.int64).tolist()
    starts = [0, *ends[:-1]]
    return [os.pread(fd, end - start, 8 * rows + start) for start, end in zip(starts, ends, strict=True)]


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
