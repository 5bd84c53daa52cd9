"""The position in the data, within a `tf.train.Checkpoint`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


def trackable(save: Callable[[int | None], Mapping[str, Any]], load: Callable[[Mapping[str, Any]], None]) -> Any:
    """See `Loader.trackable`.

    Args:
        save: returns the state after the given number of batches; for None, after those known to be taken.
        load: resumes where a state was taken.
    """
    import tensorflow as tf

    class TrackablePosition(tf.train.experimental.PythonState):  # type: ignore[misc]  # TensorFlow has no types
        """Saves and loads a state."""

        consumed: int | None = None

        def serialize(self) -> str:
            return json.dumps(save(self.consumed))

        def deserialize(self, string_value: bytes | str) -> None:
            load(json.loads(string_value))
            self.consumed = None

    return TrackablePosition()
