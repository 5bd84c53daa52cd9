"""Kinds of work that batches are made of, and tasks. A task is one piece of such work, for one worker."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.plan.position import ShardProgress


class FailureReason:
    """The reason why a task failed or a worker died. Opaque to the scheduler, which only passes it on."""


@dataclass(frozen=True)
class IndexWork:
    """Rows first … first+count-1 of batch number `batch`, which has `whole` rows."""

    batch: int
    first: int
    count: int
    whole: int


@dataclass(frozen=True)
class TrialWork:
    """Rows first … first+count-1 of a batch, made without being written.

    Shows whether making them kills the worker or, if `of` is given, whether the result equals that of the task `of`.
    """

    batch: int
    first: int
    count: int
    whole: int
    of: int | None = None


@dataclass(frozen=True)
class ShardWork:
    """The next rows of a shard: a whole batch, or the leftover rows at its end.

    Attributes:
        again: whether the rows were made before and are needed again. They start where the shard stood at `since`.
        since: progress of the shard before these rows; used with `again`.
        of: the task that made the rows earlier in this run. They are compared with its result, and not written.
        until: the example to stop at. The rows are made apart from the open shard and not written, to see whether that
            kills the worker.
    """

    shard: int
    again: bool = False
    since: ShardProgress | None = None
    of: int | None = None
    until: int | None = None


@dataclass(frozen=True)
class ParkedRows:
    """Examples start … stop-1 of those parked under number `parked`."""

    parked: int
    start: int
    stop: int


@dataclass(frozen=True)
class JoinWork:
    """Batch number `number`, joined from parked single examples."""

    pieces: tuple[ParkedRows, ...]
    number: int

    @property
    def rows(self) -> int:
        """Number of examples in the batch."""
        return sum(piece.stop - piece.start for piece in self.pieces)


#: Any kind of work.
Work = IndexWork | TrialWork | ShardWork | JoinWork


def is_apart(work: Work) -> bool:
    """True if the work writes nothing: it is a comparison, or a trial for an example that kills workers."""
    if isinstance(work, ShardWork):
        return work.of is not None or work.until is not None
    return isinstance(work, TrialWork)


@dataclass(frozen=True)
class Task:
    """A piece of work for one worker, with the slot that it belongs to."""

    id: int
    stream: int
    slot: int
    work: Work
