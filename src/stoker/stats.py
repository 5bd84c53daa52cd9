"""What happened while a Loader was read: worker deaths, skipped examples, changes of the number of workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Skipped:
    """An example that was left out because of `on_error="skip"`.

    Attributes:
        epoch: the epoch, counted from 0.
        shard: the shard of a generator source, else None.
        example: the index in the source, its shard or the iterable.
        reason: what the example raised, how it differed from the others, or how the workers died at it; empty if
            hundreds were left out at once.
    """

    epoch: int
    shard: int | None
    example: int
    reason: str

    def __str__(self) -> str:
        place = f"example {self.example}" if self.shard is None else f"shard {self.shard}, example {self.example}"
        return f"{place}: {self.reason}"


@dataclass(frozen=True)
class WorkerChange:
    """A change of the number of workers by `workers="auto"`.

    Attributes:
        seconds: when, counted from the first batch.
        workers: the new number.
        reason: why.
    """

    seconds: float
    workers: int
    reason: str


@dataclass(frozen=True)
class Stats:
    """The result of `Loader.stats()`, counted since the Loader was created.

    Attributes:
        deaths: worker processes that died, for any reason, and were replaced. The death of one at work for an epoch
            that is made ahead counts once that epoch begins or is given up.
        stuck: the deaths among these that were kills for making no progress for `timeout` seconds.
        skips: the number of examples that were left out, in epochs that have begun.
        skipped: the first 1,000 of those examples.
        workers: the number of worker processes that are wanted now; 0 if the Loader needs none.
        worker_changes: how `workers="auto"` came to that number.
    """

    deaths: int = 0
    stuck: int = 0
    skips: int = 0
    skipped: tuple[Skipped, ...] = ()
    workers: int = 0
    worker_changes: tuple[WorkerChange, ...] = ()
