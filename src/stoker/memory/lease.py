"""The time in which a handed-over batch keeps its slot.

A slot may be written again only when nobody can see the batch in it: neither the consumer nor
TensorFlow, which takes over the arrays' memory without copying it. Whatever is derived from a
leaf array (a view, a transpose, a DLPack export, a TF tensor) keeps that array alive, so the
lease ends when the last leaf array is garbage.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt


class _LeasedArray(weakref.ref[npt.NDArray[Any]]):
    """A reference to a leaf array of a leased slot; its callback gets it when the array is gone."""

    __slots__ = ("slot",)

    slot: int


class Leases:
    """Which slots are leased, and which came free.

    `grant` and `ended` are called under the producer's lock, from any thread. The callbacks
    run wherever the last reference happens to go, so all that is called is a deque's `append`.
    """

    def __init__(self) -> None:
        self._gone: deque[_LeasedArray] = deque()
        self._alive: dict[
            int, dict[int, _LeasedArray]
        ] = {}  # by slot and id; a reference that is itself gone calls nobody

    def grant(self, slot: int, leaves: Sequence[npt.NDArray[Any]]) -> None:
        """`slot` is leased until the last of `leaves` is gone."""
        alive = self._alive[slot] = {}
        for leaf in leaves:
            reference = _LeasedArray(leaf, self._gone.append)
            reference.slot = slot
            alive[id(reference)] = reference

    def ended(self) -> list[int]:
        """Slots whose lease has ended since the last call."""
        ended = []
        while self._gone:
            leaf = self._gone.popleft()
            alive = self._alive[leaf.slot]
            del alive[id(leaf)]
            if not alive:
                del self._alive[leaf.slot]
                ended.append(leaf.slot)
        return ended
