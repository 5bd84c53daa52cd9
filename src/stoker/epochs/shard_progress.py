"""Converts the progress of a stream's shards to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stoker.errors import StateError
from stoker.plan.position import ShardProgress
from stoker.protocol.requests import JSON
from stoker.scheduler.resume_points import Leftover, ResumePoint
from stoker.scheduler.streams import ShardPosition


@dataclass(frozen=True)
class SavedShards:
    """The state that another run needs to resume an epoch whose batches are not numbered in advance.

    Attributes:
        base: number of examples of the source before the first part, if it is read in parts.
        drop: number of examples already taken of the next batch, if they are handed out one by one.
        point: progress of the shards or parts.
        without: examples that are left out because they kill workers, each with its shard.
    """

    base: int
    drop: int
    point: ResumePoint
    without: tuple[tuple[int | None, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The state as a dict that JSON can hold."""
        point = self.point
        return {
            "base": self.base,
            "drop": self.drop,
            "opened": point.opened,
            "turn": point.turn,
            "raw": point.raw,
            "places": [[place.shard, place.raw, _progress_json(place.progress)] for place in point.positions],
            "left": [[left.shard, _progress_json(left.since), left.start, left.stop] for left in point.left],
            "without": [list(one) for one in self.without],
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> SavedShards:
        """Restore the state from such a dict. Raises `StateError`."""
        try:
            places = tuple(
                ShardPosition(_whole(shard), _whole(raw), _progress_of(progress))
                for shard, raw, progress in state["places"]
            )
            left = tuple(
                Leftover(_whole(shard), _progress_of(since), _whole(start), _whole(stop))
                for shard, since, start, stop in state["left"]
            )
            point = ResumePoint(_whole(state["opened"]), _whole(state["turn"]), _whole(state["raw"]), places, left)
            without = tuple((None if s is None else _whole(s), _whole(example)) for s, example in state["without"])
            return cls(_whole(state["base"]), _whole(state["drop"]), point, without)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the state is damaged in the progress of its shards: {error}") from error


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected an int of at least 0, got {value!r}")
    return value


def _progress_json(progress: ShardProgress | None) -> list[Any] | None:
    """The progress of a shard as a list.

    An iterator's own state is included only if it is JSON. Otherwise another run reads the shard again.
    """
    if progress is None:
        return None
    assert isinstance(progress, ShardProgress)
    own = (progress.state, progress.state_raw) if progress.state.startswith(JSON) else ("", 0)
    return [progress.raw, progress.within, progress.digest, *own]


def _progress_of(listed: Any) -> ShardProgress | None:
    if listed is None:
        return None
    raw, within, digest, state, state_raw = listed
    if not isinstance(state, str) or (state and not state.startswith(JSON)):  # workers would unpickle any other state
        raise ValueError(f"{state!r:.40} is not the state of an iterator")
    return ShardProgress(_whole(raw), _whole(within), _whole(digest), state, _whole(state_raw))
