"""The place where consumers, scheduler, engine and slots meet.

Every event goes through `_step`, under one lock: the scheduler returns commands, and they are carried out. Pulling
threads submit their pulls and carry out the resulting commands themselves. Replies of workers are submitted by the
engine's thread, or by a pulling thread that waits. Under the lock no user code runs, no thread blocks, and no batch is
copied. Only leftover rows of shards and items of iterables are copied, since they are few or small.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from stoker.coordinator.consumer_errors import ReportedFailure, cut_short, error_of
from stoker.coordinator.counters import Counters
from stoker.coordinator.early_start import EarlyStart, may_begin
from stoker.coordinator.engine_listener import EngineListener
from stoker.coordinator.epoch_ahead import EpochAhead
from stoker.coordinator.form_finder import FormAttempt, FormFinder
from stoker.coordinator.outboxes import Outbox, Outcome
from stoker.coordinator.producer import AT_ONCE, EpochProducer, EpochSetup, Wanted
from stoker.coordinator.slot_table import LEASES, SlotTable
from stoker.coordinator.task_table import TaskTable
from stoker.coordinator.updates import AttributeUpdates
from stoker.coordinator.worker_tuner import WorkerTuner
from stoker.engines.deaths import died_at_start
from stoker.engines.engine import APART, HERE, Engine
from stoker.epochs.epoch import Epoch
from stoker.errors import SourceError, StokerError
from stoker.insight.measured import Measured
from stoker.insight.pull_times import PullTimes
from stoker.memory.layout import aligned_copy
from stoker.options import LoaderOptions
from stoker.plan.host_shard import ALL
from stoker.plan.position import Position
from stoker.protocol.replies import FailureKind, FailureReply
from stoker.protocol.requests import FormRequest, LeaveEpochRequest
from stoker.runtime.ctrl_c import is_unheeded
from stoker.runtime.interpreter_exit import close_at_exit
from stoker.runtime.signals import shielded
from stoker.scheduler.auto_workers import Observation
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
from stoker.scheduler.events import CloseEvent, Event, ItemsEvent, PullEvent, SlotReleasedEvent
from stoker.scheduler.machine import Scheduler
from stoker.scheduler.streams import Stream
from stoker.scheduler.work import Task
from stoker.stats import Stats
from stoker.structure.collation import Form

#: The most ready batches that are counted.
_READY = 64
#: What a trainer among several is told, whose transform returns SKIP or Many without naming them.
_UNEVEN = (
    "a transform returned stoker.SKIP or stoker.Many, but shard_count or pad_remainder needs to know the rows of each "
    "batch in advance: other trainers would take another number of steps. Leave examples out of the source instead."
)


class Coordinator(EpochProducer[Epoch]):
    """Serves the streams of one Loader.

    Args:
        setup: makes the epochs.
        options: the options of the Loader.
        slot_table: the slots.
        engine: runs the workers; started by `begin_early`, or when the form of the batches is first asked for.
        finder: determines the form of the batches.
        form: the form of the batches, or None to let `finder` determine it.
        run: number of rows; tasks begin and end at multiples of it.
        turns: whether the source modifies itself when an epoch begins.
        goes_ahead: whether the next epoch may be made before it begins.
        makes_early: whether epoch 0 may be made before it begins.
        tuner: changes the number of workers, with `workers="auto"`.
    """

    def __init__(
        self,
        setup: EpochSetup[Epoch],
        options: LoaderOptions,
        slot_table: SlotTable,
        engine: Engine,
        *,
        finder: FormFinder,
        form: Form | None,
        run: int,
        turns: bool,
        goes_ahead: bool,
        makes_early: bool,
        tuner: WorkerTuner | None = None,
    ) -> None:
        super().__init__(setup)
        self._turns, self._updates = turns, AttributeUpdates(folds=not turns)
        self._skips, self._counters = options.skips, Counters()
        self._slot_table, self._engine, self._tuner = slot_table, engine, tuner
        self._inline, self._finder = options.worker_count == 0, finder
        self.makes_ahead = not self._inline
        self._form_stream = self.open_stream()  # its batches are the rounds in which the form is determined
        self._scheduler = Scheduler(
            workers=max(1, options.worker_count),
            open_stream=self._open_stream,
            slots=slot_table.ahead,
            leases=LEASES,
            run=run,
            ahead=not self._inline,
            retries=options.retries,
            skips=options.skips,
            bound=self._bound if self._inline else None,
        )
        self._ahead = EpochAhead(self._epochs, self._consumption, self._scheduler, self._counters, allowed=goes_ahead)
        self._pulls = PullTimes()
        self._events: list[Event] = []  # events that result from commands
        self._outboxes: dict[int, Outbox] = {}
        self._tasks = TaskTable(
            self._epochs, slot_table, finder, self._counters, self._scheduler.free_slots, verify=options.verify
        )
        self._given_form = form
        self._form: Form | None = None
        self._started = False
        self._makes_early, self._early = makes_early, EarlyStart()
        self._listener = EngineListener(
            self._changed,
            self._tasks,
            self._scheduler,
            self._counters,
            step=self._step,
            cut_short=self._cut_short,
            inline=self._inline,
        )
        close_at_exit(self)

    # ── before the first pull ────────────────────────────────────────────────────────────────
    def begin_early(self) -> None:
        """Start the workers, and let them make the first batches. The engine's thread goes on with it."""
        if self._inline or not may_begin(self):
            return
        with self._changed:
            self._early.is_wanted = self._makes_early
            self._start()
            if self._makes_early and self._form is None:
                self._early.attempt = self._finder.attempt = FormAttempt()
                self._ask_for_form(apart=False)
            else:
                self._step()

    def is_unread(self) -> bool:
        return self._early.is_unread and not self._closed

    # ── called by consumers, from any thread ─────────────────────────────────────────────────
    def form(self, *, apart: bool = False) -> Form:
        """The form of the batches, which the first call determines. `apart`: as for `open_stream`."""
        if self._form is None and self._given_form is None:
            self._prepare()
        with self._changed:
            self._check()
            self._start()
            attempt = self._early.take_attempt() or self._finder.attempt
            while self._form is None:
                if attempt is not None and attempt.error is not None:
                    if not attempt.is_void:
                        raise attempt.error
                    attempt = self._finder.attempt
                self._check()
                if self._finder.attempt is None:
                    attempt = self._finder.attempt = FormAttempt()
                    try:
                        self._ask_for_form(apart)
                    except StokerError:  # of the user's order, if another thread has begun the prepared epoch
                        self._finder.attempt = None
                        raise
                (self._engine.stand_by if apart else self._engine.idle)(self._changed)
            return self._form

    def begin(self, stream: int) -> int:
        with self._changed:
            self._step()  # close dropped iterations before the next one begins
            self._early.is_wanted = self._early.is_unread = False
            made, was_interrupted = self._ahead.stream, stream in self._epochs
            if made is None or was_interrupted or self._ahead.epoch is None:
                return stream
            if not self._wanted(stream).is_served_by(self._wanted(made)):
                return stream  # its first pull closes the epoch that was made ahead
            self._ahead.adopt()
            (self._apart.add if stream in self._apart else self._apart.discard)(made)
            self._ended(stream)
            return made

    def _go_ahead(self, like: Wanted) -> None:
        """Let workers begin the next epoch, for a consumer that wants the same as the last one."""
        with contextlib.suppress(SourceError):  # it is raised when the epoch begins
            self._prepare()
            with self._changed:
                if not self._ahead.is_due() or self._finder.epoch is not None:
                    return
                stream = self._new_stream(like)
                epoch = self._fitted(stream, self._new_epoch(self._consumption.upcoming()))
                self._step(self._ahead.open(stream, epoch))

    def pull(self, stream: int, most: int = AT_ONCE) -> list[list[npt.NDArray[Any]]]:
        began = time.monotonic()
        if self._form is None:
            self.form(apart=stream in self._apart)
        forming = time.monotonic() - began
        error: BaseException | None = None
        with self._changed:
            if stream not in self._epochs:
                self._events += self._ahead.close()
                self._step()  # close dropped iterations before the next one begins
            self._begin(stream)
            wanted = self._wanted(stream)
            outcome = self._wait(stream, forming)
            if isinstance(outcome, DeliverCommand):
                delivered = [outcome, *self._ready(stream, outcome, most - 1)]
                self._epochs[stream].handed([one.rows for one in delivered])
                batches = [self._slot_table.view(one) for one in delivered]
                self._observe(stream, delivered, sum(leaf.nbytes for leaves in batches for leaf in leaves))
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
            is_due = self._ahead.is_due()
        if error is not None:
            raise error
        if is_due:
            self._go_ahead(wanted)
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
        return self._outboxes[stream].take_batches()  # none if the Loader was closed in the meantime

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
            self._consumption.go_to(position)
            if self._finder.epoch is not None and self._finder.epoch.iteration.begin == position:
                return
            self._early.forget()
            if self._ahead.epoch is None and (events := self._ahead.close()):
                self._step(*events)
            if not self._finder.supersede():
                self._drop_inspected_epoch()

    def update(self, values: Mapping[str, Any]) -> None:
        self._setup.guard.accept(values)
        if not values:
            return
        with self._changed:
            self._check()
            self._updates.add(values)
            self._early.forget()
            self._finder.outdate()
            self._consumption.outdate()
            self._turns = True
            if events := self._ahead.forbid():
                self._step(*events)

    def stats(self) -> Stats:
        with self._changed:
            workers = 0 if self._inline else self._scheduler.workers
            return self._counters.stats(workers, () if self._tuner is None else self._tuner.changes)

    def measured(self) -> Measured:
        with self._changed:
            times, memory = self._engine.times() if self._started else {}, self._slot_table.taken()
            pulls = replace(self._pulls)
        return Measured(self.stats(), pulls, times, memory, in_trainer=self._inline)

    def close_stream(self, stream: int) -> None:
        with self._changed:
            self._step(CloseEvent(stream))
            self._tell()

    # ── shutdown ─────────────────────────────────────────────────────────────────────────────
    def request_stop(self) -> None:
        if self._changed.is_ours():
            self._closed = True
            self._engine.request_stop()

    def close(self) -> None:
        if self._changed.is_ours():
            with shielded():
                self._close()

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._tell()
            epochs = [*self._epochs.values(), self._finder.take_epoch()]
        for epoch in epochs:
            if epoch is not None:
                epoch.close()
        self._engine.stop()
        self._slot_table.close()
        self._finder.close()

    # ── called by the threads that pull iterables ────────────────────────────────────────────
    def fed(self, key: int) -> None:
        with self._changed:
            for stream, epoch in self._epochs.items():
                if epoch.key == key and epoch.pulled is not None and stream in self._outboxes:
                    self._step(ItemsEvent(stream, *epoch.pulled.arrivals()))
                    break
            self._tell()

    # ── under the lock ───────────────────────────────────────────────────────────────────────
    def _wait(self, stream: int, forming: float) -> Outcome:
        """Pull the next outcome of a stream and wait for it. A wait after an interrupted one does not pull again.

        `forming`: seconds that the pull has already waited for the form.
        """
        outbox = self._outboxes.setdefault(stream, Outbox())
        if not outbox.is_pulled:
            outbox.is_pulled = True
            self._step(PullEvent(stream))
        self._check()
        since = time.monotonic() - forming
        while not outbox:
            if is_unheeded():
                raise StokerError("Ctrl-C ended this iteration before its next batch arrived. Iterate again.")
            (self._engine.stand_by if stream in self._apart else self._engine.idle)(self._changed)
            self._check()
            if self._outboxes.get(stream) is not outbox:
                raise StopIteration  # another thread closed the iteration
        outbox.clock.waited += time.monotonic() - since
        return outbox.take()

    def _observe(self, stream: int, delivered: list[DeliverCommand], nbytes: int) -> None:
        """Note a pull, and change the number of workers if that follows."""
        clock, batches = self._outboxes[stream].clock, len(delivered)
        left = self._scheduler.ready(stream, _READY)
        seen = Observation(
            time=time.monotonic(),
            waited=clock.waited,
            batches=batches,
            ready=left,
            is_first=clock.is_first,
            is_complete=self._tuner is None or self._scheduler.has_all_workers(),
        )
        rows, ready = sum(one.rows for one in delivered), 0 if self._inline else batches + left
        self._pulls.pulled(clock, batches=batches, examples=rows, nbytes=nbytes, ready=ready)
        if self._tuner is not None and (events := self._tuner.pulled(seen, self._changed.later)):
            self._step(*events)

    def _bound(self, stream: int) -> int:
        """The worker number for a stream's tasks if work is done in the trainer: `APART` or `HERE`."""
        return APART if stream in self._apart else HERE

    def _next_epoch(self) -> Epoch:
        epoch = self._finder.take_epoch() or super()._next_epoch()
        if (update := self._updates.request(epoch.number)) is not None:
            self._engine.send_update(update)
        return epoch

    def _open_stream(self, number: int) -> Stream:
        if number == self._form_stream:
            return self._finder.open_stream(number)
        epoch = self._epochs[number]
        if epoch.pulled is not None:
            self._events.append(ItemsEvent(number, *epoch.pulled.arrivals()))
        if self._inline and self._finder.abandon(self._bound(number)):
            self._engine.leave(self._leave(epoch))
        return epoch.stream(number)

    def _start(self) -> None:
        """Start the engine, once."""
        if not self._started:
            self._engine.start(self._listener)
            self._started = True
            if self._given_form is not None:
                self._learn(self._given_form)

    def _open_early(self) -> None:
        """Open epoch 0, whose stream the first iteration adopts."""
        self._early.is_wanted = False
        epoch, stream = self._finder.take_epoch() or super()._next_epoch(), self._new_stream(Wanted())
        try:
            self._events.append(self._ahead.open(stream, self._fitted(stream, epoch)))
        except SourceError:  # it is raised when the epoch begins
            self._finder.drop(epoch)

    def _inspected(self) -> Epoch | None:
        return self._finder.epoch or self._ahead.epoch

    def _drop_inspected_epoch(self) -> None:
        """Discard the inspected epoch, if there is one, as the next stream begins elsewhere."""
        epoch = self._finder.take_epoch()
        if epoch is not None:
            self._finder.drop(epoch)
            if epoch.has_shards or self._turns:
                self._engine.leave(self._leave(epoch))

    def _ask_for_form(self, apart: bool) -> None:
        """Request the form of the batches. For an iterable, waits for its first items."""
        (self._apart.add if apart else self._apart.discard)(self._form_stream)
        rest = self._finder.epoch if self._finder.is_over else None
        if self._finder.is_superseded or rest is not None:
            self._drop_inspected_epoch()
        if rest is not None:
            self._consumption.go_to(Position(rest.number))
        epoch = self._finder.begin(super()._next_epoch)
        if rest is not None:  # that is read next, and ends without a batch
            self._consumption.go_to(rest.iteration.begin)
            self._finder.is_superseded = True
        if (update := self._updates.early_request(epoch.number)) is not None:
            self._engine.send_update(update)
        while not self._finder.is_ready():
            self._check()
            self._changed.wait(0.1)
        if (error := self._finder.raised()) is not None:
            raise error
        self._step(PullEvent(self._form_stream))

    def _raised(self, stream: int) -> BaseException | None:
        """The error that ended a stream's iterable, or None."""
        epoch = self._epochs.get(stream)
        return epoch.pulled.error() if epoch is not None and epoch.pulled is not None else None

    def _forget(self, stream: int) -> None:
        outbox = self._outboxes.pop(stream, None)
        epoch = self._ended(stream)
        if outbox is not None:  # release batches that were delivered but not taken, because the pull was interrupted
            self._events += [SlotReleasedEvent(batch.slot) for batch in outbox.take_batches()]
        if epoch is not None:
            self._tasks.faults.forget(stream)
            self._counters.epoch_ended(epoch.number, self._changed.later)
            self._finder.is_past(epoch)
            epoch.close()
            if (epoch.has_shards or self._turns) and not self._closed:
                self._engine.leave(self._leave(epoch))

    def _leave(self, epoch: Epoch) -> LeaveEpochRequest:
        """The request to workers to leave an epoch that one iteration no longer reads; others may still read it."""
        others = [one for one in (*self._epochs.values(), self._finder.epoch) if one is not None and one is not epoch]
        return LeaveEpochRequest(epoch.number, epoch.key, all(one.number != epoch.number for one in others))

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
                    if isinstance(event, CloseEvent) and event.stream != self._form_stream:  # more rounds may follow
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
            case DeliverCommand() | FailCommand() if command.stream == self._form_stream:
                self._end_round(command)
            case FailCommand(stream, reason=ReportedFailure(worker, FailureReply(kind=FailureKind.UNEVEN) as its)) if (
                self._epochs[stream].host_shard != ALL
            ):
                refused = replace(its, kind=FailureKind.OPTION, summary=_UNEVEN)
                self._do(replace(command, reason=ReportedFailure(worker, refused)))
            case FailCommand(stream, batch, _, ReportedFailure(failure=FailureReply(kind=FailureKind.UNEVEN))):
                self.uneven = self.uneven or not self._skips  # errors skipped in this epoch say nothing about the next
                self._turn_uneven(stream, batch)
            case FailCommand(stream, batch, Task() as task, KilledReason(int() as row, death)) if self._may_leave_out():
                self._tasks.faults.leave_out(task, row, death)
                self._turn_uneven(stream, batch)
            case LeaveOutCommand(task, death):
                self._tasks.faults.leave_out(task, None, death)
            case DeliverCommand(stream) | FinishCommand(stream) | FailCommand(stream):
                self._outboxes[stream].put(command)
                if isinstance(command, DeliverCommand):
                    epoch = self._epochs[stream]
                    epoch.delivered()
                    if epoch.early is not None and not epoch.uneven and command.batch >= epoch.early.batches:
                        self._finder.is_past(epoch)
                self._tell()
            case LoadItemsCommand(stream, slot, count):
                pulled = self._epochs[stream].pulled
                assert pulled is not None  # only their streams load items
                self._slot_table.put(slot, pulled.load(count))
            case GatherCommand(stream, slot, pieces):
                self._slot_table.put(slot, self._epochs[stream].gather(pieces))
            case ParkCommand(stream, parked, slot, rows):
                self._epochs[stream].park(parked, self._slot_table.segments(slot, rows))
            case StartWorkerCommand(worker):
                if not self._closed:
                    self._engine.start_worker(worker)
            case RetireWorkerCommand(worker):
                self._engine.retire_worker(worker)
            case GiveUpCommand(reason):
                self._give_up(died_at_start(reason))

    def _turn_uneven(self, stream: int, batch: int) -> None:
        """Reopen the stream, from this batch on, as one whose batches are not known by number."""
        self._epochs[stream].turn_uneven(batch)
        self._events += [*self._ahead.close(), PullEvent(stream)]  # it needs the slots again

    def _end_round(self, command: DeliverCommand | FailCommand) -> None:
        """Process the outcome of a round in which the form is determined."""
        self._events += self._finder.outcome(command)
        if self._finder.form is not None and self._form is None:
            self._learn(self._finder.form)
            if self._finder.is_superseded:
                self._drop_inspected_epoch()
        elif self._form is None and self._finder.attempt is None and self._early.goes_on():
            self._finder.attempt = self._early.attempt
            self._events.append(PullEvent(self._form_stream))
        self._tell()

    def _may_leave_out(self) -> bool:
        return self._skips and self._tasks.faults.may_leave_out()

    def _submit(self, worker: int, task: Task, opens: bool) -> None:
        self._tasks.note(worker, task)
        is_for_form = task.stream == self._form_stream
        self._engine.submit(worker, self._finder.request(task) if is_for_form else self._tasks.request(task, opens))

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
        self._engine.send_form(FormRequest(cloudpickle.dumps(form, protocol=5), self._finder.draws))
        if self._early.is_wanted:
            self._open_early()
        self._tell()

    def _cut_short(self, error: BaseException) -> None:
        """Give up because an event was only partly processed. Waiting threads get an error instead of hanging."""
        self._give_up(error if isinstance(error, StokerError) else cut_short(error))

    def _give_up(self, error: StokerError) -> None:
        """End all streams with an error. If called more than once, the first error counts."""
        self._broken = self._broken or error
        self._engine.request_stop()
        self._tell()
