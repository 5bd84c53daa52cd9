"""Single examples that are made before it is known what batches look like, by all workers; and how they are used.

An example is pickled as soon as it is made, and read where its batch is made, by whichever worker that is. So the
user's code runs once for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from stoker.memory.example_store import ExampleStore
from stoker.memory.packed import pack, unpack
from stoker.protocol.failures import is_exhausted
from stoker.protocol.program import Program
from stoker.protocol.requests import Indices, MakeExamplesRequest
from stoker.sources.markers import Many
from stoker.structure.spec import plain
from stoker.worker.batching.writer import Writer
from stoker.worker.user_code.reading import Reader
from stoker.worker.user_code.seeding import Seeder


class FirstExamples:
    """Carries out `MakeExamplesRequest`.

    Args:
        program: the user's code.
        reader: makes examples.
        writer: knows the inboxes, of which the last is the store's.
        seeder: sets the random states before each example.
        store: where the examples go.
        passes: exceptions that break off a task which is done again.
    """

    def __init__(
        self,
        program: Program,
        reader: Reader,
        writer: Writer,
        seeder: Seeder,
        store: ExampleStore,
        passes: tuple[type[BaseException], ...],
    ) -> None:
        self._has_items, self._reader, self._writer = program.source is None, reader, writer
        self._seeder, self._store, self._passes = seeder, store, passes
        self._is_taken_apart = program.collation.function is None and not program.weighs

    def do(self, task: MakeExamplesRequest) -> tuple[int, ...]:
        """Make them; returns the bytes that each takes: see `Made`."""
        self._seeder.seed_for_now()
        seeds = self._seeder.seeds(task.epoch, np.array(task.numbers, np.int64))
        made = self.read(list(task.numbers), list(task.places), seeds)
        sizes: list[int] = []
        try:
            for place, seed in zip(task.places, seeds, strict=True):
                left_out = len(self._reader.skipped)
                output = self._next(made)
                self._writer.fork.leave()
                self._seeder.made(seed)
                kept = -1 if len(self._reader.skipped) > left_out else self.put(place, output, task.most)
                sizes.append(kept)
        except self._passes:
            raise
        except BaseException as error:  # it is made again where its batch is made, and tells of its error there
            self._reader.exhausted = self._reader.exhausted or is_exhausted(error)
        finally:
            self._seeder.settle()
        return tuple(sizes)

    def read(self, numbers: list[int], places: list[int], seeds: list[int]) -> Iterator[Any]:
        """What the user's code makes of the examples with these numbers."""
        return self._items(numbers, places, seeds) if self._has_items else self._reader.indexed(numbers, seeds)

    def put(self, place: int, value: Any, most: int) -> int:
        """Put something into the store; returns the bytes that it takes there, or 0 if it cannot be sent.

        That is so too if it comes back as something else: a tuple whose class has a `__new__` of its own, say.
        """
        with contextlib.suppress(Exception):  # an open file in it, or no memory is left: it is made again
            segment = pack(self._sent(value))
            if len(segment) <= most and (self._is_taken_apart or pack(next(unpack(memoryview(segment), 1))) == segment):
                self._store.put(place, segment)
                return len(segment)
        return 0

    def _next(self, made: Iterator[Any]) -> Any:
        output = next(made)
        return Many([self._reader.keep(example) for example in output.examples]) if type(output) is Many else output

    def _sent(self, value: Any) -> Any:
        """What is pickled of it: plain containers, but for a function of the user's, which gets what was made."""
        if type(value) is Many:
            return Many([self._sent(example) for example in value.examples])
        return plain(value) if self._is_taken_apart else value

    def _items(self, numbers: list[int], places: list[int], seeds: list[int]) -> Iterator[Any]:
        for number, place, seed in zip(numbers, places, seeds, strict=True):
            yield from self._reader.items(self._writer.items(-1, 1, place), number, [seed])


def partly(
    store: ExampleStore,
    made: Indices,
    count: int,
    read: Callable[[list[int]], Iterator[Any]],
    earlier: Callable[[int, Callable[[], Any]], Any],
) -> Iterator[Any]:
    """`count` outputs of the user's code, of which some were made before: see `NOTHING_MADE`.

    Args:
        store: where these lie.
        made: which they are.
        count: how many there are in all.
        read: makes the others.
        earlier: gives what is loaded from the store, by its row.
    """
    known = {row: (place, size) for row, place, size in made.tolist()}
    others = read([row for row in range(count) if row not in known])
    for row in range(count):
        if row in known:
            yield earlier(row, partial(store.get, *known[row]))
        else:
            yield next(others)
