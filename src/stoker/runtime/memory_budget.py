"""The memory for batches that the Loaders of a `Pool` have in common."""

from __future__ import annotations

import threading
import weakref
from typing import Any


class MemoryBudget:
    """Divides a number of bytes among Loaders. Thread-safe.

    A Loader takes its part when the size of its batches is known: at most half of what is left, and no more than an
    equal part if others that exist have not taken theirs. So something is left for those that are created later.

    Args:
        nbytes: the number of bytes.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._lock = threading.Lock()
        self._taken: weakref.WeakKeyDictionary[Any, int | None] = weakref.WeakKeyDictionary()

    def join(self, holder: object) -> None:
        """Count a Loader's slot table, which takes its part later."""
        with self._lock:
            self._taken[holder] = None

    def take(self, holder: object, wanted: int) -> int:
        """The number of bytes that a Loader may use: those that it wants, or its part if that is less."""
        with self._lock:
            others = [taken for other, taken in self._taken.items() if other is not holder]
            left = self.nbytes - sum(taken for taken in others if taken is not None)
            part = self._taken[holder] = min(wanted, left // max(2, 1 + others.count(None)))
            return part

    def leave(self, holder: object) -> None:
        """Give everything back."""
        with self._lock:
            self._taken.pop(holder, None)
