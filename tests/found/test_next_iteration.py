"""The next iteration of an iterable begins when the last one is closed."""

from __future__ import annotations

import gc
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stoker

#: The handles of these sources are closed by nobody, as is usual; Python 3.13 warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")


class OneAtATime:
    """Numbers that can be iterated again and again, but not twice at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self.opened: list[int] = []

    def __iter__(self) -> Iterator[int]:
        if self.is_open:
            raise RuntimeError("already being iterated")
        self.is_open = True
        self.opened.append(threading.get_ident())
        try:
            yield from range(104)
        finally:
            time.sleep(0.02)
            self.is_open = False


class UntilItGoes(OneAtATime):
    """The same, whose iterator is no generator: it ends with its last reference."""

    def __iter__(self) -> Any:
        owner = self
        if owner.is_open:
            raise RuntimeError("already being iterated")
        owner.is_open = True

        class Numbers:
            def __init__(self) -> None:
                self.left = iter(range(104))

            def __iter__(self) -> Any:
                return self

            def __next__(self) -> int:
                return next(self.left)

            def __del__(self) -> None:
                owner.is_open = False

        return Numbers()


@pytest.mark.parametrize("shuffle", [0, 5])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [OneAtATime, UntilItGoes])
@pytest.mark.parametrize("by", [lambda it: it, lambda it: lambda: it], ids=["itself", "factory"])
def test_the_next_iteration_begins_when_the_last_is_closed(kind: Any, by: Any, workers: int, shuffle: int) -> None:
    source = kind()
    with stoker.Loader(stoker.from_iterable(by(source)), batch_size=8, workers=workers, shuffle=shuffle) as loader:
        for _ in range(3):
            next(iter(loader))
        batches = iter(loader)
        next(batches)
        batches.close()
        assert sorted(number for batch in loader for number in batch.tolist()) == list(range(104))


@pytest.mark.parametrize("workers", [0, 2])
def test_so_it_does_behind_to_tf(workers: int) -> None:
    with stoker.Loader(stoker.from_iterable(OneAtATime()), batch_size=8, workers=workers) as loader:
        for _ in range(2):
            assert len(list(loader.to_tf().take(2))) == 2
            gc.collect()
        assert len(list(loader.to_tf())) == 13


@pytest.mark.parametrize("workers", [0, 1])
def test_shards_of_the_last_iteration_are_closed_before_those_of_the_next_are_opened(
    workers: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def rows(shard: stoker.Shard) -> Iterator[int]:
        with log.open("a") as file:
            file.write("open ")
        try:
            yield from range(100)
        finally:
            with log.open("a") as file:
                file.write("close ")

    source = stoker.from_generator(rows, shards=1)
    with stoker.Loader(source, batch_size=4, workers=workers) as loader:
        next(iter(loader))
        next(iter(loader))
        assert len(list(loader)) == 25
    assert log.read_text().split()[-6:] == ["open", "close"] * 3


def test_an_iteration_that_is_still_held_is_told_of() -> None:
    with stoker.Loader(stoker.from_iterable(OneAtATime()), batch_size=8, workers=0) as loader:
        batches = iter(loader)
        next(batches)
        with pytest.raises(RuntimeError, match="already being iterated") as caught:
            list(loader)
        if hasattr(caught.value, "__notes__"):  # Python 3.11
            assert "earlier iteration" in caught.value.__notes__[0]
        batches.close()
        assert len(list(loader)) == 13


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cursor_of_this_thread_is_answered_with_the_function_that_makes_it_in_another(
    workers: int, tmp_path: Path
) -> None:
    path = tmp_path / "numbers.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table numbers (number integer)")
        connection.executemany("insert into numbers values (?)", [(n,) for n in range(20)])
    query = "select number from numbers order by number"
    cursor = connection.execute(query)
    for source in (cursor, lambda: connection.execute(query)):
        with (
            stoker.Loader(stoker.from_iterable(source), batch_size=8, workers=workers) as loader,
            pytest.raises(stoker.errors.SourceError, match=r"same thread.*from_iterable\(lambda: sqlite3.connect"),
        ):
            list(loader)
    connection.close()
    source = stoker.from_iterable(lambda: sqlite3.connect(path).execute(query))
    with stoker.Loader(source, batch_size=8, workers=workers) as loader:
        for _ in range(2):
            next(iter(loader))
            assert [len(batch[0]) for batch in loader] == [8, 8, 4]
