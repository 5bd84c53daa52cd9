"""What the scheduler hears (events) and what it says (commands): plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass


# ── events ───────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Joined:
    """A worker is up and takes tasks."""

    worker: int


@dataclass(frozen=True)
class Pulled:
    """A consumer waits for the next batch of this stream; the first pull opens the stream."""

    stream: int


@dataclass(frozen=True)
class Closed:
    """A consumer lost interest in this stream."""

    stream: int


@dataclass(frozen=True)
class Done:
    """A worker wrote the rows of the oldest task that it held."""

    worker: int
    task: int
    seconds: float


@dataclass(frozen=True)
class Failed:
    """The user's code raised in the oldest task that this worker held; the worker lives on."""

    worker: int
    task: int
    reason: object


@dataclass(frozen=True)
class Died:
    """A worker's exit is confirmed: it writes nothing any more."""

    worker: int
    reason: object


@dataclass(frozen=True)
class Released:
    """Nobody can see the batch in this slot any more."""

    slot: int


@dataclass(frozen=True)
class Sized:
    """The size of a batch is known: so many slots are used to make batches ahead."""

    slots: int


Event = Sized | Joined | Pulled | Closed | Done | Failed | Died | Released


# ── commands ─────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Task:
    """Rows first … first+count-1 of one batch, to be written into a slot."""

    id: int
    stream: int
    batch: int
    first: int
    count: int
    slot: int


@dataclass(frozen=True)
class Submit:
    """Give a task to a worker."""

    worker: int
    task: Task


@dataclass(frozen=True)
class Deliver:
    """Hand the batch in `slot` to the stream's consumer; `copy`: copy it out and release the slot at once."""

    stream: int
    batch: int
    slot: int
    copy: bool


@dataclass(frozen=True)
class Finish:
    """The stream has delivered all its batches."""

    stream: int


@dataclass(frozen=True)
class Fail:
    """The stream ends with an error: `task` could not be done."""

    stream: int
    task: Task
    reason: object


@dataclass(frozen=True)
class Respawn:
    """Start a new process in the place of a worker that died."""

    worker: int


@dataclass(frozen=True)
class GiveUp:
    """No worker comes up any more: every stream ends with an error."""

    reason: object


Command = Submit | Deliver | Finish | Fail | Respawn | GiveUp
