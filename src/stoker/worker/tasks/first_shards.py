"""Opens shards and makes their first rows before the form of batches is known."""

from __future__ import annotations

from typing import Any

from stoker.memory.progress_page import PHASE, Phase
from stoker.protocol.failures import is_exhausted
from stoker.protocol.program import Program
from stoker.protocol.requests import OpenShardRequest
from stoker.structure.collation import Collation, is_stacked_in_place
from stoker.structure.merging import loose
from stoker.structure.spec import Spec
from stoker.worker.batching.writer import Writer
from stoker.worker.tasks.shard_readers import ShardReader
from stoker.worker.tasks.shard_tasks import RowsAhead, ShardTasks
from stoker.worker.user_code.reading import Reader


class FirstShards:
    """Carries out `OpenShardRequest`.

    Args:
        program: the user's code.
        reader: tracks the current example.
        writer: calls the user's collate function.
        steps: continues the shards.
        words: the worker's progress page.
        passes: exceptions that interrupt a task, which is then repeated.
    """

    def __init__(
        self,
        program: Program,
        reader: Reader,
        writer: Writer,
        steps: ShardTasks,
        words: memoryview,
        passes: tuple[type[BaseException], ...],
    ) -> None:
        self._program, self._reader, self._writer, self._steps = program, reader, writer, steps
        self._words, self._passes = words, passes

    def do(self, task: OpenShardRequest) -> tuple[bool, bytes]:
        """Open the shard; returns the fields of `ShardOpenedReply`: whether it is open, and the pickled specs."""
        made, is_open = list[RowsAhead](), False
        try:
            made, is_open = self._taken(task, self._steps.open_early(task))
        except BaseException as error:
            self._steps.close(task.epoch, task.shard)
            self._pass_by(error)
        specs = self._specs(task, made)
        if is_open and not task.without:
            self._steps.keep(task.epoch, task.shard, made)
        else:  # an error is raised again when its turn comes
            self._steps.close(task.epoch, task.shard)
        return is_open and not task.without, _told(specs)

    def _taken(self, task: OpenShardRequest, shard_reader: ShardReader) -> tuple[list[RowsAhead], bool]:
        """The rows of the shard's first steps, and whether all steps succeeded."""
        made: list[RowsAhead] = []
        shard_reader.begin_step(frozenset(task.without))
        while len(made) < task.steps and not shard_reader.ended:
            before, examples, skipped = shard_reader.left, list[Any](), len(self._reader.skipped)
            try:
                shard_reader.take(self._program.batch_size, self._program.batch_size, examples.append)
            except BaseException as error:
                self._pass_by(error)
                made.append(RowsAhead(examples, list(shard_reader.came), before, before, False, []))
                return made, False
            self._writer.fork.leave()
            its = (
                list(shard_reader.came),
                before,
                shard_reader.progress(),
                shard_reader.ended,
                self._reader.skipped[skipped:],
            )
            made.append(RowsAhead(examples, *its))
        return made, True

    def _specs(self, task: OpenShardRequest, made: list[RowsAhead]) -> list[tuple[Spec, int]]:
        """The specs of the rows, each with the number of examples that support it. Stops at the first error."""
        specs = list[tuple[Spec, int]]()
        try:
            for ahead in made:
                specs += self._described(task, ahead)
        except BaseException as error:
            self._pass_by(error)
        self._reader.example = None
        return specs

    def _pass_by(self, error: BaseException) -> None:
        """Ignore an error for now, unless it is one of `passes`.

        It is raised again when its turn comes, or when nothing else determines the form of batches.
        """
        if isinstance(error, self._passes):
            raise error
        self._reader.exhausted = self._reader.exhausted or is_exhausted(error)

    def _described(self, task: OpenShardRequest, ahead: RowsAhead) -> list[tuple[Spec, int]]:
        """The spec of a step's rows, if they determine it."""
        collation = self._program.collation
        if collation.function is None:
            return [self._spec(collation, ahead)] if ahead.examples else []
        if len(ahead.examples) < self._program.batch_size:
            return []
        self._reader.example = None
        self._words[PHASE] = Phase.JOINING
        self._steps.seed_batch(task.epoch, task.shard, ahead.before)
        batch = self._writer.collate(ahead.examples)
        self._words[PHASE] = Phase.READING
        ahead.collated.append(batch)
        return [(loose(Spec.of(batch), scalars=True), 1)]

    def _spec(self, collation: Collation, ahead: RowsAhead) -> tuple[Spec, int]:
        """The spec of a step's examples. If examples have fixed places in a batch, the first one determines it."""
        self._reader.example = ahead.numbers[0]
        if collation.default == "asis":
            return loose(Spec.of(ahead.examples[0]), scalars=False), 1
        spec = collation.spec(ahead.examples[0])
        if collation.default == "single" or not is_stacked_in_place(spec, collation.rules(spec)):
            for example, number in zip(ahead.examples[1:], ahead.numbers[1:], strict=False):
                self._reader.example = number
                spec = spec.widened(example)
        return spec, len(ahead.examples)


def _told(specs: list[tuple[Spec, int]]) -> bytes:
    import cloudpickle

    told: bytes = cloudpickle.dumps(specs, protocol=5) if specs else b""
    return told
