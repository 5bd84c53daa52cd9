"""The resource tracker of this process's multiprocessing, which workers register with too."""

from __future__ import annotations

import sys


def resource_tracker() -> int | None:
    """The descriptor of this process's multiprocessing resource tracker, or None if there is none."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    if module is None:
        return None
    if "multiprocessing.shared_memory" in sys.modules:  # workers may create segments, which outlive them
        fd: int | None = module.getfd()
    else:
        fd = getattr(getattr(module, "_resource_tracker", None), "_fd", None)
    return fd
