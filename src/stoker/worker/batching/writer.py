"""Writes examples into slots, for every kind of task. The progress page names the example that causes an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from stoker.memory.packed import unpack
from stoker.memory.progress_page import PHASE, Phase
from stoker.memory.slot import Inbox, Slot
from stoker.protocol.program import Program, takes_rng
from stoker.protocol.replies import WHOLE
from stoker.protocol.requests import IndexTaskRequest, Indices, JoinTaskRequest, ShardTaskRequest
from stoker.sources.markers import SKIP, Many
from stoker.worker.batching.fitting import MisfitAt, Uneven
from stoker.worker.batching.fork_guard import ForkGuard
from stoker.worker.batching.output import Output
from stoker.worker.failpoints import Failpoint, is_armed, reach
from stoker.worker.tasks.digests import Digests, digest
from stoker.worker.user_code.reading import Reader
from stoker.worker.user_code.seeding import Seeder

#: Types of the markers for no example and for several examples.
_MARKS = frozenset([type(SKIP), Many])


class Writer:
    """Writes the results of user code into slots.

    Args:
        program: the user's code.
        slots: the slots, by number.
        inboxes: the slots' inboxes.
        reader: tracks the current example.
        seeder: sets the random states before the user's collate function.
        words: the worker's progress page.
        fork: checked after user code has run; a forked copy exits instead of writing.
        passes: exceptions that propagate unchanged to the user.

    Attributes:
        batch_seed: seed of the current batch.
        careful: True if workers died at the current task. Each example is then converted before the next is made, so
            that the progress page names the example at fault.
        collated: result of the user's function for the current batch, if it was called earlier: one item or none.
        digests: digests of the current task's outputs, if requested.
    """

    def __init__(
        self,
        program: Program,
        slots: Sequence[Slot],
        inboxes: Sequence[Inbox],
        reader: Reader,
        seeder: Seeder,
        words: memoryview,
        fork: ForkGuard,
        passes: tuple[type[BaseException], ...],
    ) -> None:
        self._reader, self._seeder, self._words = reader, seeder, words
        self.fork, self._passes = fork, passes
        self._function: Any = program.collation.function
        self._function_takes_rng = takes_rng(self._function)
        self._batch_size, self._has_marks = program.batch_size, program.transform is not None or program.skips
        self._inboxes = inboxes
        collate = self.collate if self.has_function else None
        self.output = Output(slots, program.batch_size, collate, program.memory_limit)
        self.batch_seed = 0
        self.careful = False
        self.collated: list[Any] = []
        self.digests = Digests()

    def use(self, program: Program) -> None:
        """Switch to the collate function of this copy of the program."""
        self._function = program.collation.function

    @property
    def has_function(self) -> bool:
        """True if a user function collates the examples."""
        return self._function is not None

    def collate(self, examples: list[Any]) -> Any:
        """Call the user's function on the examples of a batch, with random states seeded for the batch."""
        if self.collated:
            return self.collated.pop()
        self._seeder.begin(self.batch_seed)
        if self._function_takes_rng:
            return self._function(examples, rng=self._seeder.rng(self.batch_seed))
        return self._function(examples)

    def digest_batch(self, examples: list[Any]) -> None:
        """Add the digest of the collated batch, if there is a user function."""
        if self.has_function:
            self.digests.add(WHOLE, self.collate(examples))

    def compared(self) -> dict[str, Any]:
        """The digest fields of a reply."""
        return {"digests": self.digests.told(), "together": self.digests.together} if self.digests else {}

    def numbers(self, task: IndexTaskRequest | ShardTaskRequest) -> Indices:
        """The numbers of a task's examples."""
        if isinstance(task, IndexTaskRequest) and task.from_inbox:
            return np.arange(task.indices[0], task.indices[0] + task.count)
        if len(task.indices) == task.count:
            return task.indices
        return np.frombuffer(self._inboxes[task.slot].read(), np.int64, task.count)

    def items(self, slot: int, count: int, skip: int = 0) -> Iterable[Any]:
        """The items in a slot's inbox."""
        return unpack(self._inboxes[slot].read(), count, skip=skip)

    def even(self, made: Iterable[Any]) -> list[Any]:
        """The examples as a list; raises `Uneven` on SKIP or Many."""
        some = list(made)
        if self._has_marks and not _MARKS.isdisjoint(map(type, some)):
            raise Uneven
        self.fork.leave()
        return some

    def into(self, slot: int, rows: int, first: int = 0) -> Callable[[Any], None]:
        """A function that writes successive examples into a batch of `rows` rows; raises `Uneven` and `MisfitAt`."""
        put = self.output.rows(slot, rows).into(first, fork=self.fork, has_marks=self._has_marks)
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
        self._reader.example = None
        self._words[PHASE] = Phase.JOINING
        try:
            dims = self.output.whole(task.slot, examples, task.serialized)
            reach(Failpoint.COPY)
            return dims
        except MisfitAt as misfit:
            if misfit.position < len(numbers):
                self._reader.example = int(numbers[misfit.position])
            raise misfit.reason from None
        except BaseException as error:
            if not self.has_function and not isinstance(error, self._passes):
                self.convert(examples, numbers)
                self._reader.example = None  # no single example is at fault
            raise

    def join(self, task: JoinTaskRequest) -> tuple[int, ...]:
        """Write the batch of the examples in a slot's inbox, where each follows its shard and number.

        Returns the shapes of the batch's parts.
        """
        self._seeder.seed_all()
        self._words[PHASE] = Phase.JOINING
        named = list(self.items(task.slot, task.count))
        examples = [example for _, _, example in named]
        self.batch_seed = self._seeder.of_batch(task.epoch, task.batch, 0, 0, 1)
        try:
            if self.output.form.in_place and not task.serialized:
                put = self.output.rows(task.slot, self._batch_size).into(0)
                for example in examples:
                    put(example)
                return ()
            return self.output.whole(task.slot, examples, task.serialized)
        except MisfitAt as misfit:
            if misfit.position < len(named):
                self._reader.shard, self._reader.example, _ = named[misfit.position]
            raise misfit.reason from None

    def convert(self, examples: Sequence[Any], numbers: Sequence[int] | Indices) -> None:
        """Convert the examples one by one, so that one that raises or kills this worker does so under its number."""
        for number, example in zip(numbers, examples, strict=False):
            self._reader.example = int(number)
            digest(example)
