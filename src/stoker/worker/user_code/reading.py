"""Makes examples from the source: read, seed, transform. One function per kind of source.

Each function is a generator of the transform's outputs: an example, SKIP or Many. The worker's progress page holds the
number of the current example, for error messages and for the trainer if the worker dies or hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import optree

from stoker.memory.progress_page import EXAMPLE
from stoker.memory.worker_times import Stage
from stoker.protocol.requests import RUN
from stoker.sources.map_style import reads_in_runs
from stoker.sources.markers import SKIP, Many
from stoker.structure.collation import Form
from stoker.structure.forms import Misfit
from stoker.structure.nesting import plain
from stoker.structure.values import canonical, short
from stoker.worker.batching.likeness import Likeness, read
from stoker.worker.context import TaskContext
from stoker.worker.failed import SourceChanged


class Reader:
    """Makes examples from the source.

    Args:
        context: what the parts of the worker share.
    """

    def __init__(self, context: TaskContext) -> None:
        program = context.program
        self._used, self._task, self._clock, self._seeder = context.used, context.task, context.clock, context.seeder
        self._begin, self._words, self._wants_rng = context.seeder.begin, context.task.words, program.wants_rng
        self._in_runs = reads_in_runs(program.source)
        self.indexed = self._together if self._in_runs else self._each
        if program.skips:
            self.indexed = self._alone
        self._settles = program.skips and program.collation.function is None  # else the user's function reads them
        self._likeness: Likeness | None = None

    def learn(self, form: Form) -> None:
        """Adopt the form of the examples."""
        self._likeness = Likeness(form)

    def _each(self, indices: list[int], seeds: list[int]) -> Iterator[Any]:
        """Read examples through `__getitem__`."""
        program, begin, words, place = self._used.program, self._begin, self._words, EXAMPLE
        read, transform = self._clock.of(Stage.READ, program.source.__getitem__), program.transform
        keep, keeps = self._used.keep, self._task.keeps
        for index, seed in zip(indices, seeds, strict=True):
            words[place] = index
            begin(seed)
            if keeps:
                yield keep(read(index) if transform is None else self.transformed(transform, read(index), seed))
            else:
                yield read(index) if transform is None else self.transformed(transform, read(index), seed)

    def _alone(self, indices: list[int], seeds: list[int]) -> Iterator[Any]:
        """Read examples one at a time, so that one that raises can be left out."""
        program, begin, words, task = self._used.program, self._begin, self._words, self._task
        keep, settled, transform = self._keep(), self.settled, program.transform
        read = self._clock.of(
            Stage.READ, partial(_run_of_one, program.source) if self._in_runs else program.source.__getitem__
        )
        for index, seed in zip(indices, seeds, strict=True):
            words[EXAMPLE] = index
            if index in task.without:  # those of the step, if this is read in several
                yield SKIP
                continue
            begin(seed)
            try:
                example = keep(
                    settled(read(index) if transform is None else self.transformed(transform, read(index), seed))
                )
            except BaseException as error:
                task.skip(index, error)
                example = SKIP
            yield example

    def _keep(self) -> Callable[[Any], Any]:
        """The function applied to an example before the next one is made."""
        return self._used.keep if self._task.keeps else as_is

    def _together(self, indices: list[int], seeds: list[int]) -> Iterator[Any]:
        """Read examples through `__getitems__`, in runs.

        The runs, and with them the random states, depend only on the batch.
        """
        program, begin, keep, words = self._used.program, self._begin, self._keep(), self._words
        transform = program.transform
        for start in range(0, len(indices), RUN):
            some = indices[start : start + RUN]
            examples = self._read_run(program.source, some, seeds[start])
            if len(examples) != len(some):
                raise SourceChanged(_not_one_each(len(some), len(examples)))
            examples.reverse()
            for index, seed in zip(some, seeds[start : start + RUN], strict=True):
                words[EXAMPLE] = index
                if transform is None:
                    yield keep(examples.pop())
                else:
                    begin(seed)
                    yield keep(self.transformed(transform, examples.pop(), seed))

    def _read_run(self, source: Any, some: list[int], seed: int) -> list[Any]:
        """The result of `__getitems__` for some indices.

        If it raises, the examples are read one by one, so that the error is that of a single example where one raises.
        """
        self._task.at(some[0] if len(some) == 1 else None)
        self._begin(seed)
        read = self._clock.of(Stage.READ, _run)
        try:
            return read(source, some)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raised = error
        for index in some if len(some) > 1 else ():
            self._task.at(index)
            self._begin(seed)
            _run(source, [index])
        self._task.at(some[0] if len(some) == 1 else None)
        try:
            raise raised
        finally:
            del raised  # it references this frame

    def items(self, items: Iterable[Any], first: int, seeds: list[int]) -> Iterator[Any]:
        """Make examples from items of an iterable; `first` is the number of the first item."""
        transform, begin, keep = self._used.program.transform, self._begin, self._keep()
        task, words = self._task, self._words
        for index, (item, seed) in enumerate(zip(items, seeds, strict=True), first):
            words[EXAMPLE] = index
            if index in task.without:
                yield SKIP
                continue
            try:
                if transform is not None:
                    begin(seed)
                    item = keep(self.transformed(transform, item, seed))
                item = self.settled(item)
            except BaseException as error:
                task.skip(index, error)
                item = SKIP
            yield item

    def some_items(
        self, items: Sequence[Any], rows: Sequence[int], numbers: Sequence[int], seeds: Sequence[int]
    ) -> Iterator[Any]:
        """Make examples from the items in these rows of a run; `numbers` and `seeds` cover the whole run."""
        for row, item in zip(rows, items, strict=True):
            yield from self.items([item], numbers[row], [seeds[row]])

    def earlier(self, numbers: Sequence[int]) -> Callable[[int, Callable[[], Any]], Any]:
        """A function that returns an output made earlier.

        Its arguments are the row in the run with these numbers and the function that loads the output.
        """

        def taken(row: int, load: Callable[[], Any]) -> Any:
            number = int(numbers[row])
            self._task.at(number)
            output = load()
            if self._settles:
                try:
                    return self.settled(output)
                except BaseException as error:
                    self._task.skip(number, error)
                    return SKIP
            return output

        return taken

    def transformed(self, transform: Callable[..., Any], example: Any, seed: int) -> Any:
        """The transform's output for an example."""
        if self._clock.is_running:
            transform = self._clock.of(Stage.TRANSFORM, transform)
        return transform(example, rng=self._seeder.rng(seed)) if self._wants_rng else transform(example)

    def settled(self, output: Any) -> Any:
        """The output. If examples may be left out, its parts are read once; raises whatever reading them raises.

        Once the form of the examples is known, one of a different form raises `Misfit`.
        """
        if not self._settles or output is SKIP:
            return output
        if type(output) is Many:
            kept = self._used.keep(output)  # its examples wait while other shards are read
            return Many(map(self.settled, kept.examples))
        if self._likeness is not None:
            return self._likeness.taken(output)
        read(output)
        return output


