"""Tasks that make the next rows of a shard, counted as they are made."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stoker.plan.position import ShardProgress
from stoker.protocol.replies import SHOWN, TaskDoneReply
from stoker.protocol.requests import OpenShardRequest, ShardTaskRequest
from stoker.worker.batching.fitting import MisfitAt
from stoker.worker.batching.writer import Writer
from stoker.worker.context import TaskContext
from stoker.worker.tasks.first_examples import partly
from stoker.worker.tasks.open_shards import OpenShards
from stoker.worker.tasks.shard_opener import ShardOpener
from stoker.worker.tasks.shard_reader import ShardReader
from stoker.worker.user_code.reading import Reader


@dataclass(eq=False)
class RowsAhead:
    """The rows of a step, made before the step was requested.

    Attributes:
        examples: the outputs.
        numbers: the numbers of their examples.
        before: progress of the shard before these rows.
        after: progress of the shard after these rows.
        ended: True if the shard has no more rows.
        skipped: examples that were left out while making them.
        collated: result of the user's function for these rows, if it was called: one item or none.
    """

    examples: list[Any]
    numbers: list[int]
    before: ShardProgress
    after: ShardProgress
    ended: bool
    skipped: list[tuple[int, str]]
    collated: list[Any] = field(default_factory=list)


class ShardTasks:
    """Carries out `ShardTaskRequest`.

    Args:
        context: what the parts of the worker share.
        reader: makes the examples for parts of a map-style source or an iterable.
        writer: writes them.
    """

    def __init__(self, context: TaskContext, reader: Reader, writer: Writer) -> None:
        self._context, self._task, self._seeder = context, context.task, context.seeder
        self._batch_size, self._is_sharded = context.program.batch_size, context.program.is_sharded
        self._reader, self._writer = reader, writer
        self._shard_opener, self._open_shards = ShardOpener(context, reader), OpenShards()
        self._interrupted: dict[tuple[int, int], ShardProgress] = {}
        self._digesting = False
        self._ahead: dict[tuple[int, int], deque[RowsAhead]] = {}

    def do(self, task: ShardTaskRequest, started: float) -> TaskDoneReply:
        """Make the task's rows; returns the reply."""
        if self._is_sharded:
            self._task.at_shard(task.shard)
        self._seeder.seed_all()
        self._digesting = task.digest
        return self._apart(task, started) if task.trial else self._in_line(task, started)

    def _in_line(self, task: ShardTaskRequest, started: float) -> TaskDoneReply:
        """Make rows that advance the shard."""
        key = task.key, task.shard
        interrupted = self._interrupted.pop(key, None)
        if task.opening is not None:
            self._ahead.pop(key, None)
            shard_reader = self._open(task, task.opening.progress)
        elif key in self._ahead:
            return self._made_ahead(task, started)
        else:
            shard_reader = self._open(task, interrupted) if interrupted is not None else self._open_shards.get(*key)
        before = shard_reader.left
        self.begin_batch(task.epoch, task.shard, before)
        try:
            written = self._rows_of(task, shard_reader)
        except self._context.passes:  # it interrupted the user's generator: the task is repeated from where it began
            self._interrupted[key] = before
            raise
        progress = shard_reader.progress()
        if shard_reader.ended:
            self._open_shards.finish(*key)
        return self._reply(task, started, written, self._task.skipped, ended=shard_reader.ended, progress=progress)

    def _made_ahead(self, task: ShardTaskRequest, started: float) -> TaskDoneReply:
        """Write rows that were made ahead."""
        key = task.key, task.shard
        ahead, self._task.made_before = self._ahead[key][0], True
        self.begin_batch(task.epoch, task.shard, ahead.before, ahead.collated)
        if task.digest:
            for number, example in zip(ahead.numbers, ahead.examples, strict=True):
                self._task.digests.add(number, example)
        written = self._put(task, ahead.examples, ahead.numbers)
        self._ahead[key].popleft()
        if not self._ahead[key]:
            del self._ahead[key]
        if ahead.ended:
            self._open_shards.finish(*key)
        return self._reply(task, started, written, ahead.skipped, ended=ahead.ended, progress=ahead.after)

    def _reply(
        self,
        task: ShardTaskRequest,
        started: float,
        written: tuple[int, tuple[int, ...], bool],
        skipped: list[tuple[int, str]],
        *,
        ended: bool,
        progress: ShardProgress,
    ) -> TaskDoneReply:
        """The reply for rows that were written: `written` is their number, shapes, and whether they are packed."""
        rows, dims, packed = written
        return TaskDoneReply(
            task.task,
            time.perf_counter() - started,
            dims,
            rows,
            ended=ended,
            packed=packed,
            progress=progress,
            skipped=tuple(skipped[:SHOWN]),
            skips=len(skipped),
            **self._task.digests.compared(),
        )

    def _put(
        self, task: ShardTaskRequest, examples: list[Any], numbers: list[int]
    ) -> tuple[int, tuple[int, ...], bool]:
        """Write a step's examples; returns their number, the shapes of their parts, and whether they are packed."""
        rows, shard = len(examples), self._task.shard
        if rows < self._batch_size or task.parted:
            named = zip(numbers, examples, strict=True)
            self._writer.output.packed(task.slot, [(shard, *one) for one in named])
            return rows, (), True
        if not self._is_in_place(task):
            if task.digest:
                self._writer.digest_batch(examples)
            return rows, self._writer.whole(task, examples, numbers), False
        put = self._writer.into(task.slot, rows)
        for number, example in zip(numbers, examples, strict=True):
            self._task.at(number)
            try:
                put(example)
            except MisfitAt as misfit:
                raise misfit.reason from None
        return rows, (), False

    def begin_batch(self, epoch: int, shard: int, at: ShardProgress, collated: Sequence[Any] = ()) -> None:
        """Begin a batch that starts there in the shard: its seed derives from that."""
        self._task.begin_batch(self._seeder.of_batch(epoch, at.raw, at.within, shard + 1), collated)

    # ── before the form of batches is known ──────────────────────────────────────────────────
    def open_early(self, task: OpenShardRequest) -> ShardReader:
        """Open a shard whose first rows will be kept."""
        self._task.at_shard(task.shard)
        self._seeder.seed_all()
        self._ahead.pop((task.key, task.shard), None)
        without = frozenset(task.without)
        return self._open_shards.open(
            task.key,
            task.shard,
            lambda: self._shard_opener.shard(task.epoch, task.shard, task.progress, without, keeps=True),
        )

    def keep(self, key: int, shard: int, made: list[RowsAhead]) -> None:
        """Keep the rows of a shard's first steps."""
        self._ahead[key, shard] = deque(made)

    def close(self, key: int, shard: int) -> None:
        """Close a shard that this worker does not continue."""
        self._ahead.pop((key, shard), None)
        self._open_shards.close(key, shard)

    def leave(self, key: int) -> None:
        """Close all shards of an iteration."""
        self._ahead = {its: ahead for its, ahead in self._ahead.items() if its[0] != key}
        self._open_shards.leave(key)

    def leave_all(self) -> None:
        """Close all shards."""
        self._open_shards.leave_all()

    # ── beside the shard that is open ────────────────────────────────────────────────────────
    def _apart(self, task: ShardTaskRequest, started: float) -> TaskDoneReply:
        """Make rows again, to compare them or to test whether they kill this worker."""
        assert task.opening is not None
        shard_reader = self._shard_reader(task, task.opening.progress)
        try:
            if task.until is not None:
                self._tempt(shard_reader, task.until)
            else:
                self._repeat(shard_reader, task.opening.progress, task)
        finally:
            shard_reader.close()
        seconds = time.perf_counter() - started
        return TaskDoneReply(task.task, seconds, ended=shard_reader.ended, **self._task.digests.compared())

    def _repeat(self, shard_reader: ShardReader, since: ShardProgress, task: ShardTaskRequest) -> None:
        """Make the rows again, to compare them."""
        wanted, examples = self._batch_size, list[Any]()
        while len(examples) < wanted and not shard_reader.ended:
            self._take(shard_reader, 1, wanted - len(examples), examples.append)
        if len(examples) == wanted and not task.parted:
            self.begin_batch(task.epoch, task.shard, since)
            self._writer.digest_batch(examples)

    def _tempt(self, shard_reader: ShardReader, until: int) -> None:
        """Make and convert the examples up to `until`, to test whether that kills this worker."""
        while not shard_reader.ended and (not self._is_sharded or shard_reader.example <= until):
            self._take(shard_reader, 1, 1, lambda example: self._writer.convert([example], shard_reader.came))

    # ── what is read ─────────────────────────────────────────────────────────────────────────
    def _open(self, task: ShardTaskRequest, progress: ShardProgress) -> ShardReader:
        return self._open_shards.open(task.key, task.shard, lambda: self._shard_reader(task, progress))

    def _shard_reader(self, task: ShardTaskRequest, progress: ShardProgress) -> ShardReader:
        """The shard reader for a step, positioned at `progress`."""
        if self._is_sharded:
            keeps = not self._is_in_place(task)
            return self._shard_opener.shard(task.epoch, task.shard, progress, frozenset(task.without), keeps=keeps)
        if task.opening is not None and task.opening.items:
            count, first = task.opening.items, task.opening.first
            items = list(self._context.items(task.slot, count))
            numbers = list(range(first, first + count))
        else:
            numbers, items = self._context.numbers(task).tolist(), []
        seeds = self._seeder.seeds(task.epoch, np.array(numbers, np.int64))
        numbers = self._context.examples(np.array(numbers, np.int64)).tolist()

        def read(rows: list[int]) -> Iterator[Any]:
            if items:
                return self._reader.some_items([items[row] for row in rows], rows, numbers, seeds)
            return self._reader.indexed([numbers[row] for row in rows], [seeds[row] for row in rows])

        made = partly(self._context.early, task.made, len(numbers), read, self._reader.earlier(numbers))
        return self._shard_opener.part(task.shard, made, numbers, progress)

    def _is_in_place(self, task: ShardTaskRequest) -> bool:
        """True if each example is written to its row as soon as it is made."""
        return self._writer.output.form.in_place and not task.parted and not task.serialized

    # ── what is written ──────────────────────────────────────────────────────────────────────
    def _rows_of(self, task: ShardTaskRequest, shard_reader: ShardReader) -> tuple[int, tuple[int, ...], bool]:
        """Write a shard's next rows; returns their number, the shapes of their parts, and whether they are packed."""
        shard_reader.begin_step(frozenset(task.without))
        wanted, output = self._batch_size, self._writer.output
        if self._is_in_place(task):
            numbers = self._fill(task.slot, shard_reader, wanted)
            if len(numbers) == wanted:
                return wanted, (), False
            examples = output.kept(task.slot, len(numbers))
        else:
            examples, numbers = self._taken(shard_reader, wanted)
            if len(examples) == wanted and not task.parted:
                if task.digest:
                    self._writer.digest_batch(examples)
                return wanted, self._writer.whole(task, examples, numbers), False
        shard = self._task.shard
        output.packed(task.slot, [(shard, *named) for named in zip(numbers, examples, strict=True)])
        return len(examples), (), True

    def _fill(self, slot: int, shard_reader: ShardReader, wanted: int) -> list[int]:
        """Write rows as they are made, until the batch is full or the shard ends; returns the examples' numbers."""
        self._take(shard_reader, wanted, wanted, self._writer.into(slot, wanted))
        return list(shard_reader.came)

    def _taken(self, shard_reader: ShardReader, wanted: int) -> tuple[list[Any], list[int]]:
        """A shard's next examples and their numbers."""
        examples: list[Any] = []

        def put(example: Any) -> None:
            if self._task.is_careful:
                self._writer.convert([example], shard_reader.came[-1:])
            examples.append(example)

        self._take(shard_reader, wanted, wanted, put)
        self._context.fork.leave()
        return examples, list(shard_reader.came)

    def _take(self, shard_reader: ShardReader, count: int, last: int, put: Callable[[Any], None]) -> None:
        """Pass a shard's next `count` outputs to `put`; `last` is the number of outputs that the step still needs."""

        def compared(example: Any) -> None:
            self._task.digests.add(shard_reader.came[-1], example)
            put(example)

        try:
            shard_reader.take(count, last, compared if self._digesting else put)
        except BaseException as error:
            self._task.at(shard_reader.example)
            if isinstance(error, MisfitAt):
                raise error.reason from None
            raise
