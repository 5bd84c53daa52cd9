"""Counts deaths, and examples that were left out."""

from __future__ import annotations

import logging
from collections.abc import Callable

from stoker.engines.engine import WorkerDeath
from stoker.stats import Skipped, Stats, WorkerChange

log = logging.getLogger("stoker")

#: Number of skipped examples that are kept by name (all are counted), and number of those that a warning names.
_KEPT, _NAMED = 1_000, 5


class Counters:
    """Counts deaths and skipped examples. Used under the producer's lock."""

    def __init__(self) -> None:
        self._deaths = self._stuck = self._skips = 0
        self._skipped: list[Skipped] = []
        self._of_epoch: dict[int, tuple[int, list[Skipped]]] = {}
        self._early: dict[int, list[tuple[list[Skipped], int]]] = {}  # of epochs that have not begun
        self._early_deaths: dict[int, list[WorkerDeath]] = {}

    def died(self, death: WorkerDeath, epoch: int | None) -> None:
        """Count a worker's death; `epoch`: the number of the epoch that it was at work for, if it was."""
        if epoch in self._early_deaths:
            self._early_deaths[epoch].append(death)
            return
        self._deaths += 1
        self._stuck += death.stuck is not None

    def skipped(self, some: list[Skipped], count: int) -> None:
        """Count `count` skipped examples of one epoch, `some` of them by name."""
        if not some:
            return
        if (early := self._early.get(some[0].epoch)) is not None:
            early.append((some, count))
            return
        self._skips += count
        self._skipped += some[: max(0, _KEPT - len(self._skipped))]
        before, named = self._of_epoch.get(some[0].epoch, (0, []))
        self._of_epoch[some[0].epoch] = before + count, [*named, *some][:_NAMED]

    def made_ahead(self, epoch: int) -> None:
        """Keep what happens in an epoch apart, because it has not begun."""
        self._early[epoch], self._early_deaths[epoch] = [], []

    def begun(self, epoch: int) -> None:
        """Count what happened in an epoch that was made ahead, as it begins."""
        early = self._early[epoch]
        self.given_up(epoch)
        for some, count in early:
            self.skipped(some, count)

    def given_up(self, epoch: int) -> None:
        """Count the deaths in an epoch that was made ahead. What was skipped is forgotten, as it is not read."""
        del self._early[epoch]
        for death in self._early_deaths.pop(epoch):
            self.died(death, epoch)

    def epoch_ended(self, epoch: int, later: Callable[..., None]) -> None:
        """Finish an epoch that was read to its end or abandoned. Calls `later` with the warning to log, if any."""
        count, named = self._of_epoch.pop(epoch, (0, []))
        if not count:
            return
        some = "1 example was" if count == 1 else f"{count:,} examples were"
        which = "; ".join(map(str, named)) + (f"; and {count - len(named):,} more" if count > len(named) else "")
        message = f"epoch {epoch}: {some} left out (on_error='skip'): {which}. `loader.stats().skipped` lists them."
        later(log.warning, "%s", message)

    def stats(self, workers: int = 0, changes: tuple[WorkerChange, ...] = ()) -> Stats:
        """The counts so far. `workers`: the number of workers now; `changes`: how it came to be."""
        return Stats(
            deaths=self._deaths,
            stuck=self._stuck,
            skips=self._skips,
            skipped=tuple(self._skipped),
            workers=workers,
            worker_changes=changes,
        )
