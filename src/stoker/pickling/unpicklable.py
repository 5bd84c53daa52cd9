"""Finds the part of an object that cannot be pickled, by a walk through attributes, items and closures."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

from stoker.errors import summary
from stoker.pickling.importable import ImportableModules
from stoker.pickling.pickler import dumps

_DEPTH = 12
#: Part of the error that a Loader raises when pickled.
_LOADER = "create the Loader there"


def refusal(roots: dict[str, Any], error: Exception) -> str:
    """The message: which part cannot be sent, why, and what to do. `error` comes from pickling the whole."""
    try:
        path, reason = culprit(roots, error)
    except Exception:  # a user attribute raised when read: report what is known
        path, reason = "source or transform", summary(error)
    return f"{path} cannot be sent to a worker process: {reason.rstrip('.')}. {_repair(reason)}"


def _repair(reason: str) -> str:
    if "through inheritance" in reason or "mmap.mmap" in reason:
        return (
            "Workers are not started by multiprocessing, so they do not inherit its objects. If your code needs the "
            "epoch, read `stoker.current().epoch`; to share a value, send a proxy of a `multiprocessing.Manager()` "
            "(`manager.Value`, `manager.dict`, `manager.Lock`, `manager.Queue`) or a "
            "`multiprocessing.shared_memory.SharedMemory`. `workers=0` runs without sending anything."
        )
    if _LOADER in reason:
        return "`workers=0` runs without sending anything."
    return (
        "Open it inside `__getitem__` on first use, or drop it in `__getstate__`; `workers=0` runs without sending "
        "anything."
    )


def culprit(roots: dict[str, Any], error: Exception) -> tuple[str, str]:
    """The path of the deepest part that cannot be pickled, and why. `error` comes from pickling the whole."""
    for name, root in roots.items():
        reason = _reason(root)
        if reason is not None:
            return _descend(name, root, reason, {id(root)}, _DEPTH)
    return " or ".join(roots), summary(error)


def _descend(path: str, value: Any, reason: str, seen: set[int], depth: int) -> tuple[str, str]:
    whole = not depth or type(value).__module__.startswith(("multiprocessing.", "stoker.loader", "stoker.feed."))
    for step, part in () if whole else _parts(value):
        if id(part) in seen:
            continue
        seen.add(id(part))
        why = _reason(part)
        if why is not None:
            return _descend(path + step, part, why, seen, depth - 1)
    return f"{path} (a {type(value).__name__})", reason


def _reason(value: Any) -> str | None:
    """Why `value` cannot be pickled, or None if it can."""
    try:
        dumps(value, lambda _: None)
    except Exception as error:  # any exception from a user's __reduce__ is a reason
        return summary(error)
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of `value`, each with the path step that leads to it."""
    if isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif isinstance(value, types.FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a variable not assigned yet
                yield f".<closure>.{name}", cell.cell_contents
        for name in value.__code__.co_names:
            if name in value.__globals__:
                yield f".<global>.{name}", value.__globals__[name]
    elif isinstance(value, dict):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    if not isinstance(value, type | types.FunctionType | types.MethodType | types.ModuleType):
        yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())
        if not ImportableModules().is_importable(type(value).__module__):  # its methods travel by value
            yield from ((f".{name}", part) for name, part in vars(type(value)).items() if callable(part))
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name):
                    yield f".{name}", getattr(value, name)
