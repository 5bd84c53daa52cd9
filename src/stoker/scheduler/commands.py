"""The scheduler's decisions, which the coordinator carries out."""

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
    """Put parked examples into the inbox of `slot`. They are not needed afterwards."""

    stream: int
    slot: int
    pieces: tuple[ParkedRows, ...]


@dataclass(frozen=True)
class SubmitCommand:
    """Give a task to a worker; `opens`: the worker must open the shard first."""

    worker: int
    task: Task
    opens: bool = False


@dataclass(frozen=True)
class ParkCommand:
    """Keep the `rows` single examples in `slot` under the number `parked`. The slot is reused at once."""

    stream: int
    parked: int
    slot: int
    rows: int


@dataclass(frozen=True)
class DeliverCommand:
    """Deliver the batch in `slot` to the stream's consumer; `copy`: copy it out and release the slot at once."""

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
    """End the stream with an error instead of batch `batch`: `task` could not be done (None: see `reason`)."""

    stream: int
    batch: int
    task: Task | None
    reason: FailureReason


@dataclass(frozen=True)
class KilledReason(FailureReason):
    """The reason for a `FailCommand`: `row` kills workers.

    If `row` is None, the rows of the task do, but no single one is known to do so alone.
    """

    row: int | None
    reason: FailureReason


@dataclass(frozen=True)
class LeaveOutCommand:
    """Leave the example at which the worker died out of the shard of `task`. The task is then repeated."""

    task: Task
    reason: FailureReason


@dataclass(frozen=True)
class WrongLengthReason(FailureReason):
    """The reason for a `FailCommand`: a source gave `came` examples, not the declared number.

    Attributes:
        declared: the declared number; `math.inf` if the source was to have no end.
        came: number of examples so far.
        ended: the source has ended; otherwise it has more examples.
    """

    declared: float
    came: int
    ended: bool


@dataclass(frozen=True)
class ShrunkShardReason(FailureReason):
    """The reason for a `FailCommand`: this shard gives fewer rows now than in the run that is being resumed."""

    shard: int


@dataclass(frozen=True)
class StartWorkerCommand:
    """Start the process of a worker: an additional one, or in place of one that died."""

    worker: int


@dataclass(frozen=True)
class RetireWorkerCommand:
    """End a worker that is no longer wanted. It holds no task and no shard."""

    worker: int


@dataclass(frozen=True)
class GiveUpCommand:
    """End every stream with an error, because no worker can be started."""

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
    | StartWorkerCommand
    | RetireWorkerCommand
    | GiveUpCommand
)
