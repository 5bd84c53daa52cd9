"""PyTorch's DataLoaders, as they are: their options become the Loader's, and their batches are its own."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ChainDataset,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

import stoker
from tests import torch_sources as its
from tests.moving.torch_compare import assert_all_same, batches_of, numbers, rows_of

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes:UserWarning")
NUMBERS = its.Made(int, 10)


LOADERS: dict[str, Callable[[], DataLoader[Any]]] = {
    "batch_size": lambda: DataLoader(its.Made(its.features, 10), batch_size=4),
    "its default": lambda: DataLoader(NUMBERS),
    "drop_last": lambda: DataLoader(its.tensors(10), batch_size=4, drop_last=True),
    "collate_fn": lambda: DataLoader(its.Made(its.vector, 10), batch_size=4, collate_fn=its.padded),
    "a lambda": lambda: DataLoader(NUMBERS, batch_size=4, collate_fn=lambda examples: torch.tensor(examples) * 2),
    "default_collate within": lambda: DataLoader(
        its.tensors(10), 4, collate_fn=lambda examples: torch.utils.data.default_collate(examples)
    ),
    "sequential": lambda: DataLoader(its.tensors(10), batch_size=4, sampler=SequentialSampler(range(10))),
    "batch_sampler": lambda: DataLoader(
        its.tensors(10), batch_sampler=BatchSampler(SequentialSampler(range(10)), 4, drop_last=True)
    ),
    "elements": lambda: DataLoader(its.Made(its.features, 5), batch_size=None),
    "elements that are lists": lambda: DataLoader(its.Made(lambda n: [n, [n / 2]], 5), batch_size=None),
    "elements that are batches": lambda: DataLoader(its.Made(its.batch_of, 5), batch_size=None),
    "elements changed": lambda: DataLoader(its.Made(its.features, 5), batch_size=None, collate_fn=its.doubled),
    "no Dataset": lambda: DataLoader([1.5, 2.5, 3.5], batch_size=2),  # type: ignore[arg-type]
    "an array": lambda: DataLoader(np.arange(6.0).reshape(3, 2), batch_size=2),  # type: ignore[arg-type]
    "iterable": lambda: DataLoader(its.Striped(10), batch_size=4),
    "iterable, undivided": lambda: DataLoader(its.Undivided(10), batch_size=4, drop_last=True),
    "iterable, elements": lambda: DataLoader(its.Striped(3), batch_size=None),
    "iterable, one worker": lambda: DataLoader(its.Striped(10), batch_size=4, num_workers=1),
    "iterable, chained": lambda: DataLoader(ChainDataset([its.Striped(3), its.Undivided(4)]), batch_size=4),
}


@pytest.mark.parametrize("name", LOADERS)
def test_the_batches_of_a_dataloader_are_its_own(name: str) -> None:
    theirs = list(LOADERS[name]())
    for source in (LOADERS[name](), stoker.from_torch(LOADERS[name]())):
        assert_all_same(source, theirs, workers=0)


@pytest.mark.parametrize("name", ["collate_fn", "a lambda", "elements that are batches", "iterable, undivided"])
def test_the_batches_of_a_dataloader_are_its_own_in_workers_too(name: str) -> None:
    assert_all_same(LOADERS[name](), list(LOADERS[name]()), workers=2)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(its.tensors(10), batch_size=4, shuffle=True),
        DataLoader(its.tensors(10), batch_size=4, sampler=RandomSampler(range(10))),
        DataLoader(its.tensors(10), batch_sampler=BatchSampler(RandomSampler(range(10)), 4, drop_last=False)),
    ],
)
def test_a_dataloader_that_shuffles_gives_each_example_once_in_an_order_of_the_seed(loader: Any) -> None:
    first, second, again = (batches_of(loader, workers=0, seed=seed) for seed in (1, 2, 1))
    for batches in (first, second):
        assert list(map(len, (rows for _, rows in batches))) == [4, 4, 2]
        assert sorted(np.concatenate([rows for _, rows in batches]).tolist()) == list(range(10))
    orders = [np.concatenate([rows for _, rows in batches]).tolist() for batches in (first, second, again)]
    assert orders[0] == orders[2] != orders[1]


def test_the_seed_of_its_generator_is_that_of_the_loader() -> None:
    seeded = DataLoader(NUMBERS, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(7))
    with stoker.Loader(seeded, workers=0) as loader:
        assert loader.state_dict()["seed"] == 7
        assert [rows.tolist() for rows in loader] == [
            rows.tolist() for rows in batches_of(NUMBERS, batch_size=4, shuffle=True, seed=7, workers=0)
        ]
    by_sampler = DataLoader(NUMBERS, sampler=RandomSampler(range(10), generator=torch.Generator().manual_seed(8)))
    with stoker.Loader(by_sampler, workers=0) as loader:
        assert loader.state_dict()["seed"] == 8


class Halves(Sampler[Any]):
    """Batches of indices: one of each half."""

    def __iter__(self) -> Iterator[list[int]]:
        for number in torch.randperm(5).tolist():
            yield [number, number + 5] if number else [number]

    def __len__(self) -> int:
        return 5


#: DataLoaders with an order of their own, and whether it is the same in each epoch.
ORDERED: dict[str, tuple[Callable[[], DataLoader[Any]], bool]] = {
    "a subset": (lambda: DataLoader(NUMBERS, 2, sampler=SubsetRandomSampler([1, 3, 5, 7, 9])), False),
    "part of all": (lambda: DataLoader(NUMBERS, 2, sampler=RandomSampler(NUMBERS, num_samples=5)), False),
    "a shorter sequence": (lambda: DataLoader(NUMBERS, 2, sampler=SequentialSampler(range(7))), True),
    "a list": (lambda: DataLoader(NUMBERS, 2, sampler=[4, 4, 2, 9], drop_last=True), True),
    "batches": (lambda: DataLoader(NUMBERS, batch_sampler=Halves()), False),
    "a list of batches": (lambda: DataLoader(NUMBERS, batch_sampler=[[1, 2, 3], [4], [5, 5]]), True),
    "batches of a subset": (
        lambda: DataLoader(NUMBERS, batch_sampler=BatchSampler(SubsetRandomSampler(range(5)), 2, drop_last=False)),
        False,
    ),
    "elements": (lambda: DataLoader(NUMBERS, batch_size=None, sampler=[3, 1, 2]), True),
    "a rank's part": (lambda: DataLoader(NUMBERS, 2, sampler=DistributedSampler(NUMBERS, 2, 1, shuffle=False)), True),
}


@pytest.mark.parametrize("name", ORDERED)
def test_a_sampler_says_which_examples_come_in_which_batches(name: str) -> None:
    make, is_fixed = ORDERED[name]
    theirs = numbers(make())
    with stoker.Loader(make(), workers=0) as loader:
        first, second = numbers(loader), numbers(loader)
        assert len(loader) == len(theirs)
    assert first == numbers(batches_of(make(), workers=0)), "an epoch is the same in each run"
    if is_fixed:
        assert first == second == theirs
    elif name != "part of all":
        assert rows_of(first) == rows_of(second) == rows_of(theirs)
        assert first != second
    sizes = [sorted(np.size(batch) for batch in batches) for batches in (first, second, theirs)]
    assert sizes[0] == sizes[1] == sizes[2]


def test_weights_decide_how_often_an_example_comes() -> None:
    sampler = WeightedRandomSampler([0, 0, 1, 0, 3, 0, 0, 0, 0, 0], 400)
    came = collections.Counter(chain.from_iterable(numbers(batches_of(DataLoader(NUMBERS, 50, sampler=sampler)))))
    assert set(came) == {2, 4}
    assert 2 < came[4] / came[2] < 4.5


class Pair:
    def __init__(self, n: int) -> None:
        self.n = n


def join_pairs(examples: list[Pair], *, collate_fn_map: Any = None) -> torch.Tensor:
    return torch.tensor([[one.n, -one.n] for one in examples])


def test_types_that_the_user_has_added_to_default_collate_are_joined_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data._utils.collate import default_collate_fn_map

    monkeypatch.setitem(default_collate_fn_map, Pair, join_pairs)
    loader = DataLoader(its.Made(lambda n: (Pair(n), n), 5), batch_size=4)
    theirs = list(loader)
    for workers in (0, 1):
        assert_all_same(loader, theirs, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_init_fn_is_called_with_the_workers_number_and_the_dataset_that_it_reads(
    workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def set_up(worker: int) -> None:
        info: Any = torch.utils.data.get_worker_info()
        assert (worker, info.id) == (stoker.current().worker or 0, worker)
        info.dataset.factor = 10
        print("set up", worker, flush=True)

    loader = DataLoader(its.Made(its.features, 10), batch_size=4, num_workers=1, worker_init_fn=set_up)
    values = [rows[:, 0].tolist() for rows, _ in batches_of(loader, workers=workers)]
    assert values == [[0, 10, 20, 30], [40, 50, 60, 70], [80, 90]]
    called = [int(worker) for worker in capfd.readouterr().out.split("set up ")[1:]]
    assert len(called) == len(set(called)) > 0  # once in each that started in time
    assert set(called) <= set(range(workers or 1))
    assert torch.utils.data.get_worker_info() is None


@pytest.mark.parametrize("workers", [0, 1])
def test_worker_init_fn_is_called_for_each_copy_where_epochs_overlap(workers: int) -> None:
    loader = DataLoader(its.Turning(int, 2), num_workers=1, worker_init_fn=its.set_factor)
    with stoker.Loader(loader, workers=workers) as batches:
        first, second = iter(batches), iter(batches)
        came = [next(each).item() for each in (first, second, first, second)]
    assert came == [100, 101, 100, 101]


@pytest.mark.parametrize("dataset", [its.Made(int, 4), its.Striped(4)])
def test_worker_init_fn_is_not_called_without_workers_as_in_pytorch(
    dataset: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loader = DataLoader(dataset, batch_size=4, worker_init_fn=its.set_factor)
    with caplog.at_level(logging.WARNING, "stoker"):
        assert numbers(batches_of(loader, workers=0)) == [[0, 1, 2, 3]]
    (record,) = caplog.records
    assert "worker_init_fn is not called, as PyTorch does not call it with num_workers=0" in record.getMessage()
    with_shards = stoker.from_torch(DataLoader(its.Undivided(4), worker_init_fn=its.set_range), shards=2)
    assert rows_of(numbers(batches_of(with_shards, workers=0))) == [0, 1, 2, 3]


def test_a_worker_init_fn_that_raises_is_named() -> None:
    def set_up(worker: int) -> None:
        raise LookupError("no such file")

    loader = DataLoader(NUMBERS, num_workers=1, worker_init_fn=set_up)
    with pytest.raises(LookupError, match="worker_init raised LookupError: no such file"):
        batches_of(loader, workers=0)


def test_the_timeout_is_that_of_the_dataloader() -> None:
    with stoker.Loader(DataLoader(NUMBERS, num_workers=1, timeout=5), timeout=5, workers=0) as loader:
        assert len(loader) == 10
    with pytest.raises(stoker.OptionError, match=r"timeout=7 was given, but .* a PyTorch DataLoader, has timeout=5"):
        stoker.Loader(DataLoader(NUMBERS, num_workers=1, timeout=5), timeout=7)


def test_options_that_change_no_batch_are_named_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    quiet = DataLoader(its.Striped(4), num_workers=2, prefetch_factor=2)
    batches_of(quiet, workers=0)
    assert not caplog.records
    used = DataLoader(NUMBERS, batch_size=10, num_workers=2, prefetch_factor=4, persistent_workers=True, in_order=False)
    with caplog.at_level(logging.WARNING, "stoker"):
        assert batches_of(used, workers=0)[0].tolist() == list(range(10))
    (record,) = caplog.records
    named = "num_workers=2, prefetch_factor=4, persistent_workers=True, in_order=False is not used"
    assert named in record.getMessage()


class OwnLoader(DataLoader[Any]):
    def __iter__(self) -> Any:
        return iter([])


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (
            lambda: DataLoader(NUMBERS, batch_size=32),
            {"batch_size": 7},
            "batch_size=7 was given, but the source, a PyTorch DataLoader, has batch_size=32. Omit batch_size, or",
        ),
        (lambda: DataLoader(NUMBERS), {"batch_size": 32}, "batch_size=32 was given, .* has batch_size=1"),
        (lambda: DataLoader(NUMBERS), {"shuffle": True}, "shuffle=True was given, .* has shuffle=False"),
        (lambda: DataLoader(NUMBERS), {"drop_remainder": True}, "drop_remainder=True was .* has drop_last=False"),
        (lambda: DataLoader(NUMBERS, batch_size=None), {"batch_size": 4}, "batch_size=4 .* has batch_size=None"),
        (
            lambda: DataLoader(NUMBERS, batch_size=None),
            {"collate": "pad"},
            "the DataLoader has batch_size=None: .*passed on unchanged, so collate='pad' does not apply",
        ),
        (
            lambda: DataLoader(NUMBERS, collate_fn=len),
            {"collate": "pad"},
            "collate='pad' was given, .* has collate_fn=<built-in function len>",
        ),
        (
            lambda: DataLoader(NUMBERS, generator=torch.Generator().manual_seed(3)),
            {"seed": 5},
            "seed=5 was given, .* has generator=3",
        ),
        (
            lambda: DataLoader(NUMBERS, pin_memory_device="cuda"),
            {},
            "pin_memory_device='cuda', but batches lie in shared memory",
        ),
        (lambda: OwnLoader(NUMBERS), {}, r"OwnLoader makes its batches in an `__iter__` .*Loader\(loader.dataset"),
        (
            lambda: DataLoader(NUMBERS, batch_size=None, sampler=BatchSampler(SequentialSampler(range(10)), 2, False)),
            {},
            r"sampler that yields batches of indices.*Pass it as batch_sampler=, and.*__getitems__",
        ),
        (lambda: stoker.from_torch(NUMBERS, shards=4), {}, "shards=4 applies to an IterableDataset, but this Made"),
        (lambda: stoker.from_torch(DataLoader(NUMBERS), shards=4), {}, "shards=4 applies to an IterableDataset"),
        (lambda: stoker.from_torch(its.Striped(4), shards=0), {}, "shards must be an int of at least 1, got 0"),
        (lambda: its.Striped(4), {"shuffle": True}, "shuffle=True needs a source with an index"),
    ],
)
def test_what_cannot_be_carried_over_is_named_with_what_to_use_instead(
    given: Callable[[], Any], options: Any, message: str
) -> None:
    with pytest.raises(stoker.OptionError, match=message):
        stoker.Loader(given(), **options)


def test_fit_takes_a_dataloader_as_pairs() -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with stoker.Loader(DataLoader(its.Made(its.features, 10), batch_size=4, shuffle=True), workers=0) as loader:
        history = model.fit(loader.to_tf(), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2


class Pairs(Sampler[Any]):
    """Gives a tuple for each example, which a DataLoader passes to `__getitem__`."""

    def __init__(self) -> None:
        pass

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(number, number + 1) for number in range(8)])


def test_a_sampler_that_gives_something_else_than_indices_is_an_error() -> None:
    with pytest.raises(stoker.OptionError, match=r"the sampler of the DataLoader gives sequences\. It must give"):
        stoker.Loader(DataLoader(range(10), batch_size=4, sampler=Pairs()))
