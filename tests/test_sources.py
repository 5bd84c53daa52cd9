"""Generators, iterables and arrays: every example once, in one order, whatever happens to the workers."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import stoker
from tests.sources_of_tests import (
    LENGTH,
    SHARDS,
    Dying,
    die_once,
    endless,
    example,
    fickle,
    odd,
    plain_shard,
    plainly,
    resuming,
    secretly_odd,
    source,
)
from tests.test_structures import SIZE, SOURCES, assert_same, batches_of, in_turn


def lists(loader: stoker.Loader, epochs: int = 1) -> list[Any]:
    with loader:
        made = [[batch.tolist() for batch in loader] for _ in range(epochs)]
    return made if epochs > 1 else made[0]


# ── shards ───────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("open_shards", [1, 3, 16])
def test_shards_are_read_in_turn_and_their_ends_are_joined(open_shards: int) -> None:
    words = ["abcdefg", "", "hi", "jklmnopqrstuv", "w", "xyz"]

    def letters(shard: stoker.Shard) -> Iterator[int]:
        assert (shard.count, words[shard.index]) == (6, shard.item)
        yield from map(ord, shard.item)

    expected = [[ord(letter) for letter in batch] for batch in in_turn(words, 3, open_shards)]
    assert all(len(batch) == 3 for batch in expected[:-1])
    for workers in (0, 1 if open_shards == 1 else 3):
        data = stoker.from_generator(letters, words, open_shards=open_shards)
        assert lists(stoker.Loader(data, batch_size=3, workers=workers)) == expected


def test_the_cardinality_is_known_where_a_length_is_told() -> None:
    for length, expected in ((LENGTH, 6), (None, "its length is unknown"), (math.inf, "it never ends")):
        data = stoker.from_generator(lambda shard: iter(()), shards=2, length=length)
        with stoker.Loader(data, batch_size=SIZE, workers=0) as loader:
            if isinstance(expected, int):
                assert len(loader) == expected
            else:
                with pytest.raises(TypeError, match=expected):
                    len(loader)
    with stoker.Loader(stoker.from_generator(plain_shard, 2, length=10), batch_size=4, workers=1) as loader:
        assert [len(loader), len(list(loader))] == [3, 3]


def test_a_source_without_end_gives_the_same_batches_for_any_number_of_workers() -> None:
    expected = list(itertools.islice(in_turn([itertools.count(k, 3) for k in range(3)], 5, 2), 40))
    for workers in (0, 1, 3):
        data = stoker.from_generator(endless, shards=3, length=math.inf, open_shards=2)
        with stoker.Loader(data, batch_size=5, workers=workers) as loader:
            for _ in range(2):
                assert [batch.tolist() for batch in itertools.islice(loader, 40)] == expected


def test_random_numbers_of_a_shard_are_its_own() -> None:
    def draws(shard: stoker.Shard) -> Iterator[Any]:
        for _ in range(10):
            yield np.array([shard.rng.random(), np.random.random()])

    made = [lists(stoker.Loader(stoker.from_generator(draws, 4), batch_size=3, workers=w), 2) for w in (0, 1, 3)]
    assert made[0] == made[1] == made[2]
    numbers = np.array(list(itertools.chain(*itertools.chain(*made[0])))).ravel()
    assert len(set(numbers.tolist())) == 2 * 40 * 2


# ── shuffle=n ────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("how", ["generator", "iterable"])
def test_a_shuffle_buffer_gives_each_epoch_an_order_of_its_own(how: str) -> None:
    made = []
    for workers in (0, 1, 3):
        data, _ = source(how, plainly)
        made.append(lists(stoker.Loader(data, batch_size=SIZE, shuffle=8, seed=3, workers=workers), 2))
    assert made[0] == made[1] == made[2]
    first, second = (list(itertools.chain(*epoch)) for epoch in made[0])
    assert sorted(first) == sorted(second) == list(range(LENGTH))
    assert first != second != list(range(LENGTH)) != first
    assert all(n - place <= LENGTH for place, n in enumerate(first))
    data, _ = source(how, plainly)
    assert lists(stoker.Loader(data, batch_size=SIZE, shuffle=8, seed=4, workers=0)) != made[0][0]


# ── SKIP and Many ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("transform", [odd, secretly_odd])
@pytest.mark.parametrize("how", SOURCES)
def test_skip_and_many_leave_batches_full_and_in_order(how: str, transform: Any) -> None:
    def some(n: int) -> list[int]:
        return [[], [100 * n + place for place in range(n % 5)], [100 * n]][n % 3]

    if how == "generator":
        shards = [list(range(sum(SHARDS[:k]), sum(SHARDS[: k + 1]))) for k in range(len(SHARDS))]
        expected = list(in_turn([itertools.chain(*map(some, shard)) for shard in shards], SIZE, 2))
    else:
        flat = list(itertools.chain(*map(some, range(LENGTH))))
        expected = [flat[start : start + SIZE] for start in range(0, len(flat), SIZE)]
    for workers in (0, 1, 3) if transform is odd else (0, 3):
        data, _ = source(how, plainly)
        with stoker.Loader(data, batch_size=SIZE, transform=transform, workers=workers) as loader:
            for _ in range(2):
                assert [batch.tolist() for batch in loader] == expected
            with pytest.raises(TypeError, match="its length is unknown"):
                len(loader)
    data, _ = source(how, plainly)
    full = [batch for batch in expected if len(batch) == SIZE]
    assert lists(stoker.Loader(data, batch_size=SIZE, transform=transform, drop_remainder=True, workers=0)) == full


# ── deaths ───────────────────────────────────────────────────────────────────────────────────
KILLED: dict[str, Any] = {
    "ragged": {"batch_size": SIZE, "collate": "ragged"},
    "skip": {"batch_size": SIZE},
    "one by one": {"batch_size": None},
    "shuffled": {"batch_size": SIZE},
}


@pytest.mark.parametrize("case", KILLED)
@pytest.mark.parametrize("how", SOURCES)
def test_a_killed_worker_changes_no_batch(how: str, case: str, tmp_path: Path) -> None:
    make = {"ragged": functools.partial(example, "varying"), "skip": odd}.get(case, plainly)
    options = dict(KILLED[case])
    if case == "shuffled":
        options["shuffle"] = how in ("map", "arrays") or 5
    made = []
    for workers, function in ((0, make), (2, Dying(make, 17, tmp_path / "died"))):
        # an iterable's own code runs in this process, and only a transform may skip
        in_transform = case == "skip" or how == "iterable"
        data, transform = source(how, plainly if in_transform else function)
        transform = function if in_transform else transform
        with stoker.Loader(data, transform=transform, workers=workers, **options) as loader:
            made.append([list(loader) for _ in range(2)])
    assert (tmp_path / "died").exists()
    assert repr(made[0]) == repr(made[1])


@pytest.mark.parametrize("verify", [0.0, 1.0])
@pytest.mark.parametrize("transform", [None, abs])
@pytest.mark.parametrize("how", ["generator", "iterable"])
def test_arrays_that_are_written_again_while_a_buffer_keeps_them_are_told_apart(
    how: str, transform: Any, verify: float, tmp_path: Path
) -> None:
    def reusing(shard: stoker.Shard | None = None) -> Iterator[Any]:
        array = np.zeros(2)
        for number in shard.split(range(100)) if shard is not None else range(100):
            if number == 60 and shard is not None:
                die_once(tmp_path / "died")
            array[:] = number
            yield array

    data = stoker.from_generator(reusing, shards=3) if how == "generator" else stoker.from_iterable(reusing)
    made = lists(
        stoker.Loader(data, batch_size=SIZE, shuffle=20, transform=transform, workers=2, verify=verify),
    )
    found = [number for batch in made for number, _ in batch]
    assert sorted(found) == list(range(100)) != found


def test_an_iterator_that_tells_its_state_is_not_read_again(tmp_path: Path) -> None:
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        folder.mkdir()
        data = stoker.from_generator(functools.partial(resuming, folder), shards=2)
        expected = list(in_turn([range(60), range(1000, 1060)], SIZE, 16))
        assert lists(stoker.Loader(data, batch_size=SIZE, workers=workers)) == expected
        notes = (folder / "read-0").read_text().split()
        described = SIZE if notes.count("0") > 1 else 0
        again = len(notes) - 60 - described
        assert again <= 2 * SIZE, f"{again} examples were read again, of the 50 before the death"
        assert (folder / "died").exists()


@pytest.mark.parametrize("kind", ["shorter", "long arrays", "texts", "objects", "images", "sparse"])
def test_a_shard_that_is_another_one_when_it_is_read_again_is_an_error(kind: str, tmp_path: Path) -> None:
    data = stoker.from_generator(functools.partial(fickle, kind, tmp_path / "died"), shards=1)
    with (
        stoker.Loader(data, batch_size=SIZE, workers=1) as loader,
        pytest.raises(stoker.SourceError, match=r"shard 0 was read again because its worker died, and it has changed"),
    ):
        list(loader)


# ── iterables ────────────────────────────────────────────────────────────────────────────────
class DriverError(Exception):
    """Of the user's own: cannot be pickled."""

    def __init__(self, row: int, cursor: Any) -> None:
        super().__init__(row)
        self.cursor = cursor


