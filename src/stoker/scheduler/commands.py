"""What the scheduler decides, for the coordinator to carry out."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.scheduler.work import FailureReason, ParkedRows, Task


@dataclass(frozen=True)
class LoadItemsCommand:
    """Put the next `count` items of the stream's iterable into the inbox of `slot`."""

    stream: int
    slot: int
    count: int


@dataclass(frozen=True)
class GatherCommand:
    """Put parked examples into the inbox of `slot`; they are needed no more."""

    stream: int
    slot: int
    pieces: tuple[ParkedRows, ...]


@dataclass(frozen=True)
class SubmitCommand:
    """Give a task to a worker; `opens`: it does not have the shard open."""

    worker: int
    task: Task
    opens: bool = False


@dataclass(frozen=True)
class ParkCommand:
    """Keep the `rows` single examples that lie in `slot` under a number; the slot is used again at once."""

    stream: int
    parked: int
    slot: int
    rows: int


@dataclass(frozen=True)
class DeliverCommand:
    """Hand the batch in `slot` to the stream's consumer; `copy`: copy it out and release the slot at once."""

    stream: int
    batch: int
    slot: int
    rows: int
    copy: bool


@dataclass(frozen=True)
class FinishCommand:
    """The stream has delivered all its batches."""

    stream: int


@dataclass(frozen=True)
class FailCommand:
    """The stream ends with an error in the place of batch `batch`: `task` could not be done (None: see `reason`)."""

    stream: int
    batch: int
    task: Task | None
    reason: FailureReason


@dataclass(frozen=True)
class KilledReason(FailureReason):
    """The reason for a `FailCommand`: this row kills the workers.

    None: some rows do, of which no single one does alone.
    """

    row: int | None
    reason: FailureReason


@dataclass(frozen=True)
class LeaveOutCommand:
    """What the worker was at when it died is to be left out of the shard of `task`, which is done again."""

    task: Task
    reason: FailureReason


@dataclass(frozen=True)
class WrongLengthReason(FailureReason):
    """The reason for a `FailCommand`: a source gave another number of examples than was told.

    `ended`: these are all; else there are more.
    """

    told: int
    came: int
    ended: bool


@dataclass(frozen=True)
class ShrunkShardReason(FailureReason):
    """The reason for a `FailCommand`: this shard gives fewer rows now than in the run that is gone on with."""

    shard: int


@dataclass(frozen=True)
class RespawnCommand:
    """Start a new process in the place of a worker that died."""

    worker: int


@dataclass(frozen=True)
class GiveUpCommand:
    """No worker comes up any more: every stream ends with an error."""

    reason: FailureReason


Command = (
    LeaveOutCommand
    | LoadItemsCommand
    | GatherCommand
    | SubmitCommand
    | ParkCommand
    | DeliverCommand
    | FinishCommand
    | FailCommand
    | RespawnCommand
    | GiveUpCommand
)
