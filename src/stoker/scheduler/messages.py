"""What the scheduler hears (events) and what it says (commands): plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass


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
    come: object = None
    since: object = None


@dataclass(frozen=True)
class TaskFailedEvent:
    """The user's code raised in the oldest task that this worker held; the worker lives on."""

    worker: int
    task: int
    reason: object


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
    reason: object
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


# ── commands ─────────────────────────────────────────────────────────────────────────────────
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
    since: object = None
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
    reason: object


@dataclass(frozen=True)
class KilledReason:
    """The reason for a `FailCommand`: this row kills the workers.

    None: some rows do, of which no single one does alone.
    """

    row: int | None
    reason: object


@dataclass(frozen=True)
class LeaveOutCommand:
    """What the worker was at when it died is to be left out of the shard of `task`, which is done again."""

    task: Task
    reason: object


@dataclass(frozen=True)
class WrongLengthReason:
    """The reason for a `FailCommand`: a source gave another number of examples than was told.

    `ended`: these are all; else there are more.
    """

    told: int
    came: int
    ended: bool


@dataclass(frozen=True)
class ShrunkShardReason:
    """The reason for a `FailCommand`: this shard gives fewer rows now than in the run that is gone on with."""

    shard: int


@dataclass(frozen=True)
class RespawnCommand:
    """Start a new process in the place of a worker that died."""

    worker: int


@dataclass(frozen=True)
class GiveUpCommand:
    """No worker comes up any more: every stream ends with an error."""

    reason: object


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
