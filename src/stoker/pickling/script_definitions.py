"""The definitions of a script that the program does not refer to. A pickle file read later may need their types.

They travel beside the program and are read only on request, so they must be cheap. Of the global variables
that they use, only small ones are sent along. Large definitions are left out.
"""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stoker.pickling import stand_ins as arrival
from stoker.pickling.pickler import Pickler, is_cached

#: Limits in bytes: of all definitions together, and of one value that they use.
_MOST, _SMALL = 4 << 20, 1 << 16
_ALWAYS = type(None), bool, int, float, complex, type, types.FunctionType, types.ModuleType


def sent_of(pickler: Pickler) -> dict[str, dict[str, Any]]:
    """The objects that the pickler has sent from modules that cannot be imported, by module and name."""
    return {
        module: {name: value for name, value in _variables(module) if id(value) in pickler.sent}
        for module, travels in pickler.modules.items()
        if travels
    }


def rest_of(sent: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Pickle the other functions and classes of the same modules."""
    known = {id(value): (module, name) for module, values in sent.items() for name, value in values.items()}
    found = {
        module: {
            name: value for name, value in _variables(module) if _is_defined(value, module) and id(value) not in known
        }
        for module in sent
    }
    try:
        return _pickled(found, known)
    except Exception:  # leave out those that cannot be pickled
        return _pickled(
            {
                module: {name: value for name, value in values.items() if _can_be_pickled(value, known)}
                for module, values in found.items()
            },
            known,
        )


class _DefinitionPickler(Pickler):
    """Refers to the objects that came with the program, and leaves out large values."""

    def __init__(self, file: Any, known: Mapping[int, tuple[str, str]]) -> None:
        super().__init__(file)
        self._known_there = known

    def reducer_override(self, value: Any) -> Any:
        place = self._known_there.get(id(value))
        return super().reducer_override(value) if place is None else (arrival.sent, place)

    def _dynamic_function_reduce(self, func: Any) -> Any:
        make, arguments, state, *more = super()._dynamic_function_reduce(func)
        names = state[1]["__globals__"]
        state[1]["__globals__"] = {name: value for name, value in names.items() if _is_small(value)}
        return make, arguments, state, *more


class _BoundedFile(io.BytesIO):
    def write(self, data: Any) -> int:
        if self.tell() + len(data) > _MOST:
            raise OverflowError("the definitions are too large")
        return super().write(data)


def _pickled(found: Mapping[str, Mapping[str, Any]], known: Mapping[int, tuple[str, str]]) -> bytes:
    file = _BoundedFile()
    pickler = _DefinitionPickler(file, known)
    with pickler.by_value():
        pickler.dump(found)
    return file.getvalue()


def _can_be_pickled(value: Any, known: Mapping[int, tuple[str, str]]) -> bool:
    try:
        return len(_pickled({"": {"": value}}, known)) < _SMALL
    except Exception:
        return False


def _variables(module: str) -> Iterable[tuple[str, Any]]:
    return list(vars(sys.modules[module]).items())


def _is_defined(value: Any, module: str) -> bool:
    """True for a function or class defined in this module."""
    is_definition = isinstance(value, types.FunctionType | type) or is_cached(value)
    return is_definition and getattr(value, "__module__", None) == module


def _is_small(value: Any, depth: int = 4) -> bool:
    """True if the value is small enough to be sent along with a definition that uses it."""
    if isinstance(value, _ALWAYS) or is_cached(value):
        return True
    if type(value) in (str, bytes):
        return len(value) <= _SMALL
    if isinstance(value, np.ndarray | np.generic):
        return value.nbytes <= _SMALL and not value.dtype.hasobject
    if type(value) in (tuple, list, set, frozenset):
        return bool(depth) and len(value) < 1_000 and all(_is_small(part, depth - 1) for part in value)
    if type(value) is dict:
        parts = [*value.keys(), *value.values()] if len(value) < 1_000 else [object()]
        return bool(depth) and all(_is_small(part, depth - 1) for part in parts)
    return type(value).__module__ in ("pathlib", "re", "logging", "builtins", "_operator", "types")
