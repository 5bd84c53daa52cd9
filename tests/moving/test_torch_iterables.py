"""PyTorch's iterable datasets: each shard is a worker to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import stoker
from tests import torch_sources as its
from tests.moving.torch_compare import batches_of, numbers, rows_of

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes:UserWarning")


@pytest.mark.parametrize("workers", [0, 2])
def test_each_shard_is_a_worker_to_an_iterable_dataset(workers: int) -> None:
    theirs = DataLoader(its.Striped(24), batch_size=4, num_workers=2)
    assert numbers(batches_of(theirs, workers=workers)) == numbers(theirs)
    uneven = DataLoader(its.Striped(23), batch_size=4, num_workers=2)
    ours = numbers(batches_of(uneven, workers=workers))
    assert rows_of(ours) == rows_of(numbers(uneven)) == list(range(23))
    assert list(map(len, ours)) == [4, 4, 4, 4, 4, 3]  # what is left at the shards' ends is joined


def test_the_number_of_shards_is_the_users_and_does_not_follow_the_workers() -> None:
    every = [numbers(batches_of(its.Striped(100), batch_size=8, workers=workers)) for workers in (0, 1, 3)]
    assert every[0] == every[1] == every[2]
    assert rows_of(every[0]) == list(range(100))
    assert every[0][0][:6] == [0, 16, 32, 48, 64, 80]
    by_three = numbers(batches_of(stoker.from_torch(its.Striped(100), shards=3), batch_size=8, workers=0))
    assert by_three[:3] == [list(range(first, first + 24, 3)) for first in range(3)]
    in_loader = DataLoader(its.Striped(100), batch_size=8, num_workers=2)
    assert numbers(batches_of(stoker.from_torch(in_loader, shards=3), workers=0)) == by_three


@pytest.mark.parametrize("workers", [0, 2])
def test_get_worker_info_is_as_in_pytorch_although_one_process_reads_several_shards(workers: int) -> None:
    source = stoker.from_torch(its.Told(), shards=4)
    told = []
    with stoker.Loader(source, batch_size=1, workers=workers) as loader:
        for _ in range(2):
            rows = sorted((index.item(), *map(np.ndarray.item, rest)) for index, *rest in loader)
            assert [(index, count, own) for index, count, _, own in rows] == [
                (index, 4, True) for index in range(4) for _ in range(2)
            ]
            told.append([seed for _, _, seed, _ in rows[::2]])
            assert np.diff(told[-1]).tolist() == [1, 1, 1]
    assert told[0] != told[1]
    assert torch.utils.data.get_worker_info() is None


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(its.Undivided(40), batch_size=4, num_workers=4, worker_init_fn=its.set_range),
        lambda: DataLoader(its.OwnIterator(40), batch_size=4, num_workers=4),
        lambda: DataLoader(its.ShuffledAlike(40, "held"), batch_size=4, num_workers=4),
        lambda: DataLoader(its.ShuffledAlike(40, "seeded"), batch_size=4, num_workers=4),
    ],
    ids=["worker_init_fn", "its own iterator", "a generator that it holds", "a seed that all share"],
)
def test_each_shard_reads_a_copy_of_the_dataset_in_its_first_state(make: Callable[[], Any], workers: int) -> None:
    with stoker.Loader(make(), workers=workers) as loader:
        for _ in range(2):
            assert rows_of(numbers(loader)) == list(range(40))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "source",
    [
        its.Undivided(10),
        stoker.from_torch(its.Undivided(10), shards=2),
        DataLoader(its.Undivided(10), num_workers=2),
        DataLoader(its.Undivided(10), num_workers=2, worker_init_fn=its.set_nothing),
    ],
    ids=["dataset", "shards", "num_workers", "worker_init_fn"],
)
def test_a_dataset_that_does_not_divide_itself_is_refused(source: Any, workers: int) -> None:
    message = r"this Undivided does not read .*get_worker_info\(\).id.*would come (2|16) times.*shards=1.*info.id ::"
    with pytest.raises(stoker.SourceError, match=message):
        batches_of(source, workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataset_that_reads_its_number_only_to_seed_is_refused_unless_the_user_chose_the_shards(workers: int) -> None:
    message = r"this Seeding reads .*info\(\).id`, but not `num_workers`.*16 shards.*shards=1.*pass that as `shards="
    with pytest.raises(stoker.SourceError, match=message):
        batches_of(its.Seeding(10), workers=workers)


@pytest.mark.parametrize(("kind", "length"), [(its.Stepping, 40), (its.OneEach, 9)])
def test_a_dataset_that_asks_late_how_many_workers_there_are_is_taken(kind: Any, length: int) -> None:
    assert rows_of(numbers(batches_of(kind(length), batch_size=4, workers=0))) == list(range(length))


def test_a_number_of_shards_that_the_user_chose_is_left_to_the_dataset() -> None:
    assert len(rows_of(numbers(batches_of(stoker.from_torch(its.Seeding(10), shards=2), workers=0)))) == 20


def test_it_is_read_whole_in_one_shard() -> None:
    assert numbers(batches_of(stoker.from_torch(its.Undivided(10), shards=1), workers=0)) == [list(range(10))]


def test_a_dataset_that_cannot_be_copied_has_one_shard() -> None:
    with pytest.raises(stoker.SourceError, match=r"this Locked cannot be copied.*shards=1"):
        batches_of(its.Locked(4), workers=0)
    assert numbers(batches_of(stoker.from_torch(its.Locked(4), shards=1), workers=0)) == [[0, 1, 2, 3]]


def test_a_length_is_kept_to() -> None:
    with stoker.Loader(its.Sized(20, 20), batch_size=8, workers=0) as loader:
        assert len(loader) == len(list(loader)) == 3
    with stoker.Loader(its.Striped(20), batch_size=8, workers=0) as loader, pytest.raises(TypeError, match="unknown"):
        len(loader)
    for length, came in ((19, r"more \("), (21, "20 examples")):
        with pytest.raises(stoker.SourceError, match=rf"len\(\) of this Sized is {length}, but its shards gave {came}"):
            batches_of(its.Sized(20, length), batch_size=8, workers=0)


def dying_once(example: Any, flag: Path) -> Any:
    if example == 20 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return example


@pytest.mark.parametrize("kind", [its.Striped, its.Stateful])
def test_a_killed_worker_and_a_resumed_run_change_no_batch(kind: Any, tmp_path: Path) -> None:
    def source() -> Any:
        return stoker.from_torch(kind(50), shards=3)

    whole = numbers(batches_of(source(), batch_size=4, workers=0))
    die = partial(dying_once, flag=tmp_path / "died")
    assert numbers(batches_of(source(), batch_size=4, workers=2, transform=die)) == whole
    with stoker.Loader(source(), batch_size=4, workers=1) as loader:
        assert numbers(islice(loader, 5)) == whole[:5]
        state = loader.state_dict()
    with stoker.Loader(source(), batch_size=4, workers=0) as loader:
        loader.load_state_dict(state)
        assert numbers(loader) == whole[5:]
    with (
        stoker.Loader(stoker.from_torch(kind(50), shards=4), batch_size=4, workers=0) as other,
        pytest.raises(stoker.StateError, match="shards"),
    ):
        other.load_state_dict(state)


def test_set_epoch_is_called_on_each_copy() -> None:
    source = its.Epochs()
    with stoker.Loader(stoker.from_torch(source, shards=2), workers=0) as loader:
        assert [numbers(loader) for _ in range(3)] == [[[0, 0]], [[1, 1]], [[2, 2]]]
    assert source.epochs == []


def test_large_parts_are_not_copied_for_each_shard() -> None:
    class Big(its.Striped):
        def __init__(self) -> None:
            super().__init__(4)
            self.tensor, self.array, self.small = torch.zeros(100_000), np.zeros(100_000), np.zeros(3)

        def __iter__(self) -> Iterator[Any]:
            for number in super().__iter__():
                yield number, self.tensor.data_ptr(), self.array.ctypes.data, self.small.ctypes.data

    ((_, *addresses),) = batches_of(stoker.from_torch(Big(), shards=4), batch_size=4, workers=0)
    assert [len(set(address.tolist())) for address in addresses] == [1, 1, 4]
