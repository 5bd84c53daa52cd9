"""Interpreter exit: closes Loaders before TensorFlow shuts its threads down."""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from typing import Protocol

from stoker.runtime.signals import shielded


class Closing(Protocol):
    """Something that holds processes or threads."""

    def request_stop(self) -> None:
        """Request their end, without waiting."""

    def close(self) -> None:
        """End them and wait."""


_live: weakref.WeakSet[Closing] = weakref.WeakSet()
_exiting = False


def close_at_exit(closing: Closing) -> None:
    """Close `closing` when the interpreter exits, if it still exists then."""
    _live.add(closing)


def exiting() -> bool:
    """True while the interpreter is exiting."""
    return _exiting


@atexit.register
def _close_all() -> None:
    global _exiting
    _exiting = True
    with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C: the first one's traceback is enough
        try:
            _close_them()
        except KeyboardInterrupt:
            _close_them()


def _close_them() -> None:
    with shielded():
        closings = list(_live)
        for closing in closings:  # so that they end in parallel
            closing.request_stop()
        for closing in closings:
            closing.close()


def rest_if_exiting() -> None:
    """Block a daemon thread that pulls while the interpreter exits, since Python does not notify it of its end.

    TensorFlow's threads are not blocked, because TensorFlow waits for them.
    """
    thread = threading.current_thread()
    if _exiting and thread.daemon and not isinstance(thread, threading._DummyThread):
        threading.Event().wait()


def close_before_others() -> None:
    """Make this module's exit hook run before those of the libraries imported so far."""
    atexit.unregister(_close_all)
    atexit.register(_close_all)
