"""The examples that are looked at are made by all workers, and are what the first batches are made of."""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker


def note(file: Path, number: int) -> None:
    with file.open("a") as notes:
        notes.write(f"{number}\n")


def noted(file: Path) -> Counter[int]:
    return Counter(map(int, file.read_text().split())) if file.exists() else Counter()


class Counted:
    """Notes each example that is made, and which process makes it."""

    def __init__(self, file: Path, make: Any, length: int = 40, seconds: float = 0.0) -> None:
        self.file, self.make, self.length, self.seconds = file, make, length, seconds

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Any:
        note(self.file, number)
        time.sleep(self.seconds)
        return self.make(number)


def row(number: int) -> Any:
    return np.full(3, number, np.float32)


def varied(number: int) -> Any:
    return np.full(number % 5 + 1, number) + random.randrange(10) + np.random.randint(10)


def text(number: int) -> Any:
    return {"text": "ä" * number, "number": number}


def joined(file: Path, examples: list[Any]) -> Any:
    note(file, -len(examples))
    return np.concatenate(examples)


def shard_of(data: Counted, shard: stoker.Shard) -> Iterator[Any]:
    for number in shard.split(range(len(data))):
        yield data[number]


def sources(file: Path, make: Any) -> Any:
    data = Counted(file, make)
    yield "map", {"source": data}
    yield "shuffled", {"source": data, "shuffle": True, "seed": 3}
    yield "iterable", {"source": stoker.from_iterable(range(40)), "transform": data.__getitem__}
    yield "generator", {"source": stoker.from_generator(functools.partial(shard_of, data), shards=3)}


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "stack": (row, {}),
    "text": (text, {}),
    "pad": (varied, {"collate": "pad"}),
    "ragged": (varied, {"collate": "ragged"}),
    "one by one": (varied, {"batch_size": None}),
}


