"""Values from `Loader.update`, and the epochs from which they apply."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stoker.errors import OptionError, ProgramError, cause, summary
from stoker.protocol.requests import EpochUpdate, UpdateRequest

#: Maximum bytes of all updates together. They are sent in messages, whose size is limited.
_MOST = 60_000


@dataclass
class _Update:
    """One call of `update`. It applies from epoch `since` on, which is None until that epoch begins."""

    number: int
    names: frozenset[str]
    pickled: bytes
    since: int | None = None


class AttributeUpdates:
    """The updates that workers must apply. Used under the producer's lock.

    Args:
        folds: whether only the last value of each attribute counts. This holds if the source has no `on_epoch_end`
            that may have used earlier values.
    """

    def __init__(self, *, folds: bool) -> None:
        self._folds, self._count = folds, 0
        self._entries: list[_Update] = []

    def add(self, values: Mapping[str, Any]) -> None:
        """Add values that apply from the next epoch on.

        Raises:
            ProgramError: a value cannot be pickled.
            OptionError: all values together are too large.
        """
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
                f"update() takes at most {_MOST:,} bytes of values in all, got {size:,}. Put large values in a file "
                "and pass its path."
            )
        self._entries, self._count = [*others, entry], self._count + 1

    def request(self, epoch: int) -> UpdateRequest | None:
        """The request to workers before an epoch that begins now; None if there are no updates."""
        if not self._entries:
            return None
        for entry in self._entries:
            entry.since = epoch if entry.since is None else entry.since
        updates = tuple(EpochUpdate(one.number, min(one.since or 0, epoch), one.pickled) for one in self._entries)
        return UpdateRequest(epoch, pickle.dumps(updates))

    def early_request(self, epoch: int) -> UpdateRequest | None:
        """The request to workers before they inspect the first examples of a future epoch; None if not needed."""
        since = [epoch if entry.since is None else min(entry.since, epoch) for entry in self._entries]
        pairs = zip(self._entries, since, strict=True)
        updates = tuple(EpochUpdate(one.number, first, one.pickled) for one, first in pairs)
        return UpdateRequest(epoch, pickle.dumps(updates)) if updates else None
