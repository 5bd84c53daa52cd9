"""Ctrl-C that nobody heeds, since TensorFlow waits for a batch in the main thread.

There Python raises KeyboardInterrupt, once TensorFlow has returned to it: that may be never. Who waits for the batch
waits in another thread, and can let TensorFlow return, by an error; but Python does not tell other threads that a
signal has come. It does write a byte to a descriptor, if nobody else (asyncio, say) has asked for that: a thread waits
for it, and then looks at what the main thread does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

from stoker.runtime.shortage import wanted

#: Seconds that the main thread has stood still in TensorFlow when Ctrl-C counts as unheeded: mostly the batch comes
#: before.
PATIENCE = 0.5
#: Seconds between two looks at it, when Ctrl-C has come.
_LOOK = 0.025

_pipe: tuple[int, int] | None = None  # from Python's handler of signals to the thread here
_unheeded: int | None = None  # what the main thread's clock showed, since it stands still


def listen_for_interrupts() -> None:
    """From here on Python tells when a signal comes; called by the main thread, else nothing happens."""
    global _pipe
    if threading.current_thread() is not threading.main_thread():
        return
    if _pipe is None:
        with wanted("descriptors to hear of Ctrl-C by"):
            _pipe = os.pipe()
        os.set_blocking(_pipe[1], False)
        threading.Thread(target=_listen, args=(_pipe[0],), name="stoker-interrupts", daemon=True).start()
    before = signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    if before not in (-1, _pipe[1]):
        with contextlib.suppress(OSError):  # it was closed: nobody else hears of signals any more
            signal.set_wakeup_fd(before)


def is_unheeded() -> bool:
    """Whether Ctrl-C has come, and TensorFlow, whose thread this is, must return before the main thread can heed it."""
    if _unheeded is None or _unheeded != _ran():
        return False
    return isinstance(threading.current_thread(), threading._DummyThread)  # who else waits does not hold it up


def _listen(signals: int) -> None:
    """In a thread of its own, as long as this process lives."""
    while True:
        if signal.SIGINT in os.read(signals, 4096):
            _watch()


def _watch() -> None:
    """Ctrl-C has come: tell whether the main thread stands still in TensorFlow, until it does something else."""
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
    """How long the main thread has run: the same again only if it has done nothing meanwhile."""
    return time.clock_gettime_ns(time.pthread_getcpuclockid(threading.main_thread().ident or 0))


def _raises() -> bool:
    """Whether Ctrl-C raises KeyboardInterrupt: what a handler of the user's does, nobody knows."""
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _is_in_tensorflow() -> bool:
    """Whether the main thread is in a function of TensorFlow's."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return frame is not None and str(frame.f_globals.get("__name__", "")).startswith("tensorflow.")


def _forked() -> None:
    """What is sent to a fork is not for its parent."""
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
