"""cloudpickle, extended for objects that pickle by a name which a worker does not know."""

from __future__ import annotations

import contextvars
import functools
import gc
import importlib
import io
import pickle
import sys
import threading
import types
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle
import numpy as np

from stoker.pickling import stand_ins as arrival
from stoker.pickling.importable import MAIN, ImportableModules
from stoker.pickling.tensors import dispatch_table

_CACHED = type(functools.lru_cache(len))
_LOCKS = type(threading.Lock()), type(threading.RLock())
#: Common types that need no special treatment.
_PLAIN = np.ndarray, np.dtype, types.BuiltinFunctionType, pickle.PickleBuffer
#: Marks of objects that must stay unique within a process.
_marks: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

#: Modules registered with cloudpickle for pickling by value, and how many picklers need each now.
_given: Counter[str] = Counter()
_giving = threading.Lock()


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """A pickler for a fresh interpreter. Use it within `by_value`.

    Attributes:
        sent: named objects pickled by value (functions, classes, sentinels), by id.
        modules: names of the modules seen, and whether each travels by value.
        imported: the modules that unpickling imports, as keys.
    """

    def __init__(
        self, file: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None, *, keeps: bool = False
    ) -> None:
        self.dispatch_table = dispatch_table(cloudpickle.Pickler.dispatch_table)
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.sent: dict[int, Any] = {}
        self.modules: dict[str, bool] = {}
        self.imported: dict[str, None] = {}
        self._keeps, self._loaded = keeps, ImportableModules()
        self._fresh: dict[int, Any] = {}
        self._reducers: dict[type, Callable[[Any], Any] | None] = dict.fromkeys(_PLAIN)

    @contextmanager
    def by_value(self) -> Iterator[None]:
        """A scope for pickling: modules registered with cloudpickle within it are unregistered on exit."""
        try:
            yield
        finally:
            with _giving:
                for name, travels in self.modules.items():
                    if travels and name not in MAIN[:1]:
                        self._take_back(name)

    def reducer_override(self, value: Any) -> Any:
        """Overrides `pickle.Pickler.reducer_override`."""
        kind = type(value)
        if kind is types.FunctionType or issubclass(kind, type):
            self.travels(getattr(value, "__module__", None))
            reduced = super().reducer_override(value)
            if reduced is not NotImplemented:
                self.sent[id(value)] = value
            elif isinstance(value.__module__, str):
                self.imported[value.__module__] = None
            return reduced
        if kind not in self._reducers:
            self._reducers[kind] = self._reducer(kind)
        reduce = self._reducers[kind]
        return NotImplemented if reduce is None else reduce(value)

    def travels(self, module: Any) -> bool:
        """True if definitions of this module travel by value."""
        if not isinstance(module, str):
            return True
        found = self.modules.get(module)
        if found is None:
            found = self.modules[module] = module in sys.modules and not self._loaded.is_importable(module)
            if found and module not in MAIN[:1]:
                self._give(module)
        return found

    def _dynamic_function_reduce(self, func: Any) -> Any:
        """Reduce a function. Locks among its globals become new, unlocked ones in the worker."""
        make, arguments, state, *_ = super()._dynamic_function_reduce(func)
        for value in state[1]["__globals__"].values():
            if isinstance(value, _LOCKS):
                self._fresh[id(value)] = value
        return make, arguments, state, None, None, arrival.set_function

    # ── cloudpickle's list of modules ────────────────────────────────────────────────────────
    @staticmethod
    def _give(name: str) -> None:
        with _giving:
            if not _given[name] and name in cloudpickle.list_registry_pickle_by_value():
                return  # registered by the user, who may unregister it
            _given[name] += 1
            module = sys.modules.get(name)
            if _given[name] == 1 and module is not None and module.__name__ == name:
                cloudpickle.register_pickle_by_value(module)

    @staticmethod
    def _take_back(name: str) -> None:
        if not _given[name]:
            return
        _given[name] -= 1
        module = sys.modules.get(name)
        if not _given[name] and module is not None and name in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.unregister_pickle_by_value(module)

    # ── objects that pickle by name, or not at all ───────────────────────────────────────────
    def _reducer(self, kind: type) -> Callable[[Any], Any] | None:
        """The reducer for objects of this type; None for cloudpickle's default."""
        if (reduce := self._by_type().get(threading.local if issubclass(kind, threading.local) else kind)) is not None:
            return reduce
        if kind in self.dispatch_table:
            return None
        names = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
        for name, reduce in _BY_NAME.items():
            if name in names:
                return reduce
        if self.travels(kind.__module__) and getattr(kind, "__reduce__", None) is not object.__reduce__:
            return self._named
        if self._keeps and isinstance(getattr(kind, "__del__", None), types.FunctionType):
            return _kept
        return None

    def _by_type(self) -> dict[Any, Callable[[Any], Any]]:
        return {
            _CACHED: self._cached,
            types.ModuleType: self._module,
            _LOCKS[0]: self._lock,
            _LOCKS[1]: self._lock,
            threading.local: lambda value: (type(value), ()),
            functools.cached_property: _cached_property,
            contextvars.ContextVar: _context_variable,
            weakref.WeakKeyDictionary: _weak_dictionary,
            weakref.WeakValueDictionary: _weak_dictionary,
            np.ufunc: _ufunc,
        }

    def _cached(self, value: Any) -> Any:
        if not self.travels(value.__module__) and _by_name(value) is value:
            return NotImplemented
        self.sent[id(value)] = value
        state = {name: part for name, part in vars(value).items() if name != "__wrapped__"}
        return arrival.cached, (_mark(value), value.__wrapped__, value.cache_parameters()), state

    def _module(self, value: Any) -> Any:
        if self.travels(value.__name__) and value.__name__ in MAIN:
            return importlib.import_module, (value.__name__,)
        self.imported[value.__name__] = None
        return NotImplemented

    def _lock(self, value: Any) -> Any:
        make = threading.RLock if isinstance(value, _LOCKS[1]) else threading.Lock
        return (make, ()) if id(value) in self._fresh else NotImplemented

    def _named(self, value: Any) -> Any:
        """Reduce an object whose `__reduce__` may return the name of a global variable, such as a sentinel."""
        reduced = value.__reduce_ex__(5)
        if not isinstance(reduced, str):
            return reduced
        self.sent[id(value)] = value
        return arrival.only, (_mark(value), type(value)), getattr(value, "__dict__", None) or None


