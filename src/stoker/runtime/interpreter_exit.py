"""The end of the interpreter: Loaders are closed before TensorFlow takes its threads down."""

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
        """Let them end, without waiting."""

    def close(self) -> None:
        """End them."""


_live: weakref.WeakSet[Closing] = weakref.WeakSet()
_exiting = False


def close_at_exit(closing: Closing) -> None:
    """Let it be closed when the interpreter ends, if it is still there."""
    _live.add(closing)


def exiting() -> bool:
    """Whether the interpreter is on its way out."""
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
        for closing in closings:  # so that they end side by side
            closing.request_stop()
        for closing in closings:
            closing.close()


def rest_if_exiting() -> None:
    """A daemon thread that pulls when the interpreter ends waits here for its own end, which Python does not tell it.

    TensorFlow's threads do not: it waits for them.
    """
    thread = threading.current_thread()
    if _exiting and thread.daemon and not isinstance(thread, threading._DummyThread):
        threading.Event().wait()


def close_before_others() -> None:
    """Let this module's exit hook run before those of the libraries imported so far."""
    atexit.unregister(_close_all)
    atexit.register(_close_all)
