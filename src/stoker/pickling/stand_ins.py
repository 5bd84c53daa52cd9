"""In a worker: what stands for modules that it cannot import, and for objects that there is one of in a process.

Pickles name the functions here, so that whoever reads them needs nothing else.
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
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any

from stoker.pickling.importable import MAIN

_FILES = io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom
#: Objects that are not destroyed.
_kept: list[Any] = []
#: Objects that there is one of in a process, by the mark that they travel under.
_only: dict[str, Any] = {}
NOTHING = "nothing"


class StandIn(ModuleType):
    """Has the name of a module that cannot be imported here, and what was sent of it.

    Args:
        name: the module's.
        rest: makes the definitions that did not come with the program, by name; called when one is asked for.
    """

    def __init__(self, name: str, rest: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(name)
        self.__rest = rest

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in (rest := self.__rest()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} in this worker")
        setattr(self, name, rest[name])
        return rest[name]


def stand_in(names: Collection[str], rest: bytes | memoryview) -> None:
    """Let modules that cannot be imported be found in this process.

    Args:
        names: theirs.
        rest: pickle of the definitions that do not come with the program, by module and name.
    """

    @functools.cache
    def others() -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = pickle.loads(rest)
        return found

    for name in names:
        sys.modules[name] = StandIn(name, lambda name=name: others().get(name, {}))  # type: ignore[misc]
    if MAIN[1] in names:  # multiprocessing has started the trainer: there both are one module
        sys.modules[MAIN[0]] = sys.modules[MAIN[1]]


def settle(sent: Mapping[str, Mapping[str, Any]]) -> None:
    """What came with the program has a name in these modules; by module and name."""
    for name, values in sent.items():
        vars(sys.modules[name]).update(values)


def sent(module: str, name: str) -> Any:
    """What came with the program."""
    return vars(sys.modules[module])[name]


def cached(mark: str, function: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
    """A function under `functools.lru_cache`: one in this process, wherever it is referred to."""
    if mark not in _only:
        _only[mark] = functools.lru_cache(**parameters)(function)
    return _only[mark]


def only(mark: str, kind: type) -> Any:
    """An object that its pickle knows by a name: one in this process."""
    if mark not in _only:
        _only[mark] = object.__new__(kind)
    return _only[mark]


def context_variable(name: str, default: Any) -> contextvars.ContextVar[Any]:
    """A variable without a value, and with its default if it has one."""
    return contextvars.ContextVar(name) if default == NOTHING else contextvars.ContextVar(name, default=default[0])


def kept(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """An object with a `__del__`: this copy of it is never destroyed, so it cleans up nothing that is the trainer's."""
    value = function(*arguments)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
    if not _kept:
        atexit.register(_flush)
    _kept.append(value)
    return value


def _flush() -> None:
    """Write out what user code has written to files that nobody closes, for an object above holds them."""
    for value in gc.get_objects():
        if type(value) in _FILES and not value.closed:
            with contextlib.suppress(OSError):
                value.flush()


def manager(kind: Any, address: Any, key: bytes, serializer: str) -> Any:
    """A connection to a manager of multiprocessing that runs elsewhere."""
    value = kind(address, key, serializer)
    value.connect()
    return value


def script_function(saved: bytes) -> Any:
    """A function or module of TorchScript."""
    torch: Any = sys.modules.get("torch") or __import__("torch")
    return torch.jit.load(io.BytesIO(saved))


def set_function(function: Any, state: Any) -> None:
    """The state of a function, as cloudpickle has it, but for global variables that are set already."""
    from cloudpickle.cloudpickle import _function_setstate

    names = state[1]["__globals__"]
    for name in [name for name in names if name in function.__globals__]:
        del names[name]
    _function_setstate(function, state)
