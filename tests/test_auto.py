"""`workers="auto"`: the number of workers changes while batches are read, and nothing else does."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import numpy as np
import pytest

import stoker
from stoker import Loader, OptionError
from stoker.scheduler import auto_workers
from tests.engines.test_zygote import named


class Slow:
    """Examples that a worker waits for, as for a server."""

    def __init__(self, length: int, seconds: float) -> None:
        self.length, self.seconds = length, seconds

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> np.ndarray:
        time.sleep(self.seconds)
        return np.full(4, index)


def numbers(loader: Loader) -> list[int]:
    return [number for batch in loader for number in batch[:, 0].tolist()]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for tenths of a second, since these epochs are short."""
    monkeypatch.setattr(auto_workers, "_WINDOW", 0.15)
    monkeypatch.setattr(auto_workers, "_LONG", 0.3)


def test_a_trainer_that_waits_gets_more_workers_and_the_same_batches(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stoker")
    source = Slow(1_000, 0.004)
    with Loader(source, batch_size=8, shuffle=True, seed=3, workers="auto") as loader:
        before = loader.stats().workers
        found = numbers(loader)
        stats = loader.stats()
    with Loader(Slow(1_000, 0.0), batch_size=8, shuffle=True, seed=3, workers=2) as fixed:
        assert found == numbers(fixed)
    assert max(change.workers for change in stats.worker_changes) > before
    assert stats.workers == stats.worker_changes[-1].workers
    assert stats.deaths == 0
    assert "trying more" in caplog.text


def test_a_slow_trainer_needs_one_worker_and_the_others_end() -> None:
    with Loader(Slow(4_000, 0.0001), batch_size=8, workers="auto") as loader:
        batches, deadline = iter(loader), time.monotonic() + 20
        while (loader.stats().workers, len(named("stoker.worker"))) != (1, 1) and time.monotonic() < deadline:
            next(batches)
            time.sleep(0.02)
        stats, processes = loader.stats(), len(named("stoker.worker"))
    assert (stats.workers, processes, stats.deaths) == (1, 1, 0)


def test_shards_and_workers_that_die_give_the_same_batches_while_the_number_changes() -> None:
    def read(shard: stoker.Shard) -> Iterator[int]:
        for position in range(30):
            time.sleep(0.004)
            yield 1000 * shard.index + position

    source = stoker.from_generator(read, shards=range(20))
    with Loader(source, batch_size=8, workers=2) as fixed:
        expected = [batch.tolist() for batch in fixed]
    with Loader(source, batch_size=8, workers="auto") as loader:
        found = []
        for number, batch in enumerate(loader):
            found.append(batch.tolist())
            if number in (20, 60):
                named("stoker.worker")[0 if number == 20 else -1].kill()
        stats = loader.stats()
    assert found == expected
    assert stats.worker_changes
    assert 1 <= stats.deaths <= 2, "a worker that is ending anyway does not count"


def test_arrays_in_memory_need_no_workers() -> None:
    with Loader(stoker.from_arrays(np.arange(10)), batch_size=5, workers="auto") as loader:
        assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
        assert loader.stats().workers == 0


def test_no_other_word_is_a_number_of_workers() -> None:
    with pytest.raises(OptionError, match="workers must be an int of at least 0, \"auto\" or None, got 'many'"):
        Loader([1.0], workers="many")  # type: ignore[arg-type]


def test_the_first_pull_of_an_epoch_that_was_made_ahead_is_a_first_pull_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, observe = list[auto_workers.Observation](), auto_workers.AutoWorkers.observe

    def note(auto: auto_workers.AutoWorkers, observation: auto_workers.Observation) -> object:
        seen.append(observation)
        return observe(auto, observation)

    monkeypatch.setattr(auto_workers.AutoWorkers, "observe", note)
    with Loader(Slow(40, 0.0), batch_size=8, workers="auto") as loader:
        for _ in range(2):
            deadline = time.monotonic() + 20
            while loader._producer._ahead.stream is None:  # type: ignore[union-attr]
                assert time.monotonic() < deadline
                time.sleep(0.01)
            before = len(seen)
            numbers(loader)
            assert [one.is_first for one in seen[before:]] == [True] + [False] * (len(seen) - before - 1)
