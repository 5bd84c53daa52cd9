"""Ctrl-C that nobody heeds, since TensorFlow waits for a batch in the main thread.

There Python raises KeyboardInterrupt, once TensorFlow has returned to it: that may be never. Who waits for the batch
waits in another thread, and can let TensorFlow return, without a batch; but Python does not tell other threads that a
signal has come. It does write a byte to a descriptor, if nobody else (asyncio, say) has asked for that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

#: Seconds that Ctrl-C may be unheeded: mostly the batch comes before.
PATIENCE = 1.0
#: Seconds between two looks at what the main thread is at.
_LOOK = 0.05

_calls: tuple[socket.socket, socket.socket] | None = None
_came = 0  # times that SIGINT has come, as far as `_count` has seen


def listen_for_interrupts() -> None:
    """From here on Python tells when a signal comes; called by the main thread, else nothing happens."""
    global _calls
    if threading.current_thread() is not threading.main_thread():
        return
    if _calls is None:
        _calls = socket.socketpair()
        for end in _calls:
            end.setblocking(False)
    _ask_for_calls(_calls[1].fileno())


def _ask_for_calls(fd: int) -> None:
    before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    if before not in (-1, fd):
        signal.set_wakeup_fd(before)


def _count() -> int:
    """How often Ctrl-C has come."""
    global _came
    with contextlib.suppress(BlockingIOError):
        while _calls is not None:
            more = _calls[0].recv(4096).count(signal.SIGINT)
            _came += more
    return _came


class Unheeded:
    """What a thread that waits for a batch knows of Ctrl-C."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._frame: FrameType | None = None  # the main thread's, in code of TensorFlow's
        self._at = self._before = 0
        self._since: float | None = None

    def __bool__(self) -> bool:
        """Whether KeyboardInterrupt is certain to be raised in the main thread, when TensorFlow returns there."""
        now = time.monotonic()
        if _calls is None or now < self._looked + _LOOK:
            return False
        self._looked = now
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        if frame is None or frame is not self._frame or frame.f_lasti != self._at:
            self._frame = frame if frame is not None and _is_tensorflow(frame) else None
            self._at = frame.f_lasti if frame is not None else 0
            self._before, self._since = _count(), None  # what came before that may have been heeded
        elif self._since is None and _count() > self._before:
            self._since = now
        if self._since is None or now < self._since + PATIENCE:
            return False
        return signal.getsignal(signal.SIGINT) is signal.default_int_handler  # what a user's does, nobody knows


def _is_tensorflow(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("tensorflow.")


def _forked() -> None:
    """What is sent to a fork is not for its parent."""
    global _calls
    if _calls is not None:
        before = signal.set_wakeup_fd(-1)
        if before != _calls[1].fileno():
            signal.set_wakeup_fd(before)
        _calls = None


os.register_at_fork(after_in_child=_forked)
