"""Makes single examples in all workers before the form of batches is known, and uses them later.

An example is pickled as soon as it is made. Whichever worker makes its batch reads it. So user code runs only once per
example.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from stoker.memory.packed import pack, unpack
from stoker.protocol.replies import LEFT_OUT, ExamplesMadeReply, FailureReply
from stoker.protocol.requests import Indices, MakeExamplesRequest
from stoker.sources.markers import Many
from stoker.structure.nesting import plain
from stoker.worker.context import TaskContext
from stoker.worker.failed import EarlyFailure, failed
from stoker.worker.user_code.reading import Reader


class FirstExamples:
    """Carries out `MakeExamplesRequest`.

    Args:
        context: what the parts of the worker share. Items lie in the last inbox, that of the store.
        reader: makes examples.
    """

    def __init__(self, context: TaskContext, reader: Reader) -> None:
        program = context.program
        self._context, self._task, self._seeder = context, context.task, context.seeder
        self._has_items, self._reader = program.source is None, reader
        self._is_taken_apart = program.collation.function is None and not program.weighs

    def do(self, task: MakeExamplesRequest) -> ExamplesMadeReply:
        """Make the examples, up to the first that raises."""
        self._seeder.seed_for_now()
        seeds = self._seeder.seeds(task.epoch, np.array(task.numbers, np.int64))
        made = self.read(list(task.numbers), list(task.places), seeds)
        sizes, raised = list[int](), 0
        try:
            for place, seed in zip(task.places, seeds, strict=True):
                left_out = len(self._task.skipped)
                output = self._next(made)
                self._context.fork.leave()
                self._seeder.made(seed)
                kept = LEFT_OUT if len(self._task.skipped) > left_out else self.put(place, output, task.most)
                sizes.append(kept)
        except self._context.passes:
            raise
        except BaseException as error:
            self._context.fork.leave()
            raised = self._put_failure(task.places[len(sizes)], failed(task.task, error, self._task), task.most)
        finally:
            self._seeder.settle()
        return ExamplesMadeReply(task.task, tuple(sizes), self._seeder.draws, raised)

    def _put_failure(self, place: int, reply: FailureReply, most: int) -> int:
        """Put a failure into an example's place, to be reported in the turn of its batch; returns its size, or 0.

        It is not sent if the exception cannot be pickled. The example is then made again with its batch.
        """
        if reply.error is not None and not reply.pickled:
            return 0
        segment = pack(EarlyFailure(replace(reply, error=None)))
        if len(segment) > most:
            return 0
        self._context.store.put(place, segment)
        return len(segment)

    def read(self, numbers: list[int], places: list[int], seeds: list[int]) -> Iterator[Any]:
        """The outputs of user code for the examples with these numbers."""
        if self._has_items:
            return self._items(numbers, places, seeds)
        return self._reader.indexed(self._context.examples(np.array(numbers, np.int64)).tolist(), seeds)

    def put(self, place: int, value: Any, most: int) -> int:
        """Put a value into the store; returns its size there in bytes, or 0 if it cannot be sent.

        A value that would be unpickled as something else cannot be sent either: for example, a tuple whose class has
        its own `__new__`.
        """
        with contextlib.suppress(Exception):  # it holds an open file, or memory has run out: it is made again
            segment = pack(self._sent(value))
            if len(segment) <= most and (self._is_taken_apart or pack(next(unpack(memoryview(segment), 1))) == segment):
                self._context.store.put(place, segment)
                return len(segment)
        return 0

    def _next(self, made: Iterator[Any]) -> Any:
        output = next(made)
        if type(output) is not Many:
            return output
        keep = self._context.used.keep
        return Many([keep(example) for example in output.examples])

    def _sent(self, value: Any) -> Any:
        """The value to pickle: plain containers, unless a user function needs the original objects."""
        if type(value) is Many:
            return Many([self._sent(example) for example in value.examples])
        return plain(value) if self._is_taken_apart else value

    def _items(self, numbers: list[int], places: list[int], seeds: list[int]) -> Iterator[Any]:
        for number, place, seed in zip(numbers, places, seeds, strict=True):
            yield from self._reader.items(self._context.items(-1, 1, place), number, [seed])


def partly(
    load: Callable[[int, int], Any],
    made: Indices,
    count: int,
    read: Callable[[list[int]], Iterator[Any]],
    earlier: Callable[[int, Callable[[], Any]], Any],
) -> Iterator[Any]:
    """`count` outputs of user code, some of which were made earlier: see `NOTHING_MADE`.

    Args:
        load: loads an earlier output, from its place and size.
        made: the rows of the earlier outputs, with their places and sizes.
        count: total number of outputs.
        read: makes the other rows.
        earlier: returns an earlier output, from its row and the function that loads it.
    """
    known = {row: (place, size) for row, place, size in made.tolist()}
    others = read([row for row in range(count) if row not in known])
    for row in range(count):
        if row in known:
            yield earlier(row, partial(load, *known[row]))
        else:
            yield next(others)
