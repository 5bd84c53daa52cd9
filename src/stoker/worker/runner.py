"""Runs the user's code on tasks. The same in a worker process and in the inline engine."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from stoker.memory import Inbox, Slot
from stoker.memory.board import NOTHING, PHASE, SHARD, TASK, Phase
from stoker.memory.parcel import unpack
from stoker.sources import ArraySource, ShardedSource
from stoker.sources.map_style import changed_length
from stoker.sources.marks import SKIP, Many
from stoker.spec import Misfit
from stoker.worker.current import Current
from stoker.worker.describe import Describer
from stoker.worker.digests import WHOLE, Digests, digest
from stoker.worker.failpoints import Failpoint, reach
from stoker.worker.fitting import MisfitAt, Reused
from stoker.worker.lanes import Lane, Lanes
from stoker.worker.messages import (
    MAX_BYTES,
    SHOWN,
    Describe,
    Described,
    Failure,
    Finished,
    FormKnown,
    Indices,
    Join,
    Leave,
    Progress,
    Question,
    Step,
    Work,
    encode,
)
from stoker.worker.output import Output
from stoker.worker.program import Program, takes_rng
from stoker.worker.reading import Reader, SourceChanged, copied, weighed
from stoker.worker.report import bounded, failure, is_exhausted
from stoker.worker.seeding import Seeder


class Uneven(Exception):
    """The transform returned SKIP or Many where one example was counted on."""


class Fork:
    """Tells whether this process is a copy that user code forked: it must not write any more."""

    happened = False


class Runner:
    """Carries out tasks, one after the other.

    Args:
        program: the user's code.
        slots: the slots, by number.
        inboxes: their inboxes.
        seeder: sets the random states before each example.
        words: the worker's board.
        fork: looked at after user code; a forked copy exits instead of writing.
        passes: exceptions of the user's code that are not turned into a `Failure`.
        worker: number of this worker process.
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
        passes: tuple[type[BaseException], ...] = (),
        worker: int | None = None,
    ) -> None:
        self._program, self._seeder, self._fork, self._passes = program, seeder, fork, passes
        if program.wants_rng:
            import numpy.random  # noqa: F401  (NumPy loads it on demand: here rather than within the first task)
        self._words = words
        self._reader = Reader(program, seeder, words)
        function = program.collation.function
        self._worker, self._batch_seed, self._collate_takes_rng = worker, 0, takes_rng(function)
        self._has_function = function is not None
        collate = self._collate if self._has_function else None
        self._output = Output(slots, inboxes, program.batch_size, collate, program.memory_limit)
        self._lanes = Lanes(program, self._reader, seeder, words)
        self._has_marks = program.transform is not None or program.skips
        self._singly = False  # user code uses an array again: each example is written, or copied, before the next
        self._interrupted: dict[tuple[int, int], Progress] = {}
        self._epoch = -1
        self._last_epoch: int | None = None
        self._digests = Digests()
        self._digesting = self._careful = False  # of the step at work
        self._shard: int | None = None

    def answer(self, question: Question) -> Described | Finished | Failure:
        """Do a task and tell how it went."""
        started = time.perf_counter()
        self._shard = None
        self._reader.begin_task(question.without if isinstance(question, Step) else ())
        self._digests.clear()
        self._words[TASK], self._words[SHARD] = question.task, NOTHING
        self._words[PHASE] = Phase.READING  # last: what stands above is of this task now
        try:
            self._reach(question)
            match question:
                case Describe():
                    return self._describe(question)
                case Work():
                    dims, seconds = self._work(question), time.perf_counter() - started
                    return Finished(question.task, seconds, dims, **self._compared())
                case Join():
                    dims = self._join(question)
                    return Finished(question.task, time.perf_counter() - started, dims)
                case Step():
                    return self._step(question, started)
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
        shard = self._words[SHARD]
        of = None if shard == NOTHING else int(shard)
        return Current(self._last_epoch or 0, self._reader.example, of, self._worker, self._seeder.seed)

    def _collate(self, examples: list[Any]) -> Any:
        """The user's function on the examples of a batch, with random states of its own."""
        function: Any = self._program.collation.function
        self._seeder.begin(self._batch_seed)
        if self._collate_takes_rng:
            return function(examples, rng=self._seeder.rng(self._batch_seed))
        return function(examples)

    def _reach(self, question: Question) -> None:
        reach(Failpoint.CLAIM)
        if isinstance(question, Work | Step) and question.epoch != self._last_epoch:
            if self._last_epoch is not None:
                reach(Failpoint.TURN)
            self._last_epoch = question.epoch

    def learn(self, known: FormKnown) -> None:
        """Take on the form that all workers write by."""
        self._output.learn(pickle.loads(known.pickled))

    def leave(self, leave: Leave) -> None:
        """Close the shards of an epoch."""
        self._lanes.leave(leave.epoch)

    # ── rows that are known beforehand ───────────────────────────────────────────────────────
    def _work(self, task: Work) -> tuple[int, ...]:
        if task.epoch != self._epoch:
            self._check_length()
            self._epoch = task.epoch
        source, form = self._program.source, self._output.form
        in_place = form.in_place and not task.serialized
        is_plain = isinstance(source, ArraySource) and self._program.transform is None and not task.trial
        if in_place and is_plain and task.counting < 0:
            columns = self._output.columns(task.slot, task.rows)
            source.take(task.indices, [column[task.first : task.first + task.count] for column in columns])
            return ()
        dims: tuple[int, ...] = ()

        def make() -> None:
            nonlocal dims
            self._digests.clear()
            made = self._made(task)
            if in_place and task.trial and task.digest:
                for _ in made:
                    """It is compared."""
            elif in_place:
                self._write_rows(task, made)
            else:
                numbers, examples = self._numbers(task), self._even(made)
                self._batch_seed = self._seeder.of_batch(task.epoch, int(numbers[0]))
                if task.digest:
                    self._digest_batch(examples)
                if not task.trial or not (task.digest or self._has_function):  # a part of it is no batch for collate
                    dims = self._whole(task, examples, numbers)

        if task.trial and task.count == 1:
            _wait_a_little()
        self._seeder.begin_task()
        try:
            make()
        except Reused:
            self._singly = True
            make()
        if self._seeder.must_redo():
            make()
        return dims

    def _made(self, task: Work | Step) -> Iterator[Any]:
        """What the transform returns for the examples of a task."""
        indices = self._numbers(task)
        seeds = self._seeder.seeds(task.epoch, indices)
        if isinstance(task, Work) and task.from_inbox:
            items = unpack(self._output.inboxes[task.slot].read(), task.count, skip=task.first)
            made = self._reader.items(items, int(indices[0]), seeds)
        else:
            made = self._reader.indexed(indices.tolist(), seeds)
        if isinstance(task, Work) and task.counting >= 0:
            made = weighed(made, task.counting - task.first)
        return self._digested(made) if isinstance(task, Work) and task.digest else made

    def _digested(self, made: Iterator[Any]) -> Iterator[Any]:
        for example in made:
            if example is not SKIP and type(example) is not Many:
                self._digests.add(self._reader.example or 0, example)
            yield example

    def _digest_batch(self, examples: list[Any]) -> None:
        """What the user's function makes of them is compared too."""
        if self._has_function:
            self._digests.add(WHOLE, self._collate(examples))

    def _compared(self) -> dict[str, Any]:
        """What an answer tells of the digests."""
        return {"digests": self._digests.told(), "together": self._digests.together} if self._digests else {}

    def _numbers(self, task: Work | Step) -> Indices:
        """The numbers of the examples of a task."""
        if isinstance(task, Work) and task.from_inbox:
            return np.arange(task.indices[0], task.indices[0] + task.count)
        if len(task.indices) == task.count:
            return task.indices
        return np.frombuffer(self._output.inboxes[task.slot].read(), np.int64, task.count)

    def _write_rows(self, task: Work, made: Iterator[Any]) -> None:
        write, row, size = self._output.rows(task.slot, task.rows).write, task.first, self._together()
        numbers = self._numbers(task)
        while some := list(islice(made, size)):
            self._refuse_marks(some)
            self._write(write, row, some, numbers[row - task.first :])
            row += len(some)

    def _even(self, made: Iterable[Any]) -> list[Any]:
        """The examples, each in its place; raises `Uneven`."""
        some = [copied(example) for example in made] if self._singly else list(made)
        self._refuse_marks(some)
        if self._fork.happened:
            os._exit(0)
        return some

    def _refuse_marks(self, some: list[Any]) -> None:
        if self._has_marks and any(one is SKIP or type(one) is Many for one in some):
            raise Uneven

    def _write(self, write: Callable[[int, list[Any]], None], row: int, some: list[Any], indices: Any) -> None:
        if self._fork.happened:  # this copy of the worker came back from the user's code
            os._exit(0)
        try:
            write(row, some)
            reach(Failpoint.COPY)
        except MisfitAt as misfit:
            self._reader.example = int(indices[misfit.position])
            raise misfit.reason from None
        except BaseException as error:
            if isinstance(error, (Reused, *self._passes)):
                raise
            self._convert(some, indices)
            raise

    def _convert(self, examples: Sequence[Any], numbers: Sequence[Any] | Indices) -> None:
        """Take them for what they are, one by one: what raises, or kills this worker, does so under its number."""
        for number, example in zip(numbers, examples, strict=False):
            self._reader.example = int(number)
            digest(example)

    def _together(self) -> int:
        return 1 if self._singly or self._careful else self._output.together

    # ── shards, whose rows are counted as they come ──────────────────────────────────────────
    def _step(self, task: Step, started: float) -> Finished:
        if isinstance(self._program.source, ShardedSource):
            self._shard = self._words[SHARD] = task.shard
        self._seeder.seed_all()
        self._digesting = task.digest
        if task.trial:
            return self._apart(task, started)
        self._careful = task.careful
        key = task.epoch, task.shard
        interrupted = self._interrupted.pop(key, None)
        if task.opening is not None:
            lane = self._open(task, task.opening.progress)
        else:
            lane = self._open(task, interrupted) if interrupted is not None else self._lanes.get(*key)
        before = lane.left
        self._batch_seed = self._seeder.of_batch(task.epoch, before.raw, before.within, task.shard + 1)
        try:
            rows, dims, parcel = self._rows_of(task, lane)
        except self._passes:  # it broke the user's generator off: the task is done again, from where this one began
            self._interrupted[key] = before
            raise
        except Reused:
            self._singly = self._lanes.copying = True
            self._reader.begin_task(task.without)
            self._digests.clear()
            lane = self._open(task, before)
            rows, dims, parcel = self._rows_of(task, lane)
        finally:
            self._careful = False
        progress = lane.progress()
        if lane.ended:
            self._lanes.finish(task.epoch, task.shard)
        skipped = self._reader.skipped
        seconds = time.perf_counter() - started
        its = tuple(skipped[:SHOWN]), len(skipped)
        return Finished(task.task, seconds, dims, rows, lane.ended, parcel, progress, *its, **self._compared())

    def _apart(self, task: Step, started: float) -> Finished:
        """Make rows of a step beside its open shard: once more, to be compared, or to see whether that kills."""
        assert task.opening is not None
        if task.until is not None:
            _wait_a_little()
        lane = self._lane(task, task.opening.progress)
        try:
            if task.until is not None:
                self._tempt(lane, task.until)
            else:
                self._repeat(lane, task.opening.progress, task)
        finally:
            lane.close()
        seconds = time.perf_counter() - started
        return Finished(task.task, seconds, ended=lane.ended, **self._compared())

    def _repeat(self, lane: Lane, since: Progress, task: Step) -> None:
        """Make the rows once more, to be compared."""
        wanted, examples = self._program.batch_size, list[Any]()
        while len(examples) < wanted and not lane.ended:
            examples += self._lane_take(lane, 1, wanted - len(examples))
        if len(examples) == wanted and not task.parted:
            self._batch_seed = self._seeder.of_batch(task.epoch, since.raw, since.within, task.shard + 1)
            self._digest_batch(examples)

    def _tempt(self, lane: Lane, until: int) -> None:
        """Make the examples up to this one, and convert them: does that kill this worker?"""
        while not lane.ended and (self._shard is None or lane.example <= until):
            for example in self._lane_take(lane, 1, 1):
                digest(example)

    def _open(self, task: Step, progress: Progress) -> Lane:
        return self._lanes.open(task.epoch, task.shard, lambda: self._lane(task, progress))

    def _lane(self, task: Step, progress: Progress) -> Lane:
        """What a step reads, from where `progress` says."""
        if isinstance(self._program.source, ShardedSource):
            return self._lanes.shard(task.epoch, task.shard, progress, frozenset(task.without))
        if task.opening is not None and task.opening.items:
            count, first = task.opening.items, task.opening.first
            items = list(unpack(self._output.inboxes[task.slot].read(), count))
            seeds = self._seeder.seeds(task.epoch, np.arange(first, first + count))
            return self._lanes.part(
                task.shard, self._reader.items(items, first, seeds), range(first, first + count), progress
            )
        numbers = self._numbers(task).tolist()
        return self._lanes.part(task.shard, self._made(task), numbers, progress)

    def _rows_of(self, task: Step, lane: Lane) -> tuple[int, tuple[int, ...], bool]:
        """Write a lane's next rows; returns how many, the shapes of their parts, and whether they are a parcel."""
        lane.begin_step(frozenset(task.without))
        wanted = self._program.batch_size
        if self._output.form.in_place and not task.parted and not task.serialized:
            numbers = self._fill(task.slot, lane, wanted)
            if len(numbers) == wanted:
                return wanted, (), False
            examples = self._output.kept(task.slot, len(numbers))
        else:
            examples, numbers = self._taken(lane, wanted, self._singly or task.parted)
            if len(examples) == wanted and not task.parted:
                if task.digest:
                    self._digest_batch(examples)
                return wanted, self._whole(task, examples, numbers), False
        self._output.parcel(task.slot, [(self._shard, *named) for named in zip(numbers, examples, strict=True)])
        return len(examples), (), True

    def _fill(self, slot: int, lane: Lane, wanted: int) -> list[int]:
        """Write rows as they come, until the batch is full or the shard ends; returns the examples' numbers."""
        write = self._output.rows(slot, wanted).write
        numbers: list[int] = []
        while (left := wanted - len(numbers)) and not lane.ended:
            some = self._lane_take(lane, min(self._together(), left), left)
            if some:
                self._write(write, len(numbers), some, lane.came)
            numbers += lane.came
        return numbers

    def _taken(self, lane: Lane, wanted: int, singly: bool) -> tuple[list[Any], list[int]]:
        """A lane's next examples, and their numbers."""
        examples: list[Any] = []
        numbers: list[int] = []
        while len(examples) < wanted and not lane.ended:
            size = 1 if singly or self._careful else wanted - len(examples)
            some = self._lane_take(lane, size, wanted - len(examples))
            numbers += lane.came
            if self._careful:
                self._convert(some, lane.came)
            examples += map(copied, some) if singly else some
        if self._fork.happened:
            os._exit(0)
        return examples, numbers

    def _lane_take(self, lane: Lane, count: int, last: int) -> list[Any]:
        try:
            some = lane.take(1 if self._digesting else count, last)
            if self._digesting:
                for example in some:
                    self._digests.add(lane.came[0], example)
            return some
        except BaseException:
            self._reader.example = lane.example
            raise

    def _whole(self, task: Work | Step, examples: list[Any], numbers: Sequence[Any] | Indices) -> tuple[int, ...]:
        """Write a batch whose examples have these numbers; returns the shapes of its parts."""
        self._reader.example = None
        self._words[PHASE] = Phase.JOINING
        try:
            dims = self._output.whole(task.slot, examples, task.serialized)
            reach(Failpoint.COPY)
            return dims
        except MisfitAt as misfit:
            if misfit.position < len(numbers):
                self._reader.example = int(numbers[misfit.position])
            raise misfit.reason from None
        except BaseException as error:
            if not self._has_function and not isinstance(error, (Reused, *self._passes)):
                self._convert(examples, numbers)
                self._reader.example = None  # it is none of them alone
            raise

    def _join(self, task: Join) -> tuple[int, ...]:
        self._words[PHASE] = Phase.JOINING
        named = list(unpack(self._output.inboxes[task.slot].read(), task.count))
        examples = [example for _, _, example in named]
        self._batch_seed = self._seeder.of_batch(task.epoch, task.batch, 0, 0, 1)
        try:
            if self._output.form.in_place and not task.serialized:
                self._output.rows(task.slot, self._program.batch_size).write(0, examples)
                return ()
            return self._output.whole(task.slot, examples, task.serialized)
        except MisfitAt as misfit:
            if misfit.position < len(named):
                self._shard, self._reader.example, _ = named[misfit.position]
            raise misfit.reason from None

    # ── the form, and errors ─────────────────────────────────────────────────────────────────
    def _describe(self, task: Describe) -> Described:
        import cloudpickle

        if not isinstance(self._program.source, ShardedSource):
            self._reader.without = frozenset(number for _, number in task.without)
        form = Describer(self._program, self._reader, self._seeder, self._words, task.without, self._collate).form(
            unpack(self._output.inboxes[task.slot].read(), task.items) if task.items else ()
        )
        described = Described(task.task, cloudpickle.dumps(form, protocol=5))
        if len(encode(described)) > MAX_BYTES:
            raise Misfit(f"it has {len(form.spec.leaves):,} leaves, too many to describe. Join them into arrays.")
        return described

    def _check_length(self) -> None:
        if self._program.length is None:
            return
        now = len(self._program.source)
        if now != self._program.length:
            raise SourceChanged(changed_length(self._program.length, now))

    def _failure(self, task: int, error: BaseException) -> Failure:
        if self._fork.happened:
            os._exit(0)
        if isinstance(error, self._passes):
            raise error
        example, shard = self._reader.example, self._shard
        self._reader.exhausted = self._reader.exhausted or is_exhausted(error)
        if isinstance(error, MisfitAt):
            error = error.reason
        if isinstance(error, Misfit):
            return Failure(task, "spec", bounded(str(error)), example=example, shard=shard)
        if isinstance(error, SourceChanged):
            return Failure(task, "source", str(error))
        if isinstance(error, Uneven):
            return Failure(task, "uneven", "", example=example)
        joining = self._words[PHASE] == Phase.JOINING and example is None
        return failure(task, "collate" if joining else "user", error, example, shard)


def _wait_a_little() -> None:
    """Up to 0.2 s, before an example is tried: who kills workers at regular times must not hit it each time."""
    time.sleep(0.2 * os.urandom(1)[0] / 256)
