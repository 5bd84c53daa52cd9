"""Detects a copy of a worker process forked by user code."""

from __future__ import annotations

import os


class ForkGuard:
    """Records whether user code forked this process. Such a copy must not write."""

    happened = False

    def leave(self) -> None:
        """Exit if this process is a forked copy."""
        if self.happened:
            os._exit(0)
