"""The place in the data, within a `tf.train.Checkpoint`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


def trackable(save: Callable[[int | None], Mapping[str, Any]], load: Callable[[Mapping[str, Any]], None]) -> Any:
    """See `Loader.trackable`.

    Args:
        save: gives the state after so many batches of the iteration; None for those that were seen to be taken.
        load: goes on where a state was taken.
    """
    import tensorflow as tf

    class TrackablePosition(tf.train.experimental.PythonState):  # type: ignore[misc]  # TensorFlow has no types
        """Saves a state, and loads it."""

        consumed: int | None = None

        def serialize(self) -> str:
            return json.dumps(save(self.consumed))

        def deserialize(self, string_value: bytes | str) -> None:
            load(json.loads(string_value))
            self.consumed = None

    return TrackablePosition()
