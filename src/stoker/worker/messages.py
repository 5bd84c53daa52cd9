"""What crosses the socket between trainer and worker: small, whole messages.

The socket keeps message boundaries (SOCK_SEQPACKET), so a message arrives whole or, when its
sender dies in the middle, not at all. Batches never cross it: they lie in slots.

    trainer → worker   Describe, Work (rows of a batch), SpecKnown
    worker → trainer   Hello, Described, Finished, Failure
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

#: No message is longer: far below the socket's default buffer of 208 KiB, so a send never waits.
MAX_BYTES = 1 << 17


@dataclass(frozen=True)
class Describe:
    """Read example 0 and tell its spec."""

    task: int


@dataclass(frozen=True)
class SpecKnown:
    """The pickled spec, as a worker told it: needed before the first `Work`."""

    pickled: bytes


@dataclass(frozen=True)
class Work:
    """Make the examples `indices` (int64) and write them to rows first, first+1, … of `slot`."""

    task: int
    epoch: int
    slot: int
    first: int
    rows: int  # of the whole batch
    indices: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hello:
    """The program is loaded and the worker waits for tasks."""


@dataclass(frozen=True)
class Described:
    """The answer to `Describe`."""

    task: int
    pickled: bytes


@dataclass(frozen=True)
class Finished:
    """The answer to `Work`: the rows are written, in so many seconds."""

    task: int
    seconds: float


@dataclass(frozen=True)
class Failure:
    """User code raised. `task` is -1 when the program could not be loaded.

    Attributes:
        kind: "user" for an exception of the user's, "spec" for an example that cannot be batched,
            "source" for a source that changed, "program" for one that cannot be loaded.
        summary: the exception's type and text, or what is wrong with the example.
        traceback: the user's frames, formatted; may be empty.
        example: index of the example, or None.
        pickled: the exception itself, cloudpickled, when it survives that; else empty.
        error: the exception itself; it stays behind when the message crosses a socket.
    """

    task: int
    kind: str
    summary: str
    traceback: str = ""
    example: int | None = None
    pickled: bytes = b""
    error: BaseException | None = field(default=None, compare=False)


Message = Describe | SpecKnown | Work | Hello | Described | Finished | Failure

_ANY_TEXT = "surrogatepass"  # a file name that is no UTF-8 may stand in a user's message
_WORK = struct.Struct("<cqqiii")
_FINISHED = struct.Struct("<cqd")
_TASK = struct.Struct("<cq")


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    match message:
        case Work(task, epoch, slot, first, rows, indices):
            return _WORK.pack(b"W", task, epoch, slot, first, rows) + indices.tobytes()
        case Finished(task, seconds):
            return _FINISHED.pack(b"F", task, seconds)
        case Describe(task):
            return _TASK.pack(b"D", task)
        case Described(task, pickled):
            return _TASK.pack(b"d", task) + pickled
        case SpecKnown(pickled):
            return b"S" + pickled
        case Hello():
            return b"H"
        case Failure(task, kind, summary, traceback, example, pickled):
            text = json.dumps([task, kind, summary, traceback, example], ensure_ascii=False).encode("utf-8", _ANY_TEXT)
            return _TASK.pack(b"X", len(text)) + text + pickled


def decode(data: bytes) -> Message:
    """The message that `encode` made these bytes from; raises ValueError for any others."""
    match data[:1]:
        case b"W":
            _, task, epoch, slot, first, rows = _WORK.unpack_from(data)
            return Work(task, epoch, slot, first, rows, np.frombuffer(data, np.int64, offset=_WORK.size))
        case b"F":
            return Finished(*_FINISHED.unpack(data)[1:])
        case b"D":
            return Describe(_TASK.unpack(data)[1])
        case b"d":
            return Described(_TASK.unpack_from(data)[1], data[_TASK.size :])
        case b"S":
            return SpecKnown(data[1:])
        case b"H":
            return Hello()
        case b"X":
            end = _TASK.size + _TASK.unpack_from(data)[1]
            task, kind, summary, traceback, example = json.loads(data[_TASK.size : end].decode("utf-8", _ANY_TEXT))
            return Failure(task, kind, summary, traceback, example, data[end:])
    raise ValueError(f"not a message: {data[:20]!r}")
