"""The stream protocol, and streams of numbered batches.

Batch n of such a stream holds the rows from n·size on, of a source that is read by index or item by item.

A stream determines which batch is delivered next and which may be started next. The machine determines which worker
makes it, and in which slot.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from stoker.plan.position import ShardProgress
from stoker.scheduler.commands import Command, LoadItemsCommand
from stoker.scheduler.work import FailureReason, IndexWork, JoinWork, Task, Work


class BatchState(enum.Enum):
    """State of a batch; see the diagram in `machine`."""

    WAITING = "its contents are known; it has no slot"
    FILLING = "rows are being made, or will be"
    READY = "all rows are in the slot"
    FAILED = "a row cannot be made; the error is raised in the batch's turn"
    DROPPED = "no longer needed; its slot is free when the last writer is gone"


@dataclass(frozen=True)
class ShardPosition:
    """Position in an open shard: the raw examples given so far, and its progress, for the worker that opens it next."""

    shard: int
    raw: int = 0
    progress: ShardProgress | None = None


@dataclass(eq=False)
class ShardState:
    """A shard that is being read, by one worker at a time."""

    position: ShardPosition  # after the last of its results that the stream has taken in
    owner: int | None = None  # the worker that has it open
    ended: bool = False
    on_trial: bool = False  # an example of it is under suspicion; its next rows wait for the trial

    @property
    def index(self) -> int:
        """Number of the shard."""
        return self.position.shard


@dataclass(frozen=True)
class BatchFailure:
    """The reason why a batch cannot be delivered, and the task that failed; None if the stream itself ends there."""

    task: Task | None
    reason: FailureReason


@dataclass(eq=False)
class BatchInMaking:
    """A batch, or the leftover rows of a shard, while it occupies or awaits a slot."""

    stream: int
    rows: int
    number: int | None = None  # among the batches of the stream; None while its turn is not known
    slot: int | None = None  # None while it awaits one
    state: BatchState = BatchState.FILLING
    unfinished: int = 1  # tasks that are not done: waiting, or held by a worker
    writers: int = 0  # tasks held by live workers
    failure: BatchFailure | None = None
    shard: ShardState | None = None  # the shard that its rows come from
    joint: JoinWork | None = None  # or the parked examples that it is joined from
    packed: bool = False
    ended: bool = False
    raw: int = 0
    progress: ShardProgress | None = None  # progress of its shard after it
    spread: bool = False  # each worker holds at most one of its tasks


@dataclass(frozen=True)
class BatchStart:
    """A batch to start: `works` become its tasks, `before` makes the command to carry out once it has its slot."""

    batch: BatchInMaking
    works: Sequence[Work]
    before: Callable[[int], Command] | None = None


#: Maps the rows of a batch to the rows per task.
Cut = Callable[[int], int]


class Stream(Protocol):
    """One iteration of the source."""

    number: int
    pulls: int

    def holding(self) -> int:
        """Number of batches that are being made or ready."""

    def head(self) -> BatchInMaking | None:
        """The next batch to be delivered, or None while it is not known."""

    def ready(self, most: int) -> int:
        """Number of consecutive ready batches from the head on, up to `most`."""

    def take(self) -> None:
        """Remove the head, which is being delivered."""

    def is_over(self) -> bool:
        """True if all batches are delivered."""

    def is_starved(self) -> bool:
        """True if the next batch to be delivered has not even been started."""

    def has_begun_all(self) -> bool:
        """True if all its batches are known and were started, and none has failed so far."""

    def start(self, cut: Cut) -> BatchStart | None:
        """Start the next batch, if one may be started."""

    def advance(self) -> tuple[list[Command], list[BatchInMaking]]:
        """Process finished work. Returns the commands that follow, and the batches that are no longer needed."""

    def give_back(self) -> BatchInMaking | None:
        """Give up the batch started last, which is made again later. Returns None if no batch can be given up."""

    def batches(self) -> list[BatchInMaking]:
        """The batches that have or had a slot and are not delivered."""

    def shards(self) -> list[ShardState]:
        """The shards that occupy a place, including those that have ended and wait for their turn."""

    def fed(self, items: int, ended: bool) -> None:
        """Note that `items` items have arrived in total; no more will follow if `ended`."""


def count_ready(batches: Iterable[BatchInMaking | None]) -> int:
    """Number of ready batches before the first one that is not ready."""
    return sum(1 for _ in takewhile(lambda batch: batch is not None and batch.state is BatchState.READY, batches))


class IndexStream:
    """A stream of numbered batches.

    Args:
        number: number of the stream.
        batches: number of batches; None if it is unknown until the last item has arrived.
        rows: maps the number of a batch to its rows.
        size: rows of a full batch.
        keep_rest: whether the last batch may be smaller, if the number of batches is unknown.
        whole: whether one worker makes a whole batch.
        spread: rows per task if each worker may hold only one task of a batch; otherwise None.
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
        spread: int | None = None,
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

    def has_begun_all(self) -> bool:
        return self._next == self._total and not any(batch.failure for batch in self._made.values())

    def start(self, cut: Cut) -> BatchStart | None:
        rows = self._rows_of_next()
        if not rows or any(batch.failure for batch in self._made.values()):
            return None
        number, size = self._next, rows if self._whole else self._spread or cut(rows)
        works = [IndexWork(number, first, min(size, rows - first), rows) for first in range(0, rows, size)]
        batch = BatchInMaking(self.number, rows, number, unfinished=len(works), spread=self._spread is not None)
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
        """Rows of the next batch, or 0 if it cannot be started."""
        if self._total is not None and self._next >= self._total:
            return 0
        if not self._is_fed:
            return self._rows(self._next)
        left = self._items - self._next * self._size
        return left if self._total is not None and 0 < left < self._size else self._size * (left >= self._size)
