"""The end of the interpreter: Loaders are closed before TensorFlow takes its threads down."""

from __future__ import annotations

import atexit
import weakref
from typing import Protocol


class Closing(Protocol):
    """Something that holds processes or threads."""

    def close(self) -> None:
        """End them."""


_live: weakref.WeakSet[Closing] = weakref.WeakSet()
_exiting = False


def close_at_exit(closing: Closing) -> None:
    """Let it be closed when the interpreter ends, if it is still there."""
    _live.add(closing)


def exiting() -> bool:
    """Whether the interpreter is on its way out."""
    return _exiting


@atexit.register
def _close_all() -> None:
    global _exiting
    _exiting = True
    for closing in list(_live):
        closing.close()


def close_before_others() -> None:
    """Let this module's exit hook run before those of the libraries imported so far."""
    atexit.unregister(_close_all)
    atexit.register(_close_all)
