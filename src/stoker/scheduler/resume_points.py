"""Positions between the batches of a shard stream, from which another run can resume."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stoker.plan.position import ShardProgress
from stoker.scheduler.commands import Command, ParkCommand
from stoker.scheduler.streams import BatchInMaking, BatchStart, BatchState, ShardPosition, ShardState
from stoker.scheduler.work import ParkedRows, ShardWork

#: Number of resume points that are kept: more than the batches that a trainer pulls ahead of its steps.
_KEPT = 4096


@dataclass(frozen=True)
class Leftover:
    """Rows start … stop-1 of those that a shard gave at its end, from its progress `since` on; not joined yet."""

    shard: int
    since: ShardProgress | None
    start: int
    stop: int


@dataclass(frozen=True)
class ResumePoint:
    """The state of a shard stream between two batches.

    Attributes:
        opened: number of shards that have been opened.
        turn: index in `positions` of the shard whose turn it is.
        raw: number of examples that the shards have given.
        positions: the open shards.
        left: leftover rows of shards, to be joined in this order.
    """

    opened: int = 0
    turn: int = 0
    raw: int = 0
    positions: tuple[ShardPosition, ...] = ()
    left: tuple[Leftover, ...] = ()

    def needed(self) -> list[int]:
        """The opened shards that must be read again or further."""
        return [position.shard for position in self.positions] + [left.shard for left in self.left]


class ResumePoints:
    """The resume points of a stream, by the number of batches and rows before each."""

    def __init__(self, first: ResumePoint) -> None:
        self._points: deque[tuple[int, int, ResumePoint]] = deque([(0, 0, first)], _KEPT)

    def add(self, rows: int, point: ResumePoint) -> None:
        """Add the point after one more batch of `rows` rows."""
        batches, before, _ = self._points[-1]
        self._points.append((batches + 1, before + rows, point))

    def after(self, batches: int) -> ResumePoint | None:
        """The point after `batches` batches; None if it is no longer kept or not known yet."""
        return next((point for count, _, point in reversed(self._points) if count == batches), None)

    def before(self, rows: int) -> tuple[int, ResumePoint] | None:
        """The last point with at most `rows` rows before it, and their number; None if it is no longer kept."""
        return next(((count, point) for _, count, point in reversed(self._points) if count <= rows), None)


@dataclass(eq=False)
class _Stretch:
    of: Leftover
    shard: ShardState
    batch: BatchInMaking | None = None  # None until it is started
    parked: int | None = None  # the number under which its rows are parked

    def made(self) -> BatchInMaking | None:
        """Its batch while that has a slot."""
        return self.batch if self.parked is None else None


@dataclass
class RowsAgain:
    """Leftover rows of shards from another run. They are made again before anything else."""

    left: Sequence[Leftover]
    parts: list[_Stretch] = field(init=False)

    def __post_init__(self) -> None:
        self.parts = [_Stretch(of, ShardState(ShardPosition(of.shard))) for of in self.left]

    def start(self, stream: int, size: int, is_there: Callable[[ShardState], bool]) -> BatchStart | None:
        """Start the next leftover that can be made. Returns None if there is none."""
        part = next((part for part in self.parts if part.batch is None and is_there(part.shard)), None)
        if part is None:
            return None
        part.batch = BatchInMaking(stream, size, shard=part.shard)
        return BatchStart(part.batch, [ShardWork(part.of.shard, True, part.of.since)])

    def is_starved(self) -> bool:
        """True if no leftover is being made."""
        return not self.batches()

    def batches(self) -> list[BatchInMaking]:
        """The batches that have a slot."""
        return [batch for part in self.parts if (batch := part.made()) is not None]

    def shards(self) -> list[ShardState]:
        """The shards whose leftovers are not parked yet."""
        return [part.shard for part in self.parts if part.parked is None]

    def failed(self) -> BatchInMaking | None:
        """The first batch that could not be made, or None."""
        return next((batch for batch in self.batches() if batch.state is BatchState.FAILED), None)

    def park(self, stream: int, last: int, out: list[Command]) -> list[BatchInMaking]:
        """Park the rows that are ready, under numbers above `last`. Returns the batches whose slots are free."""
        free = []
        for part in self.parts:
            batch = part.made()
            if batch is not None and batch.state is BatchState.READY:
                assert batch.slot is not None
                part.parked = last = last + 1
                out.append(ParkCommand(stream, last, batch.slot, batch.rows))
                free.append(batch)
        return free

    def pieces(self) -> list[tuple[ParkedRows, Leftover]] | None:
        """All leftovers with their origins, or None while some are not made again."""
        pieces = [
            (ParkedRows(part.parked, part.of.start, part.of.stop), part.of)
            for part in self.parts
            if part.parked is not None
        ]
        return pieces if len(pieces) == len(self.parts) else None

    def shrunk(self) -> int | None:
        """A shard that gives fewer rows now than in the other run, or None."""
        parked = [(part.batch, part.of) for part in self.parts if part.batch is not None and part.parked is not None]
        return next((of.shard for batch, of in parked if batch.rows < of.stop), None)
