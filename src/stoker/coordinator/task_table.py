"""From the scheduler's tasks to questions for workers, and from their answers to what the scheduler is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stoker.coordinator.consumer_errors import Told
from stoker.coordinator.counters import Ledger
from stoker.coordinator.faults import Inquest
from stoker.coordinator.slot_table import Shelf
from stoker.engines.engine import Death
from stoker.epochs.epoch import Epoch
from stoker.protocol.messages import MANY, NONE, Failure, Finished, Question, Step, Work
from stoker.scheduler.messages import Died, Done, Event, Failed, Stride, Task, is_apart
from stoker.structure.collation import Form


class Tasks:
    """The tasks that workers have. Used under the dispatcher's lock.

    Args:
        epochs: those that are read, by stream.
        shelf: the slots.
        ledger: counts what is left out.
        free_slots: slots that nobody needs.
        verify: the share of tasks that are done twice, to see whether the same comes out.

    Attributes:
        inquest: which example is at fault.
    """

    def __init__(
        self,
        epochs: dict[int, Epoch],
        shelf: Shelf,
        ledger: Ledger,
        free_slots: Callable[[], list[int]],
        verify: float,
    ) -> None:
        self._epochs, self._shelf, self._ledger, self._free_slots = epochs, shelf, ledger, free_slots
        self._given: dict[int, Task] = {}
        self._held: dict[int, set[int]] = {}  # tasks that a worker has
        self._died_at: set[int] = set()  # tasks at which workers died
        self._forms: tuple[Form, ...] = ()
        self.inquest = Inquest(self._given, epochs, ledger, verify)

    def learn(self, form: Form) -> None:
        """What batches look like, also those of serialised components."""
        self._forms = form, form.serialized()

    def note(self, worker: int, task: Task) -> None:
        """A worker gets this task."""
        self._given[task.id] = task
        self._held.setdefault(worker, set()).add(task.id)

    def died(self, death: Death) -> Died:
        """A worker died: what the scheduler is told of it. It gives the worker's tasks to others."""
        told = self.inquest.died(death)
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

    def question(self, task: Task, opens: bool) -> Question:
        """What a worker is asked; what it needs is put into the slot's inbox."""
        epoch = self._epochs[task.stream]
        if (opens or is_apart(task.work)) and (items := epoch.inbox(task)) is not None:
            self._shelf.put(task.slot, items)
        question = epoch.question(task, opens)
        if isinstance(question, Work | Step) and self.inquest.is_compared(task, epoch):
            question = replace(question, digest=True)
        if isinstance(question, Step) and isinstance(task.work, Stride):
            careful = task.id in self._died_at
            question = replace(question, trial=is_apart(task.work), until=task.work.until, careful=careful)
        if epoch.early is not None and isinstance(question, Work | Step) and not is_apart(task.work):
            numbers = epoch.numbers(question)
            is_whole = isinstance(question, Work) and question.count == question.rows and not question.digest
            if len(numbers):
                question = replace(question, made=epoch.early.of(numbers, whole=is_whole))
        if isinstance(question, Work | Step) and len(question.indices) > MANY:
            self._shelf.put(task.slot, question.indices.tobytes())
            question = replace(question, indices=NONE)
        return question

    def failed(self, worker: int, failure: Failure, *, inline: bool) -> Failed:
        """The user's code raised in a task."""
        self._forget(worker, failure.task)
        return Failed(worker, failure.task, Told(None if inline else worker, failure))

    def probed(self, worker: int, task: int) -> tuple[Task, Done]:
        """A worker has made examples that are looked at, or told what they look like."""
        return self._forget(worker, task), Done(worker, task, 0.0)  # the first calls tell no speed

    def finished(self, worker: int, answer: Finished) -> list[Event]:
        """A task is done: what the scheduler is told of it, and of the slot."""
        differs = self.inquest.differs(worker, answer)
        task = self._forget(worker, answer.task)
        self.inquest.all_is_well()
        if differs is not None:
            return [differs]
        epoch = self._epochs.get(task.stream)
        if epoch is None:
            return [_done(worker, task, answer)]
        since = epoch.since(task.work)
        epoch.heard(task.work, answer)
        if is_apart(task.work):  # it has written nothing
            return [_done(worker, task, answer)]
        if answer.skips and isinstance(task.work, Stride) and not task.work.again:
            self._ledger.skipped(*epoch.noted(task.work, answer.skipped, answer.skips))
        again = self.inquest.to_be_done_again(task, answer)
        form = self._forms[epoch.serialized]
        sized = self._shelf.wrote(task.slot, form, answer.dims, self._free_slots)
        return [replace(_done(worker, task, answer), again=again, since=since), *sized]


def _done(worker: int, task: Task, answer: Finished) -> Done:
    come = answer.progress
    raw = come.raw if come is not None else 0
    return Done(worker, task.id, answer.seconds, answer.rows, answer.ended, answer.parcel, raw, come=come)
