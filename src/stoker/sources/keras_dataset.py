"""Sources of another framework whose elements are batches already."""

from __future__ import annotations

from typing import Any

#: The first part of the modules that Keras' sources of batches come from.
_KERAS = "keras", "tf_keras", "tensorflow"


def is_keras(source: Any) -> bool:
    """Whether `source` is a `keras.utils.PyDataset`, or an older Keras' `Sequence`; Keras is not imported for it."""
    return any(
        kind.__name__ in ("PyDataset", "Sequence") and str(kind.__module__).partition(".")[0] in _KERAS
        for kind in type(source).__mro__
    )
