"""Detects changes of the user's source since the Loader was made, and checks the values for `Loader.update`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from stoker.engines.changes import Changes
from stoker.errors import OptionError
from stoker.sources.map_style import MapSource

log = logging.getLogger("stoker")


class SourceGuard:
    """Detects changes of the source and the transform.

    Args:
        source: a source that is read by index, or None.
        is_object: whether the source is an instance of a user's class.
        changes: finds changes.
    """

    def __init__(self, source: MapSource | None, is_object: bool, changes: Changes) -> None:
        self._source, self._is_object = source, is_object
        self._changes: Changes | None = changes

    def check(self) -> None:
        """Raise `SourceError` if a map-style source's length has changed; warn if any other change is found."""
        if self._source is not None:
            self._source.check()
        if self._changes is not None and (name := self._changes.found()) is not None:
            log.warning(
                "the %s has changed since the Loader was made, and its batches do not show that: it is read as it was "
                "then. Give new values by `loader.update(attribute=value)`, or make a new Loader.",
                name,
            )

    def accept(self, values: Mapping[str, Any]) -> None:
        """Raise `OptionError` for attributes that the source lacks.

        If there are values, later changes no longer cause a warning, since the user makes them knowingly.
        """
        names = self._source.names if self._source is not None and self._is_object else frozenset[str]()
        if not names:
            kind = "a generator or iterable" if self._source is None else "a list, or arrays,"
            raise OptionError(
                f"update() sets attributes of a source that is an object of a class of yours, and {kind} has none. "
                "Make a new Loader; or ask `stoker.current().epoch` in your code; or read what changes from a file."
            )
        if unknown := sorted(set(values) - names):
            raise OptionError(
                f"the source has no attribute {', '.join(map(repr, unknown))} that update() could set; it has "
                f"{', '.join(sorted(name for name in names if not name.startswith('_')))}."
            )
        if values:
            self._changes = None
