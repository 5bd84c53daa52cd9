"""`WorkerError` subclasses that also have the user's exception type, so that `except KeyError` catches a `KeyError`.

They are made only for exception types where this is safe. The text is always Stoker's, however the user's type formats
its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from stoker.errors import StokerError, WorkerError

#: Types that Python itself interprets (the end of an iterator) or prints in its own way.
_PLAIN = StopIteration, StopAsyncIteration, SyntaxError, StokerError
#: Attributes of exceptions written in C, which are not in `vars()`. Copied where present.
_ATTRIBUTES = "errno", "strerror", "filename", "filename2", "encoding", "object", "start", "end", "reason"


def worker_error(message: str, cause: BaseException | None, **known: Any) -> WorkerError:
    """A `WorkerError` that also has the type and the attributes of its cause, where possible.

    Args:
        message: the text.
        cause: the exception that user code raised, if known.
        known: see `WorkerError`.
    """
    try:
        kind = WorkerError if cause is None else _joined(type(cause))
        error = kind(message, **known)
        if kind is not WorkerError:
            attributes = {name: getattr(cause, name) for name in _ATTRIBUTES if hasattr(cause, name)}
            for name, value in {**attributes, **vars(cause)}.items():
                if name not in vars(error) and name != "__notes__":
                    setattr(error, name, value)
    except Exception:  # the user's type refuses subclasses, the message or attributes
        error = WorkerError(message, **known)
    error.__cause__ = cause
    return error


def _made(kind: type[BaseException]) -> type[WorkerError]:
    """The error type that also derives from `kind`, or plain `WorkerError` where that is unsafe."""
    if not issubclass(kind, Exception) or issubclass(kind, _PLAIN) or issubclass(WorkerError, kind):
        return WorkerError
    members = {
        "__module__": WorkerError.__module__,
        "__qualname__": WorkerError.__qualname__,
        "__doc__": WorkerError.__doc__,
        "__str__": BaseException.__str__,  # KeyError's own is a `repr`, OSError's is its errno
        "__repr__": BaseException.__repr__,
        "__reduce__": _reduced,
        "_stoker_joins": kind,
    }
    return type(WorkerError.__name__, (WorkerError, kind), members)


#: One type for each kind, because `except` and pickle compare types.
_joined = cast("Callable[[type[BaseException]], type[WorkerError]]", lru_cache(maxsize=256)(_made))


def _reduced(error: Any) -> Any:
    return _rebuilt, (type(error)._stoker_joins, str(error)), vars(error)


def _rebuilt(kind: type[BaseException], message: str) -> WorkerError:
    return _joined(kind)(message)
