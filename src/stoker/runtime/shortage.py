"""Errors for memory, or descriptors of it, that the system refuses."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from stoker.errors import StokerError

_FORBIDDEN = "memfd_create is not allowed here, perhaps by a sandbox (seccomp): allow it, since shared memory needs it"
#: For each error number: the limit that was hit, what it limits, and the command that sets it.
_LIMITS = {
    errno.ENOMEM: ("RLIMIT_AS", "the limit on the address space of a process, in bytes", "ulimit -v"),
    errno.EFBIG: ("RLIMIT_FSIZE", "the limit on the size of a file (also of shared memory), in bytes", "ulimit -f"),
    errno.EMFILE: ("RLIMIT_NOFILE", "the limit on the open files of a process", "ulimit -n"),
}


@contextmanager
def wanted(what: str, nbytes: int = 0) -> Iterator[None]:
    """Turn an OSError of the block into a `StokerError` that names what was wanted and the limit that was hit."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # raised by a signal handler, perhaps a TimeoutError
            raise
        size = f" ({nbytes:,} bytes)" if nbytes else ""
        raise _refused(f"{what}{size}", error) from error


def refusal(what: str, error: OSError) -> StokerError | None:
    """The error for `what` if the system refused it for a limit, else None."""
    if error.errno not in _LIMITS:
        return None
    refused = _refused(what, error)
    refused.__cause__ = error
    return refused


def _refused(what: str, error: OSError) -> StokerError:
    return StokerError(f"{what} could not be allocated: {error.strerror}. {_why(error.errno)}")


def _why(number: int | None) -> str:
    if number in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        return f"{_FORBIDDEN}."
    if number not in _LIMITS:
        return "Free some memory, or use a smaller batch_size, prefetch or memory_limit."
    name, what, tool = _LIMITS[number]
    most, _ = resource.getrlimit(getattr(resource, name))
    if most == resource.RLIM_INFINITY:
        return "The system has no more. Use fewer workers, or a smaller batch_size or prefetch."
    return f"{name}, {what}, is {most:,} here. Raise it (`{tool}`), or use a smaller batch_size or prefetch."
