"""Keras datasets, whose elements are already batches."""

from __future__ import annotations

from typing import Any

#: Top-level packages that define Keras' sources of batches.
KERAS = "keras", "tf_keras", "tensorflow"


def is_keras(source: Any) -> bool:
    """True for a `keras.utils.PyDataset`, or a `Sequence` of older Keras. Does not import Keras."""
    return any(
        kind.__name__ in ("PyDataset", "Sequence") and str(kind.__module__).partition(".")[0] in KERAS
        for kind in type(source).__mro__
    )
