"""Source methods called between epochs: `on_epoch_begin` and `on_epoch_end`."""

from __future__ import annotations

import inspect
from typing import Any

from stoker.sources.classes import KERAS


def has_turns(source: Any) -> bool:
    """True if a source changes itself between epochs, by either hook."""
    return has_hook(source, "on_epoch_begin") or has_hook(source, "on_epoch_end")


def has_hook(source: Any, name: str) -> bool:
    """True if a source has a user-defined method of this name that can be called without arguments."""
    method = getattr(type(source), name, None)
    if not callable(method):
        return False
    if str(getattr(method, "__module__", "")).partition(".")[0] in KERAS:  # its own methods do nothing
        return False
    try:
        inspect.signature(getattr(source, name)).bind()
    except TypeError:  # for example a Keras callback's
        return False
    except ValueError:  # no signature
        return True
    return True
