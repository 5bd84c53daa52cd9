"""Runs the user's code on tasks. Shared by worker processes and the inline engine."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Sequence

from stoker.memory.example_store import ExampleStore
from stoker.memory.progress_page import NOTHING, PHASE, SHARD, TASK, Phase
from stoker.memory.slot import Inbox, Slot
from stoker.protocol.failures import bounded, failure, is_exhausted
from stoker.protocol.program import Program
from stoker.protocol.replies import (
    DescribedReply,
    ExamplesMadeReply,
    FailureKind,
    FailureReply,
    ShardOpenedReply,
    TaskDoneReply,
)
from stoker.protocol.requests import (
    DescribeRequest,
    FormRequest,
    IndexTaskRequest,
    JoinTaskRequest,
    LeaveEpochRequest,
    MakeExamplesRequest,
    OpenShardRequest,
    Request,
    ShardTaskRequest,
    UpdateRequest,
)
from stoker.structure.forms import Misfit
from stoker.worker.batching.fitting import MisfitAt, Uneven
from stoker.worker.batching.fork_guard import ForkGuard
from stoker.worker.batching.writer import Writer
from stoker.worker.failpoints import Failpoint, reach
from stoker.worker.tasks.first_examples import FirstExamples
from stoker.worker.tasks.first_shards import FirstShards
from stoker.worker.tasks.index_tasks import IndexTasks
from stoker.worker.tasks.shard_tasks import ShardTasks
from stoker.worker.tasks.spec_inference import SpecInference, UnsuitedExample
from stoker.worker.user_code.current import Current
from stoker.worker.user_code.epoch_hooks import EpochHooks
from stoker.worker.user_code.reading import Reader, SourceChanged
from stoker.worker.user_code.seeding import Seeder


class Runner:
    """Executes tasks one at a time.

    Args:
        program: the user's code.
        slots: the slots, by number. The last one is the store of examples made before the batches.
        inboxes: the slots' inboxes.
        seeder: sets the random states before each example.
        words: the worker's progress page.
        fork: checked after user code has run; a forked copy exits instead of writing.
        passes: exceptions from user code that propagate instead of becoming a `FailureReply`.
        worker: number of this worker process.
        turns: the copies of the program; `program` is the first.
    """

    def __init__(
        self,
        program: Program,
        slots: Sequence[Slot],
        inboxes: Sequence[Inbox],
        seeder: Seeder,
        words: memoryview,
        *,
        fork: ForkGuard,
        turns: EpochHooks,
        passes: tuple[type[BaseException], ...] = (),
        worker: int | None = None,
    ) -> None:
        self._program, self._seeder, self._words = program, seeder, words
        self._fork, self._passes, self._worker = fork, passes, worker
        import numpy.random  # noqa: F401  (NumPy loads it lazily: load it now, not within the first task)

        self._reader = reader = Reader(program, seeder, words)
        self._writer = writer = Writer(program, slots, inboxes, reader, seeder, words, fork, passes)
        store = ExampleStore(slots[-1])
        self._numbered = IndexTasks(program, reader, writer, seeder, store)
        self._steps = ShardTasks(program, reader, writer, seeder, words, passes, store)
        self._maker = FirstExamples(program, reader, writer, seeder, store, passes)
        self._opener = FirstShards(program, reader, writer, self._steps, words, passes)
        self._describer = SpecInference(program, reader, writer, seeder, words, self._maker, store)
        self._epoch: int | None = None
        self._turns, self._used = turns, program
        self._turned: int | None = None  # the epoch whose program is in use

    def answer(
        self, question: Request
    ) -> ExamplesMadeReply | ShardOpenedReply | DescribedReply | TaskDoneReply | FailureReply:
        """Execute a task and return its outcome."""
        started = time.perf_counter()
        self._reader.begin_task(
            question.without if isinstance(question, ShardTaskRequest | MakeExamplesRequest | OpenShardRequest) else ()
        )
        self._writer.digests.clear()
        self._words[TASK], self._words[SHARD] = question.task, NOTHING
        self._words[PHASE] = Phase.READING  # last: the words above now describe this task
        try:
            self._reach(question)
            if _is_trial(question):
                time.sleep(0.2 * os.urandom(1)[0] / 256)  # avoids being hit each time by a periodic killer
            match question:
                case MakeExamplesRequest():
                    sizes = self._maker.do(question)
                    return ExamplesMadeReply(question.task, sizes, self._seeder.draws)
                case OpenShardRequest():
                    return ShardOpenedReply(question.task, *self._opener.do(question))
                case DescribeRequest():
                    return self._describe(question)
                case IndexTaskRequest():
                    dims = self._numbered.do(question)
                    seconds = 0.0 if len(question.made) else time.perf_counter() - started  # says nothing about speed
                    return TaskDoneReply(question.task, seconds, dims, **self._writer.compared())
                case JoinTaskRequest():
                    dims = self._writer.join(question)
                    return TaskDoneReply(question.task, time.perf_counter() - started, dims)
                case ShardTaskRequest():
                    return self._steps.do(question, started)
        except BaseException as error:
            return self._failure(question.task, error)
        finally:
            self._words[PHASE] = Phase.IDLE

    @property
    def exhausted(self) -> bool:
        """True if file descriptors or memory have run out: another process must take over."""
        return self._reader.exhausted

    def current(self) -> Current:
        """The epoch, example, shard, worker and seed for which user code is running."""
        return Current(self._epoch or 0, self._reader.example, self._reader.shard, self._worker, self._seeder.seed)

    def learn(self, known: FormRequest) -> None:
        """Adopt the form in which all workers write batches."""
        form = pickle.loads(known.pickled)
        self._writer.output.learn(form)
        self._reader.learn(form)
        if known.draws:
            self._seeder.seed_all()

    def leave(self, leave: LeaveEpochRequest) -> None:
        """Close the shards of an epoch."""
        self._steps.leave(leave.epoch)
        self._turned = None
        self._turns.leave(leave.epoch)

    def leave_all(self) -> None:
        """Close the shards of all epochs."""
        self._steps.shard_readers.leave_all()

    def renew(self, renew: UpdateRequest) -> None:
        """Record the source attributes that apply from this epoch on."""
        self._turned = None
        self._turns.renew(renew)

    def _reach(self, question: Request) -> None:
        reach(Failpoint.CLAIM)
        if not isinstance(question, JoinTaskRequest) and question.epoch != self._epoch:
            if self._epoch is not None:
                reach(Failpoint.TURN)
            self._epoch = question.epoch
        if question.epoch != self._turned:
            self._turn_to(question.epoch)
            self._turned = question.epoch

    def _turn_to(self, epoch: int) -> None:
        """Switch to the copy of the program for this epoch."""
        program, held = self._turns.reach(epoch)
        if program is not self._used:
            for user in (self._reader, self._writer, self._numbered):
                user.use(program)
            self._seeder.hold(held)
            self._used = program

    def _describe(self, task: DescribeRequest) -> DescribedReply:
        import cloudpickle

        if not self._program.is_sharded:
            self._reader.without = frozenset(number for _, number in task.without)
        try:
            form, collated = self._describer.form(task)
        finally:
            self._seeder.settle()
        pickled = b"" if form is None else cloudpickle.dumps(form, protocol=5)
        return DescribedReply(task.task, pickled, collated, self._seeder.draws)

    def _failure(self, task: int, error: BaseException) -> FailureReply:
        self._fork.leave()
        if isinstance(error, self._passes):
            raise error
        example, shard = self._reader.example, self._reader.shard
        self._reader.exhausted = self._reader.exhausted or is_exhausted(error)
        if isinstance(error, MisfitAt):
            error = error.reason
        if isinstance(error, Misfit):
            return FailureReply(task, FailureKind.SPEC, bounded(str(error)), example=example, shard=shard)
        if isinstance(error, SourceChanged):
            return FailureReply(task, FailureKind.SOURCE, str(error))
        if isinstance(error, UnsuitedExample):
            return FailureReply(task, FailureKind.OPTION, bounded(str(error)))
        if isinstance(error, Uneven):
            return FailureReply(task, FailureKind.UNEVEN, "", example=example)
        joining = self._words[PHASE] == Phase.JOINING and example is None
        return failure(task, FailureKind.COLLATE if joining else FailureKind.USER, error, example, shard)


def _is_trial(question: Request) -> bool:
    """True if the task only tests whether an example kills workers."""
    if isinstance(question, IndexTaskRequest):
        return question.trial and question.count == 1
    return isinstance(question, ShardTaskRequest) and question.until is not None
