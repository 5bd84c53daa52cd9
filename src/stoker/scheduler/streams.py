"""Streams whose batches are known by number: rows n·size … of a source that is read by index, or item by item.

A stream says what is delivered next and what may be started next; who makes it, and in which slot, is
the machine's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from stoker.plan.position import ShardProgress
from stoker.scheduler.commands import Command, FailCommand, LoadItemsCommand
from stoker.scheduler.work import IndexWork, JoinWork, ShardWork


class BatchState(enum.Enum):
    """Of a batch; see the diagram in `machine`."""

    WAITING = "it is known what it consists of; it has no slot"
    FILLING = "rows are being made, or wait to be"
    READY = "all rows lie in the slot"
    FAILED = "a row cannot be made; its error waits for its turn"
    DROPPED = "nobody wants it; its slot is free when the last writer is gone"


@dataclass(frozen=True)
class ShardPosition:
    """An open shard: the raw examples that it has given, and how far it has come, for whoever opens it next."""

    shard: int
    raw: int = 0
    come: ShardProgress | None = None


@dataclass(eq=False)
class ShardState:
    """A shard that is read: by one worker at a time."""

    place: ShardPosition  # by what stands in line
    owner: int | None = None  # the worker that has it open
    ended: bool = False
    on_trial: bool = False  # whether one of its examples kills is being found out; its next rows wait

    @property
    def index(self) -> int:
        """Its number."""
        return self.place.shard


@dataclass(eq=False)
class BatchInMaking:
    """A batch, or the rows at the end of a shard, on their way through a slot."""

    stream: int
    number: int
    rows: int
    slot: int = -1
    state: BatchState = BatchState.FILLING
    unfinished: int = 1  # tasks that are not done, waiting or held by a worker
    writers: int = 0  # tasks that live workers hold
    failure: FailCommand | None = None
    shard: ShardState | None = None  # whose rows it has
    joint: JoinWork | None = None  # or the parked examples it consists of
    packed: bool = False
    ended: bool = False
    raw: int = 0
    come: ShardProgress | None = None  # how far its shard has come with it
    spread: bool = False  # no worker holds more than one of its tasks


@dataclass(frozen=True)
class BatchStart:
    """A batch to be started: `works` are its tasks, `before` is done when it gets its slot."""

    batch: BatchInMaking
    works: list[IndexWork | ShardWork | JoinWork]
    before: Callable[[int], Command] | None = None


#: Cuts the rows of a batch into tasks of so many.
Cut = Callable[[int], int]


class Stream(Protocol):
    """One iteration of the source."""

    number: int
    pulls: int

    def holding(self) -> int:
        """Batches that are made ahead, or being made."""

    def head(self) -> BatchInMaking | None:
        """The next one to be delivered, if that is known yet."""

    def ready(self, most: int) -> int:
        """How many batches, up to `most`, follow from the head on that are ready."""

    def take(self) -> None:
        """The head is delivered."""

    def is_over(self) -> bool:
        """Whether all batches are delivered."""

    def is_starved(self) -> bool:
        """Whether what is delivered next is not even started."""

    def start(self, cut: Cut) -> BatchStart | None:
        """Start the next batch, if one may be started."""

    def advance(self) -> tuple[list[Command], list[BatchInMaking]]:
        """Take in what is done: what is to be done about it, and the batches that nobody needs any more."""

    def give_back(self) -> BatchInMaking | None:
        """The last batch that was started, to be made again later; None when none can be."""

    def batches(self) -> list[BatchInMaking]:
        """All that have, or had, a slot and are not delivered."""

    def shards(self) -> list[ShardState]:
        """The shards that have a place, those too that have ended and wait for their turn."""

    def fed(self, items: int, ended: bool) -> None:
        """So many items have arrived."""


def count_ready(batches: Iterable[BatchInMaking | None]) -> int:
    """How many of the first ones are ready."""
    return sum(1 for _ in takewhile(lambda batch: batch is not None and batch.state is BatchState.READY, batches))


class IndexStream:
    """A stream of numbered batches.

    Args:
        number: the stream's.
        batches: how many there are; None when that is not known before the last item has arrived.
        rows: rows of a batch, by its number.
        size: rows of a full batch.
        keep_rest: whether the last batch may be smaller, when their number is not known.
        whole: whether one worker makes a whole batch.
        spread: rows of a task, where no worker is to hold more than one of them; else 0.
    """

    def __init__(
        self,
        number: int,
        batches: int | None,
        rows: Callable[[int], int],
        size: int,
        *,
        keep_rest: bool = True,
        whole: bool = False,
        spread: int = 0,
    ) -> None:
        self.number, self.pulls, self._spread = number, 0, spread
        self._total, self._rows, self._size, self._keep_rest = batches, rows, size, keep_rest
        self._is_fed, self._whole = batches is None, whole
        self._items = 0
        self._delivered = 0
        self._made: dict[int, BatchInMaking] = {}  # numbers delivered … next-1, in order

    def holding(self) -> int:
        return len(self._made)

    def head(self) -> BatchInMaking | None:
        return self._made.get(self._delivered)

    def ready(self, most: int) -> int:
        return count_ready(self._made.get(self._delivered + n) for n in range(most))

    def take(self) -> None:
        del self._made[self._delivered]
        self._delivered += 1

    def is_over(self) -> bool:
        return self._delivered == self._total

    def is_starved(self) -> bool:
        return not self._made and self._rows_of_next() > 0

    def start(self, cut: Cut) -> BatchStart | None:
        rows = self._rows_of_next()
        if not rows or any(batch.failure for batch in self._made.values()):
            return None
        number, size = self._next, rows if self._whole else self._spread or cut(rows)
        works: list[IndexWork | ShardWork | JoinWork] = [
            IndexWork(number, first, min(size, rows - first), rows) for first in range(0, rows, size)
        ]
        batch = BatchInMaking(self.number, number, rows, unfinished=len(works), spread=self._spread > 0)
        self._made[number] = batch
        load = (lambda slot: LoadItemsCommand(self.number, slot, rows)) if self._is_fed else None
        return BatchStart(batch, works, load)

    def advance(self) -> tuple[list[Command], list[BatchInMaking]]:
        return [], []

    def give_back(self) -> BatchInMaking | None:
        return self._made.pop(self._next - 1) if self._made and not self._is_fed else None

    def batches(self) -> list[BatchInMaking]:
        return list(self._made.values())

    def shards(self) -> list[ShardState]:
        return []

    def fed(self, items: int, ended: bool) -> None:
        self._items = items
        if ended:
            full, rest = divmod(items, self._size)
            self._total = full + (rest > 0 and self._keep_rest)

    @property
    def _next(self) -> int:
        return self._delivered + len(self._made)

    def _rows_of_next(self) -> int:
        """Rows of the batch that comes next, 0 when it cannot be started."""
        if self._total is not None and self._next >= self._total:
            return 0
        if not self._is_fed:
            return self._rows(self._next)
        left = self._items - self._next * self._size
        return left if self._total is not None and 0 < left < self._size else self._size * (left >= self._size)
