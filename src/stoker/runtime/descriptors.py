"""How many file descriptors workers need, and whether there are as many."""

from __future__ import annotations

import resource
from pathlib import Path

from stoker.errors import OptionError

#: Descriptors of the trainer for each worker: a socket, a progress page, a pidfd.
_EACH = 3
#: And once: the program, the supervisor's own, what starting a process takes for a moment, and some for the user.
_ONCE = 24


def require_descriptors(workers: int, memory: int) -> None:
    """Raise `OptionError` when so many workers, and `memory` descriptors of shared memory, are too many."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    needed = _EACH * workers + memory + _ONCE
    if limit != resource.RLIM_INFINITY and used + needed > limit:
        raise OptionError(
            f"workers={workers} need {needed} file descriptors, {used} are open, and this process may have {limit} "
            f"(RLIMIT_NOFILE). Raise the limit (`ulimit -n {max(1024, 2 * (used + needed))}`), or give fewer workers "
            "or a smaller prefetch."
        )
