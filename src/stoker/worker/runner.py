"""Runs the user's code on tasks. Shared by worker processes and the inline engine."""

from __future__ import annotations

import os
import pickle
import time

from stoker.protocol.replies import (
    DescribedReply,
    ExamplesMadeReply,
    FailureReply,
    ShardOpenedReply,
    TaskDoneReply,
)
from stoker.protocol.requests import (
    COLLATED,
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
from stoker.worker.batching.writer import Writer
from stoker.worker.context import TaskContext
from stoker.worker.failed import failed
from stoker.worker.failpoints import Failpoint, reach
from stoker.worker.tasks.first_examples import FirstExamples
from stoker.worker.tasks.first_shards import FirstShards
from stoker.worker.tasks.index_tasks import IndexTasks
from stoker.worker.tasks.shard_tasks import ShardTasks
from stoker.worker.tasks.spec_inference import SpecInference
from stoker.worker.user_code.current import Current
from stoker.worker.user_code.epoch_hooks import EpochHooks
from stoker.worker.user_code.reading import Reader

TaskReply = ExamplesMadeReply | ShardOpenedReply | DescribedReply | TaskDoneReply | FailureReply


class Runner:
    """Executes tasks one at a time.

    Args:
        context: what the parts of the worker share.
        hooks: prepares the copy of the program for each epoch.
        worker: number of this worker process.
    """

    def __init__(self, context: TaskContext, hooks: EpochHooks, worker: int | None = None) -> None:
        self._context, self._task, self._clock, self._seeder = context, context.task, context.clock, context.seeder
        self._hooks, self._worker = hooks, worker
        import numpy.random  # noqa: F401  (NumPy loads it lazily: load it now, not within the first task)

        self._reader, self._writer = reader, writer = Reader(context), Writer(context)
        self._index_tasks = IndexTasks(context, reader, writer)
        self._shard_tasks = ShardTasks(context, reader, writer)
        self._first_examples = FirstExamples(context, reader)
        self._first_shards = FirstShards(context, writer, self._shard_tasks)
        self._spec_inference = SpecInference(context, reader, writer, self._first_examples)
        self._epoch: int | None = None
        self._turned: int | None = None  # the epoch whose program is in use

    def reply_to(self, request: Request) -> TaskReply:
        """Execute a task and return its outcome."""
        started, examples = time.perf_counter(), 0
        self._task.begin(request)
        self._clock.begin(makes_rows=isinstance(request, IndexTaskRequest | ShardTaskRequest | JoinTaskRequest))
        try:
            self._prepare(request)
            if _is_trial(request):
                time.sleep(0.2 * os.urandom(1)[0] / 256)  # avoids being hit each time by a periodic killer
            reply = self._done(request, started)
            examples = 0 if self._task.made_before else _examples(request, reply)
            return reply
        except BaseException as error:
            return self._failure(request.task, error)
        finally:
            self._clock.end(examples)
            self._task.end()

    def ready(self) -> None:
        """Note that this worker is ready for tasks."""
        self._clock.ready()

    @property
    def exhausted(self) -> bool:
        """True if file descriptors or memory have run out: another process must take over."""
        return self._task.exhausted

    def current(self) -> Current:
        """The epoch, example, shard, worker and seed for which user code is running."""
        return Current(self._epoch or 0, self._task.example, self._task.shard, self._worker, self._seeder.seed)

    def learn(self, known: FormRequest) -> None:
        """Adopt the form in which all workers write batches."""
        form = pickle.loads(known.pickled)
        self._writer.output.learn(form)
        self._reader.learn(form)
        if known.draws:
            self._seeder.seed_all()

    def leave(self, leave: LeaveEpochRequest) -> None:
        """Close the shards of an iteration."""
        self._shard_tasks.leave(leave.key)
        if leave.is_last:
            self._turned = None
            self._hooks.leave(leave.epoch)

    def leave_all(self) -> None:
        """Close the shards of all epochs."""
        self._shard_tasks.leave_all()

    def note_update(self, update: UpdateRequest) -> None:
        """Record the source attributes that apply from this epoch on."""
        self._turned = None
        self._hooks.note_update(update)

    def _prepare(self, request: Request) -> None:
        reach(Failpoint.CLAIM)
        if not isinstance(request, JoinTaskRequest) and request.epoch != self._epoch:
            if self._epoch is not None:
                reach(Failpoint.TURN)
            self._epoch = request.epoch
        if request.epoch != self._turned:
            self._turn_to(request.epoch)
            self._turned = request.epoch

    def _turn_to(self, epoch: int) -> None:
        """Switch to the copy of the program for this epoch."""
        program, held = self._hooks.program_for(epoch)
        if program is not self._context.program:
            self._context.used.use(program)
            self._seeder.hold(held)

    def _done(self, request: Request, started: float) -> TaskReply:
        """Execute a task that began at the time `started`."""
        match request:
            case IndexTaskRequest():
                dims = self._index_tasks.do(request)
                seconds = _for_all_rows(time.perf_counter() - started, request)
                return TaskDoneReply(request.task, seconds, dims, **self._task.digests.compared())
            case ShardTaskRequest():
                return self._shard_tasks.do(request, started)
            case JoinTaskRequest():
                dims = self._writer.join(request)
                return TaskDoneReply(request.task, time.perf_counter() - started, dims)
            case MakeExamplesRequest():
                return self._first_examples.do(request)
            case OpenShardRequest():
                return ShardOpenedReply(request.task, *self._first_shards.do(request))
            case DescribeRequest():
                return self._describe(request)

    def _describe(self, task: DescribeRequest) -> DescribedReply:
        import cloudpickle

        try:
            form, collated = self._spec_inference.form(task)
        finally:
            self._seeder.settle()
        pickled = b"" if form is None else cloudpickle.dumps(form, protocol=5)
        return DescribedReply(task.task, pickled, collated, self._seeder.draws)

    def _failure(self, task: int, error: BaseException) -> FailureReply:
        self._context.fork.leave()
        if isinstance(error, self._context.passes):
            raise error
        return failed(task, error, self._task)


def _for_all_rows(seconds: float, request: IndexTaskRequest) -> float:
    """The time that the task would have taken if no rows had been made before; 0 if most were: then it is not known."""
    rows = _made(request)
    return seconds * request.count / rows if 2 * rows > request.count else 0.0


def _made(request: IndexTaskRequest) -> int:
    """The number of rows that were not made before the task."""
    if not len(request.made):
        return request.count
    return 0 if COLLATED in request.made[:, 0] else request.count - len(request.made)


def _examples(request: Request, reply: TaskReply) -> int:
    """The number of examples that a task has made."""
    match request, reply:
        case IndexTaskRequest(), _:
            return _made(request)
        case ShardTaskRequest(), TaskDoneReply():
            return reply.rows
    return 0


def _is_trial(request: Request) -> bool:
    """True if the task only tests whether an example kills workers."""
    if isinstance(request, IndexTaskRequest):
        return request.trial and request.count == 1
    return isinstance(request, ShardTaskRequest) and request.until is not None
