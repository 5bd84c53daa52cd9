"""Grain datasets and data sources give the elements that Grain's own iteration gives."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import grain
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

import stoker
from tests.moving.compare import assert_same

ROWS, SIZE = 22, 4
#: No threads: they would stay after the test.
PLAINLY = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)


def row(number: int) -> Any:
    return {"x": np.full(3, number, np.float32) / 7, "y": number}


def jittered(example: Any, rng: np.random.Generator) -> Any:
    return {**example, "x": example["x"] + rng.normal(size=3).astype(np.float32)}


def base() -> Any:
    return grain.MapDataset.range(ROWS).seed(3)


DATASETS: dict[str, Any] = {
    "mapped": lambda: base().map(row),
    "shuffled": lambda: base().shuffle().map(row).random_map(jittered),
    "filtered": lambda: base().filter(lambda number: number % 3 != 0).map(row),
    "repeated": lambda: base().shuffle().repeat(3).map(row),
    "sliced": lambda: base()[3::2].map(row),
    "mixed": lambda: grain.MapDataset.mix([base().map(row), base().shuffle().map(row)], [0.25, 0.75]),
    "filtered after a shuffle": lambda: base().shuffle().map(row).filter(lambda example: example["y"] > 5),
}


def batches_of_grain(dataset: Any) -> list[Any]:
    return list(dataset.to_iter_dataset(PLAINLY).batch(SIZE))


@pytest.mark.parametrize("kind", DATASETS)
def test_batches_are_those_of_grain(kind: str) -> None:
    expected = batches_of_grain(DATASETS[kind]())
    for workers in (0, 2) if kind in ("shuffled", "filtered") else (0,):
        with stoker.Loader(DATASETS[kind](), batch_size=SIZE, workers=workers) as loader:
            if "filter" not in kind:
                assert len(loader) == len(expected)
            assert_same(list(loader), expected)
            with stoker.Loader(DATASETS[kind](), batch_size=SIZE, workers=workers) as again:
                assert again.state_dict()["epoch"] == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_are_the_repetitions_of_grain_also_after_resuming(workers: int) -> None:
    dataset = base().shuffle().map(row).random_map(jittered)
    expected = list(dataset.repeat(3).to_iter_dataset(PLAINLY))
    epochs = [expected[start : start + ROWS] for start in range(0, 3 * ROWS, ROWS)]
    with stoker.Loader(dataset, batch_size=1, workers=workers) as loader:
        made = [[batch["x"][0] for batch in loader] for _ in range(2)]
        batches = iter(loader)
        taken = [next(batches)["x"][0] for _ in range(5)]
        state = loader.state_dict()
    with stoker.Loader(dataset, batch_size=1, workers=workers) as loader:
        loader.load_state_dict(state)
        made.append(taken + [batch["x"][0] for batch in loader])
    for came, epoch in zip(made, epochs, strict=True):
        assert_same(came, [example["x"] for example in epoch])


def test_filtered_elements_reach_no_transform_and_leave_the_length_unknown() -> None:
    dataset = DATASETS["filtered"]()

    def checked(example: Any) -> Any:
        assert example is not None
        return stoker.SKIP if example["y"] == 4 else example["y"]

    for workers in (0, 2):
        with stoker.Loader(dataset, batch_size=SIZE, transform=checked, workers=workers) as loader:
            came = list(itertools.chain(*loader))
            assert came == [number for number in range(ROWS) if number % 3 and number != 4]
            with pytest.raises(TypeError, match="its length is unknown"):
                len(loader)
    with stoker.Loader(dataset, batch_size=SIZE, shuffle=True, workers=0) as loader:
        assert sorted(itertools.chain(*(batch["y"] for batch in loader))) == [n for n in range(ROWS) if n % 3]


def test_a_repeated_dataset_never_ends() -> None:
    dataset = base().shuffle().repeat().map(row)
    expected = [dataset[number]["y"] for number in range(5 * ROWS)]
    for workers in (0, 2):
        with stoker.Loader(dataset, batch_size=5, workers=workers) as loader:
            batches = iter(loader)
            came = [next(batches)["y"].tolist() for _ in range(ROWS)]
            assert list(itertools.chain(*came)) == expected
            with pytest.raises(TypeError, match="it never ends"):
                len(loader)
            assert next(iter(loader))["y"].tolist() == expected[:5]  # a new iteration begins anew, as Grain's does
    filtered = base().repeat().filter(lambda number: number % 2 == 0)
    with stoker.Loader(filtered, batch_size=ROWS, workers=0) as loader:
        assert next(iter(loader)).tolist() == 2 * list(range(0, ROWS, 2))
    with stoker.Loader(dataset, batch_size=6, shard_index=1, shard_count=2, workers=0) as loader:
        assert next(iter(loader))["y"].tolist() == expected[3:6]
    with pytest.raises(stoker.OptionError, match=r"the source, a Grain MapDataset, never ends\. Shuffle within"):
        stoker.Loader(dataset, shuffle=True)


def test_batches_made_by_grain_pass_as_they_are() -> None:
    dataset = base().map(row).batch(SIZE)
    expected = list(dataset.to_iter_dataset(PLAINLY))
    with stoker.Loader(dataset, workers=0) as loader:
        assert_same(list(loader), expected)
    with pytest.raises(stoker.OptionError, match=r"makes batches, with `\.batch\(\.\.\.\)`.* got 8\. Pass it before"):
        stoker.Loader(dataset, batch_size=8)
    windows = stoker.from_grain(base().batch(2), batched=False)
    with stoker.Loader(windows, batch_size=SIZE, workers=0) as loader:
        assert next(iter(loader)).shape == (SIZE, 2)


def test_data_sources_are_read_by_index(tmp_path: Path) -> None:
    path = str(tmp_path / "rows.array_record")
    writer = ArrayRecordWriter(path, "group_size:1")
    for number in range(ROWS):
        writer.write(f"record {number}".encode())
    writer.close()
    records = grain.sources.ArrayRecordDataSource(path)
    in_memory = grain.sources.SharedMemoryDataSource(list(range(ROWS)))
    try:
        for source in (records, grain.sources.RangeDataSource(5, 5 + ROWS, 1), in_memory):
            expected = [source[index] for index in range(ROWS)]
            for workers in (0, 1):
                with stoker.Loader(source, batch_size=SIZE, workers=workers) as loader:
                    assert list(itertools.chain(*loader)) == expected
        with stoker.Loader(grain.MapDataset.source(records), batch_size=SIZE, workers=1) as loader:
            assert list(itertools.chain(*loader)) == [f"record {number}".encode() for number in range(ROWS)]
    finally:
        in_memory.close()
        in_memory.unlink()


def test_what_has_no_index_says_what_to_pass() -> None:
    with pytest.raises(stoker.SourceError, match=r"Pass the MapDataset that it was made of.*stoker\.from_iterable"):
        stoker.Loader(base().to_iter_dataset(PLAINLY))
    with stoker.Loader(
        stoker.from_iterable(base().map(row).to_iter_dataset(PLAINLY)), batch_size=SIZE, workers=0
    ) as loader:
        assert_same(list(loader), batches_of_grain(base().map(row)))
    loader = grain.DataLoader(
        data_source=grain.sources.RangeDataSource(0, 5, 1),
        sampler=grain.samplers.SequentialSampler(5, grain.sharding.NoSharding()),
    )
    with pytest.raises(stoker.SourceError, match=r"Pass its `data_source` .* operations as `transform=`"):
        stoker.Loader(loader)
    with pytest.raises(stoker.SourceError, match=r"from_grain needs a grain\.MapDataset, got a list"):
        stoker.from_grain([1, 2])
