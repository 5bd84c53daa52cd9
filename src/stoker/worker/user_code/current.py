"""The example being made, as `stoker.current()` reports it to user code."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from stoker.errors import StokerError


@dataclass(frozen=True)
class Current:
    """The example, epoch and worker for which user code is running; see `current`.

    Attributes:
        epoch: counted from 0; also 0 while the first examples are inspected for their spec.
        example: index in the source, shard or iterable; None when several examples are made at once.
        shard: shard of a generator source, else None.
        worker: number of the worker process; None with `workers=0`.
        seed: 64-bit seed of this example in this epoch. All random states were set from it.
    """

    epoch: int
    example: int | None
    shard: int | None
    worker: int | None
    seed: int


class _CurrentRecorder(threading.local):
    """Holds the function that returns the current state of the thread that runs user code in the trainer.

    In a worker, `_in_process` holds it for all threads.
    """

    tell: Callable[[], Current] | None = None


_in_thread = _CurrentRecorder()
_in_process: list[Callable[[], Current]] = []


def current() -> Current:
    """The example, epoch and worker for which the calling source, transform or collate function runs.

    Raises:
        StokerError: the caller is not run by a Loader. The items of `from_iterable` are made outside a Loader too.

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
            "stoker.current() describes the example being made, and none is being made here. Call it in the source, "
            "the transform or the collate function of a Loader."
        )
    return tell()


def tells_in_process(tell: Callable[[], Current] | None) -> None:
    """Set `tell` as the source of `current()` for all threads of this process; None for none."""
    _in_process[:] = [] if tell is None else [tell]


class telling:
    """Context in which `tell` is the source of `current()` for this thread."""

    def __init__(self, tell: Callable[[], Current]) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        self._before, _in_thread.tell = _in_thread.tell, self._tell

    def __exit__(self, *exc: object) -> None:
        _in_thread.tell = self._before
