"""Infers the spec from the first examples of the source, where the user does not give it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, repeat
from typing import Any, TypeVar

import numpy as np

from stoker.errors import OptionError
from stoker.memory.example_store import BATCHES
from stoker.plan.position import ShardProgress
from stoker.protocol.requests import LOOK, LOOK_BATCHES, LOOK_CALLS, LOOK_FURTHER, DescribeRequest
from stoker.sources.markers import SKIP, Many
from stoker.sources.sharded import ShardedSource
from stoker.structure.collation import Form, is_stacked_in_place
from stoker.structure.forms import Misfit
from stoker.structure.merging import FROM_FUNCTION, leaves_open, loose, merged, ready
from stoker.structure.nesting import plain
from stoker.structure.spec import Spec
from stoker.worker.batching.likeness import Kinds
from stoker.worker.batching.writer import Writer
from stoker.worker.context import TaskContext
from stoker.worker.failed import SourceChanged, UnsuitedExample
from stoker.worker.tasks.first_examples import FirstExamples
from stoker.worker.tasks.shard_opener import ShardOpener
from stoker.worker.user_code.reading import Reader, outputs, weighed

#: Where examples may be skipped: the number of examples of one kind that determine the spec, if sizes are fixed.
AGREE = 3

Suited = TypeVar("Suited")


class SpecInference:
    """Infers the spec from the first examples of an epoch.

    Examples of shards are made only for this purpose, where one example is not enough.

    Args:
        context: what the parts of the worker share. The examples lie in its store.
        reader: reads the examples of shards.
        writer: calls the user's collate function.
        maker: makes examples that are not in the store, and stores the batches that the function returned.
    """

    def __init__(self, context: TaskContext, reader: Reader, writer: Writer, maker: FirstExamples) -> None:
        self._context, self._used, self._task, self._seeder = context, context.used, context.task, context.seeder
        self._writer, self._maker = writer, maker
        self._shard_opener = ShardOpener(context, reader)

    def form(self, task: DescribeRequest) -> tuple[Form | None, tuple[int, ...]]:
        """The form of the batches, and the sizes of the function's stored batches; raises `Misfit`.

        The form is None if the examples do not determine it yet.
        """
        collation = self._used.program.collation
        if collation.function is not None:
            return self._of_function(task)
        examples = outputs(self._made(task))
        if self._used.program.skips:
            spec = self._commonest(task, examples)
            return (None if spec is None else _suited(Form.of, spec, _suited(collation.rules, spec))), ()
        return self._of_all(task, examples), ()

    def _of_all(self, task: DescribeRequest, examples: Iterator[Any]) -> Form | None:
        """The form of batches that every one of the examples fits into; None if they do not determine it yet."""
        some = list(islice(examples, 1))
        if not some:
            if task.one:
                return None
            raise SourceChanged(self._nothing())
        first, collation = some[0], self._used.program.collation
        if collation.default == "asis":
            specs = [collation.spec(batch) for batch in (first, *examples)]
            return Form.of(loose(merged(specs), scalars=collation.as_torch), ["asis"] * len(specs[0].leaves))
        spec = collation.spec(first)
        rules = _suited(collation.rules, spec)
        if not is_stacked_in_place(spec, rules) or collation.default == "single":
            if task.one:
                return None
            enough = LOOK if self._used.program.is_sharded else sys.maxsize
            for number, example in enumerate(examples, 2):
                spec = spec.widened(example)  # one by one: an error names the last example read
                if number >= LOOK_FURTHER or (number >= enough and not leaves_open(spec, rules)):
                    break
            if task.further and leaves_open(spec, rules):
                return None
        return _suited(Form.of, spec, rules)

    def _commonest(self, task: DescribeRequest, examples: Iterator[Any]) -> Spec | None:
        """The spec of most of the first examples; raises `Misfit` if none of them can be batched.

        None if more examples must be inspected.
        """
        collation = self._used.program.collation
        whole = collation.default == "asis"
        kinds = Kinds(collation, partial(ready, collation) if whole else collation.spec)
        misfits: list[tuple[Misfit, int | None, int | None]] = []
        is_known = False
        for number, example in enumerate(examples, 1):
            try:
                if kinds.add(example) == AGREE:
                    spec = kinds.commonest()
                    if whole or is_stacked_in_place(spec, _suited(collation.rules, spec)):
                        return spec
            except Misfit as misfit:
                misfits.append((misfit, self._task.shard, self._task.example))
            is_known = not kinds or not any(leaf.undetermined for leaf in kinds.commonest().leaves)
            if number >= (LOOK if is_known else LOOK_FURTHER):
                break
        if kinds:
            spec = kinds.commonest()
            is_undecided = not whole and is_stacked_in_place(spec, _suited(collation.rules, spec))  # too few agree
            return None if task.further and (is_undecided or not is_known) else spec
        if task.further:
            return None
        if not misfits:
            raise SourceChanged(self._nothing())
        first, shard, number_of_first = misfits[0]
        self._task.at_shard(shard)
        self._task.at(number_of_first)
        raise first

    def _of_function(self, task: DescribeRequest) -> tuple[Form, tuple[int, ...]]:
        """The form of the batches that the user's function makes.

        The function is called on batches as in an epoch, as it may not accept others. Only it knows how many rows it
        makes.
        """
        self._seeder.seed_for_now()
        made = list(self._made(task))
        examples = list(outputs(made))
        if not examples:
            raise SourceChanged(self._nothing())
        is_even = len(made) == len(examples) and not any(output is SKIP or type(output) is Many for output in made)
        self._task.join()
        start, specs, kept = 0, list[Spec](), list[int]()
        for rows in task.rows or (self._used.program.batch_size,) * LOOK_CALLS:
            some, first = examples[start : start + rows], start
            start += rows
            if first and len(some) < rows:
                break
            number = task.numbers[first] if task.numbers else 0
            seed = self._seeder.of_batch(task.epoch, number)
            self._task.begin_batch(seed)
            batch = self._writer.collate(some)
            self._seeder.made(seed)
            specs.append(loose(Spec.of(batch), scalars=True, origin=FROM_FUNCTION))
            is_whole = is_even and task.places[first:start] == tuple(range(first, start))  # no example is left out
            place, most = BATCHES + len(kept), self._used.program.memory_limit // 8
            kept.append(self._maker.put(place, plain(batch), most) if is_whole else 0)
        spec = merged(specs)
        return Form.of(spec, ["asis"] * len(spec.leaves)), tuple(kept)

    def _made(self, task: DescribeRequest) -> Iterator[Any]:
        """The outputs of user code for the inspected examples."""
        if self._used.program.is_sharded:
            return self._of_shards(task)
        made = self._numbered(task)
        return weighed(made, repeat(True)) if self._used.program.weighs else made

    def _numbered(self, task: DescribeRequest) -> Iterator[Any]:
        numbers = np.array(task.numbers, np.int64)
        seeds, examples = self._seeder.seeds(task.epoch, numbers), self._context.examples(numbers).tolist()
        for number, example, place, size, seed in zip(
            task.numbers, examples, task.places, task.sizes, seeds, strict=True
        ):
            self._task.at(example)
            if size:
                yield self._context.early(place, size)
            else:
                yield from self._maker.read([number], [place], [seed])

    def _of_shards(self, task: DescribeRequest) -> Iterator[Any]:
        source: ShardedSource = self._used.program.source
        self._seeder.seed_all()
        seen, most = 0, LOOK_BATCHES if self._used.program.collation.default == "asis" else LOOK_FURTHER
        if self._writer.has_function:
            most = LOOK_CALLS * self._used.program.batch_size
        for shard in range(source.count):
            self._task.at_shard(shard)
            without = frozenset(number for its, number in task.without if its == shard)
            shard_reader = self._shard_opener.shard(task.epoch, shard, ShardProgress(), without, keeps=True)
            some: list[Any] = []
            while seen < most and shard_reader.take(1, 1, some.append):
                seen += 1
                yield some.pop()
            shard_reader.close()

    def _nothing(self) -> str:
        source = self._used.program.source
        what = "no example is left"
        if self._used.program.is_sharded:
            what = f"the generator yields nothing in any of {source.count} shards"
        elif source is None:
            what = "the iterable yields no example"
        if self._used.program.transform is None:
            return f"{what}. Check its paths or filters."
        return f"{what}, or the transform returned stoker.SKIP for all examples. Check paths and filters."


def _suited(make: Callable[..., Suited], *args: Any) -> Suited:
    """Call `make`; raises `UnsuitedExample` for an option that does not suit the examples."""
    try:
        return make(*args)
    except OptionError as error:
        raise UnsuitedExample(str(error)) from None
