"""The source is what it was when the Loader was made, in every engine, but for `on_epoch_end` and `Loader.update`."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker
from stoker.errors import OptionError


class Shuffled:
    """Shuffles itself, by whatever is at hand."""

    def __init__(self, by: str = "numpy") -> None:
        self.indices = np.arange(40)
        self.level, self.by, self.rng = 0, by, np.random.default_rng(3)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.indices[index], self.level

    def on_epoch_end(self) -> None:
        if self.by == "in place":  # as most of Keras' datasets do it
            np.random.shuffle(self.indices)
            return
        drawn = {
            "numpy": lambda: np.random.permutation(40),
            "random": lambda: np.array(random.sample(range(40), 40)),
            "own": lambda: self.rng.permutation(40),
            "none": lambda: np.random.default_rng().permutation(40),
        }
        self.indices = self.indices[drawn[self.by]()]


class Kills(Shuffled):
    """Its first worker kills itself in the second epoch."""

    def __init__(self, flag: Path) -> None:
        super().__init__()
        self.flag = flag

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index == 17 and stoker.current().epoch == 1 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def epochs_of(loader: stoker.Loader, count: int = 3) -> list[list[Any]]:
    return [[n for batch, _ in loader for n in batch.tolist()] for _ in range(count)]


def expected(source: Any, count: int = 3) -> list[list[Any]]:
    with stoker.Loader(source, batch_size=4, workers=0, seed=5) as loader:
        return epochs_of(loader, count)


@pytest.mark.parametrize("by", ["numpy", "random", "own", "none", "in place"])
def test_a_source_that_shuffles_itself_gives_each_example_once_and_the_same_order_everywhere(by: str) -> None:
    source = Shuffled(by)
    came = []
    for workers, seeded in [(0, True), (3, False), *([(0, False), (1, True)] if by == "numpy" else [])]:
        with stoker.Loader(source, batch_size=4, workers=workers, seed=5, seed_globals=seeded) as loader:
            came.append(epochs_of(loader))
    assert all(one == came[0] for one in came)
    assert came[0][0] == list(range(40)) != came[0][1] != came[0][2]
    assert all(sorted(epoch) == list(range(40)) for epoch in came[0])
    assert source.indices.tolist() == list(range(40)), "the user's own is not changed"


def test_a_worker_that_starts_late_or_goes_on_from_a_state_has_the_same_order(tmp_path: Path) -> None:
    whole = expected(Shuffled(), 4)
    with stoker.Loader(Kills(tmp_path / "killed"), batch_size=4, workers=2, seed=5) as loader:
        assert epochs_of(loader, 2) == whole[:2]
        assert loader.stats().deaths == 1
        batches = iter(loader)
        next(batches), next(batches)
        state = loader.state_dict()
    for workers in (0, 1):
        with stoker.Loader(Shuffled(), batch_size=4, workers=workers, seed=5) as loader:
            loader.load_state_dict(state)
            assert epochs_of(loader, 2) == [whole[2][8:], whole[3]]


@pytest.mark.parametrize("workers", [0, 1])
def test_epochs_that_overlap_keep_their_own_order(workers: int) -> None:
    whole = expected(Shuffled())
    with stoker.Loader(Shuffled(), batch_size=4, workers=workers, seed=5, prefetch=1) as loader:
        one, other, third = iter(loader), iter(loader), iter(loader)
        came: list[list[int]] = [[], [], []]
        for _ in range(10):
            for number, batches in enumerate((one, other, third)):
                came[number] += next(batches)[0].tolist()
        assert came == whole


class Plain:
    """Items and a level, which the trainer may change."""

    def __init__(self, lock: Any = None) -> None:
        self.level, self.items, self.lock = 1, [{"n": n} for n in range(8)], lock

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> int:
        return int(self.items[index]["n"] * 10 + self.level)


def numbers(loader: stoker.Loader) -> list[Any]:
    return [n for batch in loader for n in batch.tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_the_trainer_changes_later_is_not_seen(workers: int) -> None:
    source, rows = Plain(threading.Lock() if workers == 0 else None), [{"n": n} for n in range(8)]
    array = np.arange(8)
    with (
        stoker.Loader(source, batch_size=4, workers=workers) as objects,
        stoker.Loader(rows, batch_size=4, workers=workers, transform=lambda row: row["n"]) as items,
        stoker.Loader(stoker.from_arrays(array), batch_size=4, workers=workers) as taken,
        stoker.Loader(stoker.from_arrays(array), batch_size=4, workers=workers, transform=lambda n: n) as read,
    ):
        loaders = objects, items, taken, read
        before = [numbers(loader) for loader in loaders]
        source.level, source.items[0]["n"], rows[0]["n"], array[:] = 2, 7, 7, 7
        rows[1] = {"n": 9}
        assert [numbers(loader) for loader in loaders] == before


@pytest.mark.parametrize("workers", [0, 3])
def test_update_gives_all_workers_a_value_from_the_next_epoch_on(workers: int) -> None:
    source = Plain()
    with stoker.Loader(source, batch_size=2, workers=workers) as loader:
        loader.update(level=3)
        assert numbers(loader) == [n * 10 + 3 for n in range(8)]
        batches = iter(loader)
        first = next(batches).tolist()
        loader.update(level=4, items=[{"n": 1}] * 8)
        loader.update(level=5)
        assert first + [n for batch in batches for n in batch.tolist()] == [n * 10 + 3 for n in range(8)]
        assert numbers(loader) == [15] * 8
        assert numbers(loader) == [15] * 8
        state = loader.state_dict()
        loader.load_state_dict({**state, "epoch": 0, "batches": 0})
        assert numbers(loader) == [15] * 8
        with pytest.raises(OptionError, match=r"no attribute 'lvel'.*items, level, lock"):
            loader.update(lvel=1)
        with pytest.raises(OptionError, match="60,000 bytes"):
            loader.update(level=bytes(100_000))
    assert source.level == 1


def test_update_reaches_workers_that_come_later_and_on_epoch_end_sees_it(tmp_path: Path) -> None:
    came = []
    for source, workers in ((Shuffled(), 0), (Kills(tmp_path / "killed"), 2)):
        with stoker.Loader(source, batch_size=4, workers=workers, seed=5) as loader:
            epochs = epochs_of(loader, 1)
            loader.update(level=8)
            levels = {level for _, batch in loader for level in batch.tolist()}
            came.append((epochs, levels, epochs_of(loader, 1)))
    assert came[0] == came[1]
    assert came[0][1] == {8}


@pytest.mark.parametrize("source", [[1, 2, 3], stoker.from_arrays(np.arange(3)), stoker.from_iterable([1])])
def test_update_says_what_to_do_where_there_is_no_attribute(source: Any) -> None:
    with (
        stoker.Loader(source, batch_size=1, workers=0) as loader,
        pytest.raises(OptionError, match=r"Create a new Loader, use `stoker.current\(\).epoch`"),
    ):
        loader.update(level=2)


def test_what_cannot_be_copied_goes_on_working_without_workers(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "some.db") as connection:
        source = Plain(connection)
        with stoker.Loader(source, batch_size=8, workers=0) as loader:
            assert numbers(loader) == [n * 10 + 1 for n in range(8)]
            source.level = 2
            loader.update(level=3)
            assert numbers(loader) == [n * 10 + 3 for n in range(8)]
            assert source.level == 2
    connection.close()


class Single(Shuffled):
    """Cannot be pickled, so there is one of it."""

    def __getstate__(self) -> Any:
        raise TypeError("there is one of me")


def test_what_cannot_be_copied_turns_once_an_epoch_whoever_reads_it() -> None:
    pytest.importorskip("tensorflow")
    with stoker.Loader(Single("in place"), batch_size=4, workers=0, seed=5) as loader:
        came = [[n for batch in batches for n in np.asarray(batch[0])] for batches in (loader, loader.to_tf(), loader)]
        assert came == expected(Shuffled("in place"), 3)
        first = iter(loader)
        next(first)
        with pytest.raises(stoker.SourceError, match="only forwards"):
            list(loader)


class Odd(Plain):
    """Runs code of its own when it is pickled."""

    def __getstate__(self) -> Any:
        return dict(self.__dict__)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "has changed since" in record.getMessage()]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_change_that_is_not_seen_is_warned_of_once(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    source, rows = Plain(), [1, 2]
    with (
        stoker.Loader(source, batch_size=4, workers=workers) as objects,
        stoker.Loader(rows, batch_size=1, workers=workers) as items,
    ):
        for loader in (objects, items):
            numbers(loader)
        assert not warnings_of(caplog)
        source.level, rows[0] = 2, 9
        for count, loader in enumerate((objects, items), 1):
            numbers(loader), numbers(loader)
            assert len(warnings_of(caplog)) == count
    assert "`loader.update(attribute=value)`, or create a new Loader" in warnings_of(caplog)[0]


@pytest.mark.parametrize("source", [Odd(), Plain(set("abc")), Shuffled(), Plain(b"x" * 200_000)])
def test_no_change_is_warned_of_where_there_is_none(source: Any, caplog: pytest.LogCaptureFixture) -> None:
    with stoker.Loader(source, batch_size=4, workers=0) as loader:
        list(loader), list(loader)
        if isinstance(source, Plain):
            source.level = 3
            loader.update(level=3)
            list(loader)
    assert not warnings_of(caplog)
