"""What Keras is doing when it asks for data, read from its frames: Keras passes none of this on."""

from __future__ import annotations

from types import FrameType
from typing import Any

from stoker.errors import OptionError

#: The most frames between one of Keras' loops and the call that asks for a batch.
_FRAMES = 16
#: The most frames between the making of an epoch iterator and its question for the number of batches.
_NEAR = 3
_LOOPS = "fit", "evaluate", "predict"
#: The arguments that Keras drops beside a DataAdapter, and what to do instead.
_DROPPED = {
    "class_weight": "Pass it to to_keras() instead: to_keras(class_weight=…).",
    "sample_weight": "Let the Loader's examples have three parts instead: (x, y, sample_weight).",
    "y": "Let the Loader's examples have two parts instead: (x, y).",
}


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


def check_arguments(frame: FrameType, *, is_endless: bool, fills: bool) -> None:
    """Check what a loop of Keras was given beside the data, if its epoch iterator asks in this frame for its length.

    Raises:
        OptionError: there are arguments that Keras would drop, `evaluate` or `predict` would run forever, or `predict`
            would give rows for fillers. On JAX, an error in mid-epoch would leave the model without weights.
    """
    made = _maker(frame)
    if made is None:
        return
    for name, repair in _DROPPED.items():
        if made.f_locals.get(name) is not None:
            raise OptionError(f"Keras ignores {name}= beside to_keras(), which holds all of the data. {repair}")
    loop = _loop(made.f_back)
    if fills and loop is not None and loop.f_code.co_name == "predict":
        raise OptionError(
            "predict() on several devices would give a row for each filler of pad_remainder=True. Predict with "
            "pad_remainder=False and a batch_size that divides the number of examples, or on one device."
        )
    if is_endless and made.f_locals["steps_per_epoch"] is None and _is_evaluating(made.f_back):
        raise OptionError(
            "this source never ends. Pass `validation_steps` to fit(), or `steps` to evaluate() and predict(); "
            "otherwise they would run forever."
        )


def read_to_the_end(frame: Any) -> None:
    """Make a loop of Keras that asks for an iterator in this frame read every epoch to its end.

    Where the number of batches is unknown, Keras would end each epoch after as many steps as the first one had.
    """
    its = epoch_iterator(frame)
    if its is not None and its._num_batches is None:
        its._num_batches = 0  # unknown, as None is, but Keras replaces None when the epoch ends


def epoch_iterator(frame: Any, kind: str = "EpochIterator") -> Any:
    """Keras' epoch iterator, of a class whose name ends so, if that asks for an iterator in this frame, else None."""
    for _ in range(_FRAMES):
        if frame is None:
            return None
        if _is_keras(frame):  # before `f_locals`, which keeps the values of a function's variables alive
            its: Any = frame.f_locals.get("self")
            if type(its).__name__.endswith(kind):
                return its
        frame = frame.f_back
    return None


def asks_again(its: Any) -> bool:
    """True if Keras' epoch iterator asks for an iterator as an epoch has ended, and asks anew before it reads one.

    Keras 3.5 and 3.6 do not.
    """
    has_ended = getattr(its, "_current_iterator", None) is not None and getattr(its, "_steps_seen", 0) > 0
    return its.steps_per_epoch is None and has_ended


def another_epoch_follows(frame: Any, its: Any) -> bool:
    """True if `fit` will ask for an iterator of the same data once it has read the one it asks for in this frame."""
    loop = _loop(frame)
    if its.steps_per_epoch is not None or loop is None or loop.f_code.co_name == "_symbolic_build":
        return False  # one iterator serves all epochs, or is looked at
    if loop.f_code.co_name == "evaluate" and not loop.f_locals.get("use_cached_eval_dataset"):
        return False  # the user's own call
    while loop is not None and not (loop.f_code.co_name == "fit" and _is_keras(loop)):
        loop = loop.f_back
    return loop is not None and loop.f_locals.get("epoch", 0) + 1 < loop.f_locals["epochs"]


def _maker(frame: Any) -> FrameType | None:
    """The frame in which Keras makes the iterator of a loop, among the nearest ones."""
    for _ in range(_NEAR):
        if frame is None:
            return None
        if frame.f_code.co_name == "__init__" and "steps_per_epoch" in frame.f_locals and _is_keras(frame):
            found: FrameType = frame
            return found
        frame = frame.f_back
    return None


def _is_evaluating(frame: Any) -> bool:
    """True if the loop that makes an iterator is not that over the training data, which `fit` makes first."""
    loop = _loop(frame)
    return loop is not None and (loop.f_code.co_name != "fit" or "epoch_iterator" in loop.f_locals)


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
