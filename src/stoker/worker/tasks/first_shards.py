"""Opens shards and makes their first rows before the form of batches is known."""

from __future__ import annotations

from typing import Any

from stoker.protocol.requests import OpenShardRequest
from stoker.structure.collation import is_stacked_in_place
from stoker.structure.merging import FROM_FUNCTION, loose, ready
from stoker.structure.spec import Spec
from stoker.worker.batching.writer import Writer
from stoker.worker.context import TaskContext
from stoker.worker.tasks.shard_reader import ShardReader
from stoker.worker.tasks.shard_tasks import RowsAhead, ShardTasks


class FirstShards:
    """Carries out `OpenShardRequest`.

    Args:
        context: what the parts of the worker share.
        writer: calls the user's collate function.
        shard_tasks: continues the shards.
    """

    def __init__(self, context: TaskContext, writer: Writer, shard_tasks: ShardTasks) -> None:
        self._context, self._task = context, context.task
        self._batch_size, self._collation = context.program.batch_size, context.program.collation
        self._writer, self._shard_tasks = writer, shard_tasks

    def do(self, task: OpenShardRequest) -> tuple[bool, bytes]:
        """Open the shard; returns the fields of `ShardOpenedReply`: whether it is open, and the pickled specs."""
        made, is_open = list[RowsAhead](), False
        try:
            made, is_open = self._taken(task, self._shard_tasks.open_early(task))
        except BaseException as error:
            self._shard_tasks.close(task.key, task.shard)
            self._pass_by(error)
        specs = self._specs(task, made)
        if is_open and not task.without:
            self._shard_tasks.keep(task.key, task.shard, made)
        else:  # an error is raised again when its turn comes
            self._shard_tasks.close(task.key, task.shard)
        return is_open and not task.without, _pickled(specs)

    def _taken(self, task: OpenShardRequest, shard_reader: ShardReader) -> tuple[list[RowsAhead], bool]:
        """The rows of the shard's first steps, and whether all steps succeeded."""
        made: list[RowsAhead] = []
        shard_reader.begin_step(frozenset(task.without))
        while len(made) < task.steps and not shard_reader.ended:
            before, examples, skipped = shard_reader.left, list[Any](), len(self._task.skipped)
            try:
                shard_reader.take(self._batch_size, self._batch_size, examples.append)
            except BaseException as error:
                self._pass_by(error)
                made.append(RowsAhead(examples, list(shard_reader.came), before, after=before, ended=False, skipped=[]))
                return made, False
            self._context.fork.leave()
            made.append(
                RowsAhead(
                    examples,
                    list(shard_reader.came),
                    before,
                    after=shard_reader.progress(),
                    ended=shard_reader.ended,
                    skipped=self._task.skipped[skipped:],
                )
            )
        return made, True

    def _specs(self, task: OpenShardRequest, made: list[RowsAhead]) -> list[tuple[Spec, int]]:
        """The specs of the rows, each with the number of examples that support it. Stops at the first error."""
        specs = list[tuple[Spec, int]]()
        try:
            for ahead in made:
                specs += self._described(task, ahead)
        except BaseException as error:
            self._pass_by(error)
        self._task.at(None)
        return specs

    def _pass_by(self, error: BaseException) -> None:
        """Ignore an error for now, unless it is one of `passes`.

        It is raised again when its turn comes, or when nothing else determines the form of batches.
        """
        if isinstance(error, self._context.passes):
            raise error
        self._task.note(error)

    def _described(self, task: OpenShardRequest, ahead: RowsAhead) -> list[tuple[Spec, int]]:
        """The spec of a step's rows, if they determine it."""
        if self._collation.function is None:
            return [self._spec(ahead)] if ahead.examples else []
        if len(ahead.examples) < self._batch_size:
            return []
        self._task.join()
        self._shard_tasks.begin_batch(task.epoch, task.shard, ahead.before)
        batch = self._writer.collate(ahead.examples)
        self._task.go_on_reading()
        ahead.collated.append(batch)
        return [(loose(Spec.of(batch), scalars=True, origin=FROM_FUNCTION), 1)]

    def _spec(self, ahead: RowsAhead) -> tuple[Spec, int]:
        """The spec of a step's examples. If examples have fixed places in a batch, the first one determines it."""
        collation = self._collation
        self._task.at(ahead.numbers[0])
        if collation.default == "asis":
            return ready(collation, ahead.examples[0]), 1
        spec = collation.spec(ahead.examples[0])
        if collation.default == "single" or not is_stacked_in_place(spec, collation.rules(spec)):
            for example, number in zip(ahead.examples[1:], ahead.numbers[1:], strict=False):
                self._task.at(number)
                spec = spec.widened(example)
        return spec, len(ahead.examples)


def _pickled(specs: list[tuple[Spec, int]]) -> bytes:
    import cloudpickle

    pickled: bytes = cloudpickle.dumps(specs, protocol=5) if specs else b""
    return pickled
