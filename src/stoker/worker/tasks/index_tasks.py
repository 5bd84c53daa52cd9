"""Tasks whose rows are known in advance: numbered examples, each with its place in the batch."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from stoker.memory.worker_times import Stage
from stoker.protocol.requests import COLLATED, IndexTaskRequest
from stoker.sources.arrays import ArraySource
from stoker.sources.map_style import changed_length, count_of
from stoker.sources.markers import SKIP, Many
from stoker.structure.casting import CannotCast
from stoker.worker.batching.writer import Writer
from stoker.worker.context import TaskContext
from stoker.worker.failed import SourceChanged
from stoker.worker.tasks.first_examples import partly
from stoker.worker.user_code.reading import Reader, weighed


class IndexTasks:
    """Carries out `IndexTaskRequest`.

    Args:
        context: what the parts of the worker share.
        reader: makes examples.
        writer: writes them.
    """

    def __init__(self, context: TaskContext, reader: Reader, writer: Writer) -> None:
        self._context, self._used, self._task, self._seeder = context, context.used, context.task, context.seeder
        self._reader, self._writer = reader, writer
        self._epoch: int | None = None

    def do(self, task: IndexTaskRequest) -> tuple[int, ...]:
        """Make the task's rows; returns the shapes of the batch's parts, empty if they are as planned."""
        if task.epoch != self._epoch:
            self._check_length()
            self._epoch = task.epoch
        arrays = self._used.arrays
        if arrays is not None and self._is_copied(task, arrays):
            columns = self._writer.output.columns(task.slot, task.rows)
            rows = slice(task.first, task.first + task.count)
            with contextlib.suppress(CannotCast):  # reported below, with its example
                take = self._context.clock.of(Stage.WRITE, arrays.take)
                take(self._context.examples(self._context.numbers(task)), [column[rows] for column in columns])
                return ()
        self._seeder.begin_task()
        dims = self._made(task)
        return self._made(task) if self._seeder.must_redo() else dims

    def _is_copied(self, task: IndexTaskRequest, arrays: ArraySource) -> bool:
        """True if the rows are copied straight from the arrays, without running user code."""
        if not self._is_in_place(task) or task.trial or task.filled is not None:
            return False
        return arrays.is_like(self._writer.output.form.spec)

    def _is_in_place(self, task: IndexTaskRequest) -> bool:
        return self._writer.output.form.in_place and not task.serialized

    def _made(self, task: IndexTaskRequest) -> tuple[int, ...]:
        """Make the examples and write them; some trials only make them."""
        self._task.digests.clear()
        if self._is_in_place(task):
            self._task.write_at_once()
            made = self._examples(task)
            if task.trial and task.digest:
                for _ in made:
                    """Its digest is taken as it is made."""
            else:
                self._write(task, made)
            return ()
        numbers, made = self._context.numbers(task), self._examples(task)
        collated = [self._context.store.get(*where) for row, *where in task.made.tolist() if row == COLLATED]
        examples = [] if collated else self._writer.even(made)
        if self._writer.has_function:
            self._task.begin_batch(self._seeder.of_batch(task.epoch, int(numbers[0])), collated)
        if task.digest:
            self._writer.digest_batch(examples)
        if task.trial and (task.digest or self._writer.has_function):  # collate must not get part of a batch
            return ()
        return self._writer.whole(task, examples, self._context.examples(numbers))

    def _examples(self, task: IndexTaskRequest) -> Iterator[Any]:
        """The transform's output for each example."""
        numbers = self._context.numbers(task)
        seeds = self._seeder.seeds(task.epoch, numbers)
        numbers = self._context.examples(numbers)
        if len(task.made):
            made = self._partly(task, numbers.tolist(), seeds)
        elif task.from_inbox:
            items = self._context.items(task.slot, task.count, task.first)
            made = self._reader.items(items, int(numbers[0]), seeds)
        else:
            made = self._reader.indexed(numbers.tolist(), seeds)
        if task.filled is not None:
            made = weighed(made, task.filled.counts(task.first, task.first + task.count).tolist())
        return self._digested(made) if task.digest else made

    def _partly(self, task: IndexTaskRequest, numbers: list[int], seeds: list[int]) -> Iterator[Any]:
        """Like `_examples`, where some outputs were made earlier."""

        def read(rows: list[int]) -> Iterator[Any]:
            if not task.from_inbox:
                return self._reader.indexed([numbers[row] for row in rows], [seeds[row] for row in rows])
            items = list(self._context.items(task.slot, task.count, task.first))
            return self._reader.some_items([items[row] for row in rows], rows, numbers, seeds)

        return partly(self._context.early, task.made, task.count, read, self._reader.earlier(numbers))

    def _digested(self, made: Iterator[Any]) -> Iterator[Any]:
        for example in made:
            if example is not SKIP and type(example) is not Many:
                self._task.digests.add(self._task.example or 0, example)
            yield example

    def _write(self, task: IndexTaskRequest, made: Iterable[Any]) -> None:
        """Write each example into the slot before the next is made."""
        deque(map(self._writer.into(task.slot, task.rows, task.first), made), maxlen=0)  # the fastest loop

    def _check_length(self) -> None:
        program = self._used.program
        if program.length is not None and (now := count_of(program.source)) != program.length:
            raise SourceChanged(changed_length(program.length, now))
