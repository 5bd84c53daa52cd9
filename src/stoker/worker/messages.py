"""What crosses the socket between trainer and worker: small, whole messages.

The socket keeps message boundaries (SOCK_SEQPACKET), so a message arrives whole or, when its
sender dies in the middle, not at all. Batches never cross it: they lie in slots, and what examples
a worker is to be given lies in a slot's inbox.

    trainer → worker   Make, Open, Describe, FormKnown, Renew, Work (rows of a batch), Step (a shard's next rows),
                       Join, Leave
    worker → trainer   Hello, Made, Opened, Described, Finished, Failure
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.plan import Filled

#: What is longer travels as a memfd: far below the socket's default buffer of 208 KiB, so a send never waits.
MAX_BYTES = 1 << 17

#: Indices that a message may hold, and examples that a `Make` may tell of.
MANY, MAKE = 1024, 1024
#: What a `Finished` may hold at most, so that it fits: skipped examples (27 bytes without the reason), bytes of their
#: reasons, bytes of an iterator's own state, digests (16 bytes each). Texts count as they stand in the message.
SHOWN, REASON_BYTES, STATE_BYTES, DIGESTS = 1_000, 30_000, 48_000, 1_024

#: How the text of a user's state begins: JSON, or a pickle, which only this run's own workers are trusted with.
JSON, PICKLE = "j:", "p:"

Indices = npt.NDArray[np.int64]
NONE = np.zeros(0, np.int64)
#: No row was made before. Else: the row, counted from the task's first; its place in the store, and its bytes there.
NOTHING_MADE = np.zeros((0, 3), np.int64)
#: Stands for a row: what the user's function makes of the whole batch.
COLLATED = -1


@dataclass(frozen=True)
class Make:
    """Make single examples, before it is known what batches look like, and put each into its place in the store.

    Attributes:
        numbers: of the examples, in the source.
        places: in the store; items of an iterable lie in its inbox in this order too.
        most: bytes that one may take there.
    """

    task: int
    epoch: int
    numbers: tuple[int, ...]
    places: tuple[int, ...]
    most: int
    without: tuple[int, ...] = ()


@dataclass(frozen=True)
class Open:
    """Open a shard and make the rows of its first steps, before it is known what batches look like.

    Attributes:
        progress: where the shard is opened.
        steps: how many.
        without: numbers of examples that are left out. If there are any, the shard is closed again.
    """

    task: int
    epoch: int
    shard: int
    progress: Progress
    steps: int
    without: tuple[int, ...] = ()


@dataclass(frozen=True)
class Describe:
    """Find out what the examples look like.

    Attributes:
        numbers: of the examples that are looked at.
        places: where they lie in the store.
        sizes: bytes that each takes there; 0 for one that must be made.
        rows: of the batches that they make.
        one: whether one example may be enough.
        further: whether others can be looked at, where these leave something open.
        without: examples that are left out, each with the shard that it is counted in, or -1.
    """

    task: int
    epoch: int = 0
    numbers: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    one: bool = False
    further: bool = False
    without: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class FormKnown:
    """The pickled `Form` of the batches: needed before the first `Work`, `Step` or `Join`.

    `draws`: the user's code draws from NumPy's global state.
    """

    pickled: bytes
    draws: bool = False


@dataclass  # not frozen: to make it would take two microseconds longer, for every batch
class Work:
    """Make examples and write them to rows first, first+1, … of `slot`.

    Attributes:
        rows: of the whole batch.
        serialized: whether each component is written as a `TensorProto`.
        from_inbox: whether the examples are items in the slot's inbox, where the first row's is number `first`.
        count: how many.
        indices: of the examples in the source, of an item only the first; more than `MANY` lie in the slot's inbox.
        trial: nothing is written: the examples are made to see whether that kills the worker, or what comes out.
        digest: whether the answer tells the digest of each example.
        filled: how the batch was filled up, if examples get a weight: those that fill it get 0.
        made: what was made before: see `NOTHING_MADE`.
    """

    task: int
    epoch: int
    slot: int
    first: int
    rows: int
    serialized: bool
    from_inbox: bool
    count: int
    indices: Indices
    trial: bool = False
    digest: bool = False
    filled: Filled | None = None
    made: Indices = field(default_factory=lambda: NOTHING_MADE)


@dataclass(frozen=True)
class Progress:
    """How far a shard has come.

    Attributes:
        raw: examples taken from the source.
        within: outputs taken of what the transform made of the last of them, while more are left; else 0.
        digest: of the last example taken, 0 before the first.
        state: the iterator's own state when it had given `state_raw` examples, as text; empty when it tells none.
    """

    raw: int = 0
    within: int = 0
    digest: int = 0
    state: str = ""
    state_raw: int = 0


@dataclass(frozen=True)
class Opening:
    """What a worker needs to open a shard, or to open it again where another worker left it.

    Attributes:
        items: number of items in the slot's inbox that the shard consists of.
        first: number of the first one.
    """

    progress: Progress
    items: int = 0
    first: int = 0


@dataclass(frozen=True)
class Step:
    """Make the next rows of a shard: a whole batch in `slot`, or, at its end, what is left.

    Attributes:
        parted: rows are never a batch: they are joined with others, whatever their number.
        opening: given when this worker does not have the shard open.
        count: how many examples the shard consists of, when it is a part of a map-style source.
        indices: which they are; more than `MANY` lie in the slot's inbox.
        without: numbers of examples that are left out.
        trial: the rows are made apart from the open shard, and not written.
        until: they are made up to this example, to see whether that kills the worker.
        careful: workers died at this task: an example is converted and written before the next is made, so that the
            board tells which one it is.
        digest: whether the answer tells the digest of each example.
        made: of a part that is opened, what was made before: see `NOTHING_MADE`.
    """

    task: int
    epoch: int
    slot: int
    shard: int
    serialized: bool
    parted: bool
    opening: Opening | None
    count: int = 0
    indices: Indices = field(default_factory=lambda: NONE)
    without: tuple[int, ...] = ()
    trial: bool = False
    digest: bool = False
    until: int | None = None
    careful: bool = False
    made: Indices = field(default_factory=lambda: NOTHING_MADE)


@dataclass(frozen=True)
class Join:
    """Make batch number `batch` of the `count` examples in the slot's inbox."""

    task: int
    epoch: int
    slot: int
    batch: int
    count: int
    serialized: bool


