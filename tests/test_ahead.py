"""Making the next epoch ahead changes no batch: with real workers, in every way of reading."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker

LENGTH, SIZE = 44, 8


class Numbers:
    """Numbers with some noise. It may note each one that it makes, with the epoch."""

    def __init__(self, notes: Path | None = None) -> None:
        self.notes = notes

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> float:
        if self.notes is not None:
            with self.notes.open("a") as file:
                file.write(f"{stoker.current().epoch} {index}\n")
        return index + np.random.random() / 2


def noted(notes: Path) -> Counter[tuple[int, int]]:
    lines = notes.read_text().splitlines() if notes.exists() else []
    return Counter((int(epoch), int(index)) for epoch, index in map(str.split, lines))


def until(notes: Path, epoch: int) -> None:
    """Wait until an example of this epoch is made."""
    deadline = time.monotonic() + 10
    while all(its != epoch for its, _ in noted(notes)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def rows(shard: stoker.Shard) -> Iterator[Any]:
    for number in shard.split(range(LENGTH)):
        yield number + shard.rng.random() / 2


#: Loader does not see in advance that a transform uses these.
HIDDEN: dict[str, Any] = {"SKIP": stoker.SKIP}


def every_third(number: float) -> Any:
    return HIDDEN["SKIP"] if int(number) % 3 == 0 else number


def first_of_epoch_2_and_later(number: float) -> Any:
    return HIDDEN["SKIP"] if stoker.current().epoch == 2 and int(number) == 17 else number


LOADERS: dict[str, dict[str, Any]] = {
    "map": {"source": Numbers(), "shuffle": True, "seed": 3},
    "shards": {"source": stoker.from_generator(rows, shards=3, open_shards=2), "shuffle": 4},
    "one shard": {"source": stoker.from_generator(rows, shards=1)},
    "weighted": {"source": Numbers(), "order": stoker.weighted(np.arange(LENGTH))},
    "a trainer's share": {"source": Numbers(), "shuffle": True, "shard_count": 2, "shard_index": 1},
    "SKIP": {"source": Numbers(), "transform": every_third},
    "SKIP in the third epoch": {"source": Numbers(), "shuffle": True, "transform": first_of_epoch_2_and_later},
    "iterable": {"source": stoker.from_iterable(range(LENGTH))},
    "one by one": {"source": Numbers(), "shuffle": True, "batch_size": None},
    "verified": {"source": Numbers(), "shuffle": True, "verify": 0.5},
}


def epochs(loader: stoker.Loader, count: int = 4) -> list[list[Any]]:
    return [[batch.tolist() for batch in loader] for _ in range(count)]


@pytest.mark.parametrize(("kind", "workers"), [*((kind, 2) for kind in LOADERS), ("map", 1), ("map", 7)])
def test_each_epoch_is_the_same_for_any_number_of_workers(kind: str, workers: int) -> None:
    came = []
    for its in ({"workers": 0}, {"workers": workers}):
        with stoker.Loader(**{"batch_size": SIZE, **LOADERS[kind], **its}) as loader:
            came.append(epochs(loader))
    assert came[0] == came[1]


@pytest.mark.parametrize("kind", ["map", "shards"])
def test_training_goes_on_from_any_batch_around_the_turn(kind: str) -> None:
    with stoker.Loader(**{"batch_size": SIZE, **LOADERS[kind], "workers": 2}) as loader:
        start = loader.state_dict()
        whole = epochs(loader, 4)
        later = [batch for epoch in whole for batch in epoch]
        for taken in range(1, 2 * len(whole[0]) + 1):
            loader.load_state_dict(start)
            epoch, count = divmod(taken - 1, len(whole[0]))
            for _ in range(epoch):
                assert len(list(loader)) == len(whole[0])
            batches = iter(loader)
            assert [next(batches).tolist() for _ in range(count + 1)] == whole[epoch][: count + 1]
            state = loader.state_dict()
            batches.close()
            loader.load_state_dict(state)
            rest = [batch.tolist() for _ in range(2) for batch in loader]
            assert rest == later[taken : taken + len(rest)]


def test_an_example_is_made_once_in_its_epoch_and_after_the_last_one_at_most_prefetch_batches(tmp_path: Path) -> None:
    source = Numbers(tmp_path / "notes")
    with stoker.Loader(source, batch_size=SIZE, workers=2, prefetch=2) as loader:
        epochs(loader, 3)
        until(source.notes, 3)
    made = noted(source.notes)
    assert set(made.values()) == {1}
    assert {(epoch, index) for epoch, index in made if epoch < 3} == {(e, i) for e in range(3) for i in range(LENGTH)}
    assert {index for epoch, index in made if epoch == 3} <= set(range(2 * SIZE))
    assert {epoch for epoch, _ in made} == set(range(4))


def whole_batches(shard: stoker.Shard) -> Iterator[int]:
    yield from range(2 * SIZE)


def test_an_epoch_whose_end_shows_only_after_its_last_batch_is_followed_too(tmp_path: Path) -> None:
    notes = Numbers(tmp_path / "notes")

    def noting(number: int) -> int:
        notes[number]
        return number

    source = stoker.from_generator(whole_batches, shards=1)
    with stoker.Loader(source, batch_size=SIZE, workers=1, transform=noting) as loader:
        assert len(list(loader)) == 2
        until(notes.notes, 1)  # type: ignore[arg-type]


class Dying(Numbers):
    """A worker is killed at the first example of epoch 1, once."""

    def __getitem__(self, index: int) -> float:
        if stoker.current().epoch == 1 and index == 0 and not noted(self.notes)[1, 0]:  # type: ignore[arg-type]
            super().__getitem__(index)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_death_in_a_batch_made_ahead_changes_none_and_is_counted_in_its_epoch(tmp_path: Path) -> None:
    source = Dying(tmp_path / "notes")
    with stoker.Loader(source, batch_size=SIZE, workers=2, seed=5) as loader:
        came = epochs(loader, 1)
        until(source.notes, 1)
        assert loader.stats().deaths == 0
        came += epochs(loader, 2)
        assert loader.stats().deaths == 1
    with stoker.Loader(Numbers(), batch_size=SIZE, workers=0, seed=5) as loader:
        assert came == epochs(loader, 3)


def odd(number: float) -> float:
    if int(number) == 3 and stoker.current().epoch:
        raise ValueError("three")
    return number


def test_what_is_left_out_of_batches_made_ahead_is_told_in_their_epoch(caplog: pytest.LogCaptureFixture) -> None:
    source = stoker.from_generator(rows, shards=2)
    with stoker.Loader(source, batch_size=SIZE, workers=2, transform=odd, on_error="skip") as loader:
        for epoch in range(3):
            assert sum(len(batch) for batch in loader) == LENGTH - (epoch > 0)
            assert [one.epoch for one in loader.stats().skipped] == list(range(1, epoch + 1))
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said == ["epoch 1", "epoch 2"]


class Endless(Numbers):
    """Hangs in epoch 1."""

    def __getitem__(self, index: int) -> float:
        made = super().__getitem__(index)
        if stoker.current().epoch:
            time.sleep(60)
        return made


def test_closing_does_not_wait_for_batches_that_no_one_wants(tmp_path: Path) -> None:
    source = Endless(tmp_path / "notes")
    with stoker.Loader(source, batch_size=SIZE, workers=2) as loader:
        list(loader)
        until(source.notes, 1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 3


def test_tf_data_gets_the_same_epochs_with_repeat_and_take_and_beside_validation() -> None:
    pytest.importorskip("tensorflow")
    its: dict[str, Any] = {"batch_size": SIZE, **LOADERS["map"]}
    with stoker.Loader(**its, workers=0) as plain, stoker.Loader(**its, workers=2) as loader:
        expected = epochs(plain, 9)
        data = loader.to_tf()
        held_out = stoker.Loader(**its, workers=2)
        validation = held_out.to_tf()

        def read(dataset: Any) -> list[list[float]]:
            return [batch.numpy().tolist() for batch in dataset]

        assert read(data) == expected[0]
        assert read(validation) == expected[0]
        assert read(data.repeat(2)) == [*expected[1], *expected[2]]
        assert read(validation) == expected[1]
        assert read(data.take(2)) == expected[3][:2]
        assert read(loader.to_tf().unbatch().batch(SIZE)) == expected[4]
        held_out.close()
        unread = iter(data)
        assert read(data) == expected[5]
        del unread
        assert read(data) == expected[6]


def test_a_loader_that_is_dropped_with_batches_ahead_ends(tmp_path: Path) -> None:
    source = Numbers(tmp_path / "notes")
    loader = stoker.Loader(source, batch_size=SIZE, workers=1)
    list(loader)
    until(source.notes, 1)  # what is left of it is looked for after every test
