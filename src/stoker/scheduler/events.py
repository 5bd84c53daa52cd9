"""The scheduler's input."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.plan.position import ShardProgress
from stoker.scheduler.work import FailureReason


@dataclass(frozen=True)
class WorkerReadyEvent:
    """A worker is up and accepts tasks."""

    worker: int


@dataclass(frozen=True)
class OpenEvent:
    """A stream is opened before a consumer pulls it. It makes batches while others have none to begin."""

    stream: int


@dataclass(frozen=True)
class PullEvent:
    """A consumer requests the next batch of a stream. The first pull opens the stream, unless it is open."""

    stream: int


@dataclass(frozen=True)
class CloseEvent:
    """A stream is closed: its consumer needs no more batches."""

    stream: int


@dataclass(frozen=True)
class ItemsEvent:
    """A stream has received `items` items of its iterable in total; `ended`: there are no more."""

    stream: int
    items: int
    ended: bool


@dataclass(frozen=True)
class TaskDoneEvent:
    """A worker has finished its oldest task.

    Attributes:
        seconds: time that the task took; 0 if that says nothing about the speed.
        rows: rows made, for a `ShardWork`.
        ended: whether the shard has no more rows.
        packed: whether the rows are single examples, to be joined with others.
        raw: examples that the shard has given so far.
        again: whether another worker must make the rows once more, to compare the results.
        progress: progress of the shard after these rows, for the worker that opens it next.
        since: progress of the shard before these rows, if they come from one.
    """

    worker: int
    task: int
    seconds: float
    rows: int = 0
    ended: bool = False
    packed: bool = False
    raw: int = 0
    again: bool = False
    progress: ShardProgress | None = None
    since: ShardProgress | None = None


@dataclass(frozen=True)
class TaskFailedEvent:
    """A worker's oldest task has failed, usually because the user's code raised. The worker continues."""

    worker: int
    task: int
    reason: FailureReason


@dataclass(frozen=True)
class WorkerDiedEvent:
    """A worker's exit is confirmed: it no longer writes.

    Attributes:
        task: the task that it was working on, or None.
        row: the row that it was making, if it was making a batch by rows and the row is known; otherwise None.
        example: the example that it was working on, or None.
        skippable: whether that example can be left out of its shard.
        killed: whether it was killed by a signal of the kind that the kernel or a user sends.
        elsewhere: whether it was at work for another Loader.
    """

    worker: int
    reason: FailureReason
    task: int | None = None
    row: int | None = None
    example: int | None = None
    skippable: bool = False
    killed: bool = False
    elsewhere: bool = False


@dataclass(frozen=True)
class WorkersEvent:
    """From now on, `workers` workers are wanted. Those beyond that number end once they hold no task and no shard."""

    workers: int


@dataclass(frozen=True)
class SlotReleasedEvent:
    """The batch in this slot is no longer visible to any consumer."""

    slot: int


@dataclass(frozen=True)
class SlotsSizedEvent:
    """The size of a batch is known, and with it the number of slots for making batches.

    Attributes:
        slots: number of slots in which batches are made ahead.
        whole: whether one worker makes a whole batch, because sizes differ.
        leases: additional slots that consumers may hold, if memory allows fewer than planned; otherwise None.
        late: whether a batch takes a slot only once all rows of the batches before it are with workers.
    """

    slots: int
    whole: bool = False
    leases: int | None = None
    late: bool = False


Event = (
    SlotsSizedEvent
    | WorkerReadyEvent
    | OpenEvent
    | PullEvent
    | CloseEvent
    | ItemsEvent
    | TaskDoneEvent
    | TaskFailedEvent
    | WorkerDiedEvent
    | WorkersEvent
    | SlotReleasedEvent
)
