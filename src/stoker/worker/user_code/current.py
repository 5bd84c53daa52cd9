"""Which example is at work: what `stoker.current()` tells the user's code."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from stoker.errors import StokerError


@dataclass(frozen=True)
class Current:
    """What the user's code is at; see `current`.

    Attributes:
        epoch: counted from 0; 0 also while it is found out what examples look like.
        example: its index in the source, its shard or the iterable; None where several are made at once.
        shard: of a generator source, else None.
        worker: number of the worker process; None with `workers=0`.
        seed: of this example in this epoch, 64 bits: what all random states were set from.
    """

    epoch: int
    example: int | None
    shard: int | None
    worker: int | None
    seed: int


class _CurrentRecorder(threading.local):
    """Who can tell: in a worker for all its threads, in the trainer for the thread that runs the user's code."""

    tell: Callable[[], Current] | None = None


_in_thread = _CurrentRecorder()
_in_process: list[Callable[[], Current]] = []


def current() -> Current:
    """Which example, epoch and worker the calling code works for: in a source, transform or collate function.

    Raises:
        StokerError: it is not called by code that a Loader runs. The items of `from_iterable` are made outside too.

    Example:
        >>> import stoker
        >>> def tell(example):
        ...     return stoker.current().epoch, stoker.current().example
        >>> with stoker.Loader("ab".split() * 3, batch_size=3, transform=tell, workers=0) as loader:
        ...     [(epochs.tolist(), examples.tolist()) for epochs, examples in loader]
        [([0, 0, 0], [0, 1, 2])]
    """
    tell = _in_thread.tell or (_in_process[0] if _in_process else None)
    if tell is None:
        raise StokerError(
            "stoker.current() tells which example is at work; here none is. Call it in the source, the transform or "
            "the collate function of a Loader."
        )
    return tell()


def tells_in_process(tell: Callable[[], Current]) -> None:
    """From now on this whole process works for a Loader."""
    _in_process[:] = [tell]


class telling:
    """Within it, this thread works for a Loader."""

    def __init__(self, tell: Callable[[], Current]) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        self._before, _in_thread.tell = _in_thread.tell, self._tell

    def __exit__(self, *exc: object) -> None:
        _in_thread.tell = self._before
