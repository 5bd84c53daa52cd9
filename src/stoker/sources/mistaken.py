"""Recognises objects that are not map-style sources, and names the function that takes them. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any


def mistaken(source: Any) -> str | None:
    """Why `source` cannot be read by index, and what to pass instead; None if it can."""
    kind = type(source).__name__
    if isinstance(source, type):
        return f"the source is the class {source.__name__} itself. Pass an instance, `{source.__name__}(...)`."
    if isinstance(source, set | frozenset | str | bytes):
        return f"a {kind} is not a source of examples. Pass a list of examples, or an object with `__getitem__`."
    return _without_order(source, kind) or _without_methods(source, kind)


def _without_order(source: Any, kind: str) -> str | None:
    """The message for objects whose items go by name, label or column."""
    if isinstance(source, Mapping) and type(source).__module__.partition(".")[0] == "h5py":
        return (
            f"an HDF5 {kind} holds arrays by name. Pass one of them, `file['x']`, or several whose rows belong "
            "together, `stoker.from_arrays(file['x'], file['y'])`."
        )
    if isinstance(source, Mapping):
        return (
            f"a {kind} is not a source of examples: it has keys, but stoker reads by index, 0 … len-1. Pass "
            "`list(source.values())`, or, if its values are arrays with one row per example, "
            "`stoker.from_arrays(source)`."
        )
    if is_table(source):
        return (
            f"a {kind} is read by column, but stoker reads by row. Pass `stoker.from_arrays(source)`, whose examples "
            "are dicts of the columns' values, or an array of its values."
        )
    if hasattr(type(source), "iloc"):
        return (
            f"a {kind} is read by label, but stoker reads by position, 0 … len-1. Pass "
            "`stoker.from_arrays(source)`, or its `to_numpy()`."
        )
    if is_sparse(source):
        return f"a {kind} has no rows that can be read by index. Pass `stoker.from_arrays(source)`."
    return None


def _without_methods(source: Any, kind: str) -> str | None:
    """The message for objects that lack a method of map-style sources."""
    if inspect.isasyncgen(source):
        return f"the source is an async generator, but stoker needs a plain one. {_FUNCTION}"
    if inspect.isroutine(source):
        return f"the source is a function, {source.__name__}. {_FUNCTION}"
    if isinstance(source, Iterator) and not hasattr(type(source), "__getitem__"):
        what = "a generator object" if inspect.isgenerator(source) else f"an iterator, a {kind}"
        return (
            f"the source is {what}: it has no `__len__` and no index, and yields only one epoch. Pass "
            "`stoker.from_iterable(function)`, with a function that creates a new one for each epoch, or, to run it in "
            "the workers, `stoker.from_generator(function, shards)`."
        )
    reads = getattr(type(source), "__getitem__", None)
    lacks = [] if hasattr(type(source), "__len__") else ["`__len__`"]
    lacks += ["`__getitem__`"] if reads is None or is_stub(reads) else []
    if not lacks:
        return None
    missing = f"the source, a {kind}, has no {lacks[0]}"
    if "`__getitem__`" in lacks and hasattr(type(source), "__iter__"):
        return (
            f"the source, a {kind}, is iterable but has no {' and no '.join(lacks)}. Pass "
            "`stoker.from_iterable(source)`, which iterates it in this process and runs the transform in the workers; "
            "or `stoker.from_generator(function, shards)`, whose function yields the examples of one part in a worker; "
            "or, for data in memory, `stoker.from_arrays(...)`."
        )
    if lacks[0] == "`__len__`":
        return f"{missing}. Add one: stoker reads sources by index, 0 … len-1."
    return f"{missing}. Add `__getitem__(self, index)`, which returns one example."


_FUNCTION = (
    "Pass `stoker.from_generator(function, shards)`, which calls the function with a `stoker.Shard` in the workers, or "
    "`stoker.from_iterable(function)`, which calls it in this process."
)


def is_stub(method: Any) -> bool:
    """True if a method only raises NotImplementedError, as in PyTorch's `Dataset`."""
    code = getattr(method, "__code__", None)
    return code is not None and set(code.co_names) == {"NotImplementedError"}


def is_table(value: Any) -> bool:
    """True for tables with named columns: a pandas or Polars DataFrame, or an Arrow table."""
    if hasattr(value, "columns") and hasattr(value, "dtypes"):
        return True
    return hasattr(value, "column") and hasattr(value, "schema") and hasattr(value, "num_rows")


def is_sparse(value: Any) -> bool:
    """True for a SciPy sparse matrix."""
    return hasattr(value, "tocsr") and hasattr(value, "nnz")
