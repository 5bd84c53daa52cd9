"""With `workers=0`, what TensorFlow pulls is made in one thread, from its first example to the end of its shards."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stoker

#: The handles of these sources are closed by nobody, as is usual; Python 3.13 warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")

seen: set[int] = set()


class Database:
    """Opens its handle at the first example, as one does for workers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection: Any = None

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> int:
        seen.add(threading.get_ident())
        if self.connection is None:
            self.connection = sqlite3.connect(self.path)
        number: int = self.connection.execute("select number from numbers where number = ?", (index,)).fetchone()[0]
        return number


def shards(shard: stoker.Shard) -> Iterator[int]:
    here = threading.get_ident()
    try:
        yield from range(10)
    finally:
        seen.update((here, threading.get_ident()))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    seen.clear()
    path = tmp_path / "numbers.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("create table numbers (number integer)")
        connection.executemany("insert into numbers values (?)", [(n,) for n in range(40)])
    connection.close()
    return Database(path)


def test_a_handle_that_belongs_to_a_thread_works_in_every_epoch(database: Database) -> None:
    with stoker.Loader(database, batch_size=4, workers=0) as loader:
        for dataset in (loader.to_tf(), loader.to_tf().prefetch(3)):
            for _ in range(2):
                assert [batch.numpy()[0] for batch in dataset] == list(range(0, 40, 4))
            assert len(list(dataset.take(2))) == 2
    assert len(seen) == 1


def test_iterating_here_and_behind_to_tf_gives_each_its_own_handle(database: Database) -> None:
    with stoker.Loader(database, batch_size=4, workers=0) as loader:
        first = next(iter(loader))
        assert seen == {threading.get_ident()}, "here the user's code runs in the thread that iterates"
        pairs = zip(loader, loader.to_tf(), strict=True)
        assert all((here == there.numpy()).all() for here, there in pairs)
        assert first.tolist() == [0, 1, 2, 3]
    assert len(seen) == 2


def test_shards_are_closed_by_the_thread_that_opened_them(database: Database) -> None:
    source = stoker.from_generator(shards, shards=3)
    with stoker.Loader(source, batch_size=4, workers=0) as loader:
        assert sum(len(batch) for batch in loader.to_tf()) == 30
        iterator = iter(loader.to_tf())
        next(iterator)
        del iterator
        assert sum(len(batch) for batch in loader.to_tf()) == 30
        left_open = iter(loader.to_tf())
        next(left_open)
    assert len(seen) == 1


def test_what_user_code_raises_there_is_told_with_its_traceback(database: Database) -> None:
    def fail(example: int) -> int:
        if example == 9:
            raise KeyError("nine")
        return example

    with stoker.Loader(database, batch_size=4, workers=0, transform=fail) as loader:
        with pytest.raises(Exception, match=r"(?s)example 9.*KeyError"):
            list(loader.to_tf())
        assert next(iter(loader.to_tf().take(1)))[0] == 0