def as_is(example: Any) -> Any:
    """The example itself, which is written before the next one is made."""
    return example


def _run(source: Any, some: list[int]) -> list[Any]:
    """Read examples through `__getitems__`."""
    return list(source.__getitems__(some))


def _run_of_one(source: Any, index: int) -> Any:
    """Read one example through `__getitems__`."""
    examples = _run(source, [index])
    if len(examples) != 1:
        raise SourceChanged(_not_one_each(1, len(examples)))
    return examples[0]


def _not_one_each(asked: int, came: int) -> str:
    return f"`__getitems__` was asked for {asked} examples but returned {came}; return one for each index"


def weighed(made: Iterable[Any], counts: Iterable[bool]) -> Iterator[Any]:
    """Add a `sample_weight` to each example: its own or 1 if it counts, 0 if it only fills up the batch.

    An example's own weights may be nested, as for a model with several outputs.
    """
    for example, counting in zip(made, counts, strict=False):
        if type(example) is not tuple or len(example) not in (2, 3):
            kind = f"a tuple of {len(example)}" if type(example) is tuple else f"a {type(example).__name__}"
            raise Misfit(f"it is {kind}; pad_remainder=True adds a sample_weight to examples (x, y) or (x, y, weight)")
        weight = optree.tree_map(_floating, plain(example[2])) if len(example) == 3 else np.float32(1)
        yield (*example[:2], weight if counting else optree.tree_map(_zero, weight))


def _floating(weight: Any) -> Any:
    """Convert a weight to one that can be scaled: whole numbers become float32."""
    array = canonical(weight)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise Misfit(f"a sample_weight of it is neither a number nor an array of numbers: {short(weight)}")
    return weight if array.dtype.kind == "f" else array.astype(np.float32)


def _zero(weight: Any) -> Any:
    return np.zeros_like(canonical(weight))


def outputs(made: Iterable[Any]) -> Iterator[Any]:
    """The examples in the transform's outputs: none for SKIP, several for Many."""
    for output in made:
        if output is SKIP:
            continue
        if type(output) is Many:
            yield from output.examples
        else:
            yield output
