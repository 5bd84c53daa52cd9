"""Ctrl-C that nobody heeds, since TensorFlow waits for a batch in the main thread.

There Python raises KeyboardInterrupt, once TensorFlow has returned to it: that may be never. Who waits for the batch
waits in another thread, and can let TensorFlow return, without a batch; but Python does not tell other threads that a
signal has come. It does write a byte to a descriptor, if nobody else (asyncio, say) has asked for that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType

from stoker.errors import StokerError
from stoker.memory import wanted

#: Seconds that Ctrl-C may be unheeded: mostly the batch comes before.
PATIENCE = 0.5
#: Seconds between two looks at what the main thread is at.
_LOOK = 0.02

_pipe: tuple[int, int] | None = None  # from Python's handler of signals to here
_came = 0  # times that SIGINT has come, as far as `_count` has seen


def listen_for_interrupts() -> None:
    """From here on Python tells when a signal comes; called by the main thread, else nothing happens."""
    global _pipe
    if threading.current_thread() is not threading.main_thread():
        return
    if _pipe is None:
        with wanted("descriptors to hear of Ctrl-C by"):
            _pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    if before not in (-1, _pipe[1]):
        signal.set_wakeup_fd(before)


def _count() -> int:
    """How often Ctrl-C has come."""
    global _came
    with contextlib.suppress(BlockingIOError):
        while _pipe is not None:
            more = os.read(_pipe[0], 4096).count(signal.SIGINT)
            _came += more
    return _came


class Unheeded:
    """What a thread that waits for a batch knows of Ctrl-C; made when it begins to wait."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._seen = _count()  # what came before may have been heeded
        self._frame: FrameType | None = None  # the main thread's, in code of TensorFlow's
        self._at = 0
        self._since: float | None = None  # Ctrl-C came, and the main thread has stood there
        self._is_certain = False

    def look(self) -> None:
        """From time to time: end the wait, by an exception, if Ctrl-C came and the main thread cannot heed it."""
        now = time.monotonic()
        if _pipe is None or now < self._looked + _LOOK:
            return
        self._looked = now
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        stood = frame is not None and frame is self._frame and frame.f_lasti == self._at
        if not stood:
            self._frame = frame if frame is not None and _is_tensorflow(frame) else None
            self._at, self._since = frame.f_lasti if frame is not None else 0, None
        count = _count()
        if count > self._seen and self._frame is not None and self._since is None:
            self._since, self._is_certain = now, stood
        self._seen = count
        if self._since is not None and now > self._since + PATIENCE and _raises():
            self._end()

    def _end(self) -> None:
        if self._is_certain:
            raise StopIteration  # nobody takes it for the end: TensorFlow returns with it into a KeyboardInterrupt
        raise StokerError("Ctrl-C ended this iteration, whose next batch did not come. Iterate again.")


def _raises() -> bool:
    """Whether Ctrl-C raises KeyboardInterrupt: what a handler of the user's does, nobody knows."""
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _is_tensorflow(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("tensorflow.")


def _forked() -> None:
    """What is sent to a fork is not for its parent."""
    global _pipe
    if _pipe is not None:
        before = signal.set_wakeup_fd(-1)
        if before != _pipe[1]:
            signal.set_wakeup_fd(before)
        for end in _pipe:
            os.close(end)
        _pipe = None


os.register_at_fork(after_in_child=_forked)
