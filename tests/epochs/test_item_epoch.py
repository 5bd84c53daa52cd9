"""Epochs of items that a thread of the trainer pulls."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.epochs import item_epoch
from stoker.epochs.item_epoch import ItemEpoch
from stoker.plan.batching import Batching, EpochCounts
from stoker.plan.position import Position


class EndingPuller:
    """Ends, after one more item, in the instant after somebody has looked at it."""

    skipped = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        self.now = 5, None

    def want(self, count: int) -> None:
        """It has what is wanted."""

    def _look(self, part: int) -> Any:
        seen, self.now = self.now[part], (6, "the end")
        return seen

    pulled = property(lambda self: self._look(0))
    ended = property(lambda self: self._look(1))


def test_an_iterable_that_ends_while_its_items_are_counted_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_epoch, "Puller", EndingPuller)
    batching = Batching(4, keep_rest=True, seed=0, shuffle=0, window=4)
    counts = EpochCounts(batching, None, length=None, has_function=False, skips=False, has_marks=False)
    source: Any = None  # only the puller opens it
    items, ended = ItemEpoch(source, counts, Position(), lambda: None).arrivals()
    assert (items, ended) != (5, True), "the sixth item would never be asked for"
