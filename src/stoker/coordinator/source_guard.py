"""Detects changes of the user's source since the Loader was created, and checks the values for `Loader.update`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from stoker.engines.changes import Changes
from stoker.errors import OptionError
from stoker.sources.source import Source

log = logging.getLogger("stoker")


class SourceGuard:
    """Detects changes of the source and the transform.

    Args:
        source: the source. No reference to the user's data is kept.
        changes: finds changes.
    """

    def __init__(self, source: Source, changes: Changes) -> None:
        self._check_length, self._names, self._noun = source.length_check(), source.names, source.noun
        self._changes: Changes | None = changes

    def check(self) -> None:
        """Raise `SourceError` if a map-style source's length has changed; warn if any other change is found."""
        self._check_length()
        if self._changes is not None and (name := self._changes.found()) is not None:
            log.warning(
                "the %s has changed since the Loader was created, but the batches do not reflect that: it is read as "
                "it was then. Set new values with `loader.update(attribute=value)`, or create a new Loader.",
                name,
            )

    def accept(self, values: Mapping[str, Any]) -> None:
        """Raise `OptionError` for attributes that the source lacks.

        If there are values, later changes no longer cause a warning, since the user makes them knowingly.
        """
        names = self._names
        if not names:
            raise OptionError(
                "update() sets attributes of a source that is an instance of your own class, but "
                f"{self._noun} has none. Create a new Loader, use `stoker.current().epoch` in your code, or read the "
                "changing values from a file (with ahead=False)."
            )
        if unknown := sorted(set(values) - names):
            raise OptionError(
                f"the source has no attribute {', '.join(map(repr, unknown))} for update() to set. It has "
                f"{', '.join(sorted(name for name in names if not name.startswith('_')))}."
            )
        if values:
            self._changes = None
