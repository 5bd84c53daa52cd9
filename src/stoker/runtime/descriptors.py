"""Checks that there are enough file descriptors for the workers."""

from __future__ import annotations

import resource
from pathlib import Path

from stoker.errors import OptionError

#: Descriptors of the trainer per worker: its control socket, page and pidfd; the Loader's socket and progress page, and
#: the worker's end of that socket until it is sent.
_EACH = 6
#: Descriptors needed once: the program, the wait page, the supervisor's own, those to start a process, and some for the
#: user.
_ONCE = 24


def require_descriptors(workers: int, memory: int) -> None:
    """Raise `OptionError` if `workers` workers and `memory` shared-memory descriptors exceed the limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    needed = _EACH * workers + memory + _ONCE
    if limit != resource.RLIM_INFINITY and used + needed > limit:
        raise OptionError(
            f"workers={workers} needs {needed} file descriptors, but {used} are open and the limit of this process is "
            f"{limit} (RLIMIT_NOFILE). Raise the limit (`ulimit -n {max(1024, 2 * (used + needed))}`), or use fewer "
            "workers or a smaller prefetch."
        )
