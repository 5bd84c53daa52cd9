"""The choice of columns from examples that are dicts: `columns=("image", "label")`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stoker.errors import OptionError

#: How `columns` may be given, for messages.
_FORMS = (
    'a name, "image", for its values alone; a list of names, ["ids", "mask"], for dicts of these; or a tuple of such, '
    '("image", "label"), for tuples (x, y)'
)


class Chosen:
    """Makes an example from a dict: the columns named, in the given structure. See `from_hugging_face`.

    Args:
        columns: a name, a list of names, or a tuple of names and lists.
    """

    def __init__(self, columns: Any) -> None:
        self.columns = columns
        names = list(_names(columns))
        if not names:
            raise OptionError(f"columns={columns!r} names no column. Pass {_FORMS}.")

    def names(self) -> list[str]:
        """The columns that are needed, each once."""
        return list(dict.fromkeys(_names(self.columns)))

    def check(self, present: Iterable[str]) -> None:
        """Raise `OptionError` for columns that are not among those present."""
        has = list(present)
        if unknown := [name for name in self.names() if name not in has]:
            raise OptionError(_unknown(unknown, has))

    def __call__(self, row: Any) -> Any:
        try:
            return _taken(self.columns, row)
        except KeyError:
            has = list(row)
            raise KeyError(_unknown([name for name in self.names() if name not in has], has)) from None


def _unknown(names: list[str], has: list[str]) -> str:
    return f"columns names {', '.join(map(repr, names))}, but there is only {', '.join(map(repr, has))}."


def _names(columns: Any) -> Iterator[str]:
    if isinstance(columns, str):
        yield columns
    elif isinstance(columns, list) and all(isinstance(name, str) for name in columns):
        yield from columns
    elif isinstance(columns, tuple):
        for part in columns:
            yield from _names(part)
    else:
        raise OptionError(f"columns must be {_FORMS}, got {columns!r}")


def _taken(columns: Any, row: Any) -> Any:
    if isinstance(columns, str):
        return row[columns]
    if isinstance(columns, list):
        return {name: row[name] for name in columns}
    return tuple(_taken(part, row) for part in columns)
