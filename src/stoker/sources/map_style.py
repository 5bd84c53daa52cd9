"""Map-style sources: any object with `__len__` and `__getitem__`."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from stoker.errors import SourceError, cause, summary
from stoker.sources.mistaken import mistaken


class MapSource:
    """The trainer's record of a source: its length, and a way to check that it has not changed.

    `__len__` is the only user method called in the trainer. The source is kept by a weak reference where
    possible. So a dataset that is referenced nowhere else lies in memory once, in the pages that the workers
    share.

    Args:
        source: the user's object.

    Attributes:
        names: names of the source's attributes, for `Loader.update`.

    Raises:
        SourceError: the source is not map-style, or empty.
    """

    def __init__(self, source: Any) -> None:
        if (told := mistaken(source)) is not None:
            raise SourceError(told)
        self.length = _length(source)
        if self.length < 1:
            raise SourceError(
                f"the source is empty: len() of this {type(source).__name__} is 0. Check its paths or filters."
            )
        self._get: Callable[[], Any] = _reference(source)
        self.names: frozenset[str] = frozenset(_names(source))

    def check(self) -> None:
        """Raise `SourceError` if the length has changed."""
        source = self._get()
        if source is not None and (now := _length(source)) != self.length:
            raise SourceError(changed_length(self.length, now))


def changed_length(was: int, now: int) -> str:
    """The message for a source whose length changed."""
    return (
        f"the source had {was:,} examples when the Loader was made and has {now:,} now: an epoch would lose "
        "or repeat examples. Make a new Loader for it."
    )


def _reference(source: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(source)
    except TypeError:  # lists and tuples do not support weak references
        return lambda: source


def _names(source: Any) -> Iterable[str]:
    """Attributes that can be set. Some objects, such as lists, have none."""
    if not hasattr(source, "__dict__") and not hasattr(type(source), "__slots__"):
        return ()
    try:
        return [name for name in dir(source) if not name.startswith("__")]
    except Exception:  # the user's own `__dir__`
        return list(vars(source))


def _length(source: Any) -> int:
    try:
        return operator.index(len(source))
    except Exception as error:
        raise SourceError(f"len() of the source, a {type(source).__name__}, raised {summary(error)}") from cause(error)
