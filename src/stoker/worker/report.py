"""User exceptions as messages, and back: their text first, the exception itself where it survives the journey."""

from __future__ import annotations

import errno
import os
import pickle
import traceback
from pathlib import Path
from types import TracebackType

from stoker.errors import ProgramError, SourceError, SpecError, StokerError, WorkerError
from stoker.worker.messages import Failure

_HERE = str(Path(__file__).parents[1]) + os.sep
_LINES = 32
_SUMMARY = 2_000
_PICKLE = 32_000


def failure(
    task: int, kind: str, error: BaseException, example: int | None = None, shard: int | None = None
) -> Failure:
    """The message about an exception that user code raised."""
    return Failure(task, kind, summary(error), user_traceback(error), example, shard, _pickled(error), error)


def is_exhausted(error: BaseException) -> bool:
    """Whether this process has no file descriptor left: whatever it does from now on will fail."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def summary(error: BaseException) -> str:
    """Type and text of an exception, bounded, also when its `__str__` raises."""
    text = "".join(traceback.TracebackException(type(error), error, None).format_exception_only()).strip()
    return bounded(text)


def bounded(text: str) -> str:
    """`text`, cut where it is too long for an error message."""
    return text if len(text) <= _SUMMARY else text[:_SUMMARY] + f"… ({len(text):,} characters)"


def user_traceback(error: BaseException) -> str:
    """The traceback from the user's first frame on, with its causes, at most `_LINES` lines."""
    told = traceback.TracebackException(type(error), error, _user_frames(error.__traceback__))
    lines = [line[:500] for line in "".join(told.format()).rstrip().splitlines()]
    if len(lines) > _LINES:
        half = _LINES // 2
        lines = [*lines[:half], f"  … {len(lines) - 2 * half} lines left out …", *lines[-half:]]
    return "\n".join(lines)


def _user_frames(frames: TracebackType | None) -> TracebackType | None:
    """Without the frames of ours that called the user's code."""
    first = frames
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_HERE):
        first = first.tb_next
    return first or frames


def _pickled(error: BaseException) -> bytes:
    """The exception, if a copy of it can be made; some pickle well and then cannot be read."""
    try:
        import cloudpickle

        data = cloudpickle.dumps(error, protocol=5)
        if len(data) > _PICKLE or not isinstance(pickle.loads(data), BaseException):
            return b""
    except (
        Exception
    ):  # whatever the user's __reduce__ raises, or no descriptor is left: the text has been taken already
        return b""
    return bytes(data)


def raisable(failure: Failure, *, epoch: int | None, batch: int | None, worker: int | None) -> StokerError:
    """The exception that the consumer gets for a worker's `failure`; its cause is the user's own."""
    what = f"example {failure.example}" if failure.example is not None else "the source"
    if failure.kind == "collate":
        what = "collate"
    elif failure.shard is not None:
        what = f"shard {failure.shard}" + (f", {what}" if failure.example is not None else "")
    places = {"epoch": epoch, "batch": batch, "worker": worker}
    where = ", ".join(f"{name} {number}" for name, number in places.items() if number is not None)
    known = {"example": failure.example, "epoch": epoch, "worker": worker}
    if failure.kind == "spec":
        return SpecError(f"{what} ({where}) cannot be batched: {failure.summary}", **known)
    if failure.kind == "differs":
        return WorkerError(
            f"{what}{failure.summary} ({where}) came out differently when it was made again (verify=): the code that "
            "makes it is not deterministic. Draw random numbers from `random`, `numpy.random` or the transform's "
            "`rng`, which are seeded for each example, and sort what has no order: sets, directory listings.",
            **known,
        )
    if failure.kind == "source":
        return SourceError(failure.summary)
    error: StokerError
    if failure.kind == "program":
        error = ProgramError(
            f"source or transform cannot be loaded in a worker process: {failure.summary}\n\n{failure.traceback}"
        )
    else:
        error = WorkerError(f"{what} ({where}) raised {failure.summary}\n\n{failure.traceback}", **known)
    error.__cause__ = failure.error or _unpickled(failure)
    return error


def wrong_length(told: int, came: int, ended: bool) -> SourceError:
    """The error for a generator source that gives another number of examples than was told."""
    if told < 0:
        return SourceError(
            f"the generator ended after {came:,} examples; length=math.inf says that it never does. Leave `length` out."
        )
    more = f"{came:,} in all" if ended else f"more ({came:,} so far)"
    return SourceError(
        f"the generator was said to give length={told:,} examples, and gives {more}. Correct `length`, or leave it "
        "out: the cardinality is unknown then."
    )


def _unpickled(failure: Failure) -> BaseException | None:
    try:
        cause = pickle.loads(failure.pickled) if failure.pickled else None
    except Exception:  # it could be rebuilt in the worker; where it cannot be here, the text must do
        return None
    return cause if isinstance(cause, BaseException) else None
