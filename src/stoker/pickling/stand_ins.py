"""A worker's stand-ins for modules that it cannot import, and for objects that are unique within a process.

Pickles refer to the functions here by name, so reading them needs no other module.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import ctypes
import functools
import gc
import io
import pickle
import sys
import weakref
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any

from stoker.pickling.importable import MAIN

_FILES = io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom
#: Objects that are never destroyed.
_kept: list[Any] = []
#: Objects that are unique within a process, by the mark they were sent with.
_only: dict[str, Any] = {}
NOTHING = "nothing"


class UniqueObjects:
    """The objects of one program that are unique within a process, since pickles refer to them by a mark."""

    def __init__(self) -> None:
        self._only: dict[str, Any] = {}
        self._ids: Any = weakref.WeakKeyDictionary()
        self._classes: Any = weakref.WeakValueDictionary()

    def exchange(self) -> None:
        """Exchange them with those that pickles find in this process. A second call puts both back."""
        global _only
        self._only, _only = _only, self._only
        tables: Any = sys.modules.get("cloudpickle.cloudpickle")
        if tables is not None:  # a class that is sent by value, twice, is one class
            self._ids, tables._DYNAMIC_CLASS_TRACKER_BY_CLASS = tables._DYNAMIC_CLASS_TRACKER_BY_CLASS, self._ids
            self._classes, tables._DYNAMIC_CLASS_TRACKER_BY_ID = tables._DYNAMIC_CLASS_TRACKER_BY_ID, self._classes


class StandIn(ModuleType):
    """Stands for a module that cannot be imported here, with the definitions that were sent.

    Args:
        name: the module's name.
        rest: returns the definitions that did not come with the program, by name. Called when one is requested.
    """

    def __init__(self, name: str, rest: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(name)
        self.__rest = rest

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in (rest := self.__rest()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} in this worker")
        setattr(self, name, rest[name])
        return rest[name]


def stand_ins(names: Collection[str], rest: bytes | memoryview) -> dict[str, ModuleType]:
    """Stand-ins for modules that cannot be imported in this process, by the names under which to install them.

    Args:
        names: names of the modules.
        rest: pickle of the definitions that do not come with the program, by module and name.
    """

    @functools.cache
    def others() -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = pickle.loads(rest)
        return found

    found: dict[str, ModuleType] = {
        name: StandIn(name, lambda name=name: others().get(name, {}))  # type: ignore[misc]
        for name in names
    }
    if MAIN[1] in names:  # multiprocessing started the trainer, where both names are one module
        found[MAIN[0]] = found[MAIN[1]]
    return found


def settle(sent: Mapping[str, Mapping[str, Any]]) -> None:
    """Set the objects that came with the program in the stand-ins. `sent` holds them by module and name."""
    for name, values in sent.items():
        vars(sys.modules[name]).update(values)


def sent(module: str, name: str) -> Any:
    """The object with this name that came with the program."""
    return vars(sys.modules[module])[name]


def cached(mark: str, function: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
    """A function under `functools.lru_cache`, unique in this process however often it is referred to."""
    if mark not in _only:
        _only[mark] = functools.lru_cache(**parameters)(function)
    return _only[mark]


def only(mark: str, kind: type) -> Any:
    """An object that pickles by name, unique in this process."""
    if mark not in _only:
        _only[mark] = object.__new__(kind)
    return _only[mark]


def context_variable(name: str, default: Any) -> contextvars.ContextVar[Any]:
    """A context variable without a value, and with its default if it has one."""
    return contextvars.ContextVar(name) if default == NOTHING else contextvars.ContextVar(name, default=default[0])


def kept(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """An object with a `__del__`. This copy is never destroyed, so it cleans up nothing that the trainer still uses."""
    value = function(*arguments)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
    if not _kept:
        atexit.register(_flush)
    _kept.append(value)
    return value


def _flush() -> None:
    """Flush the files that user code wrote to and that stay open because an object in `_kept` holds them."""
    for value in gc.get_objects():
        if type(value) in _FILES and not value.closed:
            with contextlib.suppress(OSError):
                value.flush()


def manager(kind: Any, address: Any, key: bytes, serializer: str) -> Any:
    """A connection to a multiprocessing manager that runs in another process."""
    value = kind(address, key, serializer)
    value.connect()
    return value


def script_function(saved: bytes) -> Any:
    """A TorchScript function or module."""
    torch: Any = sys.modules.get("torch") or __import__("torch")
    return torch.jit.load(io.BytesIO(saved))


def set_function(function: Any, state: Any) -> None:
    """Set a function's state as cloudpickle does, but keep global variables that are already set."""
    from cloudpickle.cloudpickle import _function_setstate

    names = state[1]["__globals__"]
    for name in [name for name in names if name in function.__globals__]:
        del names[name]
    _function_setstate(function, state)
