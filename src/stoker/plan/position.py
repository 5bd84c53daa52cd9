"""How far training has come, as a small dict that JSON can hold: what `Loader.state_dict` gives and takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stoker.errors import StateError

#: Of the dict. Another one is refused.
VERSION = 1
_KEYS = {"version", "epoch", "batches", "seed", "fingerprint", "stream"}


@dataclass(frozen=True)
class Position:
    """A place in an epoch.

    Attributes:
        epoch: counted from 0.
        taken: batches of it that were taken; examples, where these are handed out one by one.
        stream: how far shards have come, where batches cannot be numbered beforehand; JSON.
    """

    epoch: int = 0
    taken: int = 0
    stream: Mapping[str, Any] | None = None


class Iteration:
    """One iteration of the source, as its consumer sees it.

    Attributes:
        begin: where it began.
        handed: batches (or examples) that were handed over since.
        ended: whether these were all of the epoch.
        taken: those that the consumer has taken, where that is known to differ from those handed over.
    """

    def __init__(self, begin: Position) -> None:
        self.begin, self.handed, self.ended = begin, 0, False
        self.taken: int | None = None


def told(position: Position, seed: int, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The dict of a position.

    Example:
        >>> told(Position(2, 17), seed=7, fingerprint={"length": 1000})["batches"]
        17
    """
    return {
        "version": VERSION,
        "epoch": position.epoch,
        "batches": position.taken,
        "seed": seed,
        "fingerprint": dict(fingerprint),
        "stream": position.stream,
    }


def position_of(state: Any, seed: int, fingerprint: Mapping[str, Any], strict: bool = True) -> Position:
    """The position that a dict tells; raises `StateError` if it is damaged, or of another Loader.

    Where that is not wanted (`strict`), the position is the start of the epoch.
    """
    if not isinstance(state, Mapping) or "version" not in state or "fingerprint" not in state:
        raise StateError(f"this is no state of a Loader: {_shown(state)}. Give what `state_dict()` returned.")
    if state["version"] != VERSION:
        raise StateError(
            f"the state has version {state['version']!r}, this stoker reads version {VERSION}: it was written by "
            f"{'a newer' if _is_newer(state['version']) else 'another'} one. Use that one, or start the epoch afresh."
        )
    if set(state) != _KEYS or not isinstance(state["fingerprint"], Mapping):
        odd = sorted(map(str, set(state) ^ _KEYS)) or ["fingerprint"]
        raise StateError(f"the state is damaged, at {', '.join(odd)}: {_shown(state)}")
    for key in ("epoch", "batches"):
        if type(state[key]) is not int or state[key] < 0:
            raise StateError(f"the state is damaged: {key} is {state[key]!r}, not a whole number from 0")
    if not isinstance(state["stream"], Mapping | None):
        raise StateError(f"the state is damaged: stream is {state['stream']!r}")
    foreign = _differing({"seed": state["seed"], **state["fingerprint"]}, {"seed": seed, **fingerprint})
    if foreign and strict:
        raise StateError(
            f"the state is of another Loader: {'; '.join(foreign)}. Its batches are not this one's. Make the Loader as "
            "it was, or start the epoch afresh (strict=False). (workers, prefetch and memory_limit may differ.)"
        )
    return Position(state["epoch"]) if foreign else Position(state["epoch"], state["batches"], state["stream"])


def _differing(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was."""
    return [
        f"{key} was {saved.get(key, 'not told')!r} and is {now.get(key, 'not told')!r}"
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
    """How far a shard has come.

    Attributes:
        raw: examples taken from the source.
        within: outputs taken of what the transform made of the last of them, while more are left; else 0.
        digest: of the last example taken, 0 before the first.
        state: the iterator's own state when it had given `state_raw` examples, as text; empty when it tells none.
    """

    raw: int = 0
    within: int = 0
    digest: int = 0
    state: str = ""
    state_raw: int = 0