def dumps(value: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """Pickle `value` for a fresh interpreter. Raises whatever pickling raises."""
    file = io.BytesIO()
    pickler = Pickler(file, buffer_callback)
    with pickler.by_value():
        pickler.dump(value)
    return file.getvalue()


def is_cached(value: Any) -> bool:
    """True for a function wrapped by `functools.lru_cache` or `functools.cache`."""
    return isinstance(value, _CACHED)


def _mark(value: Any) -> str:
    try:
        return _marks.setdefault(value, uuid.uuid4().hex)
    except TypeError:  # no weak references, or no hash: it lives as long as its module
        return f"{type(value).__module__}.{type(value).__qualname__} {id(value)}"


def _by_name(value: Any) -> Any:
    """The object found under the module and qualified name of `value`, or None."""
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found


def _kept(value: Any) -> Any:
    reduced = value.__reduce_ex__(5)
    return reduced if isinstance(reduced, str) else (arrival.kept, tuple(reduced[:2]), *reduced[2:])


def _cached_property(value: Any) -> Any:
    return functools.cached_property, (value.func,), {"attrname": value.attrname, "__doc__": value.__doc__}


def _context_variable(value: contextvars.ContextVar[Any]) -> Any:
    try:
        default: Any = (contextvars.Context().run(value.get),)
    except LookupError:
        default = arrival.NOTHING
    return arrival.context_variable, (value.name, default)


def _weak_dictionary(value: Any) -> Any:
    return type(value), (), None, None, iter(list(value.items()))


def _ufunc(value: Any) -> Any:
    """Reduce a ufunc made by `np.frompyfunc`, perhaps through `np.vectorize`. NumPy's own pickle by name."""
    made_of = [part for part in gc.get_referents(value) if callable(part)]
    if not value.__name__.endswith("(vectorized)") or len(made_of) != 1:
        return NotImplemented
    make = np.frompyfunc if value.identity is None else functools.partial(np.frompyfunc, identity=value.identity)
    return make, (made_of[0], value.nin, value.nout)


# ── by type name: types that are not imported here ───────────────────────────────────────────
def _connection(value: Any) -> Any:
    raise TypeError(
        f"{type(value).__name__} objects should only be shared between processes through inheritance: another "
        "process has no such descriptor"
    )


def _key(value: Any) -> Any:
    return type(value), (bytes(value),)


def _manager(value: Any) -> Any:
    return arrival.manager, (type(value), value._address, bytes(value._authkey), value._serializer)


def _script_function(value: Any) -> Any:
    file = io.BytesIO()
    sys.modules["torch"].jit.save(value, file)
    return arrival.script_function, (file.getvalue(),)


_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "multiprocessing.connection._ConnectionBase": _connection,
    "multiprocessing.process.AuthenticationString": _key,
    "multiprocessing.managers.BaseManager": _manager,
    "torch.jit.torch.jit.ScriptFunction": _script_function,
    "torch.jit._script.RecursiveScriptModule": _script_function,
}
