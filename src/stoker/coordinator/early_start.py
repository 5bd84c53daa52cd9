"""What a Loader begins when it is created: workers, the form of the batches, and epoch 0, ahead of its first pull.

Only workers are started where the trainer takes the items from the user's iterable, or `prefetch=1` asks for fresh
examples. Nothing is begun

    - in a worker, or in another child of multiprocessing: these import modules of the user's that make Loaders;
    - while a module of the caller is being imported: the form of the batches may name a class of it, and the engine's
      thread, which takes the form in, would wait for the import, which may wait for a batch;
    - while `MOST_UNREAD` Loaders that were begun early wait to be read: of many, most may never be.
"""

from __future__ import annotations

import sys
import weakref
from types import FrameType
from typing import Protocol

from stoker.coordinator.form_finder import FormAttempt
from stoker.protocol.surroundings import is_in_worker

#: Loaders that may be begun before they are read: those for training, validation and test, and one more.
MOST_UNREAD = 4


class Unread(Protocol):
    """A producer that was begun early."""

    def is_unread(self) -> bool:
        """True while it is open and nothing was pulled from it."""


_begun: weakref.WeakSet[Unread] = weakref.WeakSet()


def may_begin(producer: Unread) -> bool:
    """True if a new producer may begin early. It then counts as begun."""
    if is_in_worker() or _is_child() or _is_importing() or sum(one.is_unread() for one in list(_begun)) >= MOST_UNREAD:
        return False
    _begun.add(producer)
    return True


def _is_child() -> bool:
    """True if multiprocessing has started this process."""
    module = sys.modules.get("multiprocessing.process")
    return module is not None and module.parent_process() is not None


def _is_importing() -> bool:
    """True if this thread is importing a module."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if getattr(frame.f_globals.get("__spec__"), "_initializing", False):
            return True
        frame = frame.f_back
    return False


class EarlyStart:
    """What was begun early and was not asked for yet. Used under the producer's lock.

    Attributes:
        is_wanted: whether epoch 0 is to be opened once the form of its batches is known.
        is_unread: whether no iteration has begun.
        attempt: the attempt to determine the form, until a consumer asks for the form.
    """

    def __init__(self) -> None:
        self.is_wanted, self.is_unread = False, True
        self.attempt: FormAttempt | None = None

    def goes_on(self) -> bool:
        """True if the attempt has not failed, and no consumer waits who would start another one after it."""
        return self.attempt is not None and self.attempt.error is None

    def take_attempt(self) -> FormAttempt | None:
        """The attempt, for a consumer that asks for the form now and raises its error."""
        attempt, self.attempt = self.attempt, None
        return attempt

    def forget(self) -> None:
        """Forget it, as the next iteration needs something else."""
        self.is_wanted, self.attempt = False, None
