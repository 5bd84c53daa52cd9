"""The position of training, as a small JSON-compatible dict: the state of `Loader.state_dict`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stoker.errors import StateError

#: Version of the dict. Any other version is refused.
VERSION = 1
_KEYS = {"version", "epoch", "batches", "seed", "fingerprint", "stream"}
_OPTIONAL = {"order"}


@dataclass(frozen=True)
class Position:
    """A place in an epoch.

    Attributes:
        epoch: number of the epoch, from 0.
        taken: batches taken from it, or examples if they are handed out one by one.
        stream: progress of the shards, as JSON, if batches cannot be numbered in advance.
        order: digest of the order that was drawn for the epoch, if it was: see `stoker.plan.orders`.
    """

    epoch: int = 0
    taken: int = 0
    stream: Mapping[str, Any] | None = None
    order: str | None = None


class Iteration:
    """One iteration of the source, as its consumer sees it.

    Attributes:
        begin: the position at which it began.
        handed: batches (or examples) handed over since.
        ended: the epoch has no more.
        taken: batches (or examples) that the consumer has taken, if that is known to differ from `handed`.
    """

    def __init__(self, begin: Position) -> None:
        self.begin, self.handed, self.ended = begin, 0, False
        self.taken: int | None = None


def state_of(position: Position, seed: int, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict for a position.

    Example:
        >>> state_of(Position(2, 17), seed=7, fingerprint={"length": 1000})["batches"]
        17
    """
    return {
        "version": VERSION,
        "epoch": position.epoch,
        "batches": position.taken,
        "seed": seed,
        "fingerprint": dict(fingerprint),
        "stream": position.stream,
        **({} if position.order is None else {"order": position.order}),
    }


def position_of(state: Any, seed: int, fingerprint: Mapping[str, Any], strict: bool = True) -> Position:
    """The position in a state dict. Raises `StateError` if the dict is damaged or from a different Loader.

    With `strict=False`, a dict from a different Loader gives the start of its epoch.
    """
    if not isinstance(state, Mapping) or "version" not in state or "fingerprint" not in state:
        raise StateError(f"this is not the state of a Loader: {_shown(state)}. Pass what `state_dict()` returned.")
    if state["version"] != VERSION:
        raise StateError(
            f"the state has version {state['version']!r}, but this stoker reads version {VERSION}: it was written by "
            f"{'a newer' if _is_newer(state['version']) else 'another'} stoker. Use that one, or restart the epoch."
        )
    if set(state) - _OPTIONAL != _KEYS or not isinstance(state["fingerprint"], Mapping):
        odd = sorted(map(str, (set(state) - _OPTIONAL) ^ _KEYS)) or ["fingerprint"]
        raise StateError(f"the state is damaged at {', '.join(odd)}: {_shown(state)}")
    for key in ("epoch", "batches"):
        if type(state[key]) is not int or state[key] < 0:
            raise StateError(f"the state is damaged: {key} must be an int of at least 0, got {state[key]!r}")
    if not isinstance(state["stream"], Mapping | None):
        raise StateError(f"the state is damaged: stream must be a dict or None, got {state['stream']!r}")
    if not isinstance(state.get("order"), str | None):
        raise StateError(f"the state is damaged: order must be a str or None, got {state['order']!r}")
    foreign = _differing({"seed": state["seed"], **state["fingerprint"]}, {"seed": seed, **fingerprint})
    if foreign and strict:
        raise StateError(
            f"the state is from another Loader, with other batches: {'; '.join(foreign)}. Create the Loader as it was, "
            "or restart the epoch (strict=False). workers, prefetch and memory_limit may differ."
        )
    if foreign:
        return Position(state["epoch"])
    return Position(state["epoch"], state["batches"], state["stream"], state.get("order"))


def _differing(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Descriptions of the keys whose values differ."""
    return [
        f"{key} was {saved.get(key, 'absent')!r} and is {now.get(key, 'absent')!r}"
        for key in {**saved, **now}
        if json.dumps(saved.get(key)) != json.dumps(now.get(key))
    ]


def _is_newer(version: Any) -> bool:
    return type(version) is int and version > VERSION


def _shown(state: Any) -> str:
    text = repr(state)
    return text if len(text) <= 200 else text[:200] + "…"


@dataclass(frozen=True)
class ShardProgress:
    """The progress of a shard.

    Attributes:
        raw: examples taken from the source.
        within: outputs taken from the transform's result for the last of them, while it has more; else 0.
        digest: digest of the last example taken, 0 before the first.
        state: the iterator's own state after `state_raw` examples, as text; empty if it has none.
    """

    raw: int = 0
    within: int = 0
    digest: int = 0
    state: str = ""
    state_raw: int = 0
