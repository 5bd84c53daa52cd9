"""The time in which a handed-over batch keeps its slot.

A slot may be written again only when nobody can see the batch in it: neither the consumer nor
TensorFlow, which takes over the arrays' memory without copying it. Whatever is derived from a
leaf array (a view, a transpose, a DLPack export, a TF tensor) keeps that array alive, so the
lease ends when the last leaf array is garbage.
"""

from __future__ import annotations

import weakref
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt


class Leases:
    """Which slots are leased, and which came free.

    `grant` and `ended` are called under the dispatcher's lock, from any thread. The finalizers
    run wherever the last reference happens to go, so they append to a deque and do nothing else.
    """

    def __init__(self) -> None:
        self._gone: deque[int] = deque()
        self._leaves: Counter[int] = Counter()

    def grant(self, slot: int, leaves: Sequence[npt.NDArray[Any]]) -> None:
        """`slot` is leased until the last of `leaves` is gone."""
        self._leaves[slot] = len(leaves)
        for leaf in leaves:
            weakref.finalize(leaf, self._gone.append, slot).atexit = False

    def ended(self) -> list[int]:
        """Slots whose lease has ended since the last call."""
        ended = []
        while self._gone:
            slot = self._gone.popleft()
            self._leaves[slot] -= 1
            if not self._leaves[slot]:
                del self._leaves[slot]
                ended.append(slot)
        return ended
