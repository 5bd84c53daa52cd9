"""Writes examples into slots, for every kind of task. The progress page names the example that causes an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stoker.memory.worker_times import Stage
from stoker.protocol.program import takes_rng
from stoker.protocol.replies import WHOLE
from stoker.protocol.requests import IndexTaskRequest, Indices, JoinTaskRequest, ShardTaskRequest
from stoker.sources.markers import SKIP, Many
from stoker.worker.batching.fitting import MisfitAt, Uneven
from stoker.worker.batching.output import Output
from stoker.worker.context import TaskContext
from stoker.worker.failpoints import Failpoint, is_armed, reach
from stoker.worker.tasks.digests import digest

#: Types of the markers for no example and for several examples.
_MARKS = frozenset([type(SKIP), Many])


class Writer:
    """Writes the results of user code into slots.

    Args:
        context: what the parts of the worker share.

    Attributes:
        has_function: True if a user function collates the examples.
        output: the destinations of what is written.
    """

    def __init__(self, context: TaskContext) -> None:
        program = context.program
        self._context, self._used, self._task, self._clock = context, context.used, context.task, context.clock
        self._seeder, self._batch_size = context.seeder, program.batch_size
        self._function_takes_rng = takes_rng(program.collation.function)
        self._has_marks = program.transform is not None or program.skips
        self.has_function = program.collation.function is not None
        collate = self.collate if self.has_function else None
        self.output = Output(context.slots, program.batch_size, collate, program.memory_limit)

    def collate(self, examples: list[Any]) -> Any:
        """Call the user's function on the examples of a batch, with random states seeded for the batch."""
        if self._task.collated:
            return self._task.collated.pop()
        collation = self._used.program.collation
        assert collation.function is not None
        function: Any = self._clock.of(Stage.COLLATE, collation.function)
        seed = self._task.batch_seed
        self._seeder.begin(seed)
        return function(examples, rng=self._seeder.rng(seed)) if self._function_takes_rng else function(examples)

    def digest_batch(self, examples: list[Any]) -> None:
        """Add the digest of the collated batch, if there is a user function."""
        if self.has_function:
            self._task.digests.add(WHOLE, self.collate(examples))

    def even(self, made: Iterable[Any]) -> list[Any]:
        """The examples as a list; raises `Uneven` on SKIP or Many."""
        some = list(made)
        if self._has_marks and not _MARKS.isdisjoint(map(type, some)):
            raise Uneven
        self._context.fork.leave()
        return some

    def into(self, slot: int, rows: int, first: int = 0) -> Callable[[Any], None]:
        """A function that writes successive examples into a batch of `rows` rows; raises `Uneven` and `MisfitAt`."""
        put = self.output.rows(slot, rows).into(first, fork=self._context.fork, has_marks=self._has_marks)
        put = self._clock.of(Stage.WRITE, put)
        if not is_armed():
            return put

        def put_or_fail(example: Any) -> None:
            put(example)
            reach(Failpoint.COPY)

        return put_or_fail

    def whole(
        self, task: IndexTaskRequest | ShardTaskRequest, examples: list[Any], numbers: Sequence[int] | Indices
    ) -> tuple[int, ...]:
        """Write a batch whose examples have these numbers; returns the shapes of its parts."""
        self._task.join()
        try:
            dims = self._clock.of(Stage.WRITE, self.output.whole)(task.slot, examples, task.serialized)
            reach(Failpoint.COPY)
            return dims
        except MisfitAt as misfit:
            if misfit.position < len(numbers):
                self._task.at(int(numbers[misfit.position]))
            raise misfit.reason from None
        except BaseException as error:
            if not self.has_function and not isinstance(error, self._context.passes):
                self.convert(examples, numbers)
                self._task.at(None)  # no single example is at fault
            raise

    def join(self, task: JoinTaskRequest) -> tuple[int, ...]:
        """Write the batch of the examples in a slot's inbox, where each follows its shard and number.

        Returns the shapes of the batch's parts.
        """
        self._seeder.seed_all()
        self._task.join()
        named = list(self._context.items(task.slot, task.count))
        examples = [example for _, _, example in named]
        self._task.begin_batch(self._seeder.of_batch(task.epoch, task.batch, 0, 0, 1))
        try:
            if self.output.form.in_place and not task.serialized:
                put = self._clock.of(Stage.WRITE, self.output.rows(task.slot, self._batch_size).into(0))
                for example in examples:
                    put(example)
                return ()
            return self._clock.of(Stage.WRITE, self.output.whole)(task.slot, examples, task.serialized)
        except MisfitAt as misfit:
            if misfit.position < len(named):
                shard, example, _ = named[misfit.position]
                self._task.at_shard(shard)
                self._task.at(example)
            raise misfit.reason from None

    def convert(self, examples: Sequence[Any], numbers: Sequence[int] | Indices) -> None:
        """Convert the examples one by one, so that one that raises or kills this worker does so under its number."""
        for number, example in zip(numbers, examples, strict=False):
            self._task.at(int(number))
            digest(example)
