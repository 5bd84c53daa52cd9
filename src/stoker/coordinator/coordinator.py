"""The one place where consumers, scheduler, engine and slots meet.

Every event goes through `_step`, under one lock: the scheduler says what to do, and it is done.
Pulling threads bring pulls and carry out what follows from them themselves; the engine's thread
brings what workers say. No user code and no wait happens under the
lock, and no batch is copied (rows at the ends of shards and items of iterables are: they are few, or small).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy.typing as npt

from stoker.coordinator.consumer_errors import ReportedFailure, error_of, warning_of
from stoker.coordinator.counters import Counters
from stoker.coordinator.producer import AT_ONCE, EpochProducer, EpochSetup
from stoker.coordinator.slot_table import LEASES, SlotTable
from stoker.coordinator.spec_request import SpecAttempt, SpecRequest
from stoker.coordinator.task_table import TaskTable
from stoker.coordinator.updates import AttributeUpdates
from stoker.engines.deaths import died_at_start
from stoker.engines.engine import APART, HERE, Answer, Engine, StuckWorker, WorkerDeath
from stoker.epochs.epoch import Epoch
from stoker.epochs.item_epoch import ItemEpoch
from stoker.errors import OptionError, SpecError, StokerError
from stoker.memory.layout import aligned_copy
from stoker.plan.position import Position
from stoker.protocol.failures import raisable
from stoker.protocol.replies import (
    DescribedReply,
    ExamplesMadeReply,
    FailureKind,
    FailureReply,
    ReadyReply,
    ShardOpenedReply,
    TaskDoneReply,
)
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request
from stoker.runtime.ctrl_c import is_unheeded
from stoker.runtime.interpreter_exit import close_at_exit
from stoker.runtime.signals import shielded
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
    RespawnCommand,
    SubmitCommand,
)
from stoker.scheduler.events import CloseEvent, Event, ItemsEvent, PullEvent, SlotReleasedEvent, WorkerReadyEvent
from stoker.scheduler.machine import Scheduler
from stoker.scheduler.streams import IndexStream, Stream
from stoker.scheduler.work import Task
from stoker.stats import Stats
from stoker.structure.collation import Form
from stoker.structure.spec import Misfit

log = logging.getLogger("stoker")

#: The stream whose only batch is the answer to "what do the examples look like?".
_PROBE: Final = 0


@dataclass
class _Outbox:
    """What waits for the consumer of a stream, and whether it has asked."""

    asked: bool = False
    outcomes: deque[DeliverCommand | FinishCommand | FailCommand] = field(default_factory=deque)


class Coordinator(EpochProducer):
    """Serves the streams of one Loader.

    Args:
        setup: makes the epochs.
        slot_table: the slots.
        engine: who runs the workers; started at the first pull.
        workers: how many.
        run: rows that a task's boundaries are multiples of.
        probe: finds out what batches look like.
        form: what batches look like, or None to find out.
        retries: how often a task is done again after a worker died at it.
        skips: whether examples that raise or kill workers are left out.
        verify: the share of tasks that are done twice, to see whether the same comes out.
        turns: whether the source changes itself when an epoch begins.
    """

    def __init__(
        self,
        setup: EpochSetup,
        slot_table: SlotTable,
        engine: Engine,
        *,
        workers: int,
        run: int,
        probe: SpecRequest,
        form: Form | None,
        retries: int,
        skips: bool,
        verify: float,
        turns: bool = False,
    ) -> None:
        super().__init__(setup)
        self._turns, self._updates = turns, AttributeUpdates(folds=not turns)
        self._skips, self._counters = skips, Counters()
        self._slot_table, self._engine = slot_table, engine
        self._inline, self._spec_request = workers == 0, probe
        self._scheduler = Scheduler(
            workers=max(1, workers),
            open_stream=self._open_stream,
            slots=slot_table.ahead,
            leases=LEASES,
            run=run,
            ahead=not self._inline,
            retries=retries,
            skips=skips,
            bound=self._bound if self._inline else None,
        )
        self._events: list[Event] = []  # that follow from commands
        self._dropped: deque[int] = deque()
        self._outboxes: dict[int, _Outbox] = {}
        self._tasks = TaskTable(self._epochs, slot_table, self._counters, self._scheduler.free_slots, verify)
        self._faults = self._tasks.faults
        self._told_form = form
        self._form: Form | None = None
        self._started = False
        close_at_exit(self)

    # ── consumers, from any thread ───────────────────────────────────────────────────────────
    def form(self, *, apart: bool = False) -> Form:
        """What batches look like; finds it out at the first call. `apart`: as for `open_stream`."""
        with self._changed:
            self._check()
            if not self._started:
                self._engine.start(self)
                self._started = True
                if self._told_form is not None:
                    self._learn(self._told_form)
            attempt = self._spec_request.attempt
            while self._form is None:
                if attempt is not None and attempt.error is not None:
                    raise attempt.error
                self._check()
                if self._spec_request.attempt is None:
                    attempt = self._spec_request.attempt = SpecAttempt()
                    self._ask_for_form(apart)
                (self._engine.stand_by if apart else self._engine.idle)(self._changed)
            return self._form

    def pull(self, stream: int, most: int = AT_ONCE) -> list[list[npt.NDArray[Any]]]:
        """The arrays of a stream's next batch, and of those after it, if they are small and ready: a pull costs more.

        Raises StopIteration at the epoch's end.
        """
        if self._form is None:
            self.form(apart=stream in self._apart)
        error: BaseException | None = None
        with self._changed:
            if stream not in self._epochs:
                self._step()  # iterations that were dropped are closed before the next begins
            self._begin(stream)
            outcome = self._wait(stream)
            if isinstance(outcome, DeliverCommand):
                delivered = [outcome, *self._ready(stream, outcome, most - 1)]
                self._epochs[stream].handed([one.rows for one in delivered])
                batches = [self._slot_table.view(one) for one in delivered]
            else:
                epoch = self._epochs.get(stream)
                if epoch is not None and isinstance(outcome, FinishCommand):
                    epoch.iteration.ended = True
                    self._changed.notify_all()
                skips = self._skips
                error = (
                    error_of(outcome, epoch, skips=skips) if isinstance(outcome, FailCommand) else self._raised(stream)
                )
                self._forget(stream)
        if error is not None:
            raise error
        if not isinstance(outcome, DeliverCommand):
            raise StopIteration
        return [
            self._copied(one, arrays) if one.copy else arrays for one, arrays in zip(delivered, batches, strict=True)
        ]

    def pull_stacked(self, stream: int) -> list[npt.NDArray[Any]]:
        return [leaf[None] for leaf in self.pull(stream, 1)[0]]

    def _ready(self, stream: int, first: DeliverCommand, most: int) -> list[DeliverCommand]:
        """Up to so many small batches that are ready behind the one that was pulled."""
        may = not self._inline and not self._slot_table.is_bounded and self._slot_table.is_small(first)
        count = self._scheduler.ready(stream, most) if may else 0
        if not count:
            return []
        self._step(*[PullEvent(stream)] * count)
        outcomes = self._outboxes[stream].outcomes  # none, when the Loader was closed meanwhile
        found = [outcome for outcome in outcomes if isinstance(outcome, DeliverCommand)]
        outcomes.clear()
        return found

    def _copied(self, outcome: DeliverCommand, leaves: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Copies of the leaves; their slot is free then, in any case."""
        try:
            return [aligned_copy(leaf) for leaf in leaves]
        finally:
            with self._changed:
                self._step(SlotReleasedEvent(outcome.slot))

    def go_to(self, position: Position) -> None:
        """The next stream that begins does so there."""
        with self._changed:
            self._check()
            epoch = self._spec_request.take_epoch()
            if epoch is not None and epoch.iteration.begin == position:
                self._spec_request.give_epoch(epoch)
                return
            self._consumption.go_to(position)
            if epoch is not None:
                self._spec_request.drop(epoch)
                if epoch.has_shards or self._turns:
                    self._engine.leave(LeaveEpochRequest(epoch.number))

    def update(self, values: Mapping[str, Any]) -> None:
        self._setup.guard.accept(values)
        if not values:
            return
        with self._changed:
            self._check()
            self._updates.add(values)
            self._spec_request.outdate()
            self._turns = True

    def stats(self) -> Stats:
        """What happened so far."""
        with self._changed:
            return self._counters.stats()

    def close_stream(self, stream: int) -> None:
        """Nobody will pull this stream again."""
        with self._changed:
            self._step(CloseEvent(stream))
            self._tell()

    def drop_stream(self, stream: int) -> None:
        """`close_stream` for finalizers: takes no lock, and is carried out with the next event."""
        self._dropped.append(stream)

    # ── the end ──────────────────────────────────────────────────────────────────────────────
    def request_stop(self) -> None:
        """Let the workers go, without waiting and without a lock: for finalizers."""
        if self._changed.is_ours():
            self._closed = True
            self._engine.request_stop()

    def close(self) -> None:
        """End the workers, and wake whoever waits for a batch."""
        if self._changed.is_ours():
            with shielded():
                self._close()

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._tell()
            epochs = [*self._epochs.values(), self._spec_request.take_epoch()]
        for epoch in epochs:
            if epoch is not None:
                epoch.close()
        self._engine.stop()
        self._slot_table.close()
        self._spec_request.close()

    # ── Listener: from the engine ────────────────────────────────────────────────────────────
    def heard(self, worker: int, answers: Sequence[Answer]) -> None:
        with self._changed:
            events: list[Event] = []
            for answer in answers:
                match answer:
                    case TaskDoneReply():
                        events += self._tasks.finished(worker, answer)
                    case ReadyReply():
                        events.append(WorkerReadyEvent(worker))
                    case ExamplesMadeReply(made):
                        task, done = self._tasks.probed(worker, made)
                        self._spec_request.made(task, answer)
                        events.append(done)
                    case ShardOpenedReply(opened):
                        task, done = self._tasks.probed(worker, opened)
                        self._spec_request.opened(worker, task, answer)
                        events.append(done)
                    case DescribedReply(number):
                        self._spec_request.described(answer)
                        events.append(self._tasks.probed(worker, number)[1])
                    case FailureReply(task=None):
                        error = raisable(answer, epoch=None, batch=None, worker=None if self._inline else worker)
                        assert isinstance(error, StokerError)
                        self._give_up(error)
                    case FailureReply():
                        events.append(self._tasks.failed(worker, answer, inline=self._inline))
            self._step(*events)

    def died(self, death: WorkerDeath) -> None:
        with self._changed:
            self._counters.died(death)
            self._spec_request.died(death.worker)
            self._step(self._tasks.died(death))

    def stuck(self, stuck: StuckWorker) -> None:
        with self._changed:
            is_needless = self._scheduler.is_needless(stuck.worker)
            warning = warning_of(stuck, self._faults.words(stuck.place), is_needless=is_needless)
            self._changed.later(log.warning, "%s", warning)

    def is_needless(self, worker: int) -> bool:
        with self._changed:
            return self._scheduler.is_needless(worker)

    def collapsed(self, error: BaseException) -> None:
        with self._changed:
            self._cut_short(error)

    # ── from the threads that pull iterables ─────────────────────────────────────────────────
    def fed(self, key: int, items: int, ended: bool) -> None:
        """So many items of the iterable have been pulled for the epoch with this key."""
        with self._changed:
            for stream, its in self._epochs.items():
                if isinstance(its, ItemEpoch) and its.key == key and stream in self._outboxes:
                    self._step(ItemsEvent(stream, its.arrived(items), ended))
                    break
            self._tell()

    # ── under the lock ───────────────────────────────────────────────────────────────────────
    def _wait(self, stream: int) -> DeliverCommand | FinishCommand | FailCommand:
        """Ask for the next outcome of a stream, once, and wait for it; an interrupted wait asks no second time."""
        outbox = self._outboxes.setdefault(stream, _Outbox())
        if not outbox.asked:
            outbox.asked = True
            self._step(PullEvent(stream))
        self._check()
        while not outbox.outcomes:
            if is_unheeded():
                raise StokerError("Ctrl-C ended this iteration, whose next batch did not come. Iterate again.")
            (self._engine.stand_by if stream in self._apart else self._engine.idle)(self._changed)
            self._check()
            if self._outboxes.get(stream) is not outbox:
                raise StopIteration  # another thread closed the iteration
        outbox.asked = False
        return outbox.outcomes.popleft()

    def _bound(self, stream: int) -> int:
        """Whose the stream's tasks are, where there are no workers to choose from."""
        return APART if stream in self._apart else HERE

    def _next_epoch(self) -> Epoch:
        epoch = self._spec_request.take_epoch() or super()._next_epoch()
        if (renew := self._updates.renewal(epoch.number)) is not None:
            self._engine.renew(renew)
        return epoch

    def _open_stream(self, number: int) -> Stream:
        if number == _PROBE:
            rows, each = self._spec_request.begin_round()
            return IndexStream(_PROBE, 1, lambda batch: rows, rows, spread=each)
        epoch = self._epochs[number]
        if isinstance(epoch, ItemEpoch):
            items, ended = epoch.puller.pulled, epoch.puller.ended is not None
            self._events.append(ItemsEvent(number, epoch.arrived(items), ended))
        if self._inline and self._spec_request.abandon(self._bound(number)):
            self._engine.leave(LeaveEpochRequest(epoch.number))
        return epoch.stream(number)

    def _ask_for_form(self, apart: bool) -> None:
        """Ask what batches look like; of an iterable, once its first items are there."""
        (self._apart.add if apart else self._apart.discard)(_PROBE)
        epoch = self._spec_request.begin(super()._next_epoch)
        if (renew := self._updates.glimpse(epoch.number)) is not None:
            self._engine.renew(renew)
        while not self._spec_request.is_ready():
            self._check()
            self._changed.wait(0.1)
        if (error := self._spec_request.raised()) is not None:
            raise error
        self._step(PullEvent(_PROBE))

    def _raised(self, stream: int) -> BaseException | None:
        """What a stream's iterable raised when it ended."""
        epoch = self._epochs.get(stream)
        if isinstance(epoch, ItemEpoch) and epoch.puller.ended is not None:
            return epoch.puller.ended.error
        return None

    def _forget(self, stream: int) -> None:
        outbox = self._outboxes.pop(stream, None)
        epoch = self._ended(stream)
        if outbox is not None:  # what was delivered and never taken, because the pull was interrupted
            self._events += [SlotReleasedEvent(o.slot) for o in outbox.outcomes if isinstance(o, DeliverCommand)]
        if epoch is not None:
            self._faults.forget(stream)
            self._counters.epoch_ended(epoch.number, self._changed.later)
            self._spec_request.is_past(epoch)
            epoch.close()
            if (epoch.has_shards or self._turns) and not self._closed:
                self._engine.leave(LeaveEpochRequest(epoch.number))

    def _tell(self) -> None:
        """Wake all threads that wait for an outcome."""
        self._changed.notify_all()
        self._engine.nudge()

    def _step(self, *events: Event) -> None:
        """Take in events, with the releases and drops that finalizers noted, and do what follows from them."""
        if self._closed or self._broken is not None:
            return
        try:
            now: list[Event] = [SlotReleasedEvent(slot) for slot in self._slot_table.ended()]
            while self._dropped:
                now.append(CloseEvent(self._dropped.popleft()))
            now += events
            while now or self._events:
                now += self._events
                self._events.clear()
                for command in self._scheduler.on(*now):
                    self._do(command)
                for event in now:
                    if isinstance(event, CloseEvent) and event.stream != _PROBE:  # the probe has more rounds
                        self._forget(event.stream)
                now.clear()
            self._engine.flush()
        except BaseException as error:  # Ctrl-C too: half of an event is worse than an end
            self._cut_short(error)
            raise

    def _do(self, command: Command) -> None:
        match command:
            case SubmitCommand(worker, task, opens):
                self._submit(worker, task, opens)
            case DeliverCommand(stream=0) | FailCommand(stream=0):
                self._asked(command)
            case FailCommand(stream, batch, _, ReportedFailure(failure=FailureReply(kind=FailureKind.UNEVEN))):
                self.uneven = self.uneven or not self._skips  # what is skipped for an error is so in this epoch
                self._epochs[stream].turn_uneven(batch)
                self._events.append(PullEvent(stream))  # opens it again, as it is now
            case FailCommand(stream, batch, Task() as task, KilledReason(int() as row, death)) if self._may_leave_out():
                self._faults.leave_out(task, row, death)
                self._epochs[stream].turn_uneven(batch)
                self._events.append(PullEvent(stream))
            case LeaveOutCommand(task, death):
                self._faults.leave_out(task, None, death)
            case DeliverCommand(stream) | FinishCommand(stream) | FailCommand(stream):
                self._outboxes[stream].outcomes.append(command)
                if isinstance(command, DeliverCommand):
                    epoch = self._epochs[stream]
                    epoch.delivered()
                    if epoch.early is not None and not epoch.uneven and command.batch >= epoch.early.batches:
                        self._spec_request.is_past(epoch)
                self._tell()
            case LoadItemsCommand(stream, slot, count):
                self._slot_table.put(slot, self._epochs[stream].load(count))
            case GatherCommand(stream, slot, pieces):
                self._slot_table.put(slot, self._epochs[stream].gather(pieces))
            case ParkCommand(stream, parked, slot, rows):
                self._epochs[stream].park(parked, self._slot_table.segments(slot, rows))
            case RespawnCommand(worker):
                if not self._closed:
                    self._engine.respawn(worker)
            case GiveUpCommand(reason):
                self._give_up(died_at_start(reason))

    def _asked(self, command: DeliverCommand | FailCommand) -> None:
        """What came of the question what batches look like."""
        match command:
            case DeliverCommand():
                self._events += [CloseEvent(_PROBE), SlotReleasedEvent(command.slot)]
                self._end_round()
                return
            case FailCommand(reason=ReportedFailure(failure=FailureReply(kind=FailureKind.SOURCE))) if (
                self._spec_request.found_none()
            ):
                """Whoever waits asks again."""
            case FailCommand(reason=KilledReason(_, WorkerDeath(place=place))) if (
                self._skips and self._spec_request.leave_out(place)
            ):
                """Likewise."""
            case FailCommand():
                self._spec_request.failed(error_of(command, None, skips=self._skips))
        self._tell()

    def _end_round(self) -> None:
        """Some were made, or looked at: go on until it is known what batches look like."""
        try:
            if self._spec_request.wants_more():
                self._tell()
                return
            if not self._spec_request.is_known():
                self._events.append(PullEvent(_PROBE))
                return
            assert self._spec_request.form is not None
            self._learn(self._spec_request.form)
        except Misfit as misfit:
            self._spec_request.failed(SpecError(f"the first examples of the shards cannot be batched: {misfit}"))
            self._tell()
        except OptionError as error:
            self._spec_request.failed(error)
            self._tell()

    def _may_leave_out(self) -> bool:
        return self._skips and self._faults.may_leave_out()

    def _submit(self, worker: int, task: Task, opens: bool) -> None:
        self._tasks.note(worker, task)
        if task.stream == _PROBE:
            question: Request = self._spec_request.question(task)
        else:
            question = self._tasks.question(task, opens)
        self._engine.submit(worker, question)

    def _learn(self, form: Form) -> None:
        """The form of the batches is known: give the slots their size, and tell all workers."""
        import cloudpickle

        try:
            self._events.append(self._slot_table.learn(form, self._changed.later))
        except StokerError as error:
            self._give_up(error)
            return
        self._form = form
        self._tasks.learn(form)
        self._engine.tell(FormRequest(cloudpickle.dumps(form, protocol=5), self._spec_request.draws))
        self._tell()

    def _cut_short(self, error: BaseException) -> None:
        """An event was not carried out to its end: whoever waits is told, rather than waiting for ever."""
        if isinstance(error, StokerError):
            self._give_up(error)
            return
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        broken = StokerError(f"this Loader was cut short at work ({what}) and cannot go on. Make a new one.")
        broken.__cause__ = error
        self._give_up(broken)

    def _give_up(self, error: StokerError) -> None:
        """No stream gets any further; the first reason counts."""
        self._broken = self._broken or error
        self._engine.request_stop()
        self._tell()
