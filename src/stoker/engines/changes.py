"""Detects changes to the user's objects since the Loader was made, where the check is nearly free.

The objects are pickled again when an epoch begins, and the checksums are compared. An object is checked only if it is
small, pickles identically twice and runs none of the user's code when pickled. Of large arrays, only shapes count.
"""

from __future__ import annotations

import io
import pickle
import time
import types
import weakref
import zlib
from collections.abc import Callable, Mapping
from typing import Any

#: The most bytes of a pickle to check, the most bytes of its arrays, and the seconds that the check may take.
_MOST, _MOST_ARRAYS, _SECONDS = 100_000, 256_000, 0.002
#: Methods with which a class customizes its pickling.
_OWN = "__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs_ex__", "__getnewargs__"
_CODE = types.FunctionType, type, types.ModuleType


class _Refused(Exception):
    """The object is not checked."""


class Changes:
    """Checks objects, to which it keeps weak references.

    Args:
        parts: the objects, by their names.
        code: True to check functions and classes too, with everything that they refer to.
    """

    def __init__(self, parts: Mapping[str, Any], *, code: bool) -> None:
        import cloudpickle  # noqa: F401  (its import is not what takes time below)

        self._code = code
        self._parts: dict[str, tuple[Callable[[], Any], int]] = {}
        for name, part in parts.items():
            its = self._checksum(part)
            if its is None or its != self._checksum(part):
                continue
            reference = _reference(part)
            if reference is not None:
                self._parts[name] = reference, its

    def found(self) -> str | None:
        """The name of an object that has changed, or None; a change is reported once."""
        for name, (reference, before) in list(self._parts.items()):
            part = reference()
            now = self._checksum(part) if part is not None else None
            if now is None or now != before:
                del self._parts[name]
            if now not in (None, before):
                self._parts.clear()
                return name
        return None

    def _checksum(self, part: Any) -> int | None:
        began = time.thread_time()
        try:
            found = _checksum(part, self._code)
        except Exception:  # it cannot be pickled, or not cheaply enough
            return None
        return found if time.thread_time() - began < _SECONDS else None


def _reference(part: Any) -> Callable[[], Any] | None:
    """A weak reference to the object. Lists and tuples do not support those, so they get a strong one."""
    try:
        return weakref.WeakMethod(part) if isinstance(part, types.MethodType) else weakref.ref(part)
    except TypeError:
        return (lambda: part) if isinstance(part, list | tuple) else None


def _checksum(part: Any, code: bool) -> int:
    import cloudpickle

    buffers: list[pickle.PickleBuffer] = []

    class FingerprintPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, _CODE):
                return super().reducer_override(value) if code or value is str else (str, ("code",))
            for kind in type(value).__mro__:
                if any(isinstance(vars(kind).get(name), types.FunctionType) for name in _OWN):
                    raise _Refused
            return super().reducer_override(value)

    file = _Short()
    FingerprintPickler(file, protocol=5, buffer_callback=buffers.append).dump(part)
    found = zlib.crc32(file.getvalue())
    views = [buffer.raw() for buffer in buffers]
    if sum(view.nbytes for view in views) <= _MOST_ARRAYS:
        for view in views:
            found = zlib.crc32(view, found)
    return found


class _Short(io.BytesIO):
    """A file that refuses long pickles."""

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > _MOST:
            raise _Refused
        return super().write(data)
