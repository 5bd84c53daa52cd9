"""Ctrl-C, and other signals with a handler of the user's, at a moment when nothing is half done.

Python calls these handlers in the main thread between any two operations, and they may raise: also when a batch has
been taken and not yet handed over, or a lock not yet given back. Within `shielded` they wait for the end of the block,
or for the next `interruptible` call in it. No handler stays behind, and each is called as it would have been.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as `signal`, without its enums: at each pull these cost 8 µs
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

_Handler = Callable[[int, FrameType | None], Any]
_Made = TypeVar("_Made")

#: Those that people give a handler that raises, exits or closes something.
_SIGNALS = tuple(
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
_OFF = 0  # handlers of the user's are in place
_OPEN = 1  # ours are, and pass on what comes
_SHUT = 2  # ours are, and note what comes

_state = _OFF
_noted: dict[int, FrameType | None] = {}  # signals that came, and the frames that were interrupted
_theirs: dict[int, _Handler] = {}  # the handlers whose place ours takes


def _note(number: int, frame: FrameType | None) -> None:
    if _state == _SHUT:
        _noted.setdefault(number, frame)
    else:
        _theirs[number](number, frame)


class _Shield:
    def __enter__(self) -> None:
        self._before = shut()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        reopen(self._before)


def shielded() -> _Shield:
    """A block whose end handlers wait for."""
    return _Shield()


def interruptible(call: Callable[..., _Made], *args: Any) -> _Made:
    """What `call` gives for `args`; within a `shielded` block: let handlers be called now, and until it returns.

    No block of its own: the state is set back without a call, between which and the end a handler could raise.
    """
    global _state
    if _state != _SHUT or not _is_main():
        return call(*args)
    _state = _OPEN
    try:
        _tell()
        return call(*args)
    finally:
        _state = _SHUT


def shut() -> int:
    """Note what comes from now on; returns what `reopen` needs. Other threads than the main one get no signals."""
    global _state
    if not _is_main():
        return _SHUT
    before = _state
    if before == _OFF:
        try:
            for number in _SIGNALS:
                handler = _signal.getsignal(number)
                if handler is not _note and callable(handler):  # not ignored, and not the end of the process
                    _theirs[number] = handler
                    _signal.signal(number, _note)
        except BaseException:  # a handler raised
            reopen(_OFF)
            raise
    _state = _SHUT
    return before


def reopen(before: int) -> None:
    """As it was before `shut`; then the handlers of what came are called."""
    global _state
    if before == _SHUT:
        return
    _state = before
    try:
        if before == _OFF:
            for number, handler in _theirs.items():
                if _signal.getsignal(number) is _note:  # else a handler has just put another one there
                    _signal.signal(number, handler)
    finally:
        _tell()


def _tell() -> None:
    """Call the handlers of the signals that came, all of them, whatever one of them raises."""
    if _noted:
        number, frame = _noted.popitem()
        try:
            _theirs[number](number, frame)
        finally:
            _tell()


def _is_main() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def _forked() -> None:
    """The handlers are the user's again in a process that was forked while ours were in place."""
    _noted.clear()
    reopen(_OFF)


os.register_at_fork(after_in_child=_forked)
