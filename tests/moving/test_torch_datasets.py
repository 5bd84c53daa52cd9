"""PyTorch's map-style datasets: the batches are those of a DataLoader."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, StackDataset, Subset, TensorDataset, random_split

import stoker
from tests import torch_sources as its
from tests.moving.torch_compare import assert_all_same, batches_of


@pytest.mark.parametrize("workers", [0, 2])
def test_whatever_default_collate_takes_comes_with_the_same_values_dtypes_and_structure(workers: int) -> None:
    dataset = its.Made(its.leaves, 7)
    assert_all_same(dataset, DataLoader(dataset, batch_size=3), batch_size=3, workers=workers)


def stacked() -> StackDataset[Any]:
    """Every kind of map-style dataset of PyTorch, side by side."""
    first, second = random_split(its.Made(its.features, 20), [10, 10], torch.Generator().manual_seed(4))
    return StackDataset(
        subset=Subset(its.Made(its.features, 30), torch.arange(25, 5, -2).tolist()),
        concatenated=ConcatDataset([its.tensors(4), its.tensors(6)]),
        sum=its.tensors(3) + its.tensors(7),
        tensors=its.tensors(10),
        first=first,
        second=second,
        of_two=StackDataset(its.tensors(10), its.InRuns(its.features, 10)),
        in_runs=its.InRuns(int, 10),
        subset_of_runs=Subset(its.InRuns(int, 30), range(20, 30)),
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_each_kind_of_map_style_dataset_gives_the_batches_of_a_dataloader(workers: int) -> None:
    assert_all_same(stacked(), DataLoader(stacked(), batch_size=4), batch_size=4, workers=workers)


@pytest.mark.parametrize("dataset", [*stacked().datasets.values(), its.NotInRuns(int, 3)])
def test_a_dataset_is_taken_as_it_is(dataset: Any) -> None:
    for source in (dataset, stoker.from_torch(dataset)):
        assert_all_same(source, DataLoader(dataset, batch_size=4), batch_size=4, workers=0)


@pytest.mark.parametrize(
    "dataset", [Subset(its.Made(its.noise, 20), range(8, 20)), StackDataset(Subset(its.Made(its.noise, 12), range(12)))]
)
def test_random_numbers_of_a_subset_are_those_of_its_examples_on_any_number_of_trainers(dataset: Any) -> None:
    def drawn(**options: Any) -> Any:
        return np.asarray(batches_of(dataset, batch_size=12, workers=0, **options)[0]).reshape(-1).tolist()

    alone = drawn()
    assert len(set(alone)) == 12
    assert [*drawn(shard_count=2, shard_index=0), *drawn(shard_count=2, shard_index=1)] == alone


def test_lists_may_be_padded_and_dtypes_declared() -> None:
    dataset = its.Made(lambda n: {"ids": [n] * (n + 1), "box": [n, n + 1]}, 3)
    (batch,) = batches_of(dataset, batch_size=3, workers=0, collate={"ids": "pad"})
    assert batch["ids"].tolist() == [[0, 0, 0], [1, 1, 0], [2, 2, 2]]
    assert [column.tolist() for column in batch["box"]] == [[0, 1, 2], [1, 2, 3]]
    tf = pytest.importorskip("tensorflow")
    pairs = its.Made(lambda n: [n, n / 2], 3)
    signature = [tf.TensorSpec((), tf.int32), tf.TensorSpec((), tf.float32)]
    (batch,) = batches_of(pairs, batch_size=3, workers=0, output_signature=signature)
    assert [column.dtype.name for column in batch] == ["int32", "float32"]


def test_a_dataset_that_holds_tensors_of_unsigned_integers_is_sent_to_workers() -> None:
    dataset = TensorDataset(torch.arange(6).reshape(3, 2).to(torch.uint16), torch.arange(3).to(torch.uint64))
    for workers in (0, 1):
        assert_all_same(dataset, DataLoader(dataset, batch_size=2), batch_size=2, workers=workers)


def test_lists_of_other_sources_stay_arrays() -> None:
    assert batches_of([[1, 2], [3, 4]], workers=0)[0].tolist() == [[1, 2], [3, 4]]


def test_nothing_of_pytorch_is_imported_for_other_sources() -> None:
    script = (
        "import sys, stoker; list(stoker.Loader([1, 2], transform=abs, workers=1)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
