"""Tasks that are the next rows of a shard: they are counted as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from stoker.sources import ShardedSource
from stoker.worker.fitting import MisfitAt
from stoker.worker.lanes import Lane, Lanes
from stoker.worker.messages import SHOWN, Finished, Progress, Step
from stoker.worker.program import Program
from stoker.worker.reading import Reader
from stoker.worker.seeding import Seeder
from stoker.worker.writer import Writer


class Steps:
    """Carries out `Step`.

    Args:
        program: the user's code.
        reader: makes the examples of parts of a map-style source or an iterable.
        writer: writes them.
        seeder: sets the random states before each example.
        words: the worker's board.
        passes: exceptions that break off a task which is done again.
    """

    def __init__(
        self,
        program: Program,
        reader: Reader,
        writer: Writer,
        seeder: Seeder,
        words: memoryview,
        passes: tuple[type[BaseException], ...],
    ) -> None:
        self._program, self._reader, self._writer, self._seeder = program, reader, writer, seeder
        self._passes, self.lanes = passes, Lanes(program, reader, seeder, words)
        self._interrupted: dict[tuple[int, int], Progress] = {}
        self._is_sharded = isinstance(program.source, ShardedSource)
        self._digesting = False

    def do(self, task: Step, started: float) -> Finished:
        """Make its rows; returns the answer."""
        if self._is_sharded:
            self._reader.shard = task.shard
        self._seeder.seed_all()
        self._digesting = task.digest
        if task.trial:
            return self._apart(task, started)
        self._writer.careful = task.careful
        try:
            return self._in_line(task, started)
        finally:
            self._writer.careful = False

    def _in_line(self, task: Step, started: float) -> Finished:
        """The shard goes on with it."""
        key = task.epoch, task.shard
        interrupted = self._interrupted.pop(key, None)
        if task.opening is not None:
            lane = self._open(task, task.opening.progress)
        else:
            lane = self._open(task, interrupted) if interrupted is not None else self.lanes.get(*key)
        before = lane.left
        self._seed_batch(task, before)
        try:
            rows, dims, parcel = self._rows_of(task, lane)
        except self._passes:  # it broke the user's generator off: the task is done again, from where this one began
            self._interrupted[key] = before
            raise
        progress = lane.progress()
        if lane.ended:
            self.lanes.finish(*key)
        skipped = self._reader.skipped
        seconds = time.perf_counter() - started
        its = tuple(skipped[:SHOWN]), len(skipped)
        return Finished(task.task, seconds, dims, rows, lane.ended, parcel, progress, *its, **self._writer.compared())

    def _seed_batch(self, task: Step, at: Progress) -> None:
        self._writer.batch_seed = self._seeder.of_batch(task.epoch, at.raw, at.within, task.shard + 1)

    # ── beside the shard that is open ────────────────────────────────────────────────────────
    def _apart(self, task: Step, started: float) -> Finished:
        """Make rows once more, to be compared, or to see whether that kills."""
        assert task.opening is not None
        lane = self._lane(task, task.opening.progress)
        try:
            if task.until is not None:
                self._tempt(lane, task.until)
            else:
                self._repeat(lane, task.opening.progress, task)
        finally:
            lane.close()
        seconds = time.perf_counter() - started
        return Finished(task.task, seconds, ended=lane.ended, **self._writer.compared())

    def _repeat(self, lane: Lane, since: Progress, task: Step) -> None:
        """Make the rows once more, to be compared."""
        wanted, examples = self._program.batch_size, list[Any]()
        while len(examples) < wanted and not lane.ended:
            self._take(lane, 1, wanted - len(examples), examples.append)
        if len(examples) == wanted and not task.parted:
            self._seed_batch(task, since)
            self._writer.digest_batch(examples)

    def _tempt(self, lane: Lane, until: int) -> None:
        """Make the examples up to this one, and convert them: does that kill this worker?"""
        while not lane.ended and (not self._is_sharded or lane.example <= until):
            self._take(lane, 1, 1, lambda example: self._writer.convert([example], lane.came))

    # ── what is read ─────────────────────────────────────────────────────────────────────────
    def _open(self, task: Step, progress: Progress) -> Lane:
        return self.lanes.open(task.epoch, task.shard, lambda: self._lane(task, progress))

    def _lane(self, task: Step, progress: Progress) -> Lane:
        """What a step reads, from where `progress` says."""
        if self._is_sharded:
            keeps = not self._is_in_place(task)
            return self.lanes.shard(task.epoch, task.shard, progress, frozenset(task.without), keeps=keeps)
        if task.opening is not None and task.opening.items:
            count, first = task.opening.items, task.opening.first
            items = list(self._writer.items(task.slot, count))
            seeds = self._seeder.seeds(task.epoch, np.arange(first, first + count))
            made = self._reader.items(items, first, seeds)
            return self.lanes.part(task.shard, made, range(first, first + count), progress)
        indices = self._writer.numbers(task)
        numbers = indices.tolist()
        made = self._reader.indexed(numbers, self._seeder.seeds(task.epoch, indices))
        return self.lanes.part(task.shard, made, numbers, progress)

    def _is_in_place(self, task: Step) -> bool:
        """Whether each example is written to its row as it comes."""
        return self._writer.output.form.in_place and not task.parted and not task.serialized

    # ── what is written ──────────────────────────────────────────────────────────────────────
    def _rows_of(self, task: Step, lane: Lane) -> tuple[int, tuple[int, ...], bool]:
        """Write a lane's next rows; returns how many, the shapes of their parts, and whether they are a parcel."""
        lane.begin_step(frozenset(task.without))
        wanted, output = self._program.batch_size, self._writer.output
        if self._is_in_place(task):
            numbers = self._fill(task.slot, lane, wanted)
            if len(numbers) == wanted:
                return wanted, (), False
            examples = output.kept(task.slot, len(numbers))
        else:
            examples, numbers = self._taken(lane, wanted)
            if len(examples) == wanted and not task.parted:
                if task.digest:
                    self._writer.digest_batch(examples)
                return wanted, self._writer.whole(task, examples, numbers), False
        shard = self._reader.shard
        output.parcel(task.slot, [(shard, *named) for named in zip(numbers, examples, strict=True)])
        return len(examples), (), True

    def _fill(self, slot: int, lane: Lane, wanted: int) -> list[int]:
        """Write rows as they come, until the batch is full or the shard ends; returns the examples' numbers."""
        self._take(lane, wanted, wanted, self._writer.into(slot, wanted))
        return list(lane.came)

    def _taken(self, lane: Lane, wanted: int) -> tuple[list[Any], list[int]]:
        """A lane's next examples, and their numbers."""
        examples: list[Any] = []

        def put(example: Any) -> None:
            if self._writer.careful:
                self._writer.convert([example], lane.came[-1:])
            examples.append(example)

        self._take(lane, wanted, wanted, put)
        self._writer.fork.leave()
        return examples, list(lane.came)

    def _take(self, lane: Lane, count: int, last: int, put: Callable[[Any], None]) -> None:
        """Hand a lane's next `count` outputs to `put`; `last` is how many more the step wants in all."""

        def compared(example: Any) -> None:
            self._writer.digests.add(lane.came[-1], example)
            put(example)

        try:
            lane.take(count, last, compared if self._digesting else put)
        except BaseException as error:
            self._reader.example = lane.example
            if isinstance(error, MisfitAt):
                raise error.reason from None
            raise
