"""An example that is kept while user code runs on does not change: what that code might still write to is copied.

User code may fill one dict, list or array again and again, hand out views of a ring of buffers, or wrap foreign
memory in an array. Where examples have fixed places, each is written to its row at once, and nothing is kept. All
others pass through `Keeper.keep`. It returns an object as it is in two cases only: nobody can write to it (numbers,
strings, arrays over the program's read-only pages), or nobody else refers to it, nor to the memory under it, which
its reference count proves. Anything else is copied.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import types
from collections.abc import Callable, Iterable
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount

import numpy as np

from stoker.memory import is_bundled
from stoker.sources.marks import SKIP, Many

#: Smaller arrays are copied: that costs less than to find out whether it is needed.
_SMALL = 4096
_FROZEN = frozenset(
    [
        *(type(SKIP), object, str, bytes, bool, int, float, complex, type(None), type(Ellipsis), range, type),
        *(types.FunctionType, types.BuiltinFunctionType, types.ModuleType),
        *(np.dtype(code).type for code in "?bhilqBHILQefdgFDGSUmM"),  # NumPy's scalars, but for np.void
    ]
)
#: Types of other libraries whose objects nobody can write to, by the module that they come from.
_FROZEN_ELSEWHERE = {"tensorflow": {"EagerTensor", "RaggedTensor", "SparseTensor"}, "jaxlib": {"ArrayImpl"}}


class Keeper:
    """Keeps examples.

    Args:
        shared: objects that are the program's own, such as the source: they are kept as they are.
    """

    def __init__(self, shared: Iterable[object] = ()) -> None:
        self._memo = {id(one): one for one in shared if one is not None}

    def keep(self, example: Any) -> Any:
        """The example, or a copy of what may still be written to.

        Call it with the result of a call, `keep(read(index))`: a variable would count as somebody who refers to it.
        """
        holder = (example,)
        del example
        for one in holder:
            return self._part(one, True)

    def _part(self, value: Any, ours: bool) -> Any:
        """A part of an example. `ours`: nobody else refers to the container that it stands in."""
        kind = type(value)
        if kind in _FROZEN:
            return value
        ours = ours and getrefcount(value) <= _counts.part and not (kind is np.ndarray and getweakrefcount(value))
        if kind is np.ndarray:
            return value if _is_safe(value, ours) else self._copied_array(value)
        if kind is tuple:
            parts = [self._part(part, ours) for part in value]
            return value if _same(parts, value) else tuple(parts)
        if kind is dict:
            named = {key: self._part(part, ours) for key, part in value.items()}
            return value if ours and _same(named.values(), value.values()) else named
        if kind is list:
            parts = [self._part(part, ours) for part in value]
            return value if ours and _same(parts, value) else parts
        return self._other(value, ours)

    def _other(self, value: Any, ours: bool) -> Any:
        """A rarer object."""
        kind = type(value)
        if kind is Many:
            return Many(self._part(value.examples, False)) if isinstance(value.examples, list | tuple) else value
        if isinstance(value, enum.Enum | str | bytes | int | float | complex) or _is_frozen_elsewhere(kind):
            return value
        if isinstance(value, np.generic) and not isinstance(value, np.void):  # of other libraries' dtypes
            return value
        if isinstance(value, tuple) and hasattr(kind, "_make"):
            parts = [self._part(part, ours) for part in value]
            return value if _same(parts, value) else kind._make(parts)
        if dataclasses.is_dataclass(kind):
            return self._dataclass(value, ours)
        if isinstance(value, np.ndarray):
            return self._copied_array(value)
        home = kind.__module__.partition(".")[0]
        if home == "torch" and hasattr(value, "detach"):
            return value.detach().clone()
        if home == "PIL" and hasattr(value, "copy"):
            return value.copy()
        try:
            return copy.deepcopy(value, dict(self._memo))
        except Exception:  # an open file, a connection: there is one of it, and whoever made it knows that
            return value

    def _dataclass(self, value: Any, ours: bool) -> Any:
        names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        old = [getattr(value, name) for name in names]
        new = [self._part(part, False) for part in old]
        if ours and _same(new, old):
            return value
        copied = copy.copy(value)
        for name, part in zip(names, new, strict=True):
            object.__setattr__(copied, name, part)  # it may be frozen
        return copied

    def _copied_array(self, array: Any) -> Any:
        """Its own memory; of an array of objects, the objects too."""
        copied = array.copy()
        if copied.dtype == object:
            flat = copied.reshape(-1)
            for place, part in enumerate(flat.tolist()):
                flat[place] = self._part(part, False)
        elif copied.dtype.hasobject:
            return copy.deepcopy(array, dict(self._memo))
        return copied


def _same(parts: Iterable[Any], others: Iterable[Any]) -> bool:
    return all(part is other for part, other in zip(parts, others, strict=True))


def _is_frozen_elsewhere(kind: type) -> bool:
    return kind.__name__ in _FROZEN_ELSEWHERE.get(kind.__module__.partition(".")[0], ())


def _is_safe(array: Any, ours: bool) -> bool:
    """Whether nobody can write to an array's memory; `ours`: nobody else refers to the array itself."""
    if array.nbytes < _SMALL or array.dtype.hasobject:
        return False
    if array.flags.owndata:
        return ours
    base = array.base
    if type(base) is np.ndarray and base.flags.owndata:
        return ours and getrefcount(base) <= _counts.base and not getweakrefcount(base)
    return not array.flags.writeable and is_bundled(array)


@dataclasses.dataclass
class _Counts:
    """Reference counts of what nobody else refers to, where `Keeper` looks at them.

    They differ between versions of Python, so they are measured. 0 means that they prove nothing.
    """

    part: int = 0
    base: int = 0


_counts = _Counts()


def _measure() -> None:
    """Find the least counts with which fresh arrays are kept as they are, and make sure that shared ones are not."""
    keep, held = Keeper().keep, list[Any]()

    def array() -> Any:
        return np.empty(_SMALL, np.uint8)

    def shared() -> Any:
        held.append(array())
        return held[-1]

    def is_kept(make: Callable[[], Any]) -> bool:
        made = list[int]()

        def fresh() -> Any:
            array = make()
            made.append(id(array))
            return array, 0

        return id(keep(fresh())[0]) == made[0]

    def trust(name: str, own: Callable[[], Any], others: Callable[[], Any]) -> None:
        for count in range(1, 12):
            setattr(_counts, name, count)
            if is_kept(own):
                break
        if is_kept(others) or not is_kept(own):
            setattr(_counts, name, 0)

    trust("part", array, shared)
    trust("base", lambda: array()[:], lambda: shared()[:])


_measure()
