"""What the scheduler is told."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.plan.position import ShardProgress
from stoker.scheduler.work import FailureReason


# ── events ───────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class WorkerReadyEvent:
    """A worker is up and takes tasks."""

    worker: int


@dataclass(frozen=True)
class PullEvent:
    """A consumer waits for the next batch of this stream; the first pull opens the stream."""

    stream: int


@dataclass(frozen=True)
class CloseEvent:
    """A consumer lost interest in this stream."""

    stream: int


@dataclass(frozen=True)
class ItemsEvent:
    """So many items of an iterable have arrived for this stream, in all; `ended`: there are no more."""

    stream: int
    items: int
    ended: bool


@dataclass(frozen=True)
class TaskDoneEvent:
    """A worker has done the oldest task that it held.

    Attributes:
        rows: of a `ShardWork`: rows made.
        ended: the shard has no more.
        packed: the rows are single examples, to be joined with others.
        raw: examples that the shard has given so far.
        come: how far the shard has come, for whoever opens it next.
        again: the rows are to be made once more, by another worker, to see whether the same comes out.
        since: how far their shard had come before them, if they are of one.
    """

    worker: int
    task: int
    seconds: float
    rows: int = 0
    ended: bool = False
    packed: bool = False
    raw: int = 0
    again: bool = False
    come: ShardProgress | None = None
    since: ShardProgress | None = None


@dataclass(frozen=True)
class TaskFailedEvent:
    """The user's code raised in the oldest task that this worker held; the worker lives on."""

    worker: int
    task: int
    reason: FailureReason


@dataclass(frozen=True)
class WorkerDiedEvent:
    """A worker's exit is confirmed: it writes nothing any more.

    Attributes:
        task: the one that it was at, or None.
        row: of the batch that it was making: the one it was at, or None.
        example: of the shard that it was reading: the one it was at, or None.
        skippable: whether what it was at can be left out of its shard.
        killed: whether by a signal that others send, the kernel or a user.
    """

    worker: int
    reason: FailureReason
    task: int | None = None
    row: int | None = None
    example: int | None = None
    skippable: bool = False
    killed: bool = False


@dataclass(frozen=True)
class SlotReleasedEvent:
    """Nobody can see the batch in this slot any more."""

    slot: int


@dataclass(frozen=True)
class SlotsSizedEvent:
    """The size of a batch is known: so many slots are used to make batches ahead.

    Attributes:
        whole: sizes differ, so one worker makes the whole batch.
        leases: slots beyond these that consumers may hold, where the memory allows fewer than planned.
    """

    slots: int
    whole: bool = False
    leases: int | None = None


Event = (
    SlotsSizedEvent
    | WorkerReadyEvent
    | PullEvent
    | CloseEvent
    | ItemsEvent
    | TaskDoneEvent
    | TaskFailedEvent
    | WorkerDiedEvent
    | SlotReleasedEvent
)
