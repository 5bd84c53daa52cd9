"""The base class of all epochs.

An epoch provides the scheduler with its stream, and turns tasks into requests to workers. It keeps the data that is
needed to repeat a request: the progress of shards, items that were pulled, and leftover examples of shards. All of
this happens under the producer's lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stoker.epochs.shard_progress import SavedShards
from stoker.plan.batching import EpochCounts
from stoker.plan.position import Iteration, Position, ShardProgress
from stoker.protocol.replies import TaskDoneReply
from stoker.protocol.requests import (
    COLLATED,
    MANY,
    NOTHING_MADE,
    Indices,
    JoinTaskRequest,
    Request,
    ShardOpening,
    ShardTaskRequest,
)
from stoker.scheduler.resume_points import ResumePoints
from stoker.scheduler.streams import Stream
from stoker.scheduler.work import IndexWork, JoinWork, ParkedRows, ShardWork, Task, TrialWork
from stoker.stats import Skipped


@dataclass(frozen=True)
class ExamplesLookedAt:
    """Examples of an epoch that are inspected to determine the form of the batches.

    Attributes:
        numbers: their numbers in the epoch; no two examples have the same.
        rows: rows of each batch that they make.
        items: the items of an iterable, one after the other.
        examples: their numbers in the source; empty if these are the same.
    """

    numbers: tuple[int, ...]
    rows: tuple[int, ...]
    items: bytes = b""
    examples: tuple[int, ...] = ()

    def example(self, place: int) -> int:
        """The number in the source of the example at a place."""
        return self.examples[place] if self.examples else self.numbers[place]


@dataclass(eq=False)
class ExamplesMade:
    """Examples of an epoch that were made before the form of the batches was known.

    Attributes:
        examples: location of each example in the store, by its number: (place, bytes).
        collated: location of each batch made by the user's function, by its first example: (rows, place, bytes).
        batches: number of numbered batches that they belong to.
    """

    examples: dict[int, tuple[int, int]]
    collated: dict[int, tuple[int, int, int]]
    batches: int

    def of(self, numbers: Sequence[int], *, whole: bool) -> Indices:
        """The reusable examples of a run in the form of `NOTHING_MADE`; `whole`: the run is a whole batch.

        None are returned if they are too many for a message.
        """
        found = [(row, *self.examples[number]) for row, number in enumerate(numbers) if number in self.examples]
        rows, place, size = self.collated.get(numbers[0], (0, 0, 0))
        if whole and rows == len(numbers):
            found = [(COLLATED, place, size)]
        return np.array(found, np.int64).reshape(-1, 3) if len(found) <= MANY else NOTHING_MADE


class PulledItems(Protocol):
    """The items of an epoch, which a thread of the trainer pulls from the user's iterable."""

    def want(self, count: int) -> None:
        """Pull the next `count` items."""

    def has(self, count: int) -> bool:
        """True if the next `count` items have arrived, or all that there are."""

    def arrivals(self) -> tuple[int, bool]:
        """Number of items that have arrived in this epoch's stream, and whether no more follow."""

    def load(self, count: int) -> bytes:
        """Take the next `count` items, for a worker."""

    def error(self) -> BaseException | None:
        """The error that ended the iterable, or None."""

    def first_error(self) -> BaseException | None:
        """The error that the iterable raised instead of its first item, or None."""