@dataclass(frozen=True)
class Leave:
    """Close the shards of this epoch: nobody reads it any more."""

    epoch: int


@dataclass(frozen=True)
class Renew:
    """What `Loader.update` gave, before an epoch for which it counts: the pickled updates, from the first one on."""

    epoch: int
    pickled: bytes


@dataclass(frozen=True)
class Hello:
    """The program is loaded and the worker waits for tasks."""


@dataclass(frozen=True)
class Made:
    """The answer to `Make`: bytes that each example takes in the store.

    It is 0 for one that cannot be sent, and -1 for one that raised and may be left out. Where one raised that may not,
    it and those behind it are missing. `draws`: the user's code drew from NumPy's global state.
    """

    task: int
    sizes: tuple[int, ...]
    draws: bool = False


@dataclass(frozen=True)
class Opened:
    """The answer to `Open`: whether the shard is open, and what its rows look like, pickled (or nothing)."""

    task: int
    is_open: bool
    specs: bytes


@dataclass(frozen=True)
class Described:
    """The answer to `Describe`: the pickled form; empty when more examples must be looked at.

    Attributes:
        collated: bytes of what the user's function made of each batch, in the store behind the examples; 0 if nothing.
        draws: the function drew from NumPy's global state.
    """

    task: int
    pickled: bytes
    collated: tuple[int, ...] = ()
    draws: bool = False


