"""Streams whose batches become known as shards are read.

Up to `open_shards` shards are open at a time. They take turns: each gives one batch, which one worker makes. A shard
that ends gives its leftover examples, and the next shard takes its place. Leftovers are parked. As soon as there are
enough of them for a batch, they are joined into one. The order therefore depends only on what the shards give.

A stream with `in_turn=False` preserves the order of its source. Parts of the source are made in parallel, and all
their examples are joined, one part after the other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import islice

from stoker.scheduler.commands import (
    Command,
    GatherCommand,
    ParkCommand,
    ShrunkShardReason,
    WrongLengthReason,
)
from stoker.scheduler.resume_points import Leftover, ResumePoint, ResumePoints, RowsAgain
from stoker.scheduler.streams import (
    BatchFailure,
    BatchInMaking,
    BatchStart,
    BatchState,
    Cut,
    ShardPosition,
    ShardState,
    count_ready,
)
from stoker.scheduler.work import JoinWork, ParkedRows, ShardWork


class ShardStream:
    """A stream of batches made from shards.

    Args:
        number: number of the stream.
        order: the shards in the order in which they are opened; None for parts of `size` items of an iterable.
        size: rows of a full batch.
        open_shards: maximum number of shards open at a time.
        keep_rest: whether the last batch may be smaller.
        in_turn: whether the shards take turns (True) or are read one after the other (False).
        apart: whether the leftovers of each shard make a batch of their own, instead of being joined with others.
        length: total number of raw examples, if the user gave it.
        since: the point at which another run left the stream.
        owners: workers that already have shards open, by shard. The caller removes workers that die.
    """

    def __init__(
        self,
        number: int,
        order: Sequence[int] | None,
        size: int,
        *,
        open_shards: int,
        keep_rest: bool = True,
        in_turn: bool = True,
        apart: bool = False,
        length: float | None = None,
        since: ResumePoint | None = None,
        owners: dict[int, int] | None = None,
    ) -> None:
        self._owners = {} if owners is None else owners
        self.number, self.pulls = number, 0
        self._order, self._size, self._keep_rest, self._in_turn = order, size, keep_rest, in_turn
        self._apart = apart
        self._most_open, self._length = open_shards, length
        self._available = len(order) if order is not None else 0
        self._all = order is not None  # no more shards will become available
        since = since or ResumePoint()
        self._opened, self._turn, self._raw = since.opened, since.turn, since.raw
        self._open = [ShardState(position, self._owners.pop(position.shard, None)) for position in since.positions]
        self._made: dict[ShardState, deque[BatchInMaking]] = {
            shard: deque() for shard in self._open
        }  # batches of each open shard, in order
        self._again = RowsAgain(since.left) if since.left else None
        self._line: deque[BatchInMaking] = deque()  # in delivery order
        self._left: deque[ParkedRows] = deque()
        self._origins: dict[int, Leftover] = {}  # of parked rows, by their number
        self.resume_points = ResumePoints(since)
        self._parked = 0
        self._numbers = 0  # batches put in line so far
        self._delivered_all = False
        self._open_more()

    # ── called by the machine ────────────────────────────────────────────────────────────────
    def holding(self) -> int:
        return len(self.batches())

    def head(self) -> BatchInMaking | None:
        return self._line[0] if self._line else None

    def ready(self, most: int) -> int:
        return count_ready(islice(self._line, most))

    def take(self) -> None:
        self._line.popleft()

    def is_over(self) -> bool:
        return self._delivered_all and not self._line

    def is_starved(self) -> bool:
        if self._line:
            return self._line[0].state is BatchState.WAITING
        if self._again is not None:
            return self._again.is_starved()
        return bool(self._open) and not self._made[self._open[self._turn]]

    def has_begun_all(self) -> bool:
        if not self._delivered_all:
            return False
        return not any(batch.failure or batch.state is BatchState.WAITING for batch in self._line)

    def batches(self) -> list[BatchInMaking]:
        again = self._again.batches() if self._again is not None else []
        made = [batch for shard in self._open for batch in self._made[shard]]
        return [batch for batch in self._line if batch.slot is not None] + again + made

    def shards(self) -> list[ShardState]:
        return (self._again.shards() if self._again is not None else []) + self._open

    def give_back(self) -> BatchInMaking | None:
        return None

    def fed(self, items: int, ended: bool) -> None:
        if self._delivered_all:
            return
        self._available = math.ceil(items / self._size) if ended else items // self._size
        self._all = ended
        self._open_more()

    def start(self, cut: Cut) -> BatchStart | None:
        for batch in self._line:
            if batch.state is BatchState.WAITING:
                joint = batch.joint
                assert joint is not None
                batch.state = BatchState.FILLING
                return BatchStart(batch, [joint], partial(self._gather, joint))
        if self._again is not None:
            return self._again.start(self.number, self._size, self._is_there)
        shards = [*self._open[self._turn :], *self._open[: self._turn]]
        wanted = [shard for shard in shards if self._goes_on(shard)]
        if not wanted:
            return None
        shard = min(wanted, key=lambda shard: len(self._made[shard]))
        batch = BatchInMaking(self.number, self._size, shard=shard)
        self._made[shard].append(batch)
        return BatchStart(batch, [ShardWork(shard.index)])

    def _goes_on(self, shard: ShardState) -> bool:
        """True if another request may be made for a shard.

        Only one at a time is made for a part, since most parts end with the first.
        """
        made = self._made[shard]
        may = self._is_there(shard) and (self._in_turn or not made)
        return may and not shard.ended and not (made and made[-1].failure)

    def _is_there(self, shard: ShardState) -> bool:
        """True if the items of a shard have arrived. This applies also to parts that another run had opened."""
        return self._order is not None or shard.index < self._available

    def _gather(self, joint: JoinWork, slot: int) -> Command:
        return GatherCommand(self.number, slot, joint.pieces)

    # ── finished work ────────────────────────────────────────────────────────────────────────
    def advance(self) -> tuple[list[Command], list[BatchInMaking]]:
        out: list[Command] = []
        free = self._remake(out)
        while self._again is None and (self._open or self._rows_left() >= self._size):
            if self._rows_left() >= self._size:
                self._put_in_line(self._joint(self._size))
                continue
            shard = self._open[self._turn]
            made = self._made[shard]
            if not made or made[0].state is BatchState.FILLING:
                return out, free
            batch = made.popleft()
            if batch.state is BatchState.FAILED:
                self._end_with(batch)
                return out, free + self._dropped()
            since, shard.position = shard.position, ShardPosition(shard.index, batch.raw, batch.progress)
            self._raw += batch.raw - since.raw
            if self._length is not None and self._raw > self._length:
                free.append(batch)
                self._fail(WrongLengthReason(self._length, self._raw, ended=False))
                return out, free + self._dropped()
            if batch.packed:
                self._park(batch, Leftover(shard.index, since.progress, 0, batch.rows), out)
                free.append(batch)
            if batch.ended:
                free += self._replace(shard)
                if self._apart and self._left:
                    self._put_in_line(self._joint(self._rows_left()))
            elif self._in_turn and not batch.packed:
                self._turn = (self._turn + 1) % len(self._open)
            if not batch.packed:
                self._put_in_line(batch)
        if self._again is None and self._all and self._opened == self._available and not self._delivered_all:
            self._finish()
        return out, free

    def _finish(self) -> None:
        if self._length is not None and self._raw != self._length:
            self._fail(WrongLengthReason(self._length, self._raw, ended=True))
            return
        if self._left and self._keep_rest:
            self._put_in_line(self._joint(self._rows_left()))
        self._delivered_all = True

    def _remake(self, out: list[Command]) -> list[BatchInMaking]:
        """Process the leftovers of another run. Returns the batches whose slots are free."""
        if self._again is None:
            return []
        failed = self._again.failed()
        if failed is not None:
            others = [batch for batch in self._again.batches() if batch is not failed]
            self._again = None
            self._end_with(failed)
            return others + self._dropped()
        free = self._again.park(self.number, self._parked, out)
        self._parked += len(free)
        shrunk, pieces = self._again.shrunk(), self._again.pieces()
        if shrunk is not None:
            free += self._again.batches()
            self._again = None
            self._fail(ShrunkShardReason(shrunk))
            return free + self._dropped()
        if pieces is not None:
            self._left = deque(piece for piece, _ in pieces)
            self._origins = {piece.parked: origin for piece, origin in pieces}
            self._again = None
        return free

    def _park(self, batch: BatchInMaking, origin: Leftover, out: list[Command]) -> None:
        if batch.rows:
            assert batch.slot is not None
            self._parked += 1
            out.append(ParkCommand(self.number, self._parked, batch.slot, batch.rows))
            self._left.append(ParkedRows(self._parked, 0, batch.rows))
            self._origins[self._parked] = origin

    def _rows_left(self) -> int:
        return sum(piece.stop - piece.start for piece in self._left)

    def _joint(self, rows: int) -> BatchInMaking:
        """A batch of the first `rows` leftover examples."""
        pieces, missing = [], rows
        while missing:
            piece = self._left.popleft()
            stop = min(piece.stop, piece.start + missing)
            pieces.append(ParkedRows(piece.parked, piece.start, stop))
            missing -= stop - piece.start
            if stop < piece.stop:
                self._left.appendleft(ParkedRows(piece.parked, stop, piece.stop))
            else:
                del self._origins[piece.parked]
        return BatchInMaking(self.number, rows, state=BatchState.WAITING, joint=JoinWork(tuple(pieces), self._numbers))

    def _put_in_line(self, batch: BatchInMaking) -> None:
        batch.number = self._numbers
        self._numbers += 1
        self._line.append(batch)
        self.resume_points.add(batch.rows, self._resume_point())

    def _resume_point(self) -> ResumePoint:
        left = []
        for piece in self._left:
            origin = self._origins[piece.parked]
            left.append(Leftover(origin.shard, origin.since, piece.start, piece.stop))
        return ResumePoint(
            self._opened, self._turn, self._raw, tuple(shard.position for shard in self._open), tuple(left)
        )

    def _replace(self, shard: ShardState) -> list[BatchInMaking]:
        """Replace a shard that has ended by the next one. Returns the batches of it that were made in vain."""
        vain = list(self._made.pop(shard))
        place = self._open.index(shard)
        if self._in_turn and self._opened < self._available:
            self._open[place] = self._open_next()
            return vain
        del self._open[place]
        if self._turn >= len(self._open):
            self._turn = 0
        self._open_more()
        return vain

    def _open_more(self) -> None:
        while len(self._open) < self._most_open and self._opened < self._available:
            self._open.append(self._open_next())

    def _open_next(self) -> ShardState:
        index = self._order[self._opened] if self._order is not None else self._opened
        shard = ShardState(ShardPosition(index), self._owners.pop(index, None))
        self._opened += 1
        self._made[shard] = deque()
        return shard

    # ── ending with an error ─────────────────────────────────────────────────────────────────
    def _fail(self, reason: WrongLengthReason | ShrunkShardReason) -> None:
        failure = BatchFailure(None, reason)
        self._end_with(BatchInMaking(self.number, 0, state=BatchState.FAILED, failure=failure))

    def _end_with(self, batch: BatchInMaking) -> None:
        """End the stream with this batch, which has failed."""
        self._put_in_line(batch)
        self._delivered_all = True

    def _dropped(self) -> list[BatchInMaking]:
        """Abandon all open shards. Returns their batches."""
        dropped = [batch for shard in self._open for batch in self._made.pop(shard)]
        self._open.clear()
        self._turn = 0
        return dropped
