"""Return values of a transform that stand for no example, or for several: `SKIP` and `Many`."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable
from typing import Any, Final


class _Skip:
    """The type of `SKIP`, which is a singleton in every process."""

    def __repr__(self) -> str:
        return "stoker.SKIP"

    def __reduce__(self) -> str:
        return "SKIP"


#: Return it from a transform to leave the example out. Batches stay full; the cardinality becomes unknown.
SKIP: Final = _Skip()


class Many:
    """Return it from a transform to replace one example by several, in this order.

    Args:
        examples: a list, or a generator. Up to 1,024 examples or 16 MiB of what is left of a generator are made
            before the transform is called again. The rest of a longer one is made as batches need it, so it must
            not read data that other calls of the transform write.

    Example:
        >>> import stoker
        >>> halves = lambda pair: stoker.Many(pair) if pair[0] else stoker.SKIP
        >>> with stoker.Loader([(1, 2), (0, 9), (3, 4)], batch_size=3, transform=halves, workers=0) as loader:
        ...     [batch.tolist() for batch in loader]
        [[1, 2, 3], [4]]
    """

    def __init__(self, examples: Iterable[Any]) -> None:
        if not isinstance(examples, Iterable):
            raise TypeError(f"stoker.Many takes a list or a generator of examples, got a {type(examples).__name__}")
        self.examples = examples


def mentions_marks(code: Any) -> bool:
    """True if `code` (a function or an object with methods) visibly refers to `SKIP` or `Many`.

    Looks up the names that its functions use and, recursively, those of the functions they call.
    """
    return _mentions(code, set())


def _mentions(value: Any, seen: set[int]) -> bool:
    if value is SKIP or value is Many:
        return True
    if id(value) in seen or len(seen) > 1000:
        return False
    seen.add(id(value))
    if isinstance(value, functools.partial):
        return any(_mentions(part, seen) for part in (value.func, *value.args, *value.keywords.values()))
    if isinstance(value, types.MethodType):
        return _mentions(value.__func__, seen) or _mentions_parts(value.__self__, seen)
    if isinstance(value, types.FunctionType):
        names = _names(value.__code__)
        if names & {"SKIP", "Many"}:
            return True
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_set(cell)]
        used = [value.__globals__[name] for name in names if name in value.__globals__]
        wrapped = [value.__wrapped__] if hasattr(value, "__wrapped__") else []
        return any(
            _mentions(part, seen) for part in (*cells, *used, *wrapped) if not isinstance(part, types.ModuleType)
        )
    return _mentions_parts(value, seen)


def _mentions_parts(value: Any, seen: set[int]) -> bool:
    """Search the methods of an object's class (or of a class), and the functions it holds."""
    kind = value if isinstance(value, type) else type(value)
    if kind.__module__ in ("builtins", "numpy"):
        return False
    parts = [part for base in kind.__mro__ for part in vars(base).values() if isinstance(part, types.FunctionType)]
    parts += [part for part in getattr(value, "__dict__", {}).values() if callable(part) and not isinstance(part, type)]
    return any(_mentions(part, seen) for part in parts)


def _names(code: types.CodeType) -> set[str]:
    """All names that a function uses, including those of nested functions."""
    inner = (_names(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return set(code.co_names).union(*inner)


def _is_set(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a variable that is not assigned yet
        return False
