"""Detects a Ctrl-C that goes unheeded because TensorFlow waits for a batch in the main thread.

Python raises KeyboardInterrupt in the main thread only after TensorFlow has returned to it, which may be never.
Another thread waits for the batch and can make TensorFlow return with an error, but Python does not notify other
threads of signals. It does write a byte to a wake-up descriptor, unless something else (asyncio, say) has claimed
that. A thread here waits for the byte, and then checks what the main thread is doing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

from stoker.runtime.shortage import wanted

#: Seconds that the main thread must stand still in TensorFlow before Ctrl-C counts as unheeded. Usually the batch
#: arrives earlier.
PATIENCE = 0.5
#: Seconds between two checks of the main thread after Ctrl-C.
_LOOK = 0.025

_pipe: tuple[int, int] | None = None  # from Python's signal handler to the thread in this module
_unheeded: int | None = None  # the CPU time of the main thread at which it stands still


def listen_for_interrupts() -> None:
    """Start listening for signals. Does nothing outside the main thread."""
    global _pipe
    if threading.current_thread() is not threading.main_thread():
        return
    if _pipe is None:
        with wanted("descriptors for detecting Ctrl-C"):
            _pipe = os.pipe()
        os.set_blocking(_pipe[1], False)
        threading.Thread(target=_listen, args=(_pipe[0],), name="stoker-interrupts", daemon=True).start()
    before = signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    if before not in (-1, _pipe[1]):
        with contextlib.suppress(OSError):  # it was closed, so no one else listens any more
            signal.set_wakeup_fd(before)


def is_unheeded() -> bool:
    """True if the main thread cannot heed a Ctrl-C until TensorFlow, which owns this thread, returns."""
    if _unheeded is None or _unheeded != _ran():
        return False
    return isinstance(threading.current_thread(), threading._DummyThread)  # other waiting threads do not block it


def _listen(signals: int) -> None:
    """Wait for signals, in a dedicated thread, for the lifetime of this process."""
    while True:
        if signal.SIGINT in os.read(signals, 4096):
            _watch()


def _watch() -> None:
    """After Ctrl-C, track whether the main thread stands still in TensorFlow, until it leaves TensorFlow."""
    global _unheeded
    begun, ran = time.monotonic(), _ran()
    while _is_in_tensorflow():
        time.sleep(_LOOK)
        if _ran() != ran:
            begun, ran = time.monotonic(), _ran()
        elif time.monotonic() - begun > PATIENCE and _raises():
            _unheeded = ran
    _unheeded = None


def _ran() -> int:
    """The CPU time of the main thread, unchanged only if it has not run in the meantime."""
    return time.clock_gettime_ns(time.pthread_getcpuclockid(threading.main_thread().ident or 0))


def _raises() -> bool:
    """True if Ctrl-C raises KeyboardInterrupt; the effect of a user's own handler is unknown."""
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _is_in_tensorflow() -> bool:
    """True if the main thread is in a TensorFlow function."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return frame is not None and str(frame.f_globals.get("__name__", "")).startswith("tensorflow.")


def _forked() -> None:
    """Stop listening in a fork: signals sent to it must not reach the parent's pipe."""
    global _pipe, _unheeded
    _unheeded = None
    if _pipe is not None:
        before = signal.set_wakeup_fd(-1)
        if before != _pipe[1]:
            signal.set_wakeup_fd(before)
        for end in _pipe:
            os.close(end)
        _pipe = None


os.register_at_fork(after_in_child=_forked)
