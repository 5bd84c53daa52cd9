"""For `keras.Model.fit`: training that goes on where it stopped. Importing this module imports Keras."""

from __future__ import annotations

from stoker.feed.resumable_data import ResumableData

__all__ = ["ResumableData"]
