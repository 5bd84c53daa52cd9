"""Protects stored examples: whatever user code might still write to is copied.

User code may reuse one dict, list or array, return views of a ring of buffers, or wrap foreign memory in an array.
Where examples have fixed places, each is written to its row immediately and nothing is stored. All other examples
pass through `Keeper.keep`. It returns an object unchanged in only two cases:

- The object is immutable: numbers, strings, arrays over the program's read-only pages.
- Its reference count proves that there is no other reference to the object or to the memory under it.

Anything else is copied.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import types
from collections import UserList, deque
from collections.abc import Callable, Iterable, MutableMapping
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount

import numpy as np
from numpy import ndarray

from stoker.memory.bundle import is_bundled
from stoker.sources.markers import SKIP, Many

#: Arrays smaller than this are always copied: that is cheaper than checking whether a copy is needed.
_SMALL = 4096
_FROZEN = frozenset(
    [
        *(type(SKIP), object, str, bytes, bool, int, float, complex, type(None), type(Ellipsis), range, type),
        *(types.FunctionType, types.BuiltinFunctionType, types.ModuleType),
        *(np.dtype(code).type for code in "?bhilqBHILQefdgFDGSUmM"),  # NumPy's scalars, except np.void
    ]
)
#: Immutable types of other libraries, by top-level module.
_FROZEN_ELSEWHERE = {"tensorflow": {"EagerTensor", "RaggedTensor", "SparseTensor"}, "jaxlib": {"ArrayImpl"}}


class Keeper:
    """Makes examples safe to store while user code continues.

    Args:
        shared: objects owned by the program, such as the source. They are never copied.
    """

    def __init__(self, shared: Iterable[object] = ()) -> None:
        self._memo = {id(one): one for one in shared if one is not None}

    def keep(self, example: Any) -> Any:
        """The example, with copies of all parts that may still be written to.

        Pass the result of a call directly, as in `keep(read(index))`: a variable would be one more reference.
        """
        if type(example) is dict:  # of numbers, strings and small arrays: by far the most common
            named = {}
            for key in example:
                part = example[key]
                kind = type(part)
                if kind in _FROZEN:
                    named[key] = part
                elif kind is ndarray and part.nbytes < _SMALL and not part.dtype.hasobject:
                    named[key] = part.copy()
                else:
                    break
            else:
                return named
            part = None  # it would be one more reference
        try:
            return self._kept(example, _counts.whole)
        except RecursionError:  # it contains itself: it cannot be batched, but a collate function may accept it
            return copy.deepcopy(example, dict(self._memo))

    def _kept(self, value: Any, most: int) -> Any:
        """Like `keep`, for an example or a part of one.

        `most` is the value's reference count if there are no other references; 0 if there may be others.
        """
        kind = type(value)
        if kind is ndarray:
            if value.nbytes < _SMALL and not value.dtype.hasobject:
                return value.copy()
            return value if getrefcount(value) <= most and _is_safe(value) else self._copied(value)
        if kind is tuple:
            inner = _counts.part if getrefcount(value) <= most else 0
            return tuple([part if type(part) in _FROZEN else self._kept(part, inner) for part in value])
        if kind is dict:
            inner, named = _counts.part if getrefcount(value) <= most else 0, {}
            for key in value:  # items() would add a reference to the values
                part = value[key]
                named[key] = part if type(part) in _FROZEN else self._kept(part, inner)
            return named
        if kind in _FROZEN:
            return value
        if kind is list:
            inner = _counts.part if getrefcount(value) <= most else 0
            return [part if type(part) in _FROZEN else self._kept(part, inner) for part in value]
        return self._other(value)

    def _other(self, value: Any) -> Any:
        """Like `_kept`, for less common types. The value may have other references."""
        kind = type(value)
        home = kind.__module__.partition(".")[0]
        if isinstance(value, enum.Enum | str | bytes | int | float | complex) or _is_frozen(kind, home):
            return value
        if kind is Many:
            return Many(self._kept(value.examples, 0)) if isinstance(value.examples, list | tuple) else value
        if isinstance(value, np.ndarray):
            return self._copied(value)
        if kind is memoryview:
            return np.array(value)
        if isinstance(value, tuple):  # not through its own `__new__`, whose arguments may differ
            parts = [self._kept(part, 0) for part in value]
            try:
                return tuple.__new__(kind, parts)
            except TypeError:  # a type defined in C, such as time.struct_time, that holds numbers
                return value
        if dataclasses.is_dataclass(kind):
            return self._dataclass(value)
        if home == "torch" and hasattr(value, "detach"):
            return value.detach().clone()
        if home == "PIL" and hasattr(value, "copy"):
            return value.copy()
        try:
            if isinstance(value, MutableMapping):
                return self._refilled(copy.copy(value), list(value))
            if isinstance(value, list | UserList | deque):
                return self._refilled(copy.copy(value), range(len(value)))
            return copy.deepcopy(value, dict(self._memo))
        except Exception:  # an open file or connection: it cannot be copied, and its maker knows that
            return value

    def _refilled(self, copied: Any, keys: Iterable[Any]) -> Any:
        """Replace the parts of a copied container by safe ones."""
        for key in keys:
            copied[key] = self._kept(copied[key], 0)
        return copied

    def _dataclass(self, value: Any) -> Any:
        copied = copy.copy(value)
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                part = self._kept(getattr(value, field.name), 0)
                object.__setattr__(copied, field.name, part)  # the dataclass may be frozen
        return copied

    def _copied(self, array: Any) -> Any:
        """Copy an array into memory of its own; for an array of objects, copy the objects too."""
        if array.dtype == object:
            copied = array.copy()
            flat = copied.reshape(-1)
            for place, part in enumerate(flat.tolist()):
                flat[place] = self._kept(part, 0)
            return copied
        return copy.deepcopy(array, dict(self._memo)) if array.dtype.hasobject else array.copy()


def _is_frozen(kind: type, home: str) -> bool:
    """True if objects of this type, defined in the module `home`, are immutable."""
    is_scalar = issubclass(kind, np.generic) and not issubclass(kind, np.void)  # ml_dtypes, for example
    return is_scalar or kind.__name__ in _FROZEN_ELSEWHERE.get(home, ())


def _is_safe(array: Any) -> bool:
    """True if the memory of an array without other references cannot be written to by other code."""
    if array.dtype.hasobject or getweakrefcount(array):
        return False
    if array.flags.owndata:
        return True
    base = array.base
    if type(base) is np.ndarray and base.flags.owndata:
        return getrefcount(base) <= _counts.base and not getweakrefcount(base)
    return not array.flags.writeable and is_bundled(array)


@dataclasses.dataclass
class _Counts:
    """Reference counts, as `Keeper` sees them, of objects without other references.

    They differ between Python versions, so they are measured. 0 means that the count proves nothing.

    Attributes:
        whole: count of an example.
        part: count of a part of an example.
        base: count of the array under a view.
    """

    whole: int = 0
    part: int = 0
    base: int = 0

    def measure(self) -> None:
        """Find the smallest counts at which fresh arrays are not copied and shared ones are."""
        keep, held = Keeper().keep, list[Any]()

        def array() -> Any:
            return np.empty(_SMALL, np.uint8)

        def shared() -> Any:
            held.append(array())
            return held[-1]

        def is_kept(make: Callable[[], Any], wrap: Callable[[Any], Any]) -> bool:
            made = list[int]()

            def fresh() -> Any:
                array = make()
                made.append(id(array))
                return wrap(array)

            kept = keep(fresh())
            return id(kept if isinstance(kept, np.ndarray) else kept["a"]) == made[0]

        def find(name: str, own: Callable[[], Any], others: Callable[[], Any], wrap: Callable[[Any], Any]) -> None:
            for count in range(1, 12):
                setattr(self, name, count)
                if is_kept(own, wrap):
                    break
            if is_kept(others, wrap) or not is_kept(own, wrap):
                setattr(self, name, 0)

        find("whole", array, shared, lambda made: made)
        find("part", array, shared, lambda made: {"a": made})
        find("base", lambda: array()[:], lambda: shared()[:], lambda made: made)


_counts = _Counts()
_counts.measure()
