"""The objects that the parts of a worker share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stoker.memory.example_store import ExampleStore
from stoker.memory.packed import unpack
from stoker.memory.slot import Inbox, Slot
from stoker.protocol.program import Program
from stoker.protocol.requests import IndexTaskRequest, Indices, ShardTaskRequest
from stoker.worker.batching.fork_guard import ForkGuard
from stoker.worker.current_task import CurrentTask
from stoker.worker.failed import EarlyFailure, RaisedEarly
from stoker.worker.stage_clock import StageClock
from stoker.worker.user_code.program_in_use import ProgramInUse
from stoker.worker.user_code.seeding import Seeder


@dataclass(frozen=True)
class TaskContext:
    """Everything that a task needs: the user's code, the random states, the memory, and the record of the task itself.

    Attributes:
        used: the copy of the program in use.
        task: the task at work.
        clock: times it.
        seeder: sets the random states before each example.
        slots: the slots, by number. The last one is the store.
        inboxes: the slots' inboxes.
        store: holds examples made before the batches.
        fork: checked after user code has run; a forked copy exits instead of writing.
        passes: exceptions from user code that propagate instead of becoming a `FailureReply`. They interrupt a task,
            which is then repeated.
    """

    used: ProgramInUse
    task: CurrentTask
    clock: StageClock
    seeder: Seeder
    slots: Sequence[Slot]
    inboxes: Sequence[Inbox]
    store: ExampleStore
    fork: ForkGuard
    passes: tuple[type[BaseException], ...]

    @classmethod
    def of(
        cls,
        program: Program,
        seeder: Seeder,
        words: memoryview,
        *,
        slots: Sequence[Slot],
        inboxes: Sequence[Inbox],
        fork: ForkGuard,
        passes: tuple[type[BaseException], ...] = (),
    ) -> TaskContext:
        """The context of a worker that begins with this copy of the program; `words` is its progress page."""
        return cls(
            used=ProgramInUse(program),
            task=CurrentTask(words, skips=program.skips),
            clock=StageClock(words),
            seeder=seeder,
            slots=slots,
            inboxes=inboxes,
            store=ExampleStore(slots[-1]),
            fork=fork,
            passes=passes,
        )

    @property
    def program(self) -> Program:
        """The copy of the program in use."""
        return self.used.program

    def examples(self, numbers: Indices) -> Indices:
        """The examples in the source that have these numbers in the epoch."""
        return numbers % self.program.length if self.program.repeats and self.program.length else numbers

    def numbers(self, request: IndexTaskRequest | ShardTaskRequest) -> Indices:
        """The numbers of a request's examples in the epoch, from which their seeds derive."""
        if isinstance(request, IndexTaskRequest) and request.from_inbox:
            return np.arange(request.indices[0], request.indices[0] + request.count)
        if len(request.indices) == request.count:
            return request.indices
        return np.frombuffer(self.inboxes[request.slot].read(), np.int64, request.count)

    def early(self, place: int, size: int) -> Any:
        """An example that was made early, from its place in the store; raises `RaisedEarly` if it raised then."""
        made = self.store.get(place, size)
        if type(made) is EarlyFailure:
            raise RaisedEarly(made.reply)
        return made

    def items(self, slot: int, count: int, skip: int = 0) -> Iterable[Any]:
        """The items in a slot's inbox."""
        return unpack(self.inboxes[slot].read(), count, skip=skip)
