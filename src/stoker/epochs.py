"""What one iteration reads: a kind of epoch for each kind of source.

An epoch tells the scheduler what its stream is, turns tasks into questions for workers, and keeps what
must be at hand to ask again: how far shards have come, items that were pulled, examples left at the
ends of shards. All of it under the dispatcher's lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.memory.parcel import pack
from stoker.plan import Permutation, Plan, mix, shuffled
from stoker.scheduler import RowsStream, ShardStream, Stream
from stoker.scheduler.messages import Joint, Piece, Rows, Stride, Task, Trial
from stoker.sources import IterableSource, ShardedSource
from stoker.sources.iterable import Puller
from stoker.stats import Skipped
from stoker.worker.messages import Finished, Join, Opening, Progress, Question, Step, Work


@dataclass(frozen=True)
class Batching:
    """How examples are made into batches, whatever the source.

    Attributes:
        size: rows of a full batch.
        keep_rest: whether the last batch may be smaller.
        seed: the Loader's seed.
        shuffle: size of the shuffle buffer, or 0.
        window: parts of a source that are made side by side when their sizes are not known beforehand.
    """

    size: int
    keep_rest: bool
    seed: int
    shuffle: int
    window: int


class Epoch(ABC):
    """One iteration of the source.

    Args:
        number: the epoch's.
        batching: how examples are made into batches.
        uneven: whether the transform may return SKIP or Many.
    """

    def __init__(self, number: int, batching: Batching, *, uneven: bool) -> None:
        self.number, self.uneven = number, uneven
        self.serialized = False  # whether each component is delivered as a serialised tensor
        self._batching = batching
        self.ledger: set[tuple[int | None, int]] = set()  # examples that were left out, by shard and number
        self._parked: dict[int, list[bytes]] = {}
        self._progress: dict[int, Progress] = {}
        self._without: dict[int | None, set[int]] = {}

    @abstractmethod
    def stream(self, number: int) -> Stream:
        """The stream that the scheduler serves."""

    @abstractmethod
    def rows(self, task: Task, rows: Rows | Trial) -> Question:
        """The question for rows of a batch with a number."""

    @abstractmethod
    def stride(self, task: Task, shard: int, opening: Opening | None) -> Question:
        """The question for the next rows of a shard."""

    def turn_uneven(self, batch: int) -> None:
        """A transform returned SKIP or Many within this batch, which was numbered: read on as parts from here."""
        raise AssertionError("the sizes of this epoch's shards were never counted on")

    def close(self) -> None:  # noqa: B027  (most kinds hold nothing)
        """Nobody reads it any more."""

    def delivered(self) -> None:  # noqa: B027
        """A batch was delivered."""

    @property
    def has_shards(self) -> bool:
        """Whether workers may have shards of it open."""
        return self.uneven

    @abstractmethod
    def examples(self, work: Rows | Trial | Stride | Joint) -> str:
        """Which examples a task is about, in words."""

    def example(self, work: Rows | Trial, row: int) -> int:
        """The number of the example in a row of a numbered batch."""
        raise AssertionError("shards have no numbered batches")

    def row(self, work: Rows | Trial, example: int) -> int | None:
        """The row of a numbered batch in which an example stands, among those of a task."""
        return next(
            (row for row in range(work.first, work.first + work.count) if self.example(work, row) == example), None
        )

    def shard_of(self, work: Stride) -> int | None:
        """The shard that its examples are counted in; None where they are counted in the source."""
        return None

    def leave_out(self, shard: int | None, example: int) -> bool:
        """Leave this example out from now on; whether it was not left out before."""
        known = (shard, example) in self.ledger
        self.ledger.add((shard, example))
        self._without.setdefault(shard, set()).add(example)
        return not known

    def noted(self, work: Stride, skipped: Sequence[tuple[int, str]], count: int) -> tuple[list[Skipped], int]:
        """Those of the examples that a worker left out which it had not left out before; and how many."""
        shard = self.shard_of(work)
        new = [(number, reason) for number, reason in skipped if (shard, number) not in self.ledger]
        self.ledger.update((shard, number) for number, _ in new)
        return [Skipped(self.number, shard, *one) for one in new], len(new) + count - len(skipped)

    def _left_out(self, shard: int | None) -> tuple[int, ...]:
        return tuple(sorted(self._without.get(shard, ())))

    def load(self, count: int) -> bytes:
        """The next items, for a worker."""
        raise AssertionError("no items are pulled for this epoch")

    def inbox(self, task: Task) -> bytes | None:
        """What must lie in the slot's inbox when a worker opens a shard, or None."""
        return None

    def question(self, task: Task, opens: bool) -> Question:
        """What to ask a worker for a task; `opens`: it does not have the shard open."""
        match task.work:
            case Rows() | Trial() as some:
                return self.rows(task, some)
            case Stride(shard):
                return self.stride(task, shard, self._opening(shard) if opens else None)
            case Joint():
                return Join(task.id, task.slot, task.work.rows, self.serialized)

    def heard(self, work: Rows | Trial | Stride | Joint, answer: Finished) -> None:
        """A worker has done a task."""
        if isinstance(work, Stride) and answer.progress is not None:
            self._progress[work.shard] = answer.progress

    def park(self, number: int, segments: list[bytes]) -> None:
        """Keep single examples."""
        self._parked[number] = segments

    def gather(self, pieces: Sequence[Piece]) -> bytes:
        """Parked examples one after the other; those before them in their parcel are needed no more either."""
        found: list[bytes] = []
        for piece in pieces:
            segments = self._parked[piece.parked]
            found += segments[piece.start : piece.stop]
            if piece.stop == len(segments):
                del self._parked[piece.parked]
        return b"".join(found)

    def _opening(self, shard: int) -> Opening:
        return Opening(self._progress.get(shard, Progress()))