class Epoch(ABC):
    """One iteration of the source.

    Args:
        counts: how examples are made into batches.
        begin: position at which it begins.

    Attributes:
        length_claim: who says how many examples a source of shards has, for messages; `{}` stands for the length.
    """

    length_claim = ""

    def __init__(self, counts: EpochCounts, begin: Position) -> None:
        batching = counts.batching
        self.iteration, self.number = Iteration(begin), begin.epoch
        self.uneven = counts.has_marks  # whether the transform may return SKIP or Many
        self.key = 0  # distinguishes epochs with the same number
        self.host_shard = batching.host_shard
        self.serialized = False  # whether each component is delivered as a serialised tensor
        self._batching = batching
        self.left_out: set[tuple[int | None, int]] = set()  # examples that were left out: (shard, number)
        self._parked: dict[int, list[bytes]] = {}
        self._without: dict[int | None, set[int]] = {}
        self._progress: dict[int, ShardProgress] = {}
        saved = None if begin.stream is None else SavedShards.of(begin.stream)
        self._since = saved.point if saved is not None else None
        self.drop = 0  # examples of its first batch that were already taken
        if saved is not None:
            self.drop = saved.drop
        elif batching.single and batching.in_runs:  # the run is read again as it was cut, for the same random numbers
            self.drop = begin.taken % batching.size
        self._base = saved.base if saved else begin.taken * (1 if batching.single else batching.size) - self.drop
        self._before = begin.taken - self.drop  # batches or examples taken before the stream's first batch
        self._resume_points: ResumePoints | None = None
        self.early: ExamplesMade | None = None
        if saved is not None:
            self._progress = {
                place.shard: place.progress for place in saved.point.positions if place.progress is not None
            }
            for shard, example in saved.without:
                self.leave_out(shard, example)

    @abstractmethod
    def stream(self, number: int) -> Stream:
        """The stream for the scheduler."""

    @abstractmethod
    def request(self, task: Task, opens: bool) -> Request:
        """The request to a worker for a task; `opens`: the worker must open the shard first."""

    @property
    def pulled(self) -> PulledItems | None:
        """The items that are pulled in the trainer; None if workers read the source."""
        return None

    def first_shards(self) -> list[tuple[int, ShardProgress]]:
        """The shards that are read first, with their progress."""
        return []

    def look(self, batches: int, most: int) -> ExamplesLookedAt | None:
        """The examples of its first `batches` batches, at most `most` of them; None if they are not known by number."""
        return None

    def total(self) -> int | None:
        """Batches (or examples) of the whole epoch, if only it knows how many these are; else None."""
        return None

    def check_shares(self) -> None:  # noqa: B027
        """Raise `SourceError` if a batch cannot be divided among the trainers."""

    def opened(self, owners: dict[int, int]) -> None:  # noqa: B027
        """Note the workers that already have shards open, by shard."""

    def reusable(self, request: Request) -> Sequence[int]:
        """The numbers of the examples in a request, if examples made early can serve for it; otherwise empty."""
        return ()

    def handed(self, rows: Sequence[int]) -> None:
        """Count batches that were handed over, given the rows of each."""
        first = not self.iteration.handed
        self.iteration.handed += sum(rows) - first * self.drop if self._batching.single else len(rows)

    def position(self, taken: int) -> Position | None:
        """The position after `taken` batches (or examples) of the epoch; None if it is no longer kept."""
        begin = self.iteration.begin
        if taken == begin.taken:
            return begin
        if self._resume_points is None or taken <= self._before:
            return Position(self.number, taken)
        drop = 0
        if self._batching.single:
            found = self._resume_points.before(taken - self._before)
            point = found[1] if found is not None else None
            drop = taken - self._before - found[0] if found is not None else 0
        else:
            point = self._resume_points.after(taken - self._before)
        if point is None:
            return None
        saved = SavedShards(self._base, drop, point, tuple(self._known_without()))
        return Position(self.number, taken, saved.to_json())

    def batch_number(self, number: int) -> int:
        """The number within the epoch of a batch of the stream."""
        return number + self._before // (self._batching.size if self._batching.single else 1)

    def turn_uneven(self, batch: int) -> None:
        """Read the source in parts from this numbered batch on, since its rows and examples no longer match.

        A transform returned SKIP or Many in it, or an example of it is left out.
        """
        self.uneven = True
        self._base += batch * self._batching.size
        self._before += batch * (self._batching.size if self._batching.single else 1)

    def _known_without(self) -> list[tuple[int | None, int]]:
        return [(shard, example) for shard, examples in self._without.items() for example in sorted(examples)]

    def close(self) -> None:  # noqa: B027  (most kinds hold nothing)
        """Release the resources of an epoch that is no longer read."""

    def delivered(self) -> None:  # noqa: B027
        """Note that a batch was delivered."""

    @property
    def has_shards(self) -> bool:
        """True if workers may have shards of the epoch open."""
        return self.uneven

    @abstractmethod
    def description(self, work: IndexWork | TrialWork | ShardWork | JoinWork) -> str:
        """A description of the examples of a task."""

    def example(self, work: IndexWork | TrialWork, row: int) -> int | None:
        """The number of the example in a row of a numbered batch; None if batches are not numbered."""
        return None

    def row(self, work: IndexWork | TrialWork, example: int) -> int | None:
        """The row that holds an example, among a task's rows of a numbered batch; None if there is none."""
        return None

    def shard_of(self, work: ShardWork) -> int | None:
        """The shard in which the examples of `work` are counted; None if they are counted in the source."""
        return None

    def leave_out(self, shard: int | None, example: int) -> bool:
        """Leave this example out from now on. Returns whether it was not left out before."""
        known = (shard, example) in self.left_out
        self.left_out.add((shard, example))
        self._without.setdefault(shard, set()).add(example)
        return not known

    def is_left_out(self, shard: int | None, example: int) -> bool:
        """True if this example is left out because it kills workers."""
        return example in self._without.get(shard, ())

    def noted(self, work: ShardWork, skipped: Sequence[tuple[int, str]], count: int) -> tuple[list[Skipped], int]:
        """The examples reported as skipped that were not left out before, and their number."""
        shard = self.shard_of(work)
        new = [(number, reason) for number, reason in skipped if (shard, number) not in self.left_out]
        self.left_out.update((shard, number) for number, _ in new)
        return [Skipped(self.number, shard, *one) for one in new], len(new) + count - len(skipped)

    def _left_out(self, shard: int | None) -> tuple[int, ...]:
        return tuple(sorted(self._without.get(shard, ())))

    def inbox(self, task: Task) -> bytes | None:
        """The data for the slot's inbox when a worker opens a shard, or None."""
        return None

    def _shard_request(self, task: Task, work: ShardWork | JoinWork, opens: bool) -> Request:
        """The request for rows that are counted as they are made."""
        if isinstance(work, JoinWork):
            return JoinTaskRequest(
                task=task.id,
                epoch=self.number,
                slot=task.slot,
                batch=self.batch_number(work.number),
                count=work.rows,
                serialized=self.serialized,
            )
        opening = None
        if work.again:
            opening = ShardOpening(work.since or ShardProgress())
        elif opens or work.until is not None:
            opening = self._opening(work.shard)
        request = ShardTaskRequest(
            task=task.id,
            epoch=self.number,
            slot=task.slot,
            shard=work.shard,
            serialized=self.serialized,
            parted=self.shard_of(work) is None,
            opening=opening,
            without=self._left_out(self.shard_of(work)),
            key=self.key,
        )
        return request if opening is None else self._opened_part(request, opening)

    def _opened_part(self, request: ShardTaskRequest, opening: ShardOpening) -> ShardTaskRequest:
        """A request that opens a part of a source without shards, with the examples of which the part consists."""
        return request

    def progress_before(self, work: IndexWork | TrialWork | ShardWork | JoinWork) -> ShardProgress | None:
        """The progress of a shard before the reply to its current task is recorded; None for other work."""
        return self._progress.get(work.shard, ShardProgress()) if isinstance(work, ShardWork) else None

    def heard(self, work: IndexWork | TrialWork | ShardWork | JoinWork, reply: TaskDoneReply) -> None:
        """Record a worker's reply to a task."""
        if isinstance(work, ShardWork) and reply.progress is not None and not work.again:
            self._progress[work.shard] = reply.progress

    def park(self, number: int, segments: list[bytes]) -> None:
        """Keep single examples under a number."""
        self._parked[number] = segments

    def gather(self, pieces: Sequence[ParkedRows]) -> bytes:
        """Parked examples, concatenated. Discards each parked group that is used to its end, with its earlier rows."""
        found: list[bytes] = []
        for piece in pieces:
            segments = self._parked[piece.parked]
            found += segments[piece.start : piece.stop]
            if piece.stop == len(segments):
                del self._parked[piece.parked]
        return b"".join(found)

    def _opening(self, shard: int) -> ShardOpening:
        return ShardOpening(self._progress.get(shard, ShardProgress()))


#: Makes the epoch that begins at a position. The second argument is called when items have been pulled for it, from the
#: thread that pulls them.
MakeEpoch = Callable[[Position, Callable[[], None]], Epoch]
