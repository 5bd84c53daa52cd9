"""What the measurements of a Loader amount to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stoker.insight.measured import Measured
from stoker.insight.rendered_report import as_html, as_text
from stoker.memory.worker_times import Stage, WorkerTimes

#: The stages, by the names that reports give them.
_NAMES = {
    Stage.READ: "read",
    Stage.TRANSFORM: "transform",
    Stage.COLLATE: "collate",
    Stage.WRITE: "write",
    Stage.OWN: "stoker",
}


@dataclass(frozen=True)
class StageReport:
    """What one stage of making examples takes.

    Attributes:
        seconds: of all workers together.
        share: of the time in which workers were busy; 0 to 1.
        per_example: seconds for each example that workers made.
    """

    seconds: float
    share: float
    per_example: float


@dataclass(frozen=True)
class WorkerReport:
    """What one worker did.

    Attributes:
        examples: the number of examples that it made, also those that are not read yet, but not the very first ones,
            which show how batches look.
        busy: seconds in which it made them.
        waiting: seconds in which it had nothing to do, or, in a `Pool`, worked for another Loader.
    """

    examples: int
    busy: float
    waiting: float


@dataclass(frozen=True)
class Report:
    """The result of `Loader.report()`: where time went since the Loader was created.

    It prints as a table. Times are in seconds. What the stages take is measured in each task where examples take longer
    than 0.1 ms, and in one task of 16 where they do not.

    Attributes:
        batches: the number of batches that were handed over.
        examples: the number of examples in these.
        bytes: the number of bytes of these.
        examples_per_second: without the first pull of each iteration, and the wait for it.
        pull_wait: the share of the time in which a pull waited for its batch, without the first pull of each iteration;
            0 to 1. Behind `to_tf()`, tf.data pulls ahead of the training, so this is near 1 where workers are only
            slightly too slow. With `workers=0`, the share in which batches were made.
        waited: seconds of that.
        first_wait: seconds in which the first pulls of iterations waited. The very first one may wait for workers to
            start, unless `to_tf()` or `to_keras()` has waited for that.
        starved: the share of the later pulls for which no batch was ready; 0 to 1.
        ready: the number of batches that were ready at a pull, on average; 0 with `workers=0`.
        stages: what reading (`read`), the transform, the collate function, writing into the batch (`write`) and Stoker
            itself (`stoker`) took. What the trainer reads from an iterable is not in it.
        workers: what each worker did, by its number; empty with `workers=0`.
        memory: bytes that the batches occupy now.
        deaths: as in `Loader.stats()`.
        skips: as in `Loader.stats()`.
    """

    batches: int
    examples: int
    bytes: int
    examples_per_second: float
    pull_wait: float
    waited: float
    first_wait: float
    starved: float
    ready: float
    stages: Mapping[str, StageReport]
    workers: Mapping[int, WorkerReport]
    memory: int
    deaths: int
    skips: int

    @classmethod
    def of(cls, measured: Measured) -> Report:
        """The report of some measurements."""
        pulls, total = measured.pulls, sum(measured.workers.values(), start=WorkerTimes())
        seconds = pulls.waited + pulls.own
        workers = {} if measured.in_trainer else measured.workers
        return cls(
            batches=pulls.batches,
            examples=pulls.examples,
            bytes=pulls.bytes,
            examples_per_second=_ratio(pulls.examples - pulls.first_examples, seconds),
            pull_wait=_ratio(pulls.waited, seconds),
            waited=pulls.waited,
            first_wait=pulls.first_waits,
            starved=_ratio(pulls.starved, pulls.pulls - pulls.first_pulls),
            ready=_ratio(pulls.ready, pulls.pulls),
            stages={name: _stage(total, stage) for stage, name in _NAMES.items()},
            workers={number: _worker(times) for number, times in sorted(workers.items())},
            memory=measured.memory,
            deaths=measured.stats.deaths,
            skips=measured.stats.skips,
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as a dict that `json.dumps` takes, with the names of the attributes."""
        made = asdict(self)
        return made | {"workers": {str(number): worker for number, worker in made["workers"].items()}}

    def __str__(self) -> str:
        return as_text(self.to_dict())

    def _repr_html_(self) -> str:
        return as_html(self.to_dict())


def _stage(times: WorkerTimes, stage: Stage) -> StageReport:
    seconds = times.seconds(stage)
    return StageReport(seconds, _ratio(seconds, times.busy), _ratio(seconds, times.examples))


def _worker(times: WorkerTimes) -> WorkerReport:
    return WorkerReport(times.examples, times.busy, times.waiting)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
