"""Turns the scheduler's tasks into requests to workers, and replies from workers into events for the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stoker.coordinator.consumer_errors import ReportedFailure
from stoker.coordinator.counters import Counters
from stoker.coordinator.faults import Faults
from stoker.coordinator.form_finder import FormFinder
from stoker.coordinator.slot_table import SlotTable
from stoker.engines.engine import WorkerDeath
from stoker.epochs.epoch import Epoch
from stoker.protocol.replies import (
    DescribedReply,
    ExamplesMadeReply,
    FailureReply,
    Reply,
    ShardOpenedReply,
    TaskDoneReply,
)
from stoker.protocol.requests import MANY, NONE, IndexTaskRequest, Request, ShardTaskRequest
from stoker.scheduler.events import Event, TaskDoneEvent, TaskFailedEvent, WorkerDiedEvent
from stoker.scheduler.work import ShardWork, Task, is_apart
from stoker.structure.collation import Form


class TaskTable:
    """The tasks that workers hold. Used under the producer's lock.

    Args:
        epochs: the epochs that are being read, by stream.
        slot_table: the slots.
        finder: determines the form of the batches.
        counters: counts examples that are left out.
        free_slots: returns the slots that are not in use.
        verify: share of tasks that are done twice, to compare the results.

    Attributes:
        faults: finds the example at fault.
    """

    def __init__(
        self,
        epochs: dict[int, Epoch],
        slot_table: SlotTable,
        finder: FormFinder,
        counters: Counters,
        free_slots: Callable[[], list[int]],
        *,
        verify: float,
    ) -> None:
        self._epochs, self._slot_table, self._finder = epochs, slot_table, finder
        self._counters, self._free_slots = counters, free_slots
        self._given: dict[int, Task] = {}
        self._held: dict[int, set[int]] = {}  # tasks held, by worker
        self._died_at: set[int] = set()  # tasks at which workers died
        self._forms: tuple[Form, ...] = ()
        self.faults = Faults(self._given, epochs, counters, verify)

    def learn(self, form: Form) -> None:
        """Set the form of the batches, and with it that of batches with serialised components."""
        self._forms = form, form.serialized()

    def note(self, worker: int, task: Task) -> None:
        """Record that a worker gets a task."""
        self._given[task.id] = task
        self._held.setdefault(worker, set()).add(task.id)

    def died(self, death: WorkerDeath) -> WorkerDiedEvent:
        """The event for the scheduler about a death. Forgets the worker's tasks, which others will get."""
        self._finder.died(death.worker)
        event = self.faults.died(death)
        held = self._held.pop(death.worker, set())
        if death.place.task in held:
            self._died_at.add(death.place.task)
        for task in held:
            del self._given[task]
        return event

    def _forget(self, worker: int, task: int) -> Task:
        self._held[worker].remove(task)
        self._died_at.discard(task)
        return self._given.pop(task)

    def request(self, task: Task, opens: bool) -> Request:
        """The request to a worker for a task. Puts the data that it needs into the slot's inbox."""
        epoch = self._epochs[task.stream]
        if (opens or is_apart(task.work)) and (items := epoch.inbox(task)) is not None:
            self._slot_table.put(task.slot, items)
        request = epoch.request(task, opens)
        if isinstance(request, IndexTaskRequest | ShardTaskRequest) and self.faults.is_compared(task, epoch):
            request = replace(request, digest=True)
        if isinstance(request, ShardTaskRequest) and isinstance(task.work, ShardWork):
            careful = task.id in self._died_at
            request = replace(request, trial=is_apart(task.work), until=task.work.until, careful=careful)
        if (
            epoch.early is not None
            and isinstance(request, IndexTaskRequest | ShardTaskRequest)
            and not is_apart(task.work)
        ):
            numbers = epoch.reusable(request)
            is_whole = isinstance(request, IndexTaskRequest) and request.count == request.rows and not request.digest
            if len(numbers):
                request = replace(request, made=epoch.early.of(numbers, whole=is_whole))
        if isinstance(request, IndexTaskRequest | ShardTaskRequest) and len(request.indices) > MANY:
            self._slot_table.put(task.slot, request.indices.tobytes())
            request = replace(request, indices=NONE)
        return request

    def heard(self, worker: int, reply: Reply, *, inline: bool) -> list[Event]:
        """The events that follow from a worker's reply to a task."""
        match reply:
            case TaskDoneReply():
                return self._finished(worker, reply)
            case ExamplesMadeReply() | ShardOpenedReply() | DescribedReply():
                self._finder.heard(worker, self._forget(worker, reply.task), reply)
                return [TaskDoneEvent(worker, reply.task, 0.0)]  # first calls say nothing about speed
            case FailureReply(task=int() as task):
                self._forget(worker, task)
                return [TaskFailedEvent(worker, task, ReportedFailure(None if inline else worker, reply))]
        raise AssertionError(f"{reply} replies to no task")

    def _finished(self, worker: int, reply: TaskDoneReply) -> list[Event]:
        """The events for a task that is done and for its slot."""
        differs = self.faults.differs(worker, reply)
        task = self._forget(worker, reply.task)
        self.faults.task_done()
        if differs is not None:
            return [differs]
        epoch = self._epochs.get(task.stream)
        if epoch is None:
            return [_done(worker, task, reply)]
        since = epoch.progress_before(task.work)
        epoch.heard(task.work, reply)
        if is_apart(task.work):  # it has written nothing
            return [_done(worker, task, reply)]
        if reply.skips and isinstance(task.work, ShardWork) and not task.work.again:
            self._counters.skipped(*epoch.noted(task.work, reply.skipped, reply.skips))
        again = self.faults.to_be_done_again(task, reply)
        form = self._forms[epoch.serialized]
        sized = self._slot_table.wrote(task.slot, form, reply.dims, self._free_slots)
        return [replace(_done(worker, task, reply), again=again, since=since), *sized]


def _done(worker: int, task: Task, reply: TaskDoneReply) -> TaskDoneEvent:
    progress = reply.progress
    raw = progress.raw if progress is not None else 0
    return TaskDoneEvent(
        worker=worker,
        task=task.id,
        seconds=reply.seconds,
        rows=reply.rows,
        ended=reply.ended,
        packed=reply.packed,
        raw=raw,
        progress=progress,
    )
