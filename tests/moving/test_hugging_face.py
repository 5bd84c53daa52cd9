"""Hugging Face datasets: rows by index, streams by their shards; the same values as the library itself gives."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import optree
import psutil
import pyarrow
import pytest
import tqdm
from datasets.distributed import split_dataset_by_node
from PIL import Image

import stoker
from tests.moving.compare import assert_same, plain

ROWS, SIZE = 22, 4
tqdm.tqdm.monitor_interval = 0  # the thread of its progress bars would stay


def table() -> datasets.Dataset:
    """Rows of every kind of column that can be batched as it is."""
    rng = np.random.default_rng(1)
    images = [Image.fromarray(rng.integers(0, 255, (4, 3, 3), np.uint8)) for _ in range(ROWS)]
    columns = {
        "image": images,
        "vector": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "label": [number % 3 for number in range(ROWS)],
        "name": [f"né{number}" for number in range(ROWS)],
        "deep": [{"a": number, "b": [number, number + 1]} for number in range(ROWS)],
        "flag": [number % 2 == 0 for number in range(ROWS)],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "vector": datasets.List(datasets.Value("float32"), length=3),
            "label": datasets.ClassLabel(names=["x", "y", "z"]),
            "name": datasets.Value("string"),
            "deep": {"a": datasets.Value("int32"), "b": datasets.List(datasets.Value("int64"))},
            "flag": datasets.Value("bool"),
        }
    )
    return datasets.Dataset.from_dict(columns, features=features)


def stacked(rows: list[Any]) -> Any:
    """Rows joined along a new axis."""
    if isinstance(rows[0], dict):
        return {name: stacked([row[name] for row in rows]) for name in rows[0]}
    return np.stack([np.asarray(row) for row in rows])


def batches_of(rows: Any) -> list[Any]:
    """The batches of rows, which come from the library one by one."""
    rows = list(rows)
    return [stacked(rows[start : start + SIZE]) for start in range(0, len(rows), SIZE)]


def halved(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"half": [value / 2 for value in batch["number"]]}


def doubled(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"twice": [2 * value for value in batch["label"]], "same": batch["label"]}


# ── Dataset ──────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", [None, "numpy", "torch"])
def test_rows_are_those_of_the_dataset_in_its_format(kind: str | None) -> None:
    rows = table().with_format(kind)
    expected = batches_of(rows)
    for workers in (0, 1):
        with stoker.Loader(rows, batch_size=SIZE, workers=workers) as loader:
            assert len(loader) == len(expected)
            assert_same(list(loader), expected)


def test_a_transform_of_the_dataset_runs_in_the_workers_on_runs_of_rows(tmp_path: Path) -> None:
    def noting(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        with (tmp_path / "runs").open("a") as file:
            file.write(f"{len(batch['label'])}\n")
        return doubled(batch)

    rows = table().with_transform(noting)
    with stoker.Loader(rows, batch_size=SIZE, workers=1) as loader:
        made = list(loader)
    assert set((tmp_path / "runs").read_text().split()) - {"1"} == {str(SIZE), str(ROWS % SIZE)}
    assert_same(made, batches_of(table().with_transform(doubled)))


def test_columns_are_chosen_as_a_value_a_dict_or_a_tuple() -> None:
    rows = table()
    forms: list[tuple[Any, Any]] = [
        ("label", lambda row: row["label"]),
        (["label", "name"], lambda row: {"label": row["label"], "name": row["name"]}),
        (("image", "label"), lambda row: (row["image"], row["label"])),
        ((["vector", "flag"], "label"), lambda row: ({"vector": row["vector"], "flag": row["flag"]}, row["label"])),
    ]
    for columns, chosen in forms:
        source = stoker.from_hugging_face(rows, columns)
        with (
            stoker.Loader(source, batch_size=SIZE, workers=0) as loader,
            stoker.Loader([chosen(row) for row in rows], batch_size=SIZE, workers=0) as plainly,
        ):
            assert_same(list(loader), list(plainly))
    pairs = stoker.from_hugging_face(rows.with_transform(doubled), ("twice", "same"))
    with stoker.Loader(pairs, batch_size=SIZE, transform=lambda x, y: x - y, workers=1) as loader:
        assert list(itertools.chain(*loader)) == rows["label"][:]


def test_unknown_columns_are_named_with_those_there_are() -> None:
    rows = table().select_columns(["label", "name"])
    message = "columns names 'labels', but there is only 'label', 'name'"
    for given in (rows, rows.to_iterable_dataset()):
        with pytest.raises(stoker.OptionError, match=message):
            stoker.from_hugging_face(given, ("name", "labels"))
    made = stoker.from_hugging_face(rows.with_transform(doubled), ("twice", "label"))
    with (
        stoker.Loader(made, workers=0) as loader,
        pytest.raises(stoker.WorkerError, match="columns names 'label', but there is only 'twice', 'same'"),
    ):
        list(loader)
    for columns in ({"x": "label"}, 3, [], ["label", 1]):
        with pytest.raises(stoker.OptionError, match=r"columns.*a list of names.*tuples \(x, y\)"):
            stoker.from_hugging_face(rows, columns)


def test_lists_of_differing_lengths_are_padded_and_none_is_named() -> None:
    rows = datasets.Dataset.from_dict({"ids": [[1], [2, 3], [], [4, 5, 6]], "label": [0, None, 1, 2]})
    source = stoker.from_hugging_face(rows, "ids")
    with stoker.Loader(source, batch_size=4, collate="pad", workers=0) as loader:
        (batch,) = loader
        assert batch.tolist() == [[1, 0, 0], [2, 3, 0], [0, 0, 0], [4, 5, 6]]
    with (
        stoker.Loader(stoker.from_hugging_face(rows, ["label"]), batch_size=4, workers=0) as loader,
        pytest.raises(stoker.SpecError, match=r"(?s)example 1.*label"),
    ):
        list(loader)
    with stoker.Loader(stoker.from_hugging_face(rows, ["label"]), batch_size=4, workers=0, on_error="skip") as loader:
        assert [batch["label"].tolist() for batch in loader] == [[0, 1, 2]]


def own_memory() -> int:
    """The most bytes of memory that one worker has for itself, without what it maps."""
    pids = [process.pid for process in psutil.Process().children(recursive=True)]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def test_workers_map_the_arrow_file_and_share_a_table_in_memory(tmp_path: Path) -> None:
    count, width = 8_000, 4_096
    size = count * width * 4
    table = pyarrow.table({"x": pyarrow.FixedSizeListArray.from_arrays(np.ones(count * width, np.float32), width)})
    in_memory = datasets.Dataset(table)
    with pyarrow.OSFile(str(tmp_path / "rows.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as out:
        out.write_table(table, max_chunksize=100)
    on_disk = datasets.Dataset.from_file(str(tmp_path / "rows.arrow"))
    used = []
    for rows in (on_disk.select(range(100)), on_disk, in_memory):
        with stoker.Loader(rows.with_format("numpy"), batch_size=50, workers=2) as loader:
            assert sum(len(batch["x"]) for batch in loader) == len(rows)
            used.append(own_memory())
    assert max(used) - used[0] < size / 4


# ── IterableDataset ──────────────────────────────────────────────────────────────────────────
def numbers(shards: list[int]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        for row in range(5 + shard):
            yield {"shard": shard, "number": 100 * shard + row}


def stream(shards: int = 4) -> datasets.IterableDataset:
    return datasets.IterableDataset.from_generator(numbers, gen_kwargs={"shards": list(range(shards))})


STREAMS: dict[str, Any] = {
    "generator": stream,
    "one shard": lambda: stream(1),
    "table": lambda: table().remove_columns("image").to_iterable_dataset(num_shards=3),
    "formatted": lambda: table().to_iterable_dataset(num_shards=3).with_format("numpy"),
    "mapped": lambda: stream().map(lambda row: {"half": row["number"] / 2}).filter(lambda row: row["number"] % 3),
    "in batches": lambda: stream().map(halved, batched=True, batch_size=3),
    "repeated": lambda: stream().repeat(2),
    "joined": lambda: datasets.concatenate_datasets([stream(2), stream(3)]),
    "taken": lambda: stream().skip(3).take(13),
    "numbered": lambda: stream().map(lambda row, index: {"index": index}, with_indices=True),
    "interleaved": lambda: datasets.interleave_datasets([stream(2), stream(3)]),
    "a node's": lambda: split_dataset_by_node(stream(), rank=1, world_size=2),
}
#: Those whose steps need all examples in one row.
WHOLE = {"one shard", "taken", "numbered", "interleaved", "a node's"}


#: Each worker imports the library anew, which takes seconds. A stream that is one shard is read by one worker.
IN_WORKERS = {"generator": (0, 2), "formatted": (0, 1), "taken": (0, 1)}


def flat(batches: Any) -> list[Any]:
    """The examples, as texts that can be sorted."""
    made = []
    for batch in map(plain, batches):
        leaves, tree = optree.tree_flatten(batch)
        for row in zip(*(leaf.tolist() for leaf in leaves), strict=True):
            made.append(repr(optree.tree_unflatten(tree, row)))
    return made


@pytest.mark.parametrize("kind", STREAMS)
def test_every_example_of_a_stream_comes_once_or_in_its_own_order(kind: str) -> None:
    data = STREAMS[kind]()
    expected = batches_of(data)
    with stoker.Loader(stoker.from_hugging_face(data, in_order=True), batch_size=SIZE, workers=0) as loader:
        assert_same(list(loader), expected)
    for workers in IN_WORKERS.get(kind, (0,)):
        with stoker.Loader(data, batch_size=SIZE, workers=workers) as loader:
            made = [list(loader) for _ in range(2)]
        assert_same(made[1], made[0])
        assert sorted(flat(made[0])) == sorted(flat(batches_of(data)))
        if kind in WHOLE:
            assert_same(made[1], expected)


def test_a_stream_is_the_same_for_any_number_of_workers_and_goes_on_where_it_was() -> None:
    options: dict[str, Any] = {"batch_size": 3}
    with stoker.Loader(stream(), **options, workers=0) as loader:
        whole = list(loader)
    with stoker.Loader(stream(), **options, workers=2) as loader:
        batches = iter(loader)
        assert_same([next(batches) for _ in range(4)], whole[:4])
        state = loader.state_dict()
    with stoker.Loader(stream(), **options, workers=1) as loader:
        loader.load_state_dict(state)
        assert_same(list(loader), whole[4:])


@pytest.mark.parametrize("kind", sorted({*STREAMS} - {"one shard"}))
def test_a_state_of_the_librarys_own_goes_on_with_the_next_example(kind: str) -> None:
    data = stoker.from_hugging_face(STREAMS[kind](), in_order=True)
    rng = np.random.default_rng()
    expected = list(data.read_at(0, 0, rng))  # type: ignore[attr-defined]
    for taken in range(len(expected)):
        part = data.read_at(0, 0, rng)  # type: ignore[attr-defined]
        list(itertools.islice(iter(part), taken))
        again = data.read_at(0, 0, rng)  # type: ignore[attr-defined]
        again.load_state_dict(part.state_dict())
        assert repr(list(again)) == repr(expected[taken:])


def test_resuming_reads_no_example_again(tmp_path: Path) -> None:
    def noting(shards: list[int]) -> Iterator[dict[str, Any]]:
        for shard in shards:
            with (tmp_path / "opened").open("a") as file:
                file.write(f"{shard}\n")
            yield from numbers([shard])

    def mapped(row: dict[str, Any]) -> dict[str, Any]:
        with (tmp_path / "mapped").open("a") as file:
            file.write(f"{row['number']}\n")
        return row

    data = datasets.IterableDataset.from_generator(noting, gen_kwargs={"shards": [0, 1, 2, 3]}).map(mapped)
    with stoker.Loader(data, batch_size=5, workers=0) as loader:
        batches = iter(loader)
        taken = [next(batches)["number"].tolist() for _ in range(4)]  # one of each shard
        state = loader.state_dict()
    assert {number % 100 for numbers in taken for number in numbers} == {0, 1, 2, 3, 4}
    (tmp_path / "mapped").unlink()
    with stoker.Loader(data, batch_size=5, workers=0) as loader:
        loader.load_state_dict(state)
        rest = [number for batch in loader for number in batch["number"].tolist()]
    assert not {*(tmp_path / "mapped").read_text().split()} & {str(n) for numbers in taken for n in numbers}
    assert sorted(itertools.chain(*taken, rest)) == [row["number"] for row in stream()]


def test_a_shuffled_stream_is_shuffled_anew_in_each_epoch() -> None:
    data = stream(6).shuffle(seed=5, buffer_size=8)
    epochs: dict[int, Any] = {}
    for workers in (0, 2):
        with stoker.Loader(data, batch_size=SIZE, workers=workers) as loader:
            epochs[workers] = [[batch["number"].tolist() for batch in loader] for _ in range(2)]
    assert epochs[0] == epochs[2]
    first, second = (list(itertools.chain(*epoch)) for epoch in epochs[0])
    assert sorted(first) == sorted(second) == [row["number"] for row in stream(6)]
    assert first != second
    shards = [[numbers[0] // 100 for numbers in epoch[:6]] for epoch in epochs[0]]
    assert shards[0] != shards[1]
    data.set_epoch(1)  # it begins with the epoch that the user has set
    with stoker.Loader(data, batch_size=SIZE, workers=0) as loader:
        assert [batch["shard"][0] for batch in itertools.islice(loader, 6)] == shards[1]


def test_an_endless_stream_reads_all_its_shards_and_a_length_is_believed() -> None:
    data = stream(20).repeat(None)
    with stoker.Loader(data, batch_size=SIZE, workers=0) as loader:
        seen = {shard for batch in itertools.islice(loader, 20) for shard in batch["shard"].tolist()}
    assert seen == set(range(20))
    with stoker.Loader(stoker.from_hugging_face(stream(), length=26), batch_size=SIZE, workers=0) as loader:
        assert len(loader) == len(list(loader)) == 7
    with (
        stoker.Loader(stoker.from_hugging_face(stream(), length=27), batch_size=SIZE, workers=0) as loader,
        pytest.raises(stoker.SourceError, match="27"),
    ):
        list(loader)


def test_a_stream_trains_with_pairs() -> None:
    data = stoker.from_hugging_face(stream(), ("number", "shard"))
    with stoker.Loader(data, batch_size=SIZE, transform=lambda x, y: (x + y, y), workers=1) as loader:
        x, y = map(np.concatenate, zip(*loader, strict=True))
    assert sorted(zip(x.tolist(), y.tolist(), strict=True)) == [
        (row["number"] + row["shard"], row["shard"]) for row in stream()
    ]


# ── what is refused ──────────────────────────────────────────────────────────────────────────
def test_what_cannot_be_read_says_what_to_pass() -> None:
    rows = table().select_columns(["label"])
    splits = datasets.DatasetDict({"train": rows, "test": rows})
    with pytest.raises(stoker.SourceError, match=r"holds splits by name\. Pass one of them: 'train', 'test'"):
        stoker.Loader(splits)
    for given in (rows.with_format("pandas"), rows.to_iterable_dataset().with_format("arrow")):
        with pytest.raises(stoker.SourceError, match=r"are tables, not examples\. Pass it `\.with_format\(None\)`"):
            stoker.Loader(given)
    for options in ({"length": 5}, {"in_order": True}):
        with pytest.raises(stoker.OptionError, match=r"is for an IterableDataset\. A Dataset is read by index"):
            stoker.from_hugging_face(rows, **options)  # type: ignore[arg-type]
    with pytest.raises(stoker.SourceError, match=r"needs a datasets\.Dataset .* got a BytesIO"):
        stoker.from_hugging_face(io.BytesIO())