def told(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {key: told(part) for key, part in batch.items()}
    if isinstance(batch, bytes):
        return batch
    return [told(part) for part in batch] if batch.dtype == object else batch.tolist()


@pytest.mark.parametrize("how", ["map", "shuffled", "iterable", "generator"])
@pytest.mark.parametrize(
    "kind", [kind if kind != "ragged" else pytest.param(kind, marks=pytest.mark.stress) for kind in KINDS]
)
def test_no_example_is_made_twice_and_batches_do_not_depend_on_workers(kind: str, how: str, tmp_path: Path) -> None:
    make, options = KINDS[kind]
    came = []
    for workers in (0, 1, 3):
        file = tmp_path / f"notes {workers}"
        its = {"batch_size": 8, "ahead": False, **dict(sources(file, make))[how], **options}
        with stoker.Loader(workers=workers, **its) as loader:
            came.append([told(batch) for batch in loader])
        assert noted(file) == Counter(range(40))
    assert came[0] == came[1] == came[2]


@pytest.mark.parametrize("how", ["map", "generator"])
def test_what_was_made_first_is_compared_too(how: str, tmp_path: Path) -> None:
    its = {"batch_size": 8, "collate": functools.partial(joined, tmp_path / "calls"), "verify": 1.0, "workers": 2}
    with stoker.Loader(**its, **dict(sources(tmp_path / "notes", varied))[how]) as loader:
        assert sum(len(batch) for batch in loader) == sum(n % 5 + 1 for n in range(40))


@pytest.mark.parametrize("how", ["map", "shuffled", "iterable", "generator"])
def test_a_collate_function_is_called_once_for_a_batch(how: str, tmp_path: Path) -> None:
    came = []
    for workers in (0, 2):
        file, calls = tmp_path / f"notes {workers}", tmp_path / f"calls {workers}"
        its = {"batch_size": 4, "ahead": False, "collate": functools.partial(joined, calls)}
        its |= dict(sources(file, varied))[how]
        with stoker.Loader(workers=workers, **its) as loader:
            came.append([batch.tolist() for batch in loader])
        assert noted(file) == Counter(range(40))
        assert noted(calls) == Counter({-4: 10})
    assert came[0] == came[1]


class Boxed:
    """Cannot be pickled."""

    def __init__(self, number: int) -> None:
        self.number, self.lock = number, threading.Lock()


def test_examples_that_cannot_be_pickled_are_made_again() -> None:
    def unboxed(examples: list[Any]) -> Any:
        return np.array([one.number for one in examples])

    with stoker.Loader(range(12), batch_size=4, transform=Boxed, collate=unboxed, workers=2) as loader:
        assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_all_workers_make_the_first_batch(tmp_path: Path) -> None:
    """Whatever it is joined by, the first batch takes half as long with two workers."""

    def seconds(workers: int) -> float:
        data = Counted(tmp_path / "notes", varied, 16, 0.1)
        with stoker.Loader(data, batch_size=8, collate="pad", workers=workers) as loader:
            made = iter(loader)
            start = time.monotonic()
            next(made)
            return time.monotonic() - start

    with stoker.Loader([0], workers=2) as loader:  # what a start takes
        start = time.monotonic()
        list(loader)
        started = time.monotonic() - start
    assert seconds(2) < 0.8 + started * 2 + 0.2


def die_once(flag: Path) -> None:
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("how", ["map", "iterable", "generator"])
def test_a_worker_that_dies_while_it_makes_the_first_examples_changes_no_batch(how: str, tmp_path: Path) -> None:
    def dying(number: int) -> Any:
        if number == 5:
            die_once(tmp_path / "died")
        return varied(number)

    came = []
    for make in (varied, dying):
        its = dict(sources(tmp_path / "notes", make))[how]
        with stoker.Loader(batch_size=8, collate="pad", workers=2, **its) as loader:
            came.append([batch.tolist() for batch in loader])
            deaths = loader.stats().deaths
    assert (came[0] == came[1], deaths) == (True, 1)


@pytest.mark.parametrize("how", ["map", "iterable", "generator"])
def test_going_on_in_mid_epoch_makes_what_is_left_once(how: str, tmp_path: Path) -> None:
    its = {"batch_size": 8, "ahead": False, "collate": "pad", "workers": 2}
    with stoker.Loader(**its, **dict(sources(tmp_path / "whole", varied))[how]) as loader:
        batches = iter(loader)
        first = [next(batches).tolist() for _ in range(2)]
        state, rest = loader.state_dict(), [batch.tolist() for batch in batches]
    assert len(first + rest) == 5
    file = tmp_path / "notes"
    with stoker.Loader(lazy=True, **its, **dict(sources(file, varied))[how]) as loader:  # else epoch 0 has begun
        loader.load_state_dict(state)
        assert [batch.tolist() for batch in loader] == rest
    if how != "generator":  # whose shards are read again
        assert noted(file) == Counter(range(16, 40))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_example_that_raises_does_so_in_its_turn(workers: int) -> None:
    def raising(number: int) -> Any:
        if number == 11:
            raise KeyError(number)
        return np.arange(number)

    with stoker.Loader(range(24), batch_size=4, transform=raising, collate="pad", workers=workers) as loader:
        batches = iter(loader)
        assert [len(next(batches)) for _ in range(2)] == [4, 4]
        with pytest.raises(stoker.WorkerError, match=r"example 11 \(epoch 0, batch 2"):
            next(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_examples_that_are_left_out_are_so_among_the_first_too(workers: int) -> None:
    def odd(number: int) -> Any:
        if number in (0, 3, 20):
            raise KeyError(number)
        return (
            (stoker.Many([np.arange(number)] * 2) if number == 1 else np.arange(number)) if number != 2 else stoker.SKIP
        )

    expected = [1, 1, *(n for n in range(4, 24) if n != 20)]
    with stoker.Loader(
        range(24), batch_size=4, transform=odd, collate="pad", on_error="skip", workers=workers
    ) as loader:
        came = [int(one.max()) + 1 if one.size else 0 for batch in loader for one in batch]
        skipped = sorted(one.example for one in loader.stats().skipped)
    assert (came, skipped) == (expected, [0, 3, 20])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("broken", [(3, 9), (7,), (0, 1, 2, 3), (23,)])
def test_a_function_gets_none_twice_where_some_are_left_out(broken: tuple[int, ...], workers: int) -> None:
    def odd(number: int) -> Any:
        if number in broken:
            raise KeyError(number)
        return number

    with stoker.Loader(
        range(24), batch_size=4, transform=odd, collate=np.array, on_error="skip", workers=workers
    ) as loader:
        came = [number for batch in loader for number in batch.tolist()]
        skipped = sorted(one.example for one in loader.stats().skipped)
    assert (came, skipped) == ([n for n in range(24) if n not in broken], [*broken])


@pytest.mark.parametrize("how", ["map", "iterable"])
def test_a_function_gets_the_examples_before_one_that_raises(how: str, tmp_path: Path) -> None:
    def raising(number: int) -> Any:
        if number == 6:
            raise KeyError(number)
        return np.array([number])

    its = dict(sources(tmp_path / "notes", raising))[how]
    with stoker.Loader(batch_size=4, collate=np.concatenate, workers=2, **its) as loader:
        batches = iter(loader)
        assert next(batches).tolist() == [0, 1, 2, 3]
        with pytest.raises(stoker.WorkerError, match=r"example 6 \(epoch 0, batch 1"):
            next(batches)


class Pair(tuple[int, int]):
    """A pickled one comes back as another."""

    def __new__(cls, *parts: int) -> Pair:
        return super().__new__(cls, parts)


def test_a_function_gets_what_was_made_where_its_pickle_is_another() -> None:
    def sums(examples: list[Any]) -> Any:
        return np.array([left + right for left, right in examples])

    with stoker.Loader(range(8), batch_size=4, transform=lambda n: Pair(n, 1), collate=sums, workers=2) as loader:
        assert [batch.tolist() for batch in loader] == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize("how", ["map", "generator"])
def test_a_function_that_draws_numbers_is_seeded_in_the_first_batches_too(how: str, tmp_path: Path) -> None:
    def noisy(examples: list[Any]) -> Any:
        return np.concatenate(examples) + np.random.randint(1_000) + random.randrange(1_000)

    came = []
    for workers in (0, 1, 2):
        np.random.seed(workers)
        its = dict(sources(tmp_path / "notes", row))[how]
        with stoker.Loader(batch_size=8, collate=noisy, workers=workers, **its) as loader:
            came.append([batch.tolist() for batch in loader])
    assert came[0] == came[1] == came[2]


def _skips_then_raises(number: int) -> Any:
    if number == 5:
        raise LookupError("five")
    return stoker.SKIP if number < 5 else [float(number)] * (number % 3 + 1)


@pytest.mark.parametrize("collate", ["pad", "ragged", "stack"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_behind_examples_that_are_all_left_out_is_told(collate: Any, workers: int) -> None:
    loader = stoker.Loader(
        list(range(40)), batch_size=8, collate=collate, transform=_skips_then_raises, workers=workers
    )
    with loader, pytest.raises(LookupError, match="example 5"):
        list(loader)


class Gated:
    """Examples of differing sizes, the first of which waits until the gate is open."""

    def __init__(self, folder: Path) -> None:
        self.begun, self.gate = folder / "begun", folder / "gate"

    def __len__(self) -> int:
        return 40

    def __getitem__(self, number: int) -> Any:
        self.begun.touch()
        while not self.gate.exists():
            time.sleep(0.01)
        return varied(number)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_loaded_while_the_first_examples_are_made_is_where_the_iteration_begins(
    tmp_path: Path, workers: int
) -> None:
    with stoker.Loader(Gated(tmp_path), batch_size=4, collate="pad", workers=workers) as loader:
        (tmp_path / "gate").touch()
        batches = iter(loader)
        next(batches), next(batches)
        state, expected, following = loader.state_dict(), list(batches), next(iter(loader))
    (tmp_path / "gate").unlink()
    (tmp_path / "begun").unlink()
    with stoker.Loader(Gated(tmp_path), batch_size=4, collate="pad", workers=workers) as loader:
        came: list[Any] = []
        thread = threading.Thread(target=lambda: came.extend(loader))
        thread.start()
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        opener = threading.Timer(0.3, (tmp_path / "gate").touch)
        opener.start()
        loader.load_state_dict(state)
        thread.join()
        opener.join()
        assert len(came) == len(expected) == 8
        for batch, other in zip([*came, next(iter(loader))], [*expected, following], strict=True):
            np.testing.assert_array_equal(batch, other)


def raises(example: Any) -> Any:
    raise ValueError(example)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_the_first_examples_names_the_epoch_that_they_are_of(workers: int) -> None:
    with stoker.Loader([1, 2, 3], batch_size=1, workers=0) as loader:
        for _ in range(3):
            list(loader)
        state = loader.state_dict()
    with stoker.Loader([1, 2, 3], batch_size=1, workers=workers, transform=raises) as loader:
        loader.load_state_dict(state)
        with pytest.raises(stoker.WorkerError, match=r"example 0 \(epoch 3, batch 0") as raised:
            list(loader)
        assert raised.value.epoch == 3


class RaisesOnce:
    """An example raises when it is made for the first time, as where a server does not answer for once."""

    def __init__(self, file: Path, bad: int) -> None:
        self.file, self.bad = file, bad

    def __len__(self) -> int:
        return 24

    def __getitem__(self, number: int) -> Any:
        note(self.file, number)
        if number == self.bad and noted(self.file)[number] == 1:
            raise ConnectionError("no answer")
        return varied(number)


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("bad", [0, 5])
@pytest.mark.parametrize("collate", ["stack", "pad", "ragged"])
def test_an_example_that_raised_early_is_not_tried_again_and_raises_in_its_turn(
    tmp_path: Path, workers: int, bad: int, collate: str
) -> None:
    source: Any = RaisesOnce(tmp_path / "notes", bad)
    transform = first_of if collate == "stack" else None
    its = {"batch_size": 4, "collate": collate, "transform": transform, "ahead": False}
    with stoker.Loader(source, workers=workers, **its) as loader:
        came = []
        with pytest.raises(stoker.WorkerError, match=rf"example {bad} \(.*raised ConnectionError: no answer") as raised:
            came.extend(loader)
        assert len(came) == bad // 4
        assert type(raised.value.__cause__) is ConnectionError
        assert "raise ConnectionError" in str(raised.value), "the user's line is shown"
        assert noted(source.file)[bad] == 1
        assert len(list(loader)) == 6, "the next iteration is whole"


def first_of(example: Any) -> Any:
    return example[:1]
