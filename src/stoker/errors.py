"""The exception tree. Every error that Stoker raises on purpose is one of these.

    StokerError
    ├── OptionError      an argument of Loader has no meaning        (also ValueError, TypeError)
    ├── SourceError      the source cannot be read, or is not what it was (also ValueError, TypeError)
    ├── ProgramError     source or transform cannot reach a worker   (also TypeError)
    ├── StateError       a saved state is damaged, or of another Loader (also ValueError)
    ├── ClosedError      the Loader was closed, or belongs to another process (also RuntimeError)
    └── WorkerError      user code raised; names the example          (also RuntimeError, and what it raised)
        ├── SpecError    an example cannot be batched with the others
        └── WorkerDied   workers died again and again at the same work

A message says what happened, with the value, and what to do about it, in at most 40 lines.
"""

from __future__ import annotations

import copy
import traceback

#: Of the text of an exception that may be the cause of one of these.
_CAUSE, _CAUSE_LINES = 10_000, 40


class StokerError(Exception):
    """The root of all errors that Stoker raises on purpose."""


class OptionError(StokerError, ValueError, TypeError):
    """An argument has the wrong type or a value without meaning."""


class SourceError(StokerError, ValueError, TypeError):
    """The source cannot be read: no `__getitem__`, no shard, no examples, or other ones than before."""


class ProgramError(StokerError, TypeError):
    """The source or the transform cannot be sent to a worker process."""


class StateError(StokerError, ValueError):
    """A saved state is damaged, of another version, or of a Loader with other batches."""


class ClosedError(StokerError, RuntimeError):
    """The Loader is closed, or is used in a process that did not make it."""


class WorkerError(StokerError, RuntimeError):
    """The user's code raised while it made an example.

    The message holds the user's own traceback; `__cause__` is the original exception where
    it could be carried over from the worker and its text is short. Then, where its type allows it, the error is of
    that type as well: `except KeyError` around a loop finds a `KeyError` of the user's.

    Attributes:
        example: index of the example in the source, its shard or the iterable, or None when no single one is known.
        epoch: epoch in which it happened, counted from 0, or None before the first one.
        worker: number of the worker process, counted from 0, or None for the inline engine.
    """

    def __init__(
        self, message: str, *, example: int | None = None, epoch: int | None = None, worker: int | None = None
    ) -> None:
        super().__init__(message)
        self.example = example
        self.epoch = epoch
        self.worker = worker


class SpecError(WorkerError, ValueError):
    """An example holds something that no tensor can hold, or differs from example 0."""


class WorkerDied(WorkerError):
    """The workers that took up the same rows died one after the other."""


# ── exceptions of the user's in our messages ─────────────────────────────────────────────────
def summary(error: BaseException) -> str:
    """Type and text of an exception, bounded, whatever its own methods raise."""
    try:
        text = "".join(traceback.TracebackException(type(error), error, None).format_exception_only()).strip()
    except BaseException:  # its `__notes__` or `__bool__` raise, or it is a group within a thousand others
        text = _plainly(error)
    return bounded(text)


def bounded(text: str, lines: int = 6, characters: int = 2_000) -> str:
    """`text` in at most so many lines and about so many characters: its beginning and its end."""
    rows = text.splitlines()
    if len(rows) > lines:
        head, tail = lines // 2, (lines - 1) // 2
        rows = [*rows[:head], f"… {len(rows) - head - tail:,} lines left out …", *rows[-tail:]]
    width = characters // max(1, len(rows))
    return "\n".join(row if len(row) <= width else f"{row[:width]}… ({len(row):,} characters)" for row in rows)


def traceback_of(error: BaseException) -> tuple[str, BaseException | None]:
    """The whole text of an exception, and the exception where it may be the cause of another one.

    Python prints a cause above its error: one that is very long, or cannot be printed, is told in words alone.
    """
    try:
        text = "".join(traceback.TracebackException(type(error), error, error.__traceback__).format()).rstrip()
    except BaseException:  # see `summary`
        head = "Traceback (most recent call last):\n"
        return "".join([head, *traceback.format_tb(error.__traceback__), _plainly(error)]), None
    return text, error if len(text) <= _CAUSE and len(text.splitlines()) <= _CAUSE_LINES else None


def copied(error: StokerError) -> StokerError:
    """A copy without traceback: it refers to no frame, and so to nothing that somebody waits to be let go of."""
    other = copy.copy(error)
    other.__cause__, other.__suppress_context__ = error.__cause__, True
    return other


def plain(error: StokerError) -> type[StokerError]:
    """The type of ours that an error has, which may be of a type of the user's as well."""
    return WorkerError if hasattr(type(error), "_stoker_joins") else type(error)


def cause(error: BaseException) -> BaseException | None:
    """`error`, where it may be the cause of another one."""
    return traceback_of(error)[1]


def _plainly(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return f"{type(error).__name__}: <exception str() failed>"
