"""Methods of a source that are called between epochs: `on_epoch_begin` and `on_epoch_end`."""

from __future__ import annotations

import inspect
from typing import Any

#: Of Keras' own classes, whose `on_epoch_end` does nothing.
_KERAS = "keras", "tf_keras", "tensorflow"


def has_turns(source: Any) -> bool:
    """Whether a source changes itself when an epoch begins."""
    return has_hook(source, "on_epoch_begin") or has_hook(source, "on_epoch_end")


def has_hook(source: Any, name: str) -> bool:
    """Whether a source has a method of the user's with this name that takes no arguments."""
    method = getattr(type(source), name, None)
    if not callable(method) or str(getattr(method, "__module__", "")).partition(".")[0] in _KERAS:
        return False
    try:
        inspect.signature(getattr(source, name)).bind()
    except TypeError:  # of a callback of Keras', say
        return False
    except ValueError:  # it tells nothing about its parameters
        return True
    return True
