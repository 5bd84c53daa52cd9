"""`Loader.report()`: the time of workers and trainer is attributed to what took it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import stoker
from stoker.insight import rendered_report
from stoker.insight.report import Report
from tests.soak.tools import poll, workers

COUNT, SIZE, LONG = 48, 8, 0.004
STAGES = "read", "transform", "collate"


class Rows:
    """Reads after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> int:
        time.sleep(self.seconds)
        return index


class Runs(Rows):
    """The same, several at once."""

    def __getitems__(self, indices: list[int]) -> list[int]:
        return [self[index] for index in indices]


def generated(seconds: float) -> Any:
    def shard(shard: stoker.Shard) -> Iterator[int]:
        for index in range(shard.index, COUNT, shard.count):
            time.sleep(seconds)
            yield index

    return stoker.from_generator(shard, shards=2)


def after(seconds: float) -> Callable[[Any], Any]:
    def transform(number: Any) -> Any:
        time.sleep(seconds)
        return np.float32(number)

    return transform


def collated(seconds: float) -> Callable[[Any], Any]:
    def collate(examples: list[Any]) -> Any:
        time.sleep(seconds * len(examples))
        return np.stack(examples)

    return collate


@pytest.mark.parametrize("slow", STAGES)
@pytest.mark.parametrize("kind", [Rows, Runs, generated])
def test_the_stage_that_takes_the_time_is_named(kind: Callable[[float], Any], slow: str) -> None:
    took = {stage: LONG if stage == slow else 0.0 for stage in STAGES}
    source, transform, collate = kind(took["read"]), after(took["transform"]), collated(took["collate"])
    with stoker.Loader(source, batch_size=SIZE, transform=transform, collate=collate, workers=2) as loader:
        assert sum(len(batch) for batch in loader) == COUNT
        report = loader.report()
    stages = report.stages
    assert max(stages, key=lambda name: stages[name].seconds) == slow
    assert stages[slow].per_example > 0.8 * LONG
    assert sum(stage.share for stage in stages.values()) == pytest.approx(1)


@pytest.mark.parametrize("count", [0, 2])
def test_what_is_slow_in_the_trainers_own_process_is_seen_too(count: int) -> None:
    with stoker.Loader(Rows(LONG), batch_size=SIZE, workers=count) as loader:
        assert len(list(loader)) == COUNT // SIZE
        report = loader.report()
    assert report.stages["read"].per_example > 0.8 * LONG
    assert len(report.workers) == count


def test_a_fast_trainer_waits_and_a_slow_one_does_not() -> None:
    shares = []
    for example, step in ((LONG, 0.0), (0.0, 5 * LONG)):
        with stoker.Loader(Rows(example), batch_size=SIZE, workers=2, ahead=False) as loader:
            for _ in loader:
                time.sleep(step)
            shares.append((loader.report().pull_wait, loader.report().starved, loader.report().ready))
    (waiting, starved, few), (fed, seldom, many) = shares
    assert waiting > 0.5 > fed
    assert starved > 0.5 > seldom
    assert many > few


def test_what_was_handed_over_is_counted_exactly() -> None:
    with stoker.Loader(range(COUNT), batch_size=10, transform=np.int64, workers=2) as loader:
        assert loader.report().batches == 0
        for _ in range(2):
            list(loader)
        report = loader.report()
    assert (report.batches, report.examples, report.bytes) == (2 * 5, 2 * COUNT, 2 * COUNT * 8)
    assert sum(worker.examples for worker in report.workers.values()) > COUNT
    assert loader.report().stages["transform"].seconds > 0, "it can be read after close()"


def test_the_time_of_a_worker_that_died_still_counts() -> None:
    with stoker.Loader(Rows(LONG), batch_size=SIZE, workers=1, ahead=False) as loader:
        list(loader)
        before = loader.report()
        (worker,) = workers()
        os.kill(worker.pid, signal.SIGKILL)
        assert poll(lambda: loader.report().deaths == 1, 10)
        list(loader)
        report = loader.report()
    assert report.workers[0].examples == before.workers[0].examples + COUNT
    assert report.stages["read"].seconds > before.stages["read"].seconds + 0.8 * LONG * COUNT


def test_each_loader_of_a_pool_has_its_own_times() -> None:
    with (
        stoker.Pool(workers=1) as pool,
        stoker.Loader(Rows(LONG), batch_size=SIZE, pool=pool) as slow,
        stoker.Loader(Rows(0.0), batch_size=SIZE, pool=pool) as fast,
    ):
        for _ in zip(slow, fast, strict=True):
            pass
        assert slow.report().stages["read"].per_example > 0.8 * LONG > fast.report().stages["read"].per_example


def test_a_stage_that_raises_is_left() -> None:
    def fails(number: Any) -> Any:
        time.sleep(LONG)
        if number % 2:
            raise ValueError(number)
        return number

    with stoker.Loader(Rows(0.0), batch_size=SIZE, transform=fails, workers=1, on_error="skip") as loader:
        list(loader)
        report = loader.report()
    assert report.skips == COUNT // 2
    assert report.stages["transform"].share > 0.8


# ── as people see it ─────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def report() -> Report:
    with stoker.Loader(Rows(LONG), batch_size=SIZE, transform=np.float32, workers=1) as loader:
        list(loader)
        return loader.report()


def test_it_prints_the_same_figures_with_and_without_rich(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = str(report)
    monkeypatch.setattr(rendered_report, "find_spec", lambda name: None)
    plain = str(report)
    assert "│" in drawn
    assert "│" not in plain
    words = [[word for word in text.split() if word.isalnum()] for text in (drawn, plain)]
    assert words[0] == words[1]
    assert "48 examples in 6 batches" in plain
    assert "Pulls waited" in plain


def test_its_json_has_the_names_of_its_attributes(report: Report) -> None:
    read = json.loads(json.dumps(report.to_dict()))
    assert read["pull_wait"] == report.pull_wait
    assert read["stages"]["read"]["per_example"] == report.stages["read"].per_example
    assert read["workers"]["0"]["busy"] == report.workers[0].busy


def test_a_notebook_shows_tables(report: Report) -> None:
    page = report._repr_html_()
    assert page.count("<table>") == 2
    assert "<td>read</td>" in page


def test_before_anything_is_read_it_says_so() -> None:
    with stoker.Loader(range(COUNT), batch_size=SIZE, workers=1, lazy=True) as loader:
        assert str(loader.report()) == "No batch was read yet."


def test_arrays_in_memory_need_no_workers() -> None:
    with stoker.Loader(stoker.from_arrays(np.arange(COUNT)), batch_size=SIZE) as loader:
        list(loader)
        report = loader.report()
    assert (report.batches, report.examples, report.bytes, report.workers) == (COUNT // SIZE, COUNT, COUNT * 8, {})


def test_an_interrupted_first_pull_is_still_the_first() -> None:
    interrupted: list[int] = []

    def once(number: int) -> int:
        if not interrupted:
            interrupted.append(number)
            raise KeyboardInterrupt
        return number

    with stoker.Loader(range(COUNT), batch_size=SIZE, transform=once, workers=0) as loader:
        batches = iter(loader)
        with pytest.raises(KeyboardInterrupt):
            next(batches)
        assert len(list(batches)) == COUNT // SIZE
        report = loader.report()
    assert report.first_wait > 0
    assert report.examples_per_second > 1
