"""Recognises objects of other libraries by the names of their classes, without importing these libraries. Pure."""

from __future__ import annotations

from typing import Any

#: Top-level packages that define Keras' sources of batches.
KERAS = "keras", "tf_keras", "tensorflow"
#: The one that defines PyTorch's datasets and DataLoaders.
TORCH = ("torch",)


def inherits(value: Any, name: str, *packages: str) -> bool:
    """True if one of the classes of `value` has this name and is defined in one of these top-level packages."""
    return any(
        kind.__name__ == name and str(kind.__module__).partition(".")[0] in packages for kind in type(value).__mro__
    )


def is_keras(source: Any) -> bool:
    """True for a `keras.utils.PyDataset`, or a `Sequence` of older Keras."""
    return inherits(source, "PyDataset", *KERAS) or inherits(source, "Sequence", *KERAS)