@dataclass  # not frozen: to make it would take two microseconds longer, for every batch
class Finished:
    """The answer to `Work`, `Step` and `Join`: the rows are written, in so many seconds.

    Attributes:
        dims: the shapes of all parts of the batch, one after the other; empty when they are as planned.
        rows: rows made by a `Step`.
        ended: whether the shard has no more.
        parcel: whether they lie in the slot as single examples, to be joined with others.
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
    parcel: bool = False
    progress: Progress | None = None
    skipped: tuple[tuple[int, str], ...] = ()
    skips: int = 0
    digests: tuple[tuple[int, int], ...] = ()
    together: int = 1


@dataclass(frozen=True)
class Failure:
    """User code raised. `task` is -1 when the program could not be loaded.

    Attributes:
        kind: "user" for an exception of the user's, "collate" for one while examples are joined, "spec" for an
            example that cannot be batched, "source" for a source that changed, "program" for one that cannot be
            loaded, "init" for one of `worker_init`, "differs" for an example that came out differently when it was made
            again, "uneven" for a transform that returned SKIP or Many where one example was counted on.
        summary: the exception's type and text, or what is wrong with the example.
        traceback: the user's frames, formatted; may be empty.
        example: index of the example, or None.
        shard: shard that the example is counted in, or None.
        pickled: the exception itself, cloudpickled, when it survives that; else empty.
        error: the exception itself; it stays behind when the message crosses a socket.
    """

    task: int
    kind: str
    summary: str
    traceback: str = ""
    example: int | None = None
    shard: int | None = None
    pickled: bytes = b""
    error: BaseException | None = field(default=None, compare=False)


Question = Make | Open | Describe | Work | Step | Join
Message = Question | FormKnown | Leave | Renew | Hello | Made | Opened | Described | Finished | Failure

_ANY_TEXT = "surrogatepass"  # a file name that is no UTF-8 may stand in a user's message
_WORK = struct.Struct("<cqqiii??i??iiii")
_FINISHED = struct.Struct("<cqd")
_TASK = struct.Struct("<cq")
_LENGTH = struct.Struct("<i")


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    match message:
        case Work(task, epoch, slot, first, rows, serialized, from_inbox, count, indices, trial, digest, filled, made):
            where = task, epoch, slot, first, rows
            told = (0, 0, 0) if filled is None else (filled.rows, filled.examples, filled.first)
            head = _WORK.pack(b"W", *where, serialized, from_inbox, count, trial, digest, *told, len(made))
            return head + made.tobytes() + indices.tobytes()
        case Finished(task, seconds, dims, progress=None, digests=()):
            return _FINISHED.pack(b"F", task, seconds) + struct.pack(f"<{len(dims)}q", *dims)
        case Finished(digests=digests):
            return _with_text(b"f", asdict(replace(message, digests=())), np.array(digests, np.uint64).tobytes())
        case Step(indices=indices, made=made):
            text = {**asdict(message), "indices": None, "made": len(made)}
            return _with_text(b"P", text, made.tobytes() + indices.tobytes())
        case Join():
            return _with_text(b"J", asdict(message))
        case Make():
            return _with_text(b"M", asdict(message))
        case Made():
            return _with_text(b"m", asdict(message))
        case Open():
            return _with_text(b"O", asdict(message))
        case Opened(task, is_open, specs):
            return _with_text(b"o", {"task": task, "is_open": is_open}, specs)
        case Describe():
            return _with_text(b"D", asdict(message))
        case Described(task, pickled, collated, draws):
            return _with_text(b"d", {"task": task, "collated": collated, "draws": draws}, pickled)
        case FormKnown(pickled, draws):
            return (b"N" if draws else b"S") + pickled
        case Leave(epoch):
            return _TASK.pack(b"L", epoch)
        case Renew(epoch, pickled):
            return _TASK.pack(b"R", epoch) + pickled
        case Hello():
            return b"H"
        case Failure(pickled=pickled):
            shown = ("task", "kind", "summary", "traceback", "example", "shard")
            return _with_text(b"X", {name: getattr(message, name) for name in shown}, pickled)
    raise AssertionError(message)


def decode(data: bytes) -> Message:
    """The message that `encode` made these bytes from; raises ValueError for any others that can be told."""
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
            filled = Filled(rows_of_all, examples, before) if rows_of_all else None
            return Work(*where, serialized, from_inbox, count, indices, trial, digest, filled, made)
        case b"F":
            task, seconds = _FINISHED.unpack_from(data)[1:]
            dims = data[_FINISHED.size :]
            return Finished(task, seconds, struct.unpack(f"<{len(dims) // 8}q", dims))
        case b"f":
            return _finished(*_text(data))
        case b"P":
            return _step(*_text(data))
        case b"J":
            return Join(**_text(data)[0])
        case b"D":
            its = _tuples(_text(data)[0])
            return Describe(**{**its, "without": tuple((shard, number) for shard, number in its["without"])})
        case b"O":
            its = _tuples(_text(data)[0])
            return Open(**{**its, "progress": Progress(**its["progress"])})
        case b"o":
            text, specs = _text(data)
            return Opened(**text, specs=specs)
        case b"M":
            return Make(**_tuples(_text(data)[0]))
        case b"m":
            return Made(**_tuples(_text(data)[0]))
        case b"d":
            text, pickled = _text(data)
            return Described(text["task"], pickled, tuple(text["collated"]), text["draws"])
        case b"S" | b"N":
            return FormKnown(data[1:], data[:1] == b"N")
        case b"L":
            return Leave(_TASK.unpack(data)[1])
        case b"R":
            return Renew(_TASK.unpack_from(data)[1], data[_TASK.size :])
        case b"H":
            return Hello()
        case b"X":
            text, pickled = _text(data)
            return Failure(**text, pickled=pickled)
    raise ValueError(f"not a message: {data[:20]!r}")


def _finished(text: dict[str, Any], rest: bytes) -> Finished:
    skipped = tuple((number, reason) for number, reason in text["skipped"])
    pairs = np.frombuffer(rest, np.uint64).reshape(-1, 2).tolist()
    digests = tuple((number, digest) for number, digest in pairs)
    progress = None if text["progress"] is None else Progress(**text["progress"])
    its = {"dims": tuple(text["dims"]), "digests": digests, "skipped": skipped}
    return Finished(**{**text, **its, "progress": progress})


def _step(text: dict[str, Any], rest: bytes) -> Step:
    opening = text["opening"]
    if opening is not None:
        text["opening"] = Opening(**{**opening, "progress": Progress(**opening["progress"])})
    made, indices = _made(rest, text["made"], 0)
    return Step(**{**text, "made": made, "indices": indices, "without": tuple(text["without"])})


def _made(data: bytes, count: int, start: int) -> tuple[Indices, Indices]:
    """What was made before, of so many rows, and the indices behind it."""
    if not count:
        return NOTHING_MADE, np.frombuffer(data, np.int64, offset=start)
    numbers = np.frombuffer(data, np.int64, offset=start)
    return numbers[: 3 * count].reshape(count, 3), numbers[3 * count :]


def _tuples(text: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in text.items()}


def bundled(messages: list[bytes]) -> bytes:
    """Several encoded messages as one."""
    if len(messages) == 1:
        return messages[0]
    return b"B" + b"".join(_LENGTH.pack(len(message)) + message for message in messages)


def unbundled(data: bytes) -> list[bytes]:
    """The messages that were sent as one."""
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
    """Bytes of a text as it stands in a message."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", _ANY_TEXT))


def _with_text(tag: bytes, fields: dict[str, Any], rest: bytes = b"") -> bytes:
    text = json.dumps(fields, ensure_ascii=False).encode("utf-8", _ANY_TEXT)
    return _TASK.pack(tag, len(text)) + text + rest


def _text(data: bytes) -> tuple[dict[str, Any], bytes]:
    end = _TASK.size + _TASK.unpack_from(data)[1]
    return json.loads(data[_TASK.size : end].decode("utf-8", _ANY_TEXT)), data[end:]
