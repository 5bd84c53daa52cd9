"""What Keras is doing when it asks for data, read from its frames: Keras passes none of this on."""

from __future__ import annotations

from types import FrameType
from typing import Any

from stoker.errors import OptionError

#: The most frames between one of Keras' loops and the call that asks for a batch.
_FRAMES = 16
_LOOPS = "fit", "evaluate", "predict"


def only_looks(frame: FrameType) -> bool:
    """True if a batch is pulled in this frame only to find out the shapes of the model, not to compute with it.

    `fit` and `evaluate` look in `_symbolic_build`. On JAX, `predict` builds the model itself; it does so before it
    defines the function that collects the outputs.
    """
    loop = _loop(frame)
    if loop is None:
        return False
    return loop.f_code.co_name == "_symbolic_build" or (
        loop.f_code.co_name == "predict" and "append_to_outputs" not in loop.f_locals
    )


def require_an_end(frame: FrameType) -> None:
    """Raise `OptionError` if `evaluate` or `predict` asks for a batch of an endless source without number of steps."""
    loop = _loop(frame)
    while loop is not None and loop.f_code.co_name not in _LOOPS:
        loop = _loop(loop.f_back)
    if loop is None or loop.f_code.co_name == "fit":
        return
    if getattr(loop.f_locals.get("epoch_iterator"), "steps_per_epoch", 1) is None:
        raise OptionError(
            "this source never ends. Pass `validation_steps` to fit(), or `steps` to evaluate() and predict(); otherwise "
            "they would run forever."
        )


def refuse_arguments(frame: FrameType) -> None:
    """Raise `OptionError` if this frame is that of Keras' epoch iterator, with arguments that Keras would drop."""
    if not _is_keras(frame) or frame.f_code.co_name != "__init__":
        return
    for name, repair in (
        ("class_weight", "Pass it to to_keras() instead: to_keras(class_weight=…)."),
        ("sample_weight", "Let the Loader's examples have three parts instead: (x, y, sample_weight)."),
        ("y", "Let the Loader's examples have two parts instead: (x, y)."),
    ):
        if frame.f_locals.get(name) is not None:
            raise OptionError(f"Keras ignores {name}= beside to_keras(), which holds all of the data. {repair}")


def _loop(frame: Any) -> FrameType | None:
    """The innermost frame of Keras' loops, or of the building of a model, from which this frame was called."""
    for _ in range(_FRAMES):
        if frame is None:
            return None
        if frame.f_code.co_name in (*_LOOPS, "_symbolic_build") and _is_keras(frame):
            found: FrameType = frame
            return found
        frame = frame.f_back
    return None


def _is_keras(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("keras.")
