"""Whether this process is a copy of a worker that user code forked."""

from __future__ import annotations

import os


class ForkGuard:
    """Tells whether this process is a copy that user code forked: it must not write any more."""

    happened = False

    def leave(self) -> None:
        """End this process, if it is one."""
        if self.happened:
            os._exit(0)
