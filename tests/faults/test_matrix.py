"""The table of faults holds, cell by cell, with real signals; `make faults` runs all of it and prints it."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import stoker
import stoker.engines.watch
from tests.faults.code import AT, COUNT, Collate, Harm, LoadedBadly, Numbers, Records, Rows, Transform
from tests.faults.matrix import FAILPOINTS, OUTSIDE, PLACES, STOPS, Cell, Outcome, cells, deaths, is_quick
from tests.soak.tools import Killer, poll

SIZE = 8
LOADING, OPENING, READING, TRANSFORM, COLLATE = PLACES


def loader_of(cell: Cell, once: str = "", **options: Any) -> stoker.Loader:
    """A Loader in which the cell's fault happens."""
    harm = Harm(cell.how, once) if cell.where in PLACES else None
    at = {READING: {"reading": harm}, OPENING: {"opening": harm}}.get(cell.where, {})
    source: Any = LoadedBadly(harm) if cell.where == LOADING and harm else Numbers(**at)
    if cell.source == "generator":
        source = stoker.from_generator(Records(**at), shards=3)
    elif cell.source == "iterable":
        source = stoker.from_iterable(Rows())
    elif cell.source == "arrays":
        source = stoker.from_arrays(np.arange(COUNT)[:, None].repeat(8, 1))
    if cell.where == TRANSFORM and harm:
        options["transform"] = Transform(harm)
    if cell.where == COLLATE and harm:
        options["collate"] = Collate(harm)
    if cell.source == "padded":
        options["collate"] = "pad"
    if cell.how in STOPS:
        options["timeout"] = 0.6
    return stoker.Loader(source, batch_size=SIZE, seed=3, **{"workers": 2, **options})


