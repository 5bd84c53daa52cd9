"""The place in the data, within a `tf.train.Checkpoint`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stoker.loader import Loader


def trackable(loader: Loader) -> Any:
    """See `Loader.trackable`."""
    import tensorflow as tf

    class TrackablePosition(tf.train.experimental.PythonState):  # type: ignore[misc]  # TensorFlow has no types
        """Saves `loader.state_dict(consumed)`, and loads it."""

        consumed: int | None = None

        def serialize(self) -> str:
            return json.dumps(loader.state_dict(self.consumed))

        def deserialize(self, string_value: bytes | str) -> None:
            loader.load_state_dict(json.loads(string_value))
            self.consumed = None

    return TrackablePosition()
