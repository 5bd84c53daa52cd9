"""User exceptions to messages, and back: always the text, and the exception itself where it can be pickled."""

from __future__ import annotations

import errno
import os
import pickle
import re
from pathlib import Path
from types import TracebackType

from stoker.errors import (
    OptionError,
    ProgramError,
    SourceError,
    SpecError,
    StokerError,
    WorkerError,
    summary,
    traceback_of,
)
from stoker.errors import bounded as bounded
from stoker.protocol.error_types import worker_error
from stoker.protocol.replies import FailureKind, FailureReply

_HERE = str(Path(__file__).parents[1]) + os.sep
#: Limits of a traceback. Even at 6 bytes a character (JSON escapes), a `FailureReply` fits into a message.
_LINES, _CHARACTERS = 32, 10_000
_PICKLE = 32_000
#: Errors that NumPy and buffer consumers raise when code writes to a read-only array.
_READ_ONLY = re.compile(r"(Value|Buffer|Type|Runtime)Error: .*(read-?only|WRITEABLE)", re.DOTALL)
#: Words in errors raised because no GPU is available.
_GPU = re.compile(r"\b(CUDA|cuda|GPUs?|ROCm)\b")


def failure(
    task: int | None, kind: FailureKind, error: BaseException, example: int | None = None, shard: int | None = None
) -> FailureReply:
    """The reply that reports an exception raised by user code."""
    error = _own(error)
    text, cause = traceback_of(BaseException.with_traceback(error, _user_frames(error.__traceback__)))
    pickled = b"" if cause is None else _pickled(cause)
    return FailureReply(
        task=task,
        kind=kind,
        summary=summary(error),
        traceback=bounded(text, _LINES, _CHARACTERS),
        example=example,
        shard=shard,
        pickled=pickled,
        error=cause,
    )


def is_exhausted(error: BaseException) -> bool:
    """True if this process is out of file descriptors or memory, so that any further operation may fail."""
    return isinstance(error, MemoryError) or lacks_descriptors(error)


def lacks_descriptors(error: BaseException) -> bool:
    """True if this process is out of file descriptors, which is no fault of the example."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def _own(error: BaseException) -> BaseException:
    """Unwrap the user's StopIteration, which Python turns into a RuntimeError inside one of Stoker's generators."""
    cause, last = error.__cause__, error.__traceback__
    if type(error) is not RuntimeError or not isinstance(cause, StopIteration):
        return error
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    is_ours = last is not None and last.tb_frame.f_code.co_filename.startswith(_HERE)
    return cause if is_ours else error


def _user_frames(frames: TracebackType | None) -> TracebackType | None:
    """Drop Stoker's leading frames, those that called the user's code."""
    first = frames
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_HERE):
        first = first.tb_next
    return first or frames


def _pickled(error: BaseException) -> bytes:
    """The pickled exception, or empty. Some exceptions pickle but do not unpickle, so this tries both."""
    try:
        import cloudpickle

        data = cloudpickle.dumps(error, protocol=5)
        if len(data) > _PICKLE or not isinstance(pickle.loads(data), BaseException):
            return b""
    except BaseException:  # the user's __reduce__ raised, or no descriptor is left: the text has to do
        return b""
    return bytes(data)


def raisable(failure: FailureReply, *, epoch: int | None, batch: int | None, worker: int | None) -> StokerError:
    """The exception to raise to the consumer for a worker's `failure`; its cause is the user's exception."""
    what = f"example {failure.example}" if failure.example is not None else "the source"
    if failure.kind is FailureKind.COLLATE:
        what = "collate"
    elif failure.shard is not None:
        what = f"shard {failure.shard}" + (f", {what}" if failure.example is not None else "")
    places = {"epoch": epoch, "batch": batch, "worker": worker}
    where = ", ".join(f"{name} {number}" for name, number in places.items() if number is not None)
    known = {"example": failure.example, "epoch": epoch, "worker": worker}
    if failure.kind is FailureKind.SPEC:
        return SpecError(f"{what} ({where}) cannot be batched: {failure.summary}", **known)
    if failure.kind is FailureKind.DIFFERS:
        what = what if failure.example is not None else "collate's result for a batch"
        return WorkerError(
            f"{what}{failure.summary} ({where}) differed when it was made again (verify=): the code that makes it is "
            "not deterministic. Draw random numbers from `random`, `numpy.random` or the transform's `rng`, which are "
            "seeded for each example, and sort unordered collections: sets, directory listings.",
            **known,
        )
    if failure.kind is FailureKind.SOURCE:
        return SourceError(failure.summary)
    if failure.kind is FailureKind.OPTION:
        return OptionError(failure.summary)
    cause = failure.error if failure.error is not None else _unpickled(failure)
    text = failure.traceback + _advice(failure.summary, worker)
    if failure.kind is FailureKind.INIT:
        which = f" (worker {worker})" if worker is not None else ""
        return worker_error(f"worker_init{which} raised {failure.summary}\n\n{text}", cause, **known)
    if failure.kind is FailureKind.PROGRAM:
        error = ProgramError(f"source or transform cannot be loaded in a worker process: {failure.summary}\n\n{text}")
        error.__cause__ = cause
        return error
    return worker_error(f"{what} ({where}) raised {failure.summary}\n\n{text}", cause, **known)


def _advice(summary: str, worker: int | None) -> str:
    """Advice on exceptions that user code hits in a worker but not outside Stoker."""
    if worker is not None and _GPU.search(summary):
        return (
            '\n\nWorkers see no GPU by default. Pass worker_env={"CUDA_VISIBLE_DEVICES": "0"} to make one visible, or '
            "keep arrays and models of the source and the transform on the CPU."
        )
    if _READ_ONLY.match(summary):
        return (
            "\n\nAll workers share one copy of the arrays of the source and the transform, so no worker may write to "
            "them: each example must come out the same in any worker. Write to a new array (`x = x * 2` instead of "
            "`x *= 2`, or `x = x.copy()`), create buffers where they are filled, or give each worker its own arrays "
            "with share=False."
        )
    if summary.startswith("bdb.BdbQuit"):
        return (
            "\n\nA debugger cannot run in a worker process, which has no terminal. With workers=0 the code runs in "
            "this process, where breakpoints work."
        )
    return ""


def _unpickled(failure: FailureReply) -> BaseException | None:
    try:
        cause = pickle.loads(failure.pickled) if failure.pickled else None
    except BaseException:  # it was rebuilt in the worker but cannot be here: the text has to do
        return None
    return cause if isinstance(cause, BaseException) else None
