"""A lock under which no signal handler and no garbage collection starts in the thread that holds it.

Either could deadlock, waiting for the lock that its own thread holds. A handler may close the Loader, or raise between
any two operations. The collector may destroy a tf.data iterator, which waits for a thread that waits for the lock.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from types import TracebackType

from stoker.errors import ClosedError
from stoker.runtime.signals import interruptible, reopen, shut

_holding = 0  # threads that hold a lock, or are about to
_paused = False  # True if this module disabled the collector


class Lock:
    """A lock and a condition, for `with`. It works only in the process that made it: a fork gets `ClosedError`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._waiting: list[threading.Lock] = []
        self._later: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def is_ours(self) -> bool:
        """True if this process made the lock."""
        return os.getpid() == self._pid

    def require_owner(self) -> None:
        """Raise `ClosedError` in a fork of the process that made the lock: another thread may have left it held."""
        if not self.is_ours():
            raise ClosedError(
                "this Loader belongs to the process that created it, and this process is a fork of that one. Create a "
                "new Loader here."
            )

    def __enter__(self) -> None:
        self.require_owner()
        before = shut()
        self._acquire()
        self._before = before

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        before, later = self._before, self._later
        if later:
            self._later = []
        self._release()
        try:
            for call, args in later:
                call(*args)
        finally:
            reopen(before)

    def later(self, call: Callable[..., object], *args: object) -> None:
        """With the lock held: call `call` at the end of the block, once the lock is released."""
        self._later.append((call, args))

    def without(self, call: Callable[..., object], *args: object) -> None:
        """With the lock held: release it while `call` runs."""
        before = self._before
        self._release()
        try:
            call(*args)
        finally:
            self._acquire()
            self._before = before

    def wait(self, seconds: float | None = None) -> bool:
        """With the lock held: release it until `notify_all` is called, for at most `seconds`.

        Returns True if `notify_all` was called. None waits as long as it takes.
        """
        waiter = threading.Lock()
        waiter.acquire()
        self._waiting.append(waiter)
        try:
            self.without(interruptible, waiter.acquire, True, -1 if seconds is None else seconds)
        finally:
            was_called = waiter not in self._waiting
            if not was_called:
                self._waiting.remove(waiter)
        return was_called

    def notify_all(self) -> None:
        """With the lock held: wake all waiting threads."""
        for waiter in self._waiting:
            waiter.release()
        self._waiting.clear()

    def _acquire(self) -> None:
        _pause()
        self._lock.acquire()

    def _release(self) -> None:
        self._lock.release()
        _resume()


# CPython switches threads only after calls, so never between a comparison and the call that follows it. No lock is
# needed here; a thread that waited for one could not be sure that the collector is still off.
def _pause() -> None:
    """Prevent garbage collections until `_resume`."""
    global _holding, _paused
    _holding += 1
    if gc.isenabled():
        _paused = True
        gc.disable()


def _resume() -> None:
    global _holding, _paused
    _holding -= 1
    if _paused and not _holding:
        _paused = False
        gc.enable()


def _forked() -> None:
    """Reset the state in a fork, where this thread is the only one and holds no lock."""
    global _holding
    _holding = 1
    _resume()


os.register_at_fork(after_in_child=_forked)
