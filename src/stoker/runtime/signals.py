"""Defers Ctrl-C, and other signals with a user's handler, to a moment when no operation is half done.

Python calls these handlers in the main thread between any two operations, and they may raise: even when a batch has
been taken but not yet handed over, or a lock is not yet released. Within `shielded` they are deferred to the end of the
block, or to the next `interruptible` call in it. Afterwards the user's handlers are back in place, and each is called
as it would have been.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # like `signal`, without its enums, which cost 8 µs per pull
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

_Handler = Callable[[int, FrameType | None], Any]
_Made = TypeVar("_Made")

#: The signals for which people install handlers that raise, exit or close something.
_SIGNALS = tuple(
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
_OFF = 0  # the user's handlers are installed
_OPEN = 1  # Stoker's are installed, and forward signals
_SHUT = 2  # Stoker's are installed, and record signals

_state = _OFF
_noted: dict[int, FrameType | None] = {}  # recorded signals, and the frames that they interrupted
_theirs: dict[int, _Handler] = {}  # the user's handlers that are replaced


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
    """A block during which signal handlers are deferred."""
    return _Shield()


def interruptible(call: Callable[..., _Made], *args: Any) -> _Made:
    """The result of `call(*args)`. Within a `shielded` block, handlers run now and until the call returns.

    This is not a context manager: the state is reset without a call, after which a handler could still raise.
    """
    global _state
    if _state != _SHUT or not _is_main():
        return call(*args)
    _state = _OPEN
    try:
        _call_handlers()
        return call(*args)
    finally:
        _state = _SHUT


def shut() -> int:
    """Record signals from now on. Returns the value that `reopen` needs. Only the main thread gets signals."""
    global _state
    if not _is_main():
        return _SHUT
    before = _state
    if before == _OFF:
        try:
            for number in _SIGNALS:
                handler = _signal.getsignal(number)
                if handler is not _note and callable(handler):  # neither ignored nor the default action
                    _theirs[number] = handler
                    _signal.signal(number, _note)
        except BaseException:  # a handler raised
            reopen(_OFF)
            raise
    _state = _SHUT
    return before


def reopen(before: int) -> None:
    """Restore the state before `shut`; then call the handlers of the recorded signals."""
    global _state
    if before == _SHUT:
        return
    _state = before
    try:
        if before == _OFF:
            for number, handler in _theirs.items():
                if _signal.getsignal(number) is _note:  # else a handler has just installed another one
                    _signal.signal(number, handler)
    finally:
        _call_handlers()


def _call_handlers() -> None:
    """Call the handlers of all recorded signals, even if one of them raises."""
    if _noted:
        number, frame = _noted.popitem()
        try:
            _theirs[number](number, frame)
        finally:
            _call_handlers()


def _is_main() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def _forked() -> None:
    """Restore the user's handlers in a process that was forked while Stoker's were installed."""
    _noted.clear()
    reopen(_OFF)


os.register_at_fork(after_in_child=_forked)
