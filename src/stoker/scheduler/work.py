"""The kinds of work of which batches are made, and a task: one piece of such work, for one worker."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.plan.position import ShardProgress


# ── commands ─────────────────────────────────────────────────────────────────────────────────
class FailureReason:
    """Why a task failed, or a worker died. The scheduler passes it on, and looks at nothing in it."""


@dataclass(frozen=True)
class IndexWork:
    """Rows first … first+count-1 of the batch with this number, which has `whole` of them."""

    batch: int
    first: int
    count: int
    whole: int


@dataclass(frozen=True)
class TrialWork:
    """Rows first … first+count-1 of a batch are made, and not written, to see whether that kills the worker.

    Or to see whether the same comes out as in the task `of`.
    """

    batch: int
    first: int
    count: int
    whole: int
    of: int | None = None


@dataclass(frozen=True)
class ShardWork:
    """The next rows of a shard: a whole batch, or what is left.

    Attributes:
        again: rows that were made before, in another run, and are needed again: the shard had come to `since` then.
        of: the task in which they were made in this run: they are not written, but compared.
        until: they are made up to this example, apart and not written, to see whether that kills the worker.
    """

    shard: int
    again: bool = False
    since: ShardProgress | None = None
    of: int | None = None
    until: int | None = None


def is_apart(work: object) -> bool:
    """Whether nothing of it is written: it is compared, or tells whether an example kills."""
    if isinstance(work, ShardWork):
        return work.of is not None or work.until is not None
    return isinstance(work, TrialWork)


@dataclass(frozen=True)
class ParkedRows:
    """Examples start … stop-1 of those that were parked under this number."""

    parked: int
    start: int
    stop: int


@dataclass(frozen=True)
class JoinWork:
    """The batch with this number, of single examples that were parked."""

    pieces: tuple[ParkedRows, ...]
    number: int

    @property
    def rows(self) -> int:
        """Examples in it."""
        return sum(piece.stop - piece.start for piece in self.pieces)


@dataclass(frozen=True)
class Task:
    """Something to be made and written into a slot."""

    id: int
    stream: int
    slot: int
    work: IndexWork | TrialWork | ShardWork | JoinWork
