"""The exception tree. Every error that Stoker raises on purpose is one of these.

    StokerError
    ├── OptionError      an argument of Loader has no meaning        (also ValueError, TypeError)
    ├── SourceError      the source cannot be read, or is not what it was (also ValueError, TypeError)
    ├── ProgramError     source or transform cannot reach a worker   (also TypeError)
    ├── StateError       a saved state is damaged, or of another Loader (also ValueError)
    ├── ClosedError      the Loader was closed, or belongs to another process (also RuntimeError)
    └── WorkerError      user code raised; names the example          (also RuntimeError)
        ├── SpecError    an example cannot be batched with the others
        └── WorkerDied   workers died again and again at the same work

A message says what happened, with the value, and what to do about it.
"""

from __future__ import annotations


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
    it could be carried over from the worker.

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
