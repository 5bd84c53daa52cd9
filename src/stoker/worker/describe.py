"""What the examples look like: found out from the first ones of the source, where the user does not say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice, repeat
from typing import Any, TypeVar

import numpy as np

from stoker.collation import Form, Rule, is_stacked_in_place
from stoker.errors import OptionError
from stoker.memory.board import SHARD
from stoker.sources import ShardedSource
from stoker.spec import Kind, Leaf, Misfit, Spec
from stoker.worker.lanes import Lanes
from stoker.worker.likeness import Kinds
from stoker.worker.messages import Progress
from stoker.worker.program import Program
from stoker.worker.reading import Reader, SourceChanged, outputs, weighed
from stoker.worker.seeding import Seeder

#: Examples that are looked at, where sizes may differ. Of batches, fewer.
LOOK, LOOK_BATCHES = 32, 3
#: Those that are looked at where nothing stood in any of these: there are no boxes in most images.
LOOK_FURTHER = 256
#: Of examples that may be left out, so many that are of one kind tell what all look like, where each has a fixed size.
AGREE = 3

Made = TypeVar("Made")


class Unsuited(Exception):
    """An option does not suit the examples."""


class Describer:
    """Looks at the first examples of a source, as epoch 0 would make them. They are made again for the epoch."""

    def __init__(
        self,
        program: Program,
        reader: Reader,
        seeder: Seeder,
        words: memoryview,
        without: Collection[tuple[int, int]],
        collate: Callable[[list[Any]], Any],
    ) -> None:
        self._program, self._reader, self._seeder, self._words = program, reader, seeder, words
        self._without, self._collate = without, collate

    def form(self, items: Iterable[Any]) -> Form:
        """The form of the batches; raises `Misfit`."""
        collation = self._program.collation
        examples = self._examples(items)
        if collation.function is not None:
            return self._of_function(examples)
        if self._program.skips:
            spec = self._commonest(examples)
            return _suited(Form.of, spec, _suited(collation.rules, spec))
        some = list(islice(examples, 1))
        if not some:
            raise SourceChanged(self._nothing())
        first = some[0]
        if collation.default == "asis":
            specs = [Spec.of(batch) for batch in (first, *islice(examples, LOOK_BATCHES - 1))]
            return Form.of(_loose(_merged(specs), scalars=False), ["asis"] * len(specs[0].leaves))
        spec = collation.spec(first)
        rules = _suited(collation.rules, spec)
        if not is_stacked_in_place(spec, rules) or collation.default == "single":
            for number, example in enumerate(islice(examples, LOOK_FURTHER - 1), 2):
                spec = spec.widened(example)  # one by one: an error names the one that was read last
                if number >= LOOK and not any(map(_is_unknown, spec.leaves, rules)):
                    break
        return _suited(Form.of, spec, rules)

    def _commonest(self, examples: Iterator[Any]) -> Spec:
        """What most of the first examples look like; raises `Misfit` if none of them can be batched."""
        collation = self._program.collation
        whole = collation.default == "asis"
        kinds = Kinds(collation, (lambda batch: _loose(Spec.of(batch), scalars=False)) if whole else collation.spec)
        misfits: list[tuple[Misfit, int | None, int | None]] = []
        for number, example in enumerate(examples, 1):
            try:
                if kinds.add(example) == AGREE:
                    spec = kinds.commonest()
                    if whole or is_stacked_in_place(spec, _suited(collation.rules, spec)):
                        break
            except Misfit as misfit:
                misfits.append((misfit, self._reader.shard, self._reader.example))
            is_told = not kinds or not any(leaf.untold for leaf in kinds.commonest().leaves)
            if number >= (LOOK if is_told else LOOK_FURTHER):
                break
        if kinds:
            return kinds.commonest()
        if not misfits:
            raise SourceChanged(self._nothing())
        first, self._reader.shard, self._reader.example = misfits[0]
        raise first

    def _of_function(self, examples: Iterator[Any]) -> Form:
        """Two batches are made, as large as those of the epoch: the function may take no others.

        How many rows it makes of a batch, only the function knows. Other sizes that are the same in both are fixed.
        """
        size = self._program.share or self._program.batch_size
        first = list(islice(examples, size))
        if not first:
            raise SourceChanged(self._nothing())
        more = list(islice(examples, further(size))) if len(first) == size else []
        batches = [first, first[len(more) :] + more] if more else [first]
        spec = _merged([_loose(Spec.of(self._collate(batch)), scalars=True) for batch in batches])
        return Form.of(spec, ["asis"] * len(spec.leaves))

    def _examples(self, items: Iterable[Any]) -> Iterator[Any]:
        program = self._program
        if isinstance(program.source, ShardedSource):
            self._seeder.seed_all()
            lanes = Lanes(program, self._reader, self._seeder, self._words)
            for shard in range(program.source.count):
                self._words[SHARD] = shard
                without = frozenset(number for its, number in self._without if its == shard)
                lane = lanes.shard(0, shard, Progress(), without, keeps=True)
                some: list[Any] = []
                while lane.take(1, 1, some.append):
                    yield some.pop()
                lane.close()
            return
        if program.source is None:
            some = list(items)
            seeds = self._seeder.seeds(0, np.arange(len(some)))
            yield from outputs(self._reader.items(some, 0, seeds))
            return
        for index in range(program.length or 0):
            made = outputs(self._reader.indexed([index], self._seeder.seeds(0, np.array([index]))))
            yield from weighed(made, repeat(True)) if program.weighs else made

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


def _suited(make: Callable[..., Made], *args: Any) -> Made:
    """What `make` returns; raises `Unsuited` for an option that does not suit the examples."""
    try:
        return make(*args)
    except OptionError as error:
        raise Unsuited(str(error)) from None


def _is_unknown(leaf: Leaf, rule: Rule) -> bool:
    """Whether nothing stood there so far, where something may stand later."""
    return leaf.untold > 0 and rule != "stack"


def _merged(specs: list[Spec]) -> Spec:
    spec = specs[0]
    for other in specs[1:]:
        spec = spec.merged(other)
    return spec


def further(size: int) -> int:
    """Examples that a collate function is shown beside those of its first batch, for the second."""
    return -(-size // 4)


def _loose(spec: Spec, *, scalars: bool) -> Spec:
    """The spec of a batch without the size of its first dimension, of which later batches may have any.

    `scalars`: whether it may have no dimension at all, as what a collate function makes.
    """
    origin = "as collate made of the first examples" if scalars else "as in the first batches"

    def loosened(leaf: Leaf) -> Leaf:
        leaf = dataclasses.replace(leaf, origin=origin)
        if not leaf.shape:
            if leaf.kind is Kind.DENSE and scalars:
                return leaf
            raise Misfit(
                f"{leaf.path or 'the batch'} has no first dimension, which would count the examples: it holds {leaf}"
            )
        return dataclasses.replace(leaf, shape=(None, *leaf.shape[1:]))

    return Spec(spec.tree, tuple(map(loosened, spec.leaves)))
