"""What a worker answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from stoker.plan.position import ShardProgress

#: What a `TaskDoneReply` may hold at most, so that it fits: skipped examples (27 bytes without the reason), bytes of
#: their reasons, bytes of an iterator's own state, digests (16 bytes each). Texts count as they stand in the message.
SHOWN, REASON_BYTES, STATE_BYTES, DIGESTS = 1_000, 30_000, 48_000, 1_024


@dataclass(frozen=True)
class ReadyReply:
    """The program is loaded and the worker waits for tasks."""


@dataclass(frozen=True)
class ExamplesMadeReply:
    """The answer to `MakeExamplesRequest`: bytes that each example takes in the store.

    It is 0 for one that cannot be sent, and -1 for one that raised and may be left out. Where one raised that may not,
    it and those behind it are missing. `draws`: the user's code drew from NumPy's global state.
    """

    task: int
    sizes: tuple[int, ...]
    draws: bool = False


@dataclass(frozen=True)
class ShardOpenedReply:
    """The answer to `OpenShardRequest`: whether the shard is open, and what its rows look like, pickled or empty."""

    task: int
    is_open: bool
    specs: bytes


@dataclass(frozen=True)
class DescribedReply:
    """The answer to `DescribeRequest`: the pickled form; empty when more examples must be looked at.

    Attributes:
        collated: bytes of what the user's function made of each batch, in the store behind the examples; 0 if nothing.
        draws: the function drew from NumPy's global state.
    """

    task: int
    pickled: bytes
    collated: tuple[int, ...] = ()
    draws: bool = False


@dataclass  # not frozen: to make it would take two microseconds longer, for every batch
class TaskDoneReply:
    """The answer to a task that writes rows: they are written; it took `seconds`.

    Attributes:
        dims: the shapes of all parts of the batch, one after the other; empty when they are as planned.
        rows: rows made by a `ShardTaskRequest`.
        ended: whether the shard has no more.
        packed: whether they lie in the slot as single examples, to be joined with others.
        progress: of the shard.
        skipped: examples that raised and were left out: their numbers, and what they raised (empty where that is
            too much to tell); the first `SHOWN`.
        skips: how many they are.
        digests: of the outputs, each behind the number of its example, where they were asked for.
        together: how many outputs in a row share a digest: more than one where they are very many.
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
    """What went wrong in a worker."""

    USER = "user"  # the user's code raised
    COLLATE = "collate"  # it raised while examples were joined
    SPEC = "spec"  # an example cannot be batched
    SOURCE = "source"  # the source has changed, or gives no example
    OPTION = "option"  # an option does not suit the examples
    PROGRAM = "program"  # the program cannot be loaded
    INIT = "init"  # `worker_init` raised
    DIFFERS = "differs"  # an example came out differently when it was made again
    UNEVEN = "uneven"  # the transform returned SKIP or Many where one example was counted on


@dataclass(frozen=True)
class FailureReply:
    """User code raised.

    Attributes:
        task: None when the program could not be loaded.
        kind: what went wrong.
        summary: the exception's type and text, or what is wrong with the example.
        traceback: the user's frames, formatted; may be empty.
        example: index of the example, or None.
        shard: shard that the example is counted in, or None.
        pickled: the exception itself, cloudpickled, when it survives that; else empty.
        error: the exception itself; it stays behind when the message crosses a socket.
    """

    task: int | None
    kind: FailureKind
    summary: str
    traceback: str = ""
    example: int | None = None
    shard: int | None = None
    pickled: bytes = b""
    error: BaseException | None = field(default=None, compare=False)


#: Stands for the number of an example, above all of these, where it is the batch that a user's function made of them.
WHOLE = 2**63
