"""All measurements of a Loader, taken at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stoker.insight.pull_times import PullTimes
from stoker.memory.worker_times import WorkerTimes
from stoker.stats import Stats


@dataclass(frozen=True)
class Measured:
    """The measurements of a Loader since it was created.

    Attributes:
        stats: what happened.
        pulls: what the trainer's pulls showed.
        workers: what the time of each worker went to, by its number. Without worker processes, that of the trainer.
        memory: bytes that the batches occupy now.
        in_trainer: True if the user's code runs in the trainer.
    """

    stats: Stats
    pulls: PullTimes = field(default_factory=PullTimes)
    workers: Mapping[int, WorkerTimes] = field(default_factory=dict)
    memory: int = 0
    in_trainer: bool = False
