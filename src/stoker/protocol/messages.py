"""Encoding of the small messages that cross the socket between trainer and worker.

The socket keeps message boundaries (SOCK_SEQPACKET). A message arrives whole or, if the sender dies
halfway, not at all. Batches never cross it: they lie in slots, and the examples sent to a worker lie in
a slot's inbox.

    trainer → worker   MakeExamples, OpenShard, Describe, Form, Update, IndexTask (rows of a batch), ShardTask (a
                       shard's next rows), JoinTask, LeaveEpoch: each a `…Request`
    worker → trainer   Ready, ExamplesMade, ShardOpened, Described, TaskDone, Failure: each a `…Reply`
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from stoker.plan.host_shard import PaddedBatch
from stoker.plan.position import ShardProgress
from stoker.protocol.replies import (
    DescribedReply,
    ExamplesMadeReply,
    FailureKind,
    FailureReply,
    ReadyReply,
    ShardOpenedReply,
    TaskDoneReply,
)
from stoker.protocol.requests import (
    NOTHING_MADE,
    DescribeRequest,
    FormRequest,
    IndexTaskRequest,
    Indices,
    JoinTaskRequest,
    LeaveEpochRequest,
    MakeExamplesRequest,
    OpenShardRequest,
    Request,
    ShardOpening,
    ShardTaskRequest,
    UpdateRequest,
)

#: Longer messages travel as a memfd. Far below the socket's default buffer of 208 KiB, so a send never blocks.
MAX_BYTES = 1 << 17


Message = (
    Request
    | FormRequest
    | LeaveEpochRequest
    | UpdateRequest
    | ReadyReply
    | ExamplesMadeReply
    | ShardOpenedReply
    | DescribedReply
    | TaskDoneReply
    | FailureReply
)

_ANY_TEXT = "surrogatepass"  # a user's message may contain a file name that is not UTF-8
_WORK = struct.Struct("<cqqiii??i??iiii")
_FINISHED = struct.Struct("<cqd")
_TASK = struct.Struct("<cq")
_LENGTH = struct.Struct("<i")


def encode(message: Message) -> bytes:
    """Encode a message."""
    match message:
        case IndexTaskRequest(
            task, epoch, slot, first, rows, serialized, from_inbox, count, indices, trial, digest, filled, made
        ):
            where = task, epoch, slot, first, rows
            told = (0, 0, 0) if filled is None else (filled.rows, filled.examples, filled.first)
            head = _WORK.pack(b"W", *where, serialized, from_inbox, count, trial, digest, *told, len(made))
            return head + made.tobytes() + indices.tobytes()
        case TaskDoneReply(task, seconds, dims, progress=None, digests=()):
            return _FINISHED.pack(b"F", task, seconds) + struct.pack(f"<{len(dims)}q", *dims)
        case TaskDoneReply(digests=digests):
            return _with_text(b"f", asdict(replace(message, digests=())), np.array(digests, np.uint64).tobytes())
        case ShardTaskRequest(indices=indices, made=made):
            text = {**asdict(message), "indices": None, "made": len(made)}
            return _with_text(b"P", text, made.tobytes() + indices.tobytes())
        case JoinTaskRequest():
            return _with_text(b"J", asdict(message))
        case MakeExamplesRequest():
            return _with_text(b"M", asdict(message))
        case ExamplesMadeReply():
            return _with_text(b"m", asdict(message))
        case OpenShardRequest():
            return _with_text(b"O", asdict(message))
        case ShardOpenedReply(task, is_open, specs):
            return _with_text(b"o", {"task": task, "is_open": is_open}, specs)
        case DescribeRequest():
            return _with_text(b"D", asdict(message))
        case DescribedReply(task, pickled, collated, draws):
            return _with_text(b"d", {"task": task, "collated": collated, "draws": draws}, pickled)
        case FormRequest(pickled, draws):
            return (b"N" if draws else b"S") + pickled
        case LeaveEpochRequest(epoch):
            return _TASK.pack(b"L", epoch)
        case UpdateRequest(epoch, pickled):
            return _TASK.pack(b"R", epoch) + pickled
        case ReadyReply():
            return b"H"
        case FailureReply(pickled=pickled):
            shown = ("task", "summary", "traceback", "example", "shard")
            text = {"kind": message.kind.value, **{name: getattr(message, name) for name in shown}}
            return _with_text(b"X", text, pickled)
    raise AssertionError(message)


def decode(data: bytes) -> Message:
    """Decode a message from `encode`. Raises ValueError for other bytes, as far as they can be recognised."""
    try:
        return _decoded(data)
    except (struct.error, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a message: {data[:20]!r}") from error


def _decoded(data: bytes) -> Message:
    match data[:1]:
        case b"W":
            _, *fields, trial, digest, rows_of_all, examples, before, earlier = _WORK.unpack_from(data)
            made, indices = _made(data, earlier, _WORK.size)
            task, epoch, slot, first, rows, serialized, from_inbox, count = fields
            where = task, epoch, slot, first, rows
            filled = PaddedBatch(rows_of_all, examples, before) if rows_of_all else None
            return IndexTaskRequest(*where, serialized, from_inbox, count, indices, trial, digest, filled, made)
        case b"F":
            task, seconds = _FINISHED.unpack_from(data)[1:]
            dims = data[_FINISHED.size :]
            return TaskDoneReply(task, seconds, struct.unpack(f"<{len(dims) // 8}q", dims))
        case b"f":
            return _finished(*_text(data))
        case b"P":
            return _step(*_text(data))
        case b"J":
            return JoinTaskRequest(**_text(data)[0])
        case b"D":
            its = _tuples(_text(data)[0])
            return DescribeRequest(**{**its, "without": tuple((shard, number) for shard, number in its["without"])})
        case b"O":
            its = _tuples(_text(data)[0])
            return OpenShardRequest(**{**its, "progress": ShardProgress(**its["progress"])})
        case b"o":
            text, specs = _text(data)
            return ShardOpenedReply(**text, specs=specs)
        case b"M":
            return MakeExamplesRequest(**_tuples(_text(data)[0]))
        case b"m":
            return ExamplesMadeReply(**_tuples(_text(data)[0]))
        case b"d":
            text, pickled = _text(data)
            return DescribedReply(text["task"], pickled, tuple(text["collated"]), text["draws"])
        case b"S" | b"N":
            return FormRequest(data[1:], data[:1] == b"N")
        case b"L":
            return LeaveEpochRequest(_TASK.unpack(data)[1])
        case b"R":
            return UpdateRequest(_TASK.unpack_from(data)[1], data[_TASK.size :])
        case b"H":
            return ReadyReply()
        case b"X":
            text, pickled = _text(data)
            return FailureReply(**{**text, "kind": FailureKind(text["kind"])}, pickled=pickled)
    raise ValueError(f"not a message: {data[:20]!r}")


def _finished(text: dict[str, Any], rest: bytes) -> TaskDoneReply:
    skipped = tuple((number, reason) for number, reason in text["skipped"])
    pairs = np.frombuffer(rest, np.uint64).reshape(-1, 2).tolist()
    digests = tuple((number, digest) for number, digest in pairs)
    progress = None if text["progress"] is None else ShardProgress(**text["progress"])
    its = {"dims": tuple(text["dims"]), "digests": digests, "skipped": skipped}
    return TaskDoneReply(**{**text, **its, "progress": progress})


def _step(text: dict[str, Any], rest: bytes) -> ShardTaskRequest:
    opening = text["opening"]
    if opening is not None:
        text["opening"] = ShardOpening(**{**opening, "progress": ShardProgress(**opening["progress"])})
    made, indices = _made(rest, text["made"], 0)
    return ShardTaskRequest(**{**text, "made": made, "indices": indices, "without": tuple(text["without"])})


def _made(data: bytes, count: int, start: int) -> tuple[Indices, Indices]:
    """The table of the `count` rows made before, and the indices that follow it."""
    if not count:
        return NOTHING_MADE, np.frombuffer(data, np.int64, offset=start)
    numbers = np.frombuffer(data, np.int64, offset=start)
    return numbers[: 3 * count].reshape(count, 3), numbers[3 * count :]


def _tuples(text: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in text.items()}


def bundled(messages: list[bytes]) -> bytes:
    """Join several encoded messages into one."""
    if len(messages) == 1:
        return messages[0]
    return b"B" + b"".join(_LENGTH.pack(len(message)) + message for message in messages)


def unbundled(data: bytes) -> list[bytes]:
    """Split the result of `bundled` into its messages."""
    if data[:1] != b"B":
        return [data]
    found, start = [], 1
    while start < len(data):
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        found.append(data[start : start + length])
        start += length
    return found


def size(text: str) -> int:
    """Bytes that a text takes in a message."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", _ANY_TEXT))


def _with_text(tag: bytes, fields: dict[str, Any], rest: bytes = b"") -> bytes:
    text = json.dumps(fields, ensure_ascii=False).encode("utf-8", _ANY_TEXT)
    return _TASK.pack(tag, len(text)) + text + rest


def _text(data: bytes) -> tuple[dict[str, Any], bytes]:
    end = _TASK.size + _TASK.unpack_from(data)[1]
    return json.loads(data[_TASK.size : end].decode("utf-8", _ANY_TEXT)), data[end:]
