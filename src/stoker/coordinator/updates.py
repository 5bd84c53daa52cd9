"""What `Loader.update` gave, and from which epoch on it counts."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stoker.errors import OptionError, ProgramError, cause, summary
from stoker.protocol.requests import EpochUpdate, UpdateRequest

#: Bytes that all updates may take together: they travel in messages.
_MOST = 60_000


@dataclass
class _Update:
    """One call. `since` is None until an epoch begins."""

    number: int
    names: frozenset[str]
    pickled: bytes
    since: int | None = None


class AttributeUpdates:
    """Used under the producer's lock.

    Args:
        folds: whether the last value of each attribute is all that counts: the source has no `on_epoch_end` that may
            have used those before.
    """

    def __init__(self, *, folds: bool) -> None:
        self._folds, self._count = folds, 0
        self._entries: list[_Update] = []

    def add(self, values: Mapping[str, Any]) -> None:
        """They count from the next epoch that begins."""
        import cloudpickle

        try:
            pickled = cloudpickle.dumps(dict(values), protocol=5)
        except Exception as error:
            raise ProgramError(f"a value given to update() cannot be pickled: {summary(error)}") from cause(error)
        entry = _Update(self._count, frozenset(values), pickled)
        others = [one for one in self._entries if not (one.names <= entry.names and (self._folds or one.since is None))]
        size = sum(len(one.pickled) for one in (*others, entry))
        if size > _MOST:
            raise OptionError(
                f"update() takes values of {_MOST:,} bytes in all, and these are {size:,}. Put large ones into a file, "
                "and give its path."
            )
        self._entries, self._count = [*others, entry], self._count + 1

    def renewal(self, epoch: int) -> UpdateRequest | None:
        """What workers are told before this epoch, which begins now; None if there is nothing to tell."""
        if not self._entries:
            return None
        for entry in self._entries:
            entry.since = epoch if entry.since is None else entry.since
        told = tuple(EpochUpdate(entry.number, min(entry.since or 0, epoch), entry.pickled) for entry in self._entries)
        return UpdateRequest(epoch, pickle.dumps(told))

    def glimpse(self, epoch: int) -> UpdateRequest | None:
        """What workers are told before they look at the first examples of an epoch that has not begun."""
        since = [epoch if entry.since is None else min(entry.since, epoch) for entry in self._entries]
        told = tuple(EpochUpdate(one.number, its, one.pickled) for one, its in zip(self._entries, since, strict=True))
        return UpdateRequest(epoch, pickle.dumps(told)) if told else None
