"""Errors that are a `WorkerError` and of the user's own type as well, so that `except KeyError` finds a `KeyError`.

They are made of exceptions for which that is safe. Their text is ours, whatever the user's type makes of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from stoker.errors import StokerError, WorkerError

#: Types that mean something to Python itself (an iterator's end), or that Python prints in a way of its own.
_PLAIN = StopIteration, StopAsyncIteration, SyntaxError, StokerError
#: What exceptions written in C tell, where they have it.
_ATTRIBUTES = "errno", "strerror", "filename", "filename2", "encoding", "object", "start", "end", "reason"


def worker_error(message: str, cause: BaseException | None, **known: Any) -> WorkerError:
    """A `WorkerError` that is also of the type of its cause, and has its attributes, where that can be.

    Args:
        message: the text.
        cause: what the user's code raised, if it is known.
        known: see `WorkerError`.
    """
    try:
        kind = WorkerError if cause is None else _joined(type(cause))
        error = kind(message, **known)
        if kind is not WorkerError:
            told = {name: getattr(cause, name) for name in _ATTRIBUTES if hasattr(cause, name)}
            for name, value in {**told, **vars(cause)}.items():
                if name not in vars(error) and name != "__notes__":
                    setattr(error, name, value)
    except Exception:  # the user's type takes no subclass, no message, or no attributes
        error = WorkerError(message, **known)
    error.__cause__ = cause
    return error


def _made(kind: type[BaseException]) -> type[WorkerError]:
    """The type of errors that are also of this kind."""
    if not issubclass(kind, Exception) or issubclass(kind, _PLAIN) or issubclass(WorkerError, kind):
        return WorkerError
    told = {
        "__module__": WorkerError.__module__,
        "__qualname__": WorkerError.__qualname__,
        "__doc__": WorkerError.__doc__,
        "__str__": BaseException.__str__,  # that of KeyError is a `repr`, that of OSError is its errno
        "__repr__": BaseException.__repr__,
        "__reduce__": _reduced,
        "_stoker_joins": kind,
    }
    return type(WorkerError.__name__, (WorkerError, kind), told)


#: Of each kind there is one: `except` and pickle compare types.
_joined = cast("Callable[[type[BaseException]], type[WorkerError]]", lru_cache(maxsize=256)(_made))


def _reduced(error: Any) -> Any:
    return _rebuilt, (type(error)._stoker_joins, str(error)), vars(error)


def _rebuilt(kind: type[BaseException], message: str) -> WorkerError:
    return _joined(kind)(message)
