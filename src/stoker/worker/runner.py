"""Runs the user's code on tasks: read, transform, write. The same in a worker process and in the inline engine."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stoker.memory import Layout, Slot
from stoker.sources.map_style import changed_length
from stoker.spec import Misfit, Spec
from stoker.worker.collate import Rows
from stoker.worker.messages import Describe, Described, Failure, Finished, SpecKnown, Work
from stoker.worker.program import Program
from stoker.worker.report import failure
from stoker.worker.seeding import Seeder


class SourceChanged(Exception):
    """The source does not have the length that the plan was made for, or answers with another number of examples."""


class Runner:
    """Carries out tasks, one after the other.

    Args:
        program: the user's code.
        slots: the slots, by number.
        seeder: sets the random states before each example.
        still_ours: called after user code and before its result is used; does not return in a forked copy.
        passes: exceptions of the user's code that are not turned into a `Failure`.
    """

    def __init__(
        self,
        program: Program,
        slots: Sequence[Slot],
        seeder: Seeder,
        *,
        still_ours: Callable[[], None] = lambda: None,
        passes: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._passes = passes
        self._program, self._slots, self._seeder, self._still_ours = program, slots, seeder, still_ours
        self._many = getattr(program.source, "__getitems__", None)
        self._spec: Spec | None = None
        self._layout: Layout | None = None
        self._rows: dict[tuple[int, int], Rows] = {}
        self._epoch = -1
        self._example: int | None = None

    def describe(self, task: Describe) -> Described | Failure:
        """Find the spec from example 0 as epoch 0 has it."""
        import numpy as np

        try:
            examples = self._examples(0, np.zeros(1, np.int64))
            spec = Spec.of(next(examples))
            import cloudpickle

            return Described(task.task, cloudpickle.dumps(spec, protocol=5))
        except BaseException as error:
            return self._failure(task.task, error)

    def learn(self, known: SpecKnown) -> None:
        """Take on the spec that all workers write by."""
        spec: Spec = pickle.loads(known.pickled)
        self._spec, self._layout = spec, Layout.of(spec.leaves, self._program.batch_size)

    def work(self, task: Work) -> Finished | Failure:
        """Make the examples of `task` and write them to their rows."""
        started = time.perf_counter()
        try:
            rows = self._rows_of(task.slot, task.rows)
            for row, example in enumerate(self._examples(task.epoch, task.indices), task.first):
                rows.write(row, example)
        except BaseException as error:
            return self._failure(task.task, error)
        return Finished(task.task, time.perf_counter() - started)

    def _rows_of(self, slot: int, rows: int) -> Rows:
        found = self._rows.get((slot, rows))
        if found is None:
            assert self._spec is not None and self._layout is not None, "Work came before SpecKnown"
            columns = self._layout.view(self._slots[slot].writable(), rows)
            found = self._rows[slot, rows] = Rows(self._spec, columns)
        return found

    def _examples(self, epoch: int, indices: Any) -> Iterator[Any]:
        """The examples of a run, each made when it is asked for and not kept."""
        self._example = None
        if epoch != self._epoch:
            self._check_length()
            self._epoch = epoch
        seeds = self._seeder.seeds(epoch, indices)
        numbers: list[int] = indices.tolist()
        if self._many is not None:
            return self._read_together(numbers, seeds)
        return self._read_each(numbers, seeds)

    def _read_each(self, indices: list[int], seeds: list[int]) -> Iterator[Any]:
        source, begin, still_ours = self._program.source, self._seeder.begin, self._still_ours
        transform = self._program.transform
        for index, seed in zip(indices, seeds, strict=True):
            self._example = index
            while True:
                begin(seed)
                example = source[index]
                if transform is not None:
                    example = self._transformed(transform, example, seed)
                if not self._seeder.came_late():
                    break
            still_ours()
            yield example

    def _read_together(self, indices: list[int], seeds: list[int]) -> Iterator[Any]:
        """By `__getitems__`, in runs that depend on the batch alone, so that the random state they meet does too."""
        for start in range(0, len(indices), RUN):
            yield from self._read_run(indices[start : start + RUN], seeds[start : start + RUN])

    def _read_run(self, indices: list[int], seeds: list[int]) -> Iterator[Any]:
        assert self._many is not None
        while True:
            self._seeder.begin(seeds[0])
            examples = self._many(indices)
            if not self._seeder.came_late():
                break
        if len(examples) != len(indices):
            raise SourceChanged(
                f"`__getitems__` was asked for {len(indices)} examples and returned {len(examples)}; return one for each index"
            )
        for index, seed, example in zip(indices, seeds, examples, strict=True):
            self._example = index
            if self._program.transform is not None:
                self._seeder.begin(seed)
                example = self._transformed(self._program.transform, example, seed)
            self._still_ours()
            yield example

    def _transformed(self, transform: Callable[..., Any], example: Any, seed: int) -> Any:
        return transform(example, rng=self._seeder.rng(seed)) if self._program.wants_rng else transform(example)

    def _check_length(self) -> None:
        now = len(self._program.source)
        if now != self._program.length:
            raise SourceChanged(changed_length(self._program.length, now))

    def _failure(self, task: int, error: BaseException) -> Failure:
        self._still_ours()
        if isinstance(error, self._passes):
            raise error
        if isinstance(error, Misfit):
            return Failure(task, "spec", str(error), example=self._example)
        if isinstance(error, SourceChanged):
            return Failure(task, "source", str(error))
        return failure(task, "user", error, self._example)


#: Examples that `__getitems__` is asked for at once, at most. Fixed: it must not depend on the number of workers.
RUN = 64


