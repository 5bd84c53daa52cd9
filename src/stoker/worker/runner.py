"""Runs the user's code on tasks: read, transform, write. The same in a worker process and in the inline engine."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.memory import Layout, Slot
from stoker.sources.map_style import changed_length
from stoker.spec import Misfit, Spec
from stoker.worker.collate import MisfitAt, Reused, Rows, together
from stoker.worker.messages import MAX_BYTES, Describe, Described, Failure, Finished, SpecKnown, Work, encode
from stoker.worker.program import Program
from stoker.worker.report import bounded, failure
from stoker.worker.seeding import Seeder

#: Writes examples to rows, from a first one on.
Writer = Callable[[int, list[Any]], None]


class SourceChanged(Exception):
    """The source does not have the length that the plan was made for, or answers with another number of examples."""


class Fork:
    """Tells whether this process is a copy that user code forked: it must not write any more."""

    happened = False


class Runner:
    """Carries out tasks, one after the other.

    Args:
        program: the user's code.
        slots: the slots, by number.
        seeder: sets the random states before each example.
        fork: looked at after user code; a forked copy exits instead of writing.
        passes: exceptions of the user's code that are not turned into a `Failure`.
    """

    def __init__(
        self,
        program: Program,
        slots: Sequence[Slot],
        seeder: Seeder,
        *,
        fork: Fork,
        passes: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._program, self._slots, self._seeder = program, slots, seeder
        self._fork, self._passes = fork, passes
        if program.wants_rng:
            import numpy.random  # noqa: F401  (NumPy loads it on demand: here rather than within the first task)
        if hasattr(type(program.source), "__getitems__"):
            self._make: Callable[..., None] = partial(self._read_together, program.source.__getitems__)
        else:
            self._make = self._read_each
        self._spec: Spec | None = None
        self._layout: Layout | None = None
        self._together = 1
        self._rows: dict[tuple[int, int], Rows] = {}
        self._epoch = -1
        self._example: int | None = None  # at work

    def describe(self, task: Describe) -> Described | Failure:
        """Find the spec from example 0 as epoch 0 has it."""
        specs: list[Spec] = []
        try:
            self._run(0, np.zeros(1, np.int64), 0, lambda row, examples: specs.append(Spec.of(examples[0])))
            import cloudpickle

            described = Described(task.task, cloudpickle.dumps(specs[-1], protocol=5))
            if len(encode(described)) > MAX_BYTES:
                raise Misfit(f"it has {len(specs[-1].leaves):,} leaves, too many to describe. Join them into arrays.")
            return described
        except BaseException as error:
            return self._failure(task.task, error)

    def learn(self, known: SpecKnown) -> None:
        """Take on the spec that all workers write by."""
        spec: Spec = pickle.loads(known.pickled)
        self._spec, self._layout = spec, Layout.of(spec.leaves, self._program.batch_size)
        self._together = together(spec)

    def work(self, task: Work) -> Finished | Failure:
        """Make the examples of `task` and write them to their rows."""
        started = time.perf_counter()
        try:
            self._run(task.epoch, task.indices, task.first, self._rows_of(task.slot, task.rows).write)
        except BaseException as error:
            return self._failure(task.task, error)
        return Finished(task.task, time.perf_counter() - started)

    def _rows_of(self, slot: int, rows: int) -> Rows:
        found = self._rows.get((slot, rows))
        if found is None:
            assert self._spec is not None, "Work came before SpecKnown"
            assert self._layout is not None
            columns = self._layout.view(self._slots[slot].writable(), rows)
            found = self._rows[slot, rows] = Rows(self._spec, columns)
        return found

    def _run(self, epoch: int, indices: npt.NDArray[np.int64], first: int, write: Writer) -> None:
        """Make the examples `indices` and write them, a few at a time."""
        self._example = None
        if epoch != self._epoch:
            self._check_length()
            self._epoch = epoch
        self._seeder.begin_task()
        seeds = self._seeder.seeds(epoch, indices)
        numbers: list[int] = indices.tolist()
        try:
            self._make(numbers, seeds, first, write)
        except Reused:
            self._together = 1
            self._make(numbers, seeds, first, write)
        if self._seeder.must_redo():
            self._make(numbers, seeds, first, write)

    def _read_each(self, indices: list[int], seeds: list[int], first: int, write: Writer) -> None:
        read, transform, begin = self._program.source.__getitem__, self._program.transform, self._seeder.begin
        for start in range(0, len(indices), self._together):
            some = indices[start : start + self._together]
            examples = []
            for index, seed in zip(some, seeds[start : start + self._together], strict=True):
                self._example = index
                begin(seed)
                example = read(index)
                examples.append(example if transform is None else self._transformed(transform, example, seed))
            self._write(write, first + start, examples, some)

    def _read_together(
        self, read: Callable[[list[int]], Any], indices: list[int], seeds: list[int], first: int, write: Writer
    ) -> None:
        """By `__getitems__`, in runs that depend on the batch alone, so that the random state they meet does too."""
        transform, begin = self._program.transform, self._seeder.begin
        for start in range(0, len(indices), RUN):
            some = indices[start : start + RUN]
            begin(seeds[start])
            examples = list(read(some))
            if len(examples) != len(some):
                raise SourceChanged(
                    f"`__getitems__` was asked for {len(some)} examples and returned {len(examples)}; "
                    "return one for each index"
                )
            for number in range(0, len(some), self._together):
                part = slice(number, number + self._together)
                if transform is not None:
                    for place, seed in enumerate(seeds[start : start + RUN][part], number):
                        self._example = some[place]
                        begin(seed)
                        examples[place] = self._transformed(transform, examples[place], seed)
                self._write(write, first + start + number, examples[part], some[part])
            self._example = None

    def _write(self, write: Writer, row: int, examples: list[Any], indices: list[int]) -> None:
        if self._fork.happened:  # this copy of the worker came back from the user's code
            os._exit(0)
        try:
            write(row, examples)
        except MisfitAt as misfit:
            self._example = indices[misfit.position]
            raise misfit.reason from None
        except Misfit:
            self._example = indices[0]
            raise

    def _transformed(self, transform: Callable[..., Any], example: Any, seed: int) -> Any:
        return transform(example, rng=self._seeder.rng(seed)) if self._program.wants_rng else transform(example)

    def _check_length(self) -> None:
        now = len(self._program.source)
        if now != self._program.length:
            raise SourceChanged(changed_length(self._program.length, now))

    def _failure(self, task: int, error: BaseException) -> Failure:
        if self._fork.happened:
            os._exit(0)
        if isinstance(error, self._passes):
            raise error
        if isinstance(error, Misfit):
            return Failure(task, "spec", bounded(str(error)), example=self._example)
        if isinstance(error, SourceChanged):
            return Failure(task, "source", str(error))
        return failure(task, "user", error, self._example)


#: Examples that `__getitems__` is asked for at once, at most. Fixed: it must not depend on the number of workers.
RUN = 64
