"""Turns the scheduler's tasks into requests to workers, and replies from workers into events for the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stoker.coordinator.consumer_errors import ReportedFailure
from stoker.coordinator.counters import Counters
from stoker.coordinator.faults import Faults
from stoker.coordinator.slot_table import SlotTable
from stoker.engines.engine import WorkerDeath
from stoker.epochs.epoch import Epoch
from stoker.protocol.replies import FailureReply, TaskDoneReply
from stoker.protocol.requests import MANY, NONE, IndexTaskRequest, Request, ShardTaskRequest
from stoker.scheduler.events import Event, TaskDoneEvent, TaskFailedEvent, WorkerDiedEvent
from stoker.scheduler.work import ShardWork, Task, is_apart
from stoker.structure.collation import Form


class TaskTable:
    """The tasks that workers hold. Used under the producer's lock.

    Args:
        epochs: the epochs that are being read, by stream.
        slot_table: the slots.
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
        counters: Counters,
        free_slots: Callable[[], list[int]],
        verify: float,
    ) -> None:
        self._epochs, self._slot_table, self._counters, self._free_slots = epochs, slot_table, counters, free_slots
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
        told = self.faults.died(death)
        held = self._held.pop(death.worker, set())
        if death.place.task in held:
            self._died_at.add(death.place.task)
        for task in held:
            del self._given[task]
        return told

    def _forget(self, worker: int, task: int) -> Task:
        self._held[worker].remove(task)
        self._died_at.discard(task)
        return self._given.pop(task)

    def question(self, task: Task, opens: bool) -> Request:
        """The request to a worker for a task. Puts the data that it needs into the slot's inbox."""
        epoch = self._epochs[task.stream]
        if (opens or is_apart(task.work)) and (items := epoch.inbox(task)) is not None:
            self._slot_table.put(task.slot, items)
        question = epoch.question(task, opens)
        if isinstance(question, IndexTaskRequest | ShardTaskRequest) and self.faults.is_compared(task, epoch):
            question = replace(question, digest=True)
        if isinstance(question, ShardTaskRequest) and isinstance(task.work, ShardWork):
            careful = task.id in self._died_at
            question = replace(question, trial=is_apart(task.work), until=task.work.until, careful=careful)
        if (
            epoch.early is not None
            and isinstance(question, IndexTaskRequest | ShardTaskRequest)
            and not is_apart(task.work)
        ):
            numbers = epoch.reusable(question)
            is_whole = (
                isinstance(question, IndexTaskRequest) and question.count == question.rows and not question.digest
            )
            if len(numbers):
                question = replace(question, made=epoch.early.of(numbers, whole=is_whole))
        if isinstance(question, IndexTaskRequest | ShardTaskRequest) and len(question.indices) > MANY:
            self._slot_table.put(task.slot, question.indices.tobytes())
            question = replace(question, indices=NONE)
        return question

    def failed(self, worker: int, failure: FailureReply, *, inline: bool) -> TaskFailedEvent:
        """The event for a task that has failed, usually because the user's code raised."""
        assert failure.task is not None
        self._forget(worker, failure.task)
        return TaskFailedEvent(worker, failure.task, ReportedFailure(None if inline else worker, failure))

    def probed(self, worker: int, task: int) -> tuple[Task, TaskDoneEvent]:
        """The task and the event for a request that inspects examples: they were made or described."""
        return self._forget(worker, task), TaskDoneEvent(worker, task, 0.0)  # first calls say nothing about speed

    def finished(self, worker: int, answer: TaskDoneReply) -> list[Event]:
        """The events for a task that is done and for its slot."""
        differs = self.faults.differs(worker, answer)
        task = self._forget(worker, answer.task)
        self.faults.all_is_well()
        if differs is not None:
            return [differs]
        epoch = self._epochs.get(task.stream)
        if epoch is None:
            return [_done(worker, task, answer)]
        since = epoch.since(task.work)
        epoch.heard(task.work, answer)
        if is_apart(task.work):  # it has written nothing
            return [_done(worker, task, answer)]
        if answer.skips and isinstance(task.work, ShardWork) and not task.work.again:
            self._counters.skipped(*epoch.noted(task.work, answer.skipped, answer.skips))
        again = self.faults.to_be_done_again(task, answer)
        form = self._forms[epoch.serialized]
        sized = self._slot_table.wrote(task.slot, form, answer.dims, self._free_slots)
        return [replace(_done(worker, task, answer), again=again, since=since), *sized]


def _done(worker: int, task: Task, answer: TaskDoneReply) -> TaskDoneEvent:
    come = answer.progress
    raw = come.raw if come is not None else 0
    return TaskDoneEvent(worker, task.id, answer.seconds, answer.rows, answer.ended, answer.packed, raw, come=come)
