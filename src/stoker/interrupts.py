"""Ctrl-C at a moment when nothing is half done.

Python raises KeyboardInterrupt in the main thread between any two operations: also when a batch has been
taken and not yet handed over. Within `shielded` it waits for the end of the block, or for the next
`interruptible` block in it. No handler stays behind, and a handler of the user's is called as it would have been.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any]

_noted: list[FrameType | None] = []  # the frame that was interrupted
_theirs: _Handler | None = None  # the handler whose place ours takes


def _note(_: int, frame: FrameType | None) -> None:
    _noted.append(frame)


@contextmanager
def shielded() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block."""
    if not _take_over():
        yield
        return
    try:
        yield
    finally:
        _hand_back()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within a `shielded` block: let Ctrl-C be raised here, now."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not _note:
        yield
        return
    try:
        _hand_back()
        yield
    finally:
        _take_over()


def _take_over() -> bool:
    """Whether the handler was another one, in the main thread, and is ours now."""
    global _theirs
    if threading.current_thread() is not threading.main_thread():
        return False
    before = signal.getsignal(signal.SIGINT)
    if before is _note or isinstance(before, int) or not callable(before):  # ignored, or the process ends at once
        return False
    _theirs = before
    signal.signal(signal.SIGINT, _note)
    return True


def _hand_back() -> None:
    theirs = _theirs
    assert theirs is not None
    signal.signal(signal.SIGINT, theirs)
    if _noted:
        frame = _noted[0]
        _noted.clear()
        theirs(signal.SIGINT, frame)
