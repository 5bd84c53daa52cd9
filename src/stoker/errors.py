"""The exception tree. Every error that Stoker raises on purpose is one of these.

    StokerError
    ├── OptionError      an argument of Loader is invalid            (also ValueError, TypeError)
    ├── SourceError      the source cannot be read, or has changed   (also ValueError, TypeError)
    ├── ProgramError     source or transform cannot reach a worker   (also TypeError)
    ├── StateError       a saved state is damaged, or from another Loader (also ValueError)
    ├── ClosedError      the Loader was closed, or belongs to another process (also RuntimeError)
    └── WorkerError      user code raised; names the example          (also RuntimeError, and what it raised)
        ├── SpecError    an example cannot be batched with the others
        └── WorkerDied   workers died repeatedly at the same work

A message says what happened, with the value, and what to do about it, in at most 40 lines.
"""

from __future__ import annotations

import copy
import traceback

#: The most characters and lines in the text of an exception that may become the cause of a Stoker error.
_CAUSE, _CAUSE_LINES = 10_000, 40


class StokerError(Exception):
    """The root of all errors that Stoker raises on purpose."""


class OptionError(StokerError, ValueError, TypeError):
    """An argument has the wrong type or an invalid value."""


class SourceError(StokerError, ValueError, TypeError):
    """The source cannot be read: it has no `__getitem__`, no shards or no examples, or its examples changed."""


class ProgramError(StokerError, TypeError):
    """The source or the transform cannot be sent to a worker process."""


class StateError(StokerError, ValueError):
    """A saved state is damaged, has another version, or is from a Loader with other batches."""


class ClosedError(StokerError, RuntimeError):
    """The Loader is closed, or is used in a process that did not create it."""


class WorkerError(StokerError, RuntimeError):
    """The user's code raised while it made an example.

    The message contains the user's own traceback. `__cause__` is the original exception if
    it could be sent from the worker and its text is short. In that case, if its type allows it, the error also has
    that type: `except KeyError` around a loop catches a `KeyError` of the user's code.

    Attributes:
        example: index of the example in the source, its shard or the iterable; None if no single one is known.
        epoch: epoch in which it happened, counted from 0; None before the first one.
        worker: number of the worker process, counted from 0; None for the inline engine.
    """

    def __init__(
        self, message: str, *, example: int | None = None, epoch: int | None = None, worker: int | None = None
    ) -> None:
        super().__init__(message)
        self.example = example
        self.epoch = epoch
        self.worker = worker


class SpecError(WorkerError, ValueError):
    """An example holds a value that no tensor can represent, or differs from example 0."""


class WorkerDied(WorkerError):
    """The workers that received the same rows died one after the other."""


# ── user exceptions in Stoker's messages ─────────────────────────────────────────────────────
def summary(error: BaseException) -> str:
    """Type and text of an exception, bounded in length, even if the exception's own methods raise."""
    try:
        text = "".join(traceback.TracebackException(type(error), error, None).format_exception_only()).strip()
    except BaseException:  # its `__notes__` or `__bool__` raise, or it is a group within a thousand others
        text = _plainly(error)
    return bounded(text)


def bounded(text: str, lines: int = 6, characters: int = 2_000) -> str:
    """The beginning and end of `text`, in at most `lines` lines and about `characters` characters."""
    rows = text.splitlines()
    if len(rows) > lines:
        head, tail = lines // 2, (lines - 1) // 2
        rows = [*rows[:head], f"… {len(rows) - head - tail:,} lines left out …", *rows[-tail:]]
    width = characters // max(1, len(rows))
    return "\n".join(row if len(row) <= width else f"{row[:width]}… ({len(row):,} characters)" for row in rows)


def traceback_of(error: BaseException) -> tuple[str, BaseException | None]:
    """The full text of an exception, and the exception itself if it may become the cause of another one.

    Python prints a cause above its error, so a cause that is very long or cannot be printed is given as text only.
    """
    try:
        text = "".join(traceback.TracebackException(type(error), error, error.__traceback__).format()).rstrip()
    except BaseException:  # see `summary`
        head = "Traceback (most recent call last):\n"
        return "".join([head, *traceback.format_tb(error.__traceback__), _plainly(error)]), None
    return text, error if len(text) <= _CAUSE and len(text.splitlines()) <= _CAUSE_LINES else None


def copied(error: StokerError) -> StokerError:
    """A copy without traceback: it refers to no frame, and so keeps no object alive that should be released."""
    other = copy.copy(error)
    other.__cause__, other.__suppress_context__ = error.__cause__, True
    return other


def plain(error: StokerError) -> type[StokerError]:
    """The Stoker type of an error, without the user's exception type that may have been joined to it."""
    return WorkerError if hasattr(type(error), "_stoker_joins") else type(error)


def cause(error: BaseException) -> BaseException | None:
    """`error` if it may become the cause of another one, else None."""
    return traceback_of(error)[1]


def _plainly(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return f"{type(error).__name__}: <exception str() failed>"


def cannot_be_copied(what: str) -> ProgramError:
    """The error for copying or pickling an object that holds processes."""
    return ProgramError(
        f"{what} cannot be pickled or copied: it holds processes and shared memory of this process. Send its source "
        "and its options instead, and create the Loader there."
    )