def digest(batches: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for batch in batches:
        found.update(repr(batch.shape).encode() + batch.tobytes())
    return found.hexdigest()


def quiet(cell: Cell) -> str:
    """The digest of two epochs in which nothing happens."""
    calm = Cell("nowhere", "", False, Outcome.NOTHING, source=cell.source)
    with loader_of(calm, workers=0) as loader:
        return digest([*loader, *loader])


CELLS = [pytest.param(cell, marks=[] if is_quick(cell) else pytest.mark.stress, id=str(cell)) for cell in cells()]


@pytest.mark.parametrize("cell", CELLS)
def test_the_table_of_faults(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any, capfd: Any
) -> None:
    often = "always" if cell.always else "once"
    record_property("cell", (cell.where, cell.how, often, cell.source, cell.outcome.name.lower()))
    once = "" if cell.always else str(tmp_path / "once")
    if cell.where in FAILPOINTS:
        monkeypatch.setenv("STOKER_FAILPOINT", f"{cell.where}:{cell.how}:{once}")
    expected = quiet(cell) if not cell.always else ""
    begun = time.monotonic()
    match cell.outcome:
        case Outcome.NOTHING:
            options = {"prefetch": 2} if cell.where == "idle" else {}
            with loader_of(cell, once, **options) as loader:
                assert digest(two_epochs(cell, loader)) == expected
                assert poll(lambda: loader.stats().deaths == deaths(cell)), loader.stats()
            assert cell.where in OUTSIDE or Path(once).exists(), "it did not happen"
        case Outcome.NO_START:
            with loader_of(cell, once) as loader, pytest.raises(stoker.StokerError) as raised:
                list(loader)
            assert len(str(raised.value).splitlines()) <= 40
        case _ if not cell.always:
            fails_once(cell, once, expected)
        case _:
            fails(cell)
            if cell.where in (READING, TRANSFORM) and cell.how not in ("interrupt", "no descriptors"):
                assert time.monotonic() - begun < cell.seconds
                begun = time.monotonic()  # that it is left out is another promise
                leaves_out(cell)
    assert time.monotonic() - begun < cell.seconds
    out, err = capfd.readouterr()
    theirs = cell.how in ("flood of stderr", "raise", *STOPS)
    assert not out
    assert not err or theirs, err


def two_epochs(cell: Cell, loader: stoker.Loader) -> list[Any]:
    """All batches of two epochs; a worker is hit from outside on the way, where the cell says so."""
    if cell.where not in OUTSIDE:
        return [*loader, *loader]
    first = iter(loader)
    found = [next(first)] if cell.where == "idle" else list(first)
    workers = [one for one in psutil.Process().children() if "stoker.worker" in one.cmdline()]
    assert poll(lambda: all(one.status() == psutil.STATUS_SLEEPING for one in workers))
    workers[0].send_signal(signal.Signals[cell.how])
    return [*found, *first, *loader]


def fails_once(cell: Cell, once: str, expected: str) -> None:
    """What is raised is not tried again: one epoch ends with the error, and those around it are whole."""
    whole, errors = [], []
    with loader_of(cell, once) as loader:
        for _ in range(3):
            try:
                whole += list(loader)
            except stoker.WorkerError as error:
                errors.append(str(error))
        lost = cell.how == "no descriptors"  # the worker could do nothing any more: another one takes its place
        assert poll(lambda: loader.stats().deaths == lost)
    (text,) = errors
    words = {"raise": f"failpoint {cell.where}", "no descriptors": "Too many open files"}
    assert words.get(cell.how, "mine") in text
    assert len(text.splitlines()) <= 40
    assert digest(whole) == expected


def fails(cell: Cell) -> None:
    """The error comes in its batch's turn, names the example and what happened, and the Loader goes on."""
    with loader_of(cell) as loader:
        batches, came = iter(loader), []
        with pytest.raises(stoker.WorkerError) as raised:
            came.extend(batch for batch in batches)
    text = str(raised.value)
    assert len(text.splitlines()) <= 40
    if cell.outcome is Outcome.ERROR:
        assert "code.py" in text, "the user's file and line"
        words = {"sys exit": "SystemExit", "interrupt": "KeyboardInterrupt", "no descriptors": "Too many open files"}
        assert words.get(cell.how, "Wordless" if cell.how == "wordless error" else "mine") in text
    else:
        assert isinstance(raised.value, stoker.WorkerDied)
        words = {"null read": "SIGSEGV", "os._exit(0)": "exited with code 0", "os._exit(3)": "exited with code 3"}
        assert words.get(cell.how, "timeout" if cell.how in STOPS else cell.how) in text
    if cell.where in (READING, TRANSFORM) and cell.source != "generator":
        assert raised.value.example == AT
        assert len(came) == AT // SIZE


def leaves_out(cell: Cell) -> None:
    """With on_error="skip" all others come, once, in full batches; a generator's own fault cannot be left out."""
    if cell.source == "generator":
        return
    with loader_of(cell, on_error="skip") as loader:
        batches = list(loader)
        stats = loader.stats()
    found = np.concatenate([batch[:, 0] for batch in batches]).tolist()
    assert found == [index for index in range(COUNT) if index != AT]
    assert {len(batch) for batch in batches[:-1]} == {SIZE}
    assert (stats.skips, [skipped.example for skipped in stats.skipped]) == (1, [AT])


def test_of_two_loaders_at_once_one_does_not_feel_the_others_deaths(tmp_path: Path) -> None:
    hurt = Cell(READING, "SIGKILL", False, Outcome.NOTHING)
    calm = Cell("nowhere", "", False, Outcome.NOTHING, source="generator")
    with loader_of(hurt, str(tmp_path / "once")) as one, loader_of(calm) as other:
        found: tuple[list[Any], list[Any]] = [], []
        for _ in range(2):
            for pair in zip(one, other, strict=True):
                for batches, batch in zip(found, pair, strict=True):
                    batches.append(batch)
        assert (one.stats().deaths, other.stats().deaths) == (1, 0)
    assert [digest(batches) for batches in found] == [quiet(hurt), quiet(calm)]


def test_a_worker_killed_twice_a_second_all_through_an_epoch_changes_nothing() -> None:
    class Slow(Numbers):
        def __getitem__(self, index: int) -> Any:
            time.sleep(0.02)
            return super().__getitem__(index)

    with stoker.Loader(Slow(), batch_size=SIZE, workers=2) as loader:
        with Killer(0.5):
            found = [int(number) for _ in range(3) for batch in loader for number in batch[:, 0]]
        assert loader.stats().deaths >= 3
    assert found == 3 * list(range(COUNT))


def test_a_worker_that_makes_no_progress_is_told_of_once_with_its_stack(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stoker.engines.watch, "PATIENCE", 0.4)

    def slow(example: Any) -> Any:
        if example[0] == AT:
            time.sleep(1.5)
        return example

    with caplog.at_level(logging.WARNING, "stoker"), stoker.Loader(Numbers(), transform=slow, workers=1) as loader:
        assert sum(map(len, loader)) == COUNT
    (record,) = caplog.records
    assert f"has made no progress for 0.4 s: it is at example {AT} of epoch 0. Pass `timeout=`" in record.message
    assert "in slow" in record.message
    assert "stoker/worker" not in record.message, "the user's frames alone"


def test_a_worker_that_hangs_in_a_closed_iteration_does_not_hold_up_the_next_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stoker.engines.watch, "PATIENCE", 0.4)
    hung = tmp_path / "hung"

    def hangs_once(example: Any) -> Any:
        if example[0] == AT and not hung.exists():
            hung.touch()
            time.sleep(60)
        return example

    with stoker.Loader(Numbers(), batch_size=SIZE, transform=hangs_once, workers=1) as loader:
        batches = iter(loader)
        next(batches)
        while not hung.exists():
            time.sleep(0.01)
        time.sleep(0.6)  # it is told of while it is still needed
        batches.close()
        assert sum(map(len, loader)) == COUNT
        assert (loader.stats().deaths, loader.stats().skipped) == (1, ())


def test_a_trainer_that_was_stopped_accuses_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def slow(example: Any) -> Any:
        time.sleep(0.01)
        return example

    with stoker.Loader(Numbers(), transform=slow, batch_size=SIZE, workers=1, timeout=1.0) as loader:
        batches = iter(loader)
        next(batches)
        pids = [os.getpid(), *(worker.pid for worker in psutil.Process().children())]
        stop = "kill -STOP $@; sleep 2; kill -CONT $@"  # as when a laptop's lid is closed
        waker = psutil.Popen(["sh", "-c", stop, "sh", *map(str, pids)], start_new_session=True)
        found = sum(map(len, batches))
        assert waker.wait() == 0
        assert (found, loader.stats().deaths) == (COUNT - SIZE, 0)
    assert not caplog.records
