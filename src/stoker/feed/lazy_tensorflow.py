"""TensorFlow, imported when it is first needed."""

from __future__ import annotations

from typing import Any


def tensorflow() -> Any:
    """The module `tensorflow`. Raises ImportError with the advice to install it."""
    try:
        import tensorflow
    except ImportError as error:
        raise ImportError(
            "to_tf() and element_spec need TensorFlow: pip install tensorflow (or tensorflow-cpu)"
        ) from error
    return tensorflow
