"""Runs the user's code on tasks. The same in a worker process and in the inline engine."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Sequence

from stoker.memory import Inbox, Slot, Store
from stoker.memory.board import NOTHING, PHASE, SHARD, TASK, Phase
from stoker.sources import ShardedSource
from stoker.spec import Misfit
from stoker.worker.current import Current
from stoker.worker.describe import Describer, Unsuited
from stoker.worker.failpoints import Failpoint, reach
from stoker.worker.fitting import MisfitAt, Uneven
from stoker.worker.making import Maker
from stoker.worker.messages import (
    Describe,
    Described,
    Failure,
    Finished,
    FormKnown,
    Join,
    Leave,
    Made,
    Make,
    Open,
    Opened,
    Question,
    Renew,
    Step,
    Work,
)
from stoker.worker.numbered import Numbered
from stoker.worker.opening import Opener
from stoker.worker.program import Program
from stoker.worker.reading import Reader, SourceChanged
from stoker.worker.report import bounded, failure, is_exhausted
from stoker.worker.seeding import Seeder
from stoker.worker.steps import Steps
from stoker.worker.turns import Turns
from stoker.worker.writer import Fork, Writer


class Runner:
    """Carries out tasks, one after the other.

    Args:
        program: the user's code.
        slots: the slots, by number; the last one is the store of examples that are made before the batches.
        inboxes: their inboxes.
        seeder: sets the random states before each example.
        words: the worker's board.
        fork: looked at after user code; a forked copy exits instead of writing.
        passes: exceptions of the user's code that are not turned into a `Failure`.
        worker: number of this worker process.
        turns: the copies of the program, of which this is the first.
    """

    def __init__(
        self,
        program: Program,
        slots: Sequence[Slot],
        inboxes: Sequence[Inbox],
        seeder: Seeder,
        words: memoryview,
        *,
        fork: Fork,
        turns: Turns,
        passes: tuple[type[BaseException], ...] = (),
        worker: int | None = None,
    ) -> None:
        self._program, self._seeder, self._words = program, seeder, words
        self._fork, self._passes, self._worker = fork, passes, worker
        import numpy.random  # noqa: F401  (NumPy loads it on demand: here rather than within the first task)

        self._reader = reader = Reader(program, seeder, words)
        self._writer = writer = Writer(program, slots, inboxes, reader, seeder, words, fork, passes)
        store = Store(slots[-1])
        self._numbered = Numbered(program, reader, writer, seeder, store)
        self._steps = Steps(program, reader, writer, seeder, words, passes, store)
        self._maker = Maker(program, reader, writer, seeder, store, passes)
        self._opener = Opener(program, reader, writer, self._steps, words, passes)
        self._describer = Describer(program, reader, writer, seeder, words, self._maker, store)
        self._epoch: int | None = None
        self._turns, self._used = turns, program
        self._turned: int | None = None  # the epoch whose program is used

    def answer(self, question: Question) -> Made | Opened | Described | Finished | Failure:
        """Do a task and tell how it went."""
        started = time.perf_counter()
        self._reader.begin_task(question.without if isinstance(question, Step | Make | Open) else ())
        self._writer.digests.clear()
        self._words[TASK], self._words[SHARD] = question.task, NOTHING
        self._words[PHASE] = Phase.READING  # last: what stands above is of this task now
        try:
            self._reach(question)
            if _is_trial(question):
                time.sleep(0.2 * os.urandom(1)[0] / 256)  # who kills workers at regular times must not hit each
            match question:
                case Make():
                    sizes = self._maker.do(question)
                    return Made(question.task, sizes, self._seeder.draws)
                case Open():
                    return Opened(question.task, *self._opener.do(question))
                case Describe():
                    return self._describe(question)
                case Work():
                    dims = self._numbered.do(question)
                    seconds = 0.0 if len(question.made) else time.perf_counter() - started  # it tells no speed
                    return Finished(question.task, seconds, dims, **self._writer.compared())
                case Join():
                    dims = self._writer.join(question)
                    return Finished(question.task, time.perf_counter() - started, dims)
                case Step():
                    return self._steps.do(question, started)
        except BaseException as error:
            return self._failure(question.task, error)
        finally:
            self._words[PHASE] = Phase.IDLE

    @property
    def exhausted(self) -> bool:
        """Whether no file descriptor or no memory is left: another process must take over."""
        return self._reader.exhausted

    def current(self) -> Current:
        """What the user's code is at."""
        return Current(self._epoch or 0, self._reader.example, self._reader.shard, self._worker, self._seeder.seed)

    def learn(self, known: FormKnown) -> None:
        """Take on the form that all workers write by."""
        form = pickle.loads(known.pickled)
        self._writer.output.learn(form)
        self._reader.learn(form)
        if known.draws:
            self._seeder.seed_all()

    def leave(self, leave: Leave) -> None:
        """Close the shards of an epoch."""
        self._steps.leave(leave.epoch)
        self._turned = None
        self._turns.leave(leave.epoch)

    def leave_all(self) -> None:
        """Close the shards of all epochs."""
        self._steps.lanes.leave_all()

    def renew(self, renew: Renew) -> None:
        """The source has other attributes from this epoch on."""
        self._turned = None
        self._turns.renew(renew)

    def _reach(self, question: Question) -> None:
        reach(Failpoint.CLAIM)
        if not isinstance(question, Join) and question.epoch != self._epoch:
            if self._epoch is not None:
                reach(Failpoint.TURN)
            self._epoch = question.epoch
        if question.epoch != self._turned:
            self._turn_to(question.epoch)
            self._turned = question.epoch

    def _turn_to(self, epoch: int) -> None:
        """Use the program as this epoch finds it."""
        program, held = self._turns.reach(epoch)
        if program is not self._used:
            for user in (self._reader, self._writer, self._numbered):
                user.use(program)
            self._seeder.hold(held)
            self._used = program

    def _describe(self, task: Describe) -> Described:
        import cloudpickle

        if not isinstance(self._program.source, ShardedSource):
            self._reader.without = frozenset(number for _, number in task.without)
        try:
            form, collated = self._describer.form(task)
        finally:
            self._seeder.settle()
        pickled = b"" if form is None else cloudpickle.dumps(form, protocol=5)
        return Described(task.task, pickled, collated, self._seeder.draws)

    def _failure(self, task: int, error: BaseException) -> Failure:
        self._fork.leave()
        if isinstance(error, self._passes):
            raise error
        example, shard = self._reader.example, self._reader.shard
        self._reader.exhausted = self._reader.exhausted or is_exhausted(error)
        if isinstance(error, MisfitAt):
            error = error.reason
        if isinstance(error, Misfit):
            return Failure(task, "spec", bounded(str(error)), example=example, shard=shard)
        if isinstance(error, SourceChanged):
            return Failure(task, "source", str(error))
        if isinstance(error, Unsuited):
            return Failure(task, "option", bounded(str(error)))
        if isinstance(error, Uneven):
            return Failure(task, "uneven", "", example=example)
        joining = self._words[PHASE] == Phase.JOINING and example is None
        return failure(task, "collate" if joining else "user", error, example, shard)


def _is_trial(question: Question) -> bool:
    """Whether an example is tried: does it kill workers?"""
    if isinstance(question, Work):
        return question.trial and question.count == 1
    return isinstance(question, Step) and question.until is not None
