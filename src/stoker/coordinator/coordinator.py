"""The place where consumers, scheduler, engine and slots meet.

Every event goes through `_step`, under one lock: the scheduler returns commands, and they are carried out. Pulling
threads submit their pulls and carry out the resulting commands themselves. The engine's thread submits the replies of
workers. Under the lock no user code runs, no thread blocks, and no batch is copied. Only leftover rows of shards and
items of iterables are copied, since they are few or small.
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
from stoker.structure.forms import Misfit

log = logging.getLogger("stoker")

#: The stream whose only batch stands for the request for the form of the batches.
_PROBE: Final = 0


@dataclass
class _Outbox:
    """Outcomes waiting for a stream's consumer, and whether it has pulled."""

    asked: bool = False
    outcomes: deque[DeliverCommand | FinishCommand | FailCommand] = field(default_factory=deque)


class Coordinator(EpochProducer):
    """Serves the streams of one Loader.

    Args:
        setup: makes the epochs.
        slot_table: the slots.
        engine: runs the workers; started at the first pull.
        workers: number of workers.
        run: number of rows; tasks begin and end at multiples of it.
        probe: determines the form of the batches.
        form: the form of the batches, or None to determine it.
        retries: how often a task is repeated after a worker died at it.
        skips: whether examples that raise or kill workers are left out.
        verify: share of tasks that are done twice, to compare the results.
        turns: whether the source modifies itself when an epoch begins.
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
        self._events: list[Event] = []  # events that result from commands
        self._dropped: deque[int] = deque()
        self._outboxes: dict[int, _Outbox] = {}
        self._tasks = TaskTable(self._epochs, slot_table, self._counters, self._scheduler.free_slots, verify)
        self._faults = self._tasks.faults
        self._told_form = form
        self._form: Form | None = None
        self._started = False
        close_at_exit(self)

    # ── called by consumers, from any thread ─────────────────────────────────────────────────
    def form(self, *, apart: bool = False) -> Form:
        """The form of the batches, which the first call determines. `apart`: as for `open_stream`."""
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
        """The arrays of a stream's next batch, and of following ones if they are small and ready.

        A pull costs more than a small batch, so one pull gives several. Raises StopIteration at the epoch's end.
        """
        if self._form is None:
            self.form(apart=stream in self._apart)
        error: BaseException | None = None
        with self._changed:
            if stream not in self._epochs:
                self._step()  # close dropped iterations before the next one begins
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
        """Up to `most` small batches that are ready after the one that was pulled."""
        may = not self._inline and not self._slot_table.is_bounded and self._slot_table.is_small(first)
        count = self._scheduler.ready(stream, most) if may else 0
        if not count:
            return []
        self._step(*[PullEvent(stream)] * count)
        outcomes = self._outboxes[stream].outcomes  # none if the Loader was closed in the meantime
        found = [outcome for outcome in outcomes if isinstance(outcome, DeliverCommand)]
        outcomes.clear()
        return found

    def _copied(self, outcome: DeliverCommand, leaves: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Copies of the leaves. Releases their slot, even if copying fails."""
        try:
            return [aligned_copy(leaf) for leaf in leaves]
        finally:
            with self._changed:
                self._step(SlotReleasedEvent(outcome.slot))

    def go_to(self, position: Position) -> None:
        """Let the next stream begin at `position`. Keeps the inspected epoch if that begins there."""
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
        """Statistics of what happened so far."""
        with self._changed:
            return self._counters.stats()

    def close_stream(self, stream: int) -> None:
        """Close a stream that will not be pulled again."""
        with self._changed:
            self._step(CloseEvent(stream))
            self._tell()

    def drop_stream(self, stream: int) -> None:
        """`close_stream` for finalizers. Takes no lock and is carried out with the next event."""
        self._dropped.append(stream)

    # ── shutdown ─────────────────────────────────────────────────────────────────────────────
    def request_stop(self) -> None:
        """Ask the workers to stop, without waiting and without a lock, for finalizers."""
        if self._changed.is_ours():
            self._closed = True
            self._engine.request_stop()

    def close(self) -> None:
        """Stop the workers, and wake all threads that wait for a batch."""
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

    # ── called by the threads that pull iterables ────────────────────────────────────────────
    def fed(self, key: int, items: int, ended: bool) -> None:
        """Note that `items` items of the iterable have been pulled for the epoch with this key."""
        with self._changed:
            for stream, its in self._epochs.items():
                if isinstance(its, ItemEpoch) and its.key == key and stream in self._outboxes:
                    self._step(ItemsEvent(stream, its.arrived(items), ended))
                    break
            self._tell()

    # ── under the lock ───────────────────────────────────────────────────────────────────────
    def _wait(self, stream: int) -> DeliverCommand | FinishCommand | FailCommand:
        """Pull the next outcome of a stream and wait for it. A wait after an interrupted one does not pull again."""
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
        """The worker number for a stream's tasks if work is done in the trainer: `APART` or `HERE`."""
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
        """Request the form of the batches. For an iterable, waits for its first items."""
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
        """The error that ended a stream's iterable, or None."""
        epoch = self._epochs.get(stream)
        if isinstance(epoch, ItemEpoch) and epoch.puller.ended is not None:
            return epoch.puller.ended.error
        return None

    def _forget(self, stream: int) -> None:
        outbox = self._outboxes.pop(stream, None)
        epoch = self._ended(stream)
        if outbox is not None:  # release batches that were delivered but not taken, because the pull was interrupted
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
        """Process events, with the releases and drops noted by finalizers, and carry out the resulting commands."""
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
                    if isinstance(event, CloseEvent) and event.stream != _PROBE:  # the probe may run more rounds
                        self._forget(event.stream)
                now.clear()
            self._engine.flush()
        except BaseException as error:  # including Ctrl-C: ending is better than a half-processed event
            self._cut_short(error)
            raise

    def _do(self, command: Command) -> None:
        match command:
            case SubmitCommand(worker, task, opens):
                self._submit(worker, task, opens)
            case DeliverCommand() | FailCommand() if command.stream == _PROBE:
                self._asked(command)
            case FailCommand(stream, batch, _, ReportedFailure(failure=FailureReply(kind=FailureKind.UNEVEN))):
                self.uneven = self.uneven or not self._skips  # errors skipped in this epoch say nothing about the next
                self._epochs[stream].turn_uneven(batch)
                self._events.append(PullEvent(stream))  # reopens the stream, now as an uneven one
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
        """Process the outcome of a round of the request for the form of the batches."""
        match command:
            case DeliverCommand():
                self._events += [CloseEvent(_PROBE), SlotReleasedEvent(command.slot)]
                self._end_round()
                return
            case FailCommand(reason=ReportedFailure(failure=FailureReply(kind=FailureKind.SOURCE))) if (
                self._spec_request.found_none()
            ):
                """The waiting threads start a new attempt."""
            case FailCommand(reason=KilledReason(_, WorkerDeath(place=place))) if (
                self._skips and self._spec_request.leave_out(place)
            ):
                """Likewise."""
            case FailCommand():
                self._spec_request.failed(error_of(command, None, skips=self._skips))
        self._tell()

    def _end_round(self) -> None:
        """Finish a round. Starts the next one unless the form of the batches is known."""
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
        """Adopt the form of the batches: give the slots their size, and send the form to all workers."""
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
        """Give up because an event was only partly processed. Waiting threads get an error instead of hanging."""
        if isinstance(error, StokerError):
            self._give_up(error)
            return
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        broken = StokerError(f"this Loader was cut short at work ({what}) and cannot go on. Make a new one.")
        broken.__cause__ = error
        self._give_up(broken)

    def _give_up(self, error: StokerError) -> None:
        """End all streams with an error. If called more than once, the first error counts."""
        self._broken = self._broken or error
        self._engine.request_stop()
        self._tell()
