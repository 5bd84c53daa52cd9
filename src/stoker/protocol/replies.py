"""Messages from a worker to the trainer."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from stoker.plan.position import ShardProgress

#: Limits that keep a `TaskDoneReply` within one message: skipped examples (27 bytes each without the reason), bytes of
#: their reasons, bytes of an iterator's own state, digests (16 bytes each). Texts count as encoded in the message.
SHOWN, REASON_BYTES, STATE_BYTES, DIGESTS = 1_000, 30_000, 48_000, 1_024


@dataclass(frozen=True)
class ReadyReply:
    """The program is loaded and the worker waits for tasks."""


#: The size of an example that raised and may be left out.
LEFT_OUT = -1


@dataclass(frozen=True)
class ExamplesMadeReply:
    """The reply to `MakeExamplesRequest`: the bytes that each example takes in the store.

    The size is 0 for an example that cannot be sent, and `LEFT_OUT` for one that raised and may be left out. If an
    example raised that may not be left out, it and all after it are missing.

    Attributes:
        draws: user code drew from NumPy's global state.
        raised: bytes that the first missing example's failure takes in its place; 0 if it cannot be sent.
    """

    task: int
    sizes: tuple[int, ...]
    draws: bool = False
    raised: int = 0


@dataclass(frozen=True)
class ShardOpenedReply:
    """The reply to `OpenShardRequest`: whether the shard is open, and the pickled specs of its rows, or empty."""

    task: int
    is_open: bool
    specs: bytes


@dataclass(frozen=True)
class DescribedReply:
    """The reply to `DescribeRequest`: the pickled form, or empty if more examples must be examined.

    Attributes:
        collated: size in bytes of each batch that the user's collate function made. They lie in the store behind the
            examples; 0 for none.
        draws: the function drew from NumPy's global state.
    """

    task: int
    pickled: bytes
    collated: tuple[int, ...] = ()
    draws: bool = False


@dataclass  # not frozen, which would cost two microseconds more for every batch
class TaskDoneReply:
    """The reply to a task that writes rows: they are written, and the task took `seconds`.

    Attributes:
        dims: the shapes of all parts of the batch, concatenated; empty if they are as planned.
        rows: rows made by a `ShardTaskRequest`.
        ended: the shard has no more rows.
        packed: the rows lie in the slot as single examples, to be joined with others.
        progress: the shard's progress.
        skipped: number and error text of the first `SHOWN` examples that raised and were left out. The text is empty
            where it would not fit.
        skips: how many examples were left out in all.
        digests: pairs of example number and output digest, if requested.
        together: consecutive outputs that share one digest; more than 1 if there are very many.
    """

    task: int
    seconds: float
    dims: tuple[int, ...] = ()
    rows: int = 0
    ended: bool = False
    packed: bool = False
    progress: ShardProgress | None = None
    skipped: tuple[tuple[int, str], ...] = ()
    skips: int = 0
    digests: tuple[tuple[int, int], ...] = ()
    together: int = 1


class FailureKind(enum.Enum):
    """The kind of error in a worker."""

    USER = "user"  # the user's code raised
    COLLATE = "collate"  # user code raised while joining examples
    SPEC = "spec"  # an example cannot be batched
    SOURCE = "source"  # the source has changed, or yields no example
    OPTION = "option"  # an option does not suit the examples
    PROGRAM = "program"  # the program cannot be loaded
    INIT = "init"  # `worker_init` raised
    DIFFERS = "differs"  # an example came out differently when made again
    UNEVEN = "uneven"  # the transform returned SKIP or Many where exactly one example was expected


@dataclass(frozen=True)
class FailureReply:
    """User code raised.

    Attributes:
        task: None when the program could not be loaded.
        kind: what went wrong.
        summary: the exception's type and text, or the problem with the example.
        traceback: the user's frames, formatted; may be empty.
        example: index of the example, or None.
        shard: the shard that numbers the example, or None.
        pickled: the exception, cloudpickled, if it survives that; else empty.
        error: the exception itself; not sent over the socket.
    """

    task: int | None
    kind: FailureKind
    summary: str
    traceback: str = ""
    example: int | None = None
    shard: int | None = None
    pickled: bytes = b""
    error: BaseException | None = field(default=None, compare=False)


Reply = ReadyReply | ExamplesMadeReply | ShardOpenedReply | DescribedReply | TaskDoneReply | FailureReply


#: Used in place of an example number for the batch that a user's collate function made. Above all example numbers.
WHOLE = 2**63