class IndexEpoch(Epoch):
    """Of a map-style source or of arrays."""

    def __init__(self, number: int, batching: Batching, plan: Plan, *, uneven: bool) -> None:
        super().__init__(number, batching, uneven=uneven)
        self._plan, self._order = plan, plan.order(number)
        self._from = 0  # the first batch that is read as a part

    def stream(self, number: int) -> Stream:
        if not self.uneven:
            plan = self._plan
            return RowsStream(number, plan.batches, plan.rows, plan.batch_size, whole=self.serialized)
        parts = range(self._from, -(-self._plan.length // self._plan.batch_size))
        return ShardStream(
            number,
            parts,
            self._plan.batch_size,
            open_shards=self._batching.window,
            keep_rest=self._batching.keep_rest,
            in_turn=False,
        )

    def turn_uneven(self, batch: int) -> None:
        self.uneven, self._from = True, batch

    def rows(self, task: Task, rows: Rows | Trial) -> Question:
        where = (task.id, self.number, task.slot, rows.first, rows.whole, self.serialized)
        return Work(*where, False, rows.count, self.indices(rows), isinstance(rows, Trial))

    def stride(self, task: Task, shard: int, opening: Opening | None) -> Question:
        if opening is None:
            return Step(
                task.id, self.number, task.slot, shard, self.serialized, True, None, without=self._left_out(None)
            )
        size = min(self._plan.batch_size, self._plan.length - shard * self._plan.batch_size)
        indices = self.indices(Rows(shard, 0, size, size))
        without = self._left_out(None)
        return Step(task.id, self.number, task.slot, shard, self.serialized, True, opening, size, indices, without)

    def example(self, work: Rows | Trial, row: int) -> int:
        return int(self.indices(Rows(work.batch, row, 1, work.whole))[0])

    def row(self, work: Rows | Trial, example: int) -> int | None:
        found = np.flatnonzero(self.indices(work) == example)
        return work.first + int(found[0]) if len(found) else None

    def indices(self, rows: Rows | Trial) -> npt.NDArray[np.int64]:
        """The examples that stand in these rows."""
        start = rows.batch * self._plan.batch_size + rows.first
        return self._order.indices(start, start + rows.count)

    def examples(self, work: Rows | Trial | Stride | Joint) -> str:
        if isinstance(work, Rows | Trial):
            return _told(self.indices(work).tolist())
        return "examples that are joined" if isinstance(work, Joint) else _of_part(work, self._plan.batch_size, 0)


class ShardEpoch(Epoch):
    """Of a generator function over shards."""

    def __init__(self, number: int, batching: Batching, source: ShardedSource, *, uneven: bool) -> None:
        super().__init__(number, batching, uneven=uneven)
        self._source = source

    def stream(self, number: int) -> Stream:
        order: Sequence[int] = range(self._source.count)
        if self._batching.shuffle:
            permutation = Permutation(self._source.count, mix(self._batching.seed, self.number, 5))
            order = permutation(np.arange(self._source.count)).tolist()
        return ShardStream(
            number,
            order,
            self._batching.size,
            open_shards=self._source.open_shards,
            keep_rest=self._batching.keep_rest,
            length=self._source.length,
        )

    def rows(self, task: Task, rows: Rows | Trial) -> Question:
        raise AssertionError("shards have no numbered batches")

    def stride(self, task: Task, shard: int, opening: Opening | None) -> Question:
        without = self._left_out(shard)
        return Step(task.id, self.number, task.slot, shard, self.serialized, False, opening, without=without)

    def shard_of(self, work: Stride) -> int | None:
        return work.shard

    @property
    def has_shards(self) -> bool:
        return True

    def examples(self, work: Rows | Trial | Stride | Joint) -> str:
        if not isinstance(work, Stride):
            return "the last examples of shards"
        raw = self._progress.get(work.shard, Progress()).raw
        return f"shard {work.shard} from its example {raw} on"


class ItemEpoch(Epoch):
    """Of an iterable that is pulled in this process."""

    def __init__(self, number: int, batching: Batching, puller: Puller, *, uneven: bool) -> None:
        super().__init__(number, batching, uneven=uneven)
        self.puller = puller
        self._loaded: deque[list[bytes]] = deque()  # of batches that are not delivered
        self._again: deque[bytes] = deque()  # taken once, and to be read as parts now
        self._base = 0  # items before those that are read as parts
        self._parts: dict[int, list[bytes]] = {}  # that are open
        self._parts_taken = self._taken = 0
        self._want()

    def stream(self, number: int) -> Stream:
        size, keep = self._batching.size, self._batching.keep_rest
        if not self.uneven:
            return RowsStream(number, None, lambda batch: size, size, keep_rest=keep, whole=self.serialized)
        window = self._batching.window
        return ShardStream(number, None, size, open_shards=window, keep_rest=keep, in_turn=False)

    def turn_uneven(self, batch: int) -> None:
        self.uneven, self._base = True, batch * self._batching.size
        self._again = deque(item for items in self._loaded for item in items)
        self._loaded.clear()

    def arrived(self, items: int) -> int:
        """How many of the items that were pulled are the stream's."""
        return items - self._base

    def load(self, count: int) -> bytes:
        items = self._take(count)
        self._loaded.append(items)
        return b"".join(items)

    def delivered(self) -> None:
        """A numbered batch was delivered: its items are needed no more."""
        if self._loaded:
            self._loaded.popleft()

    def rows(self, task: Task, rows: Rows | Trial) -> Question:
        start = np.array([self.example(rows, rows.first)], np.int64)
        where = (task.id, self.number, task.slot, rows.first, rows.whole, self.serialized)
        return Work(*where, True, rows.count, start, isinstance(rows, Trial))

    def example(self, work: Rows | Trial, row: int) -> int:
        return work.batch * self._batching.size + row

    def stride(self, task: Task, shard: int, opening: Opening | None) -> Question:
        if opening is not None:
            first = self._base + shard * self._batching.size
            opening = Opening(opening.progress, len(self._parts[shard]), first)
        without = self._left_out(None)
        return Step(task.id, self.number, task.slot, shard, self.serialized, True, opening, without=without)

    def inbox(self, task: Task) -> bytes | None:
        if not isinstance(task.work, Stride):
            return None
        while self._parts_taken <= task.work.shard:
            self._parts[self._parts_taken] = self._take(self._batching.size)
            self._parts_taken += 1
        return b"".join(self._parts[task.work.shard])

    def heard(self, work: Rows | Trial | Stride | Joint, answer: Finished) -> None:
        super().heard(work, answer)
        if isinstance(work, Stride) and answer.ended:
            self._parts.pop(work.shard, None)

    def examples(self, work: Rows | Trial | Stride | Joint) -> str:
        if isinstance(work, Rows | Trial):
            start = work.batch * self._batching.size + work.first
            return _told(list(range(start, start + work.count)))
        return (
            "examples that are joined" if isinstance(work, Joint) else _of_part(work, self._batching.size, self._base)
        )

    def close(self) -> None:
        self.puller.close()

    def _take(self, count: int) -> list[bytes]:
        again = [self._again.popleft() for _ in range(min(count, len(self._again)))]
        new = self.puller.take(min(count - len(again), self.puller.count()))
        self._taken += len(new)
        self._want()
        return again + new

    def _want(self) -> None:
        """Let two batches' items be pulled ahead."""
        self.puller.want(self._taken + 2 * self._batching.size)


def _told(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (f", … ({len(numbers)} in all)" if len(numbers) > 8 else "")
    return f"example{'s' * (len(numbers) > 1)} {shown}"


def _of_part(work: Stride, size: int, base: int) -> str:
    return f"the {size} examples from number {base + work.shard * size} on"


def start_pulling(source: IterableSource, batching: Batching, epoch: int, tell: Callable[[int, bool], None]) -> Puller:
    """Pull the items of an epoch, in a thread of its own."""

    def wrap(items: Iterator[Any]) -> Iterator[Any]:
        return shuffled(items, batching.shuffle, mix(batching.seed, epoch, 6)) if batching.shuffle else items

    return Puller(source, wrap, pack, batching.size, tell)
