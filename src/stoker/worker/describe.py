"""What the examples look like: found out from the first ones of the source, where the user does not say."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from stoker.collation import Form, is_stacked_in_place
from stoker.memory import Phase, Store
from stoker.memory.board import PHASE, SHARD
from stoker.memory.store import NOTES
from stoker.sources import ShardedSource
from stoker.sources.marks import SKIP, Many
from stoker.spec import Kind, Leaf, Misfit, Spec
from stoker.values import short
from stoker.worker.lanes import Lanes
from stoker.worker.making import Maker
from stoker.worker.messages import Describe, Progress
from stoker.worker.program import Program
from stoker.worker.reading import Reader, SourceChanged, outputs, weighed
from stoker.worker.seeding import Seeder
from stoker.worker.writer import Writer

#: Examples of a generator that are looked at, where sizes may differ. Of batches, fewer.
LOOK, LOOK_BATCHES = 32, 3
#: Batches that a collate function is tried on.
LOOK_CALLS = 2


class Describer:
    """Looks at the first examples of an epoch. Those of shards are made for this alone, where none is enough by itself.

    Args:
        program: the user's code.
        reader: makes examples.
        writer: calls the user's collate function.
        seeder: sets the random states before each example.
        words: the worker's board.
        maker: makes what is not in the store, and puts there what the function returned.
        store: where the examples lie.
    """

    def __init__(
        self,
        program: Program,
        reader: Reader,
        writer: Writer,
        seeder: Seeder,
        words: memoryview,
        maker: Maker,
        store: Store,
    ) -> None:
        self._program, self._reader, self._writer, self._seeder = program, reader, writer, seeder
        self._words, self._maker, self._store = words, maker, store

    def form(self, task: Describe) -> tuple[Form | None, tuple[int, ...]]:
        """The form of the batches, and what was kept of what the function returned; raises `Misfit`.

        The form is None where one example is not enough to tell it.
        """
        collation = self._program.collation
        if collation.function is not None:
            return self._of_function(task)
        examples = outputs(self._made(task))
        some = list(islice(examples, 1))
        if not some:
            if task.one:
                return None, ()
            raise SourceChanged(self._nothing())
        first = some[0]
        if collation.default == "asis":
            specs = [Spec.of(batch) for batch in (first, *examples)]
            return Form.of(loose(merged(specs), scalars=False), ["asis"] * len(specs[0].leaves)), ()
        spec = collation.spec(first)
        rules = collation.rules(spec)
        if not is_stacked_in_place(spec, rules) or collation.default == "single":
            if task.one:
                return None, ()
            for example in examples:  # one by one: an error names the one that was read last
                spec = spec.merged(collation.spec(example))
        return Form.of(spec, rules), ()

    def _of_function(self, task: Describe) -> tuple[Form, tuple[int, ...]]:
        """Of batches as the function gets them: it may take no others, and how many rows it makes only it knows."""
        made = list(self._made(task))
        examples = list(outputs(made))
        if not examples:
            raise SourceChanged(self._nothing())
        is_even = len(made) == len(examples) and not any(output is SKIP or type(output) is Many for output in made)
        self._reader.example = None
        self._words[PHASE] = Phase.JOINING
        start, specs, kept = 0, list[Spec](), list[int]()
        numbers, places, _ = self._noted(task)
        for rows in task.rows or (self._program.batch_size,) * LOOK_CALLS:
            some, first = examples[start : start + rows], start
            start += rows
            if first and len(some) < rows:
                break
            number = numbers[first] if numbers else 0
            self._writer.batch_seed = self._seeder.of_batch(task.epoch, number)
            batch = self._writer.collate(some)
            specs.append(loose(Spec.of(batch), scalars=True))
            if is_even and places:
                place = places[-1] + 1 + len(kept)
                kept.append(self._maker.put(place, batch, self._program.memory_limit // 8))
        spec = merged(specs)
        return Form.of(spec, ["asis"] * len(spec.leaves)), tuple(kept)

    def _made(self, task: Describe) -> Iterator[Any]:
        """What the user's code makes of the examples that are looked at."""
        if isinstance(self._program.source, ShardedSource):
            return self._of_shards(task)
        made = self._numbered(task)
        return weighed(made, len(self._noted(task)[0])) if self._program.weighs else made

    def _noted(self, task: Describe) -> tuple[list[int], list[int], list[int]]:
        """Numbers, places and sizes of the examples that are looked at."""
        return pickle.loads(self._store.read(NOTES, task.note)) if task.note else ([], [], [])

    def _numbered(self, task: Describe) -> Iterator[Any]:
        numbers, places, sizes = self._noted(task)
        seeds = self._seeder.seeds(task.epoch, np.array(numbers, np.int64))
        for number, place, size, seed in zip(numbers, places, sizes, seeds, strict=True):
            self._reader.example = number
            if size:
                yield self._store.get(place, size)
            else:
                yield from self._maker.read([number], [place], [seed])

    def _of_shards(self, task: Describe) -> Iterator[Any]:
        source: ShardedSource = self._program.source
        self._seeder.seed_all()
        lanes = Lanes(self._program, self._reader, self._seeder, self._words)
        seen, most = 0, LOOK_BATCHES if self._program.collation.default == "asis" else LOOK
        if self._writer.has_function:
            most = LOOK_CALLS * self._program.batch_size
        for shard in range(source.count):
            self._words[SHARD] = shard
            without = frozenset(number for its, number in task.without if its == shard)
            lane = lanes.shard(0, shard, Progress(), without, keeps=True)
            some: list[Any] = []
            while seen < most and lane.take(1, 1, some.append):
                seen += 1
                yield some.pop()
            lane.close()

    def _nothing(self) -> str:
        source = self._program.source
        what = "no example is left"
        if isinstance(source, ShardedSource):
            what = f"the generator yields nothing, in none of {source.count} shards"
        elif source is None:
            what = "the iterable gives no example"
        if self._program.transform is None:
            return f"{what}. Check its paths or filters."
        return f"{what}, or the transform returned stoker.SKIP for all of them. Check paths and filters."


def merged(specs: list[Spec]) -> Spec:
    """The spec that fits all of them; raises `Misfit`."""
    spec = specs[0]
    for other in specs[1:]:
        spec = spec.merged(other)
    return spec


def loose(spec: Spec, *, scalars: bool) -> Spec:
    """The spec of a batch without the size of its first dimension, of which later batches may have any.

    `scalars`: it may have no dimension at all.
    """

    def loosened(leaf: Leaf) -> Leaf:
        if leaf.shape:
            return dataclasses.replace(leaf, shape=(None, *leaf.shape[1:]))
        if scalars and leaf.kind is Kind.DENSE:
            return leaf
        raise Misfit(
            f"{leaf.path or 'the batch'} has no first dimension, which would count the examples: {short(leaf)}"
        )

    return Spec(spec.tree, tuple(map(loosened, spec.leaves)))
