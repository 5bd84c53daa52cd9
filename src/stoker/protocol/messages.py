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
from collections.abc import Callable
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
    Reply,
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


Message = Request | FormRequest | LeaveEpochRequest | UpdateRequest | Reply

_ANY_TEXT = "surrogatepass"  # a user's message may contain a file name that is not UTF-8
_INDEX_TASK = struct.Struct("<cqqiii??i??iiii")
_TASK_DONE = struct.Struct("<cqd")
_EPOCH = struct.Struct("<cq")
_LEAVE = struct.Struct("<cqq?")
_TEXT = struct.Struct("<cq")  # the length of the text follows the tag
_LENGTH = struct.Struct("<i")


def encode(message: Message) -> bytes:
    """Encode a message."""
    return _ENCODERS[type(message)](message)


def decode(data: bytes) -> Message:
    """Decode a message from `encode`. Raises ValueError for other bytes, as far as they can be recognised."""
    try:
        return _DECODERS[data[:1]](data)
    except (struct.error, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a message: {data[:20]!r}") from error


# ── one task for each batch: fixed fields, for speed ─────────────────────────────────────────────
def _encode_index_task(message: IndexTaskRequest) -> bytes:
    place = message.task, message.epoch, message.slot, message.first, message.rows
    flags = message.serialized, message.from_inbox, message.count, message.trial, message.digest
    filled, made = message.filled, message.made
    padding = (0, 0, 0) if filled is None else (filled.rows, filled.examples, filled.first)
    return _INDEX_TASK.pack(b"W", *place, *flags, *padding, len(made)) + made.tobytes() + message.indices.tobytes()


def _decode_index_task(data: bytes) -> IndexTaskRequest:
    fields = _INDEX_TASK.unpack_from(data)
    trial, digest, rows, examples, before, earlier = fields[9:]
    made, indices = _made(data, earlier, _INDEX_TASK.size)
    rest: tuple[Any, ...] = indices, trial, digest, PaddedBatch(rows, examples, before) if rows else None, made
    return IndexTaskRequest(*fields[1:9], *rest)  # by position, as keywords cost a tenth of the decoding


def _encode_task_done(message: TaskDoneReply) -> bytes:
    if message.progress is None and not message.digests:
        dims = message.dims
        return _TASK_DONE.pack(b"F", message.task, message.seconds) + struct.pack(f"<{len(dims)}q", *dims)
    digests = np.array(message.digests, np.uint64).tobytes()
    return _with_text(b"f", asdict(replace(message, digests=())), digests)


def _decode_task_done(data: bytes) -> TaskDoneReply:
    _, task, seconds = _TASK_DONE.unpack_from(data)
    dims = data[_TASK_DONE.size :]
    return TaskDoneReply(task, seconds, struct.unpack(f"<{len(dims) // 8}q", dims))


def _decode_long_task_done(data: bytes) -> TaskDoneReply:
    text, rest = _text(data)
    skipped = tuple((number, reason) for number, reason in text["skipped"])
    pairs = np.frombuffer(rest, np.uint64).reshape(-1, 2).tolist()
    digests = tuple((number, digest) for number, digest in pairs)
    progress = None if text["progress"] is None else ShardProgress(**text["progress"])
    its = {"dims": tuple(text["dims"]), "digests": digests, "skipped": skipped}
    return TaskDoneReply(**{**text, **its, "progress": progress})


# ── the others: JSON, and bytes behind it where there are any ────────────────────────────────────
def _as_text(tag: bytes) -> Callable[[Any], bytes]:
    """The encoder of a message all of whose fields are text."""
    return lambda message: _with_text(tag, asdict(message))


def _encode_shard_task(message: ShardTaskRequest) -> bytes:
    text = {**asdict(message), "indices": None, "made": len(message.made)}
    return _with_text(b"P", text, message.made.tobytes() + message.indices.tobytes())


def _decode_shard_task(data: bytes) -> ShardTaskRequest:
    text, rest = _text(data)
    opening = text["opening"]
    if opening is not None:
        text["opening"] = ShardOpening(**{**opening, "progress": ShardProgress(**opening["progress"])})
    made, indices = _made(rest, text["made"], 0)
    return ShardTaskRequest(**{**text, "made": made, "indices": indices, "without": tuple(text["without"])})


def _decode_open_shard(data: bytes) -> OpenShardRequest:
    text = _tuples(_text(data)[0])
    return OpenShardRequest(**{**text, "progress": ShardProgress(**text["progress"])})


def _encode_shard_opened(message: ShardOpenedReply) -> bytes:
    return _with_text(b"o", {"task": message.task, "is_open": message.is_open}, message.specs)


def _decode_shard_opened(data: bytes) -> ShardOpenedReply:
    text, specs = _text(data)
    return ShardOpenedReply(**text, specs=specs)


def _decode_describe(data: bytes) -> DescribeRequest:
    text = _tuples(_text(data)[0])
    return DescribeRequest(**{**text, "without": tuple((shard, number) for shard, number in text["without"])})


def _encode_described(message: DescribedReply) -> bytes:
    text = {"task": message.task, "collated": message.collated, "draws": message.draws}
    return _with_text(b"d", text, message.pickled)


def _decode_described(data: bytes) -> DescribedReply:
    text, pickled = _text(data)
    return DescribedReply(text["task"], pickled, tuple(text["collated"]), text["draws"])


def _encode_form(message: FormRequest) -> bytes:
    return (b"N" if message.draws else b"S") + message.pickled


def _encode_update(message: UpdateRequest) -> bytes:
    return _EPOCH.pack(b"R", message.epoch) + message.pickled


def _decode_update(data: bytes) -> UpdateRequest:
    _, epoch = _EPOCH.unpack_from(data)
    return UpdateRequest(epoch, data[_EPOCH.size :])


def _encode_failure(message: FailureReply) -> bytes:
    shown = ("task", "summary", "traceback", "example", "shard")
    text = {"kind": message.kind.value, **{name: getattr(message, name) for name in shown}}
    return _with_text(b"X", text, message.pickled)


def _decode_failure(data: bytes) -> FailureReply:
    text, pickled = _text(data)
    return FailureReply(**{**text, "kind": FailureKind(text["kind"])}, pickled=pickled)


#: The encoder of each kind of message.
_ENCODERS: dict[type[Message], Callable[[Any], bytes]] = {
    IndexTaskRequest: _encode_index_task,
    TaskDoneReply: _encode_task_done,
    ShardTaskRequest: _encode_shard_task,
    JoinTaskRequest: _as_text(b"J"),
    MakeExamplesRequest: _as_text(b"M"),
    ExamplesMadeReply: _as_text(b"m"),
    OpenShardRequest: _as_text(b"O"),
    ShardOpenedReply: _encode_shard_opened,
    DescribeRequest: _as_text(b"D"),
    DescribedReply: _encode_described,
    FormRequest: _encode_form,
    LeaveEpochRequest: lambda message: _LEAVE.pack(b"L", message.epoch, message.key, message.is_last),
    UpdateRequest: _encode_update,
    ReadyReply: lambda message: b"H",
    FailureReply: _encode_failure,
}
#: The decoder of each kind of message, by its first byte.
_DECODERS: dict[bytes, Callable[[bytes], Message]] = {
    b"W": _decode_index_task,
    b"F": _decode_task_done,
    b"f": _decode_long_task_done,
    b"P": _decode_shard_task,
    b"J": lambda data: JoinTaskRequest(**_text(data)[0]),
    b"M": lambda data: MakeExamplesRequest(**_tuples(_text(data)[0])),
    b"m": lambda data: ExamplesMadeReply(**_tuples(_text(data)[0])),
    b"O": _decode_open_shard,
    b"o": _decode_shard_opened,
    b"D": _decode_describe,
    b"d": _decode_described,
    b"S": lambda data: FormRequest(data[1:]),
    b"N": lambda data: FormRequest(data[1:], draws=True),
    b"L": lambda data: LeaveEpochRequest(*_LEAVE.unpack(data)[1:]),
    b"R": _decode_update,
    b"H": lambda data: ReadyReply(),
    b"X": _decode_failure,
}


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
    return _TEXT.pack(tag, len(text)) + text + rest


def _text(data: bytes) -> tuple[dict[str, Any], bytes]:
    end = _TEXT.size + _TEXT.unpack_from(data)[1]
    return json.loads(data[_TEXT.size : end].decode("utf-8", _ANY_TEXT)), data[end:]
