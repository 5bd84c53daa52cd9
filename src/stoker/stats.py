"""What happened while a Loader was read, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Skipped:
    """An example that was left out, because of `on_error="skip"`.

    Attributes:
        epoch: counted from 0.
        shard: of a generator source, else None.
        example: its index in the source, its shard or the iterable.
        reason: what it raised, how it was unlike the others, or how the workers died at it; empty where hundreds were
            left out at once.
    """

    epoch: int
    shard: int | None
    example: int
    reason: str

    def __str__(self) -> str:
        place = f"example {self.example}" if self.shard is None else f"shard {self.shard}, example {self.example}"
        return f"{place}: {self.reason}"


@dataclass(frozen=True)
class Stats:
    """What `Loader.stats()` tells, counted since the Loader was made.

    Attributes:
        deaths: worker processes that died, for whatever reason, and were replaced.
        stuck: of these, the ones that were killed because they made no progress for `timeout` seconds.
        skips: examples that were left out.
        skipped: the first 1,000 of them.
    """

    deaths: int = 0
    stuck: int = 0
    skips: int = 0
    skipped: tuple[Skipped, ...] = ()