def test_exceptions_of_an_iterable_reach_the_user_as_they_are() -> None:
    raised = DriverError(9, iter(()))

    def rows() -> Iterator[int]:
        yield from range(9)
        raise raised

    for workers in (0, 2):
        with stoker.Loader(stoker.from_iterable(rows), batch_size=SIZE, workers=workers) as loader:
            for _ in range(2):
                batches = iter(loader)
                assert [next(batches).tolist() for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
                with pytest.raises(DriverError) as caught:
                    list(batches)
                assert caught.value is raised
    with (
        stoker.Loader(stoker.from_iterable(map(int, "12x")), batch_size=1, workers=1) as loader,
        pytest.raises(ValueError, match="invalid literal for int"),
    ):
        list(loader)


def test_an_iterable_is_read_in_this_process_and_only_a_little_ahead() -> None:
    pulled: list[int] = []

    def rows() -> Iterator[int]:
        for n in itertools.count():
            pulled.append(n)
            yield os.getpid()

    with stoker.Loader(stoker.from_iterable(rows), batch_size=2, workers=2, prefetch=2) as loader:
        for batch in itertools.islice(loader, 5):
            assert batch.tolist() == [os.getpid()] * 2
        assert len(pulled) < 60


def test_what_can_be_iterated_once_gives_one_epoch_and_then_a_clear_error() -> None:
    for once in (lambda: (n for n in range(5)), lambda: iter([0, 1, 2, 3, 4]), lambda: map(int, "01234")):
        for workers in (0, 1):
            with stoker.Loader(stoker.from_iterable(once()), batch_size=2, workers=workers) as loader:
                assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4]]
                for _ in range(2):
                    with pytest.raises(stoker.SourceError, match=r"can be iterated only once.*from_iterable\(lambda"):
                        list(loader)
    with stoker.Loader(stoker.from_iterable(range(5)), batch_size=2, workers=1) as loader:
        assert [len(list(loader)) for _ in range(3)] == [3, 3, 3]


