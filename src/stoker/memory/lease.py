"""The time in which a handed-over batch keeps its slot.

A slot may be rewritten only when its batch is no longer reachable, neither by the consumer nor by
TensorFlow, which takes over the arrays' memory without copying it. Everything derived from a
leaf array (a view, a transpose, a DLPack export, a TF tensor) keeps that array alive. So the
lease ends when the last leaf array is garbage.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt


class _LeasedArray(weakref.ref[npt.NDArray[Any]]):
    """A weak reference to a leaf array of a leased slot; its callback receives it when the array is gone."""

    __slots__ = ("slot",)

    slot: int


class Leases:
    """Tracks which slots are leased and which have become free.

    `grant` and `ended` are called under the producer's lock, from any thread. The callbacks
    run wherever the last reference happens to be dropped, so they only call a deque's `append`.
    """

    def __init__(self) -> None:
        self._gone: deque[_LeasedArray] = deque()
        self._alive: dict[
            int, dict[int, _LeasedArray]
        ] = {}  # by slot and id; keeps each weak reference alive, or its callback would not run

    def grant(self, slot: int, leaves: Sequence[npt.NDArray[Any]]) -> None:
        """Lease `slot` until the last of `leaves` is gone."""
        alive = self._alive[slot] = {}
        for leaf in leaves:
            reference = _LeasedArray(leaf, self._gone.append)
            reference.slot = slot
            alive[id(reference)] = reference

    def ended(self) -> list[int]:
        """The slots whose leases have ended since the last call."""
        ended = []
        while self._gone:
            leaf = self._gone.popleft()
            alive = self._alive[leaf.slot]
            del alive[id(leaf)]
            if not alive:
                del self._alive[leaf.slot]
                ended.append(leaf.slot)
        return ended
