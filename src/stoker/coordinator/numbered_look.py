"""The first examples of an epoch whose examples are known by number, while they are inspected.

All workers make them, one after the other, and put them into the store. One worker describes them. They are reused when
the epoch's batches are made.
"""

from __future__ import annotations

from collections.abc import Container

from stoker.coordinator.look_options import LookOptions
from stoker.epochs.epoch import ExamplesLookedAt, ExamplesMade
from stoker.memory.example_store import BATCHES
from stoker.memory.slot import Inbox
from stoker.protocol.replies import LEFT_OUT, DescribedReply, ExamplesMadeReply
from stoker.protocol.requests import MAKE, DescribeRequest, MakeExamplesRequest

#: Number of tasks per worker, while many examples are made.
_TASKS = 4


class NumberedLook:
    """The inspected examples, each with its place in the store.

    Args:
        options: what must be inspected.
        workers: number of workers that make examples.
        inbox: holds the items of an iterable.
        without: examples that kill workers: (shard or None, example).

    Attributes:
        examples: the examples; None until they are known.
        one: whether the first example may still suffice.
    """

    def __init__(
        self,
        options: LookOptions,
        workers: int,
        inbox: Inbox,
        without: Container[tuple[int | None, int]],
    ) -> None:
        self._options, self._workers, self._inbox, self._without = options, workers, inbox, without
        self.forget()

    def forget(self) -> None:
        """Start again from nothing."""
        self.examples: ExamplesLookedAt | None = None
        self.one = self._options.one
        self._sizes: dict[int, int] = {}  # bytes of each example made, by its place; 0 if the store cannot hold it
        self._raised: set[int] = set()  # places of the examples that raised, or come after one in its task
        self._failures: dict[int, int] = {}  # bytes of each failure in the store, by the place of its example
        self._units: list[list[int]] = []  # places that are made together, in the current round

    def see(self, examples: ExamplesLookedAt) -> None:
        """Inspect these examples."""
        if examples != self.examples:
            self.examples = examples
            self._inbox.put(examples.items)

    # ── rounds ───────────────────────────────────────────────────────────────────────────────
    def begin_round(self) -> tuple[int, int]:
        """Begin the next round. Returns its number of rows, and the rows per task."""
        self._units = self._to_be_made()
        rows = max(1, len(self._units))
        return rows, min(MAKE, max(1, rows // (_TASKS * self._workers))) if self._options.run == 1 else 1

    def _to_be_made(self) -> list[list[int]]:
        """The places of the examples to make in this round; empty for the round that describes them."""
        assert self.examples is not None
        count, run = self._count(), self._options.run
        if self.one:
            if not count or self._is_done(0):
                return []
            rows = min(self.examples.rows[0] if self.examples.rows else 1, count)
            if run > 1:
                return [list(range(min(rows, run)))]
            spread = min(rows, self._workers)  # so that each worker begins its part of the first batch
            return [[part * rows // spread] for part in range(spread)]
        if run == 1:
            return [[place] for place in range(count) if not self._is_done(place)]
        units, start = list[list[int]](), 0
        for rows in self.examples.rows or (count,):  # runs start at the beginning of a batch
            units += [list(range(at, min(at + run, start + rows))) for at in range(start, start + rows, run)]
            start += rows
        return [unit for unit in units if unit[-1] < count and not all(map(self._is_done, unit))]

    def request(self, task: int, epoch: int, first: int, count: int) -> MakeExamplesRequest:
        """The request to make units first … first+count-1 of this round."""
        assert self.examples is not None
        places = self._places(first, count)
        numbers = tuple(self.examples.numbers[place] for place in places)
        without = tuple(self.examples.example(place) for place in range(self._count()) if self._is_left_out(place))
        most = self._options.memory // max(1, self._count())
        return MakeExamplesRequest(task, epoch, numbers=numbers, places=places, most=most, without=without)

    def is_describing(self) -> bool:
        """True if this round describes the examples."""
        return not self._units

    def description(self, task: int, epoch: int, *, further: bool, raises_first: bool) -> DescribeRequest:
        """The request to describe the examples.

        Args:
            task: number of the task.
            epoch: number of the epoch.
            further: whether more examples can be inspected, if these leave something undetermined.
            raises_first: whether to report the first error instead of describing the examples before it.
        """
        assert self.examples is not None
        places = list(range(min(1, self._count()) if self.one else self._count()))
        places = [place for place in places if not self._is_left_out(place)]
        raised = [place for place in places if place in self._raised]
        if self._options.skips:
            places = [place for place in places if place not in self._raised]
        elif raised:
            before = places.index(raised[0])  # if the very first raised, its error is reported
            places = places[: before + 1 if raises_first else max(1, before)]
        return DescribeRequest(
            task,
            epoch,
            numbers=tuple(self.examples.numbers[place] for place in places),
            places=tuple(places),
            sizes=tuple(self._kept().get(place, 0) for place in places),
            rows=self.examples.rows or (len(places),),
            one=self.one,
            further=further,
            without=tuple(
                (None, self.examples.example(place)) for place in range(self._count()) if self._is_left_out(place)
            ),
        )

    # ── replies ──────────────────────────────────────────────────────────────────────────────
    def made(self, first: int, count: int, reply: ExamplesMadeReply) -> None:
        """Record what a worker made of units first … first+count-1."""
        places = self._places(first, count)
        for place, size in zip(places, reply.sizes, strict=False):
            if size == LEFT_OUT:
                self._raised.add(place)
            else:
                self._sizes[place] = size
                self._raised.discard(place)
                self._failures.pop(place, None)
        missing = [place for place in places[len(reply.sizes) :] if place not in self._sizes]
        self._raised.update(missing)
        if missing and reply.raised:
            self._failures[missing[0]] = reply.raised

    def any_raised(self) -> bool:
        """True if an example raised."""
        return bool(self._raised)

    def needs_all(self) -> bool:
        """Inspect all examples, as the first one did not suffice. Returns whether all were inspected already."""
        was_one, self.one = self.one, False
        return not was_one

    def early(self, reply: DescribedReply) -> ExamplesMade | None:
        """The examples, failures and collated batches that the epoch's batches can reuse."""
        if self.examples is None:
            return None
        numbers = self.examples.numbers
        made = {numbers[place]: (place, size) for place, size in self._kept().items() if size > 0}
        batches, start = dict[int, tuple[int, int, int]](), 0
        for number, (rows, size) in enumerate(zip(self.examples.rows, reply.collated, strict=False)):
            if size:
                batches[numbers[start]] = rows, BATCHES + number, size
            start += rows
        return ExamplesMade(made, batches, len(self.examples.rows))

    def _kept(self) -> dict[int, int]:
        """Bytes in the store, by place: of the examples made, and of the failures of those that raised."""
        return {**{place: size for place, size in self._sizes.items() if place not in self._raised}, **self._failures}

    def _count(self) -> int:
        assert self.examples is not None
        return len(self.examples.numbers)

    def _places(self, first: int, count: int) -> tuple[int, ...]:
        return tuple(place for unit in self._units[first : first + count] for place in unit)

    def _is_left_out(self, place: int) -> bool:
        assert self.examples is not None
        return (None, self.examples.example(place)) in self._without

    def _is_done(self, place: int) -> bool:
        """True if the example at a place was made, raised, or is left out."""
        return place in self._sizes or place in self._raised or self._is_left_out(place)