# ── arrays ───────────────────────────────────────────────────────────────────────────────────
def test_rows_of_nested_arrays_are_batches() -> None:
    arrays = {"x": np.arange(92.0).reshape(23, 2, 2), "words": np.array([f"{n}é" for n in range(23)])}
    labels = memoryview(np.arange(23, dtype=np.int8))
    for workers in (0, 1, 3):
        with stoker.Loader(stoker.from_arrays(arrays, (labels,)), batch_size=SIZE, workers=workers) as loader:
            for (features, (label,)), ns in zip(loader, batches_of("arrays"), strict=True):
                expected = np.array([f"{n}é".encode() for n in ns], object)
                assert_same(features, {"x": arrays["x"][ns], "words": expected})
                assert_same(label, np.array(ns, np.int8))


def test_a_mapped_file_is_mapped_by_the_workers_and_never_read_into_memory(tmp_path: Path) -> None:
    file = tmp_path / "rows.npy"
    whole = np.lib.format.open_memmap(file, "w+", np.uint8, (64, 1 << 20))
    whole[:, 0] = np.arange(64)
    del whole

    def look(row: Any) -> Any:
        maps = [part for part in psutil.Process().memory_maps() if part.path == str(file)]
        private = sum(part.private_dirty + part.swap for part in psutil.Process().memory_maps(grouped=True))
        return row[0], len(maps), private

    data = stoker.from_arrays(np.load(file, mmap_mode="r"))
    for shuffle in (False, True):
        with stoker.Loader(data, batch_size=8, shuffle=shuffle, transform=look, workers=2) as loader:
            rows, maps, private = (np.concatenate(column) for column in zip(*loader, strict=True))
        assert sorted(rows.tolist()) == list(range(64))
        assert (maps > 0).all()
        assert private.max() < 48 << 20, "64 MB lie in the file"
    with stoker.Loader(data, batch_size=8, workers=2) as loader:
        assert [int(n) for batch in loader for n in batch[:, 0]] == list(range(64))
