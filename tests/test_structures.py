"""Every structure of data, from every source, joined in every way: what comes is what plain Python makes of it."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import optree
import pytest

import stoker
from stoker.engines import line
from tests.sources_of_tests import (
    DTYPES,
    LENGTH,
    SHARDS,
    SIZES,
    ByIndex,
    Point,
    example,
    large,
    lengths,
    of_size,
    shard_numbers,
    sized,
    source,
)

SIZE = 4


# ── the same in plain Python ─────────────────────────────────────────────────────────────────
def in_turn(shards: list[Any], size: int, open_shards: int) -> Iterator[list[Any]]:
    """Batches of up to `open_shards` shards in turn; what is left at their ends is joined."""
    waiting, left = deque(map(iter, shards)), []
    places = [waiting.popleft() for _ in range(min(open_shards, len(waiting)))]
    turn = 0
    while places:
        some = list(islice(places[turn], size))
        if len(some) == size:
            yield some
            turn = (turn + 1) % len(places)
            continue
        left += some
        while len(left) >= size:
            yield left[:size]
            del left[:size]
        if waiting:
            places[turn] = waiting.popleft()
        else:
            del places[turn]
            turn = 0 if turn >= len(places) else turn
    if left:
        yield left


def batches_of(how: str, size: int = SIZE) -> list[list[int]]:
    """The numbers of the examples in each batch."""
    if how == "generator":
        return list(in_turn([shard_numbers(shard) for shard in range(len(SHARDS))], size, 2))
    return [list(range(start, min(start + size, LENGTH))) for start in range(0, LENGTH, size)]


@dataclass
class Scattered:
    """A sparse batch, by the dense array that it stands for."""

    dense: Any


@dataclass
class Uneven:
    """Rows of differing lengths: arrays, or such rows again."""

    rows: list[Any]


def same(came: Any, expected: Any) -> bool:
    """Same dtypes, same shapes, same values."""
    if isinstance(expected, Uneven):
        rows = expected.rows
        return came.dtype == object and len(came) == len(rows) and all(map(same, came, rows))
    if isinstance(expected, Scattered):
        dense = np.zeros(came.dense_shape, came.values.dtype)
        dense[tuple(came.indices.T)] = came.values
        in_order = came.indices.tolist() == sorted(came.indices.tolist())
        return in_order and len(came.values) == np.count_nonzero(dense) and same(dense, expected.dense)
    return (
        isinstance(came, np.ndarray)
        and (came.dtype, came.shape) == (expected.dtype, expected.shape)
        and np.array_equal(came, expected)
    )


def assert_same(came: Any, expected: Any) -> None:
    def is_leaf(part: Any) -> bool:
        return hasattr(part, "dense_shape") or isinstance(part, Scattered | Uneven)

    ours, tree = optree.tree_flatten(came, is_leaf=is_leaf)
    theirs, expected_tree = optree.tree_flatten(expected, is_leaf=is_leaf)
    assert tree == expected_tree
    for path, one, other in zip(tree.paths(), ours, theirs, strict=True):
        assert same(one, other), (path, one, other)


def utf8(value: Any) -> Any:
    """A string, or nested strings, as an array of bytes."""
    array = np.asarray(value, object)
    return np.vectorize(lambda text: text if isinstance(text, bytes) else text.encode(), [object])(array)


def stacked_numbers(ns: list[int]) -> Any:
    parity = [n % 2 for n in ns]
    return {
        "python": [
            np.array([n % 2 == 0 for n in ns]),
            np.array(ns, np.int64),
            np.array([n / 4 for n in ns]),
            np.array([complex(n, 1) for n in ns]),
        ],
        "scalars": tuple(np.array(parity).astype(dtype) for dtype in DTYPES),
        "arrays": [np.array(parity).astype(dtype).repeat(2).reshape(-1, 2, 1) for dtype in DTYPES],
        "point": Point(
            np.array(ns, np.float32),
            {"deep": {"name": np.array(ns, np.int16), "inner": (None, np.array([[n, n + 1, n + 2] for n in ns]))}},
        ),
        "nothing": None,
        "none of two": (None, np.array(ns)),
        "empty": np.zeros((len(ns), 0, 3), np.float32),
        "other byte order": np.array([[n, 1] for n in ns], np.int32),
        "not contiguous": np.array([[[n, n + 3], [n + 1, n + 4], [n + 2, n + 5]] for n in ns]),
    }


def stacked_texts(ns: list[int]) -> Any:
    made = [example("texts", n) for n in ns]
    plain = {
        name: [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
        for name, values in zip(made[0], zip(*(one.values() for one in made), strict=True), strict=True)
    }
    return {name: utf8(values) for name, values in plain.items()}


def stacked_foreign(ns: list[int]) -> Any:
    dense = np.zeros((len(ns), 4, 3), np.float32)
    twice = np.zeros((len(ns), 2, 3), np.int64)
    for row, n in enumerate(ns):
        dense[row, n % 4, n % 3] = n + 1
        dense[row, n % 2, 1] = 7
        twice[row, 0, 2], twice[row, 1, 0] = 1 + n, 2
    grey = np.array(ns, np.uint8)
    return {
        "csr": Scattered(dense),
        "csc array": Scattered(dense),
        "coo with one cell twice": Scattered(twice),
        "grey": np.broadcast_to(grey[:, None, None], (len(ns), 3, 2)),
        "colours": np.broadcast_to(grey[:, None, None, None], (len(ns), 3, 2, 3)),
        "dlpack": np.array([[n, n + 1] for n in ns], np.float64),
    }


#: The dtype of each leaf of `varying`.
LEAVES = {
    "ids": np.int32,
    "grid": np.float32,
    "rows": np.uint8,
    "words": object,
    "tokens": np.int64,
    "lists": np.int64,
    "names": object,
    "parts": np.int16,
    "label": np.int64,
    "fixed": np.int64,
}


def column(name: str, ns: list[int]) -> list[Any]:
    """A leaf of `varying` as nested lists, strings as bytes."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, list | np.ndarray):
            return [plain(part) for part in value]
        return value.encode() if isinstance(value, str) else value

    return [plain(example("varying", n)[name]) for n in ns]


def padded(name: str, ns: list[int], fill: Any = None, to: tuple[Any, ...] = (), multiple: int = 1) -> Any:
    values = column(name, ns)
    rank = {"label": 0, "grid": 2, "rows": 2, "lists": 2, "names": 2, "parts": 2}.get(name, 1)
    sizes = [0] * rank
    for n, value in zip(ns, values, strict=True):
        shape = np.shape(example("varying", n)[name]) if name in ("grid", "rows") else ()
        if rank:
            sizes[0] = max(sizes[0], len(value))
        if rank == 2:
            sizes[1] = max([sizes[1], *shape[1:], *map(len, value)])
    sizes = [
        (to[place] if place < len(to) else None) or -(-size // multiple) * multiple for place, size in enumerate(sizes)
    ]
    fill = (b"" if LEAVES[name] is object else 0) if fill is None else fill
    whole = np.full((len(ns), *sizes), fill, LEAVES[name])
    for row, value in enumerate(values):
        match rank:
            case 0:
                whole[row] = value
            case 1:
                whole[row, : len(value)] = value
            case 2:
                for place, part in enumerate(value):
                    whole[row, place, : len(part)] = part
    return whole


def ragged(name: str, ns: list[int]) -> Any:
    values, dtype = column(name, ns), LEAVES[name]
    if name == "label":
        return np.array(values)
    if name in ("grid", "lists", "names", "parts"):
        return Uneven([Uneven([np.array(part, dtype) for part in value]) for value in values])
    shape = (-1, 2) if name == "rows" else (-1,)
    return Uneven([np.array(value, dtype).reshape(shape) for value in values])


def expected_lengths(ns: list[int]) -> Any:
    return {
        "count": np.array([n % 5 for n in ns]),
        "all": np.array([n + k for n in ns for k in range(n % 5)], np.int32),
    }


@dataclass
class Case:
    kind: str
    collate: Any
    expected: Callable[[list[int]], Any]


MIXED = {
    "ids": stoker.pad(values=-1, to=6),
    "grid": stoker.pad(values=0.5, to=(None, 5), multiple_of=2),
    ("rows",): "ragged",
    "words": stoker.pad(values="-"),
    "tokens": "ragged",
    "lists": stoker.pad(-2, multiple_of=4),
    "names": "ragged",
    "['parts']": "pad",
}


def mixed(ns: list[int]) -> Any:
    return {
        "ids": padded("ids", ns, -1, (6,)),
        "grid": padded("grid", ns, 0.5, (None, 5), 2),
        "rows": ragged("rows", ns),
        "words": padded("words", ns, b"-"),
        "tokens": ragged("tokens", ns),
        "lists": padded("lists", ns, -2, multiple=4),
        "names": ragged("names", ns),
        "parts": padded("parts", ns),
        "label": padded("label", ns),
        "fixed": padded("fixed", ns),
    }


CASES = {
    "stack": Case("everything", "stack", lambda ns: [stacked_numbers(ns), stacked_texts(ns), stacked_foreign(ns)]),
    "ragged": Case("varying", "ragged", lambda ns: {name: ragged(name, ns) for name in LEAVES}),
    "by path": Case("varying", MIXED, mixed),
    "function": Case("varying", lengths, expected_lengths),
}

SOURCES = ["map", "arrays", "generator", "iterable"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", SOURCES)
def test_batches_are_those_of_plain_python_for_any_number_of_workers(how: str, case: str) -> None:
    kind, collate, expected = CASES[case].kind, CASES[case].collate, CASES[case].expected
    for workers in (0, 1, 3):
        data, transform = source(how, functools.partial(example, kind))
        with stoker.Loader(data, batch_size=SIZE, transform=transform, collate=collate, workers=workers) as loader:
            for batch, ns in zip(loader, batches_of(how), strict=True):
                assert_same(batch, expected(ns))


@pytest.mark.parametrize("how", SOURCES)
def test_drop_remainder_leaves_out_what_is_not_full(how: str) -> None:
    for workers in (3,):
        data, transform = source(how, functools.partial(example, "varying"))
        with stoker.Loader(
            data, batch_size=SIZE, transform=transform, collate="pad", drop_remainder=True, workers=workers
        ) as loader:
            for batch, ns in zip(loader, [ns for ns in batches_of(how) if len(ns) == SIZE], strict=True):
                assert_same(batch, {name: padded(name, ns) for name in LEAVES})


# ── examples one by one, and batches as they are ─────────────────────────────────────────────
@pytest.mark.parametrize("how", SOURCES)
def test_without_a_batch_size_examples_come_one_by_one(how: str) -> None:
    for workers in (0, 3):
        data, transform = source(how, functools.partial(example, "single"))
        with stoker.Loader(data, batch_size=None, transform=transform, workers=workers) as loader:
            for came, n in zip(loader, itertools.chain(*batches_of(how, size=LENGTH)), strict=True):
                ids, grid, words, nothing, parts, (text, data, number), sparse = came
                assert nothing is None
                assert (text, data, number) == (("ü" * n).encode(), b"\xff" * n, n)
                for one, other in (
                    (ids, np.arange(n % 5, dtype=np.int32) + n),
                    (grid, np.full((n % 3, (n + 1) % 4), n, np.float32)),
                    (words, utf8(["w" * place for place in range(n % 3)])),
                    (parts, Uneven([np.arange(place + n % 2, dtype=np.int16) for place in range(n % 3)])),
                    (sparse, Scattered(np.eye(3, k=n % 3))),
                ):
                    assert same(one, other), (n, one, other)


def test_a_source_of_batches_is_passed_on_as_it_is() -> None:
    def batches(shard: Any) -> Iterator[Any]:
        for n in range(shard.index, 12, shard.count):
            rows = n % 4 + 1
            yield {"x": np.full((rows, 2), n, np.float32), "names": np.array(["ö" * n] * rows)}

    expected = [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    in_order = [shard[place] for place in range(4) for shard in expected]
    for workers in (0, 1, 3):
        made = stoker.from_generator(lambda shard: batches(shard), shards=3, batched=True)
        with stoker.Loader(made, batch_size=None, transform=lambda batch: batch, workers=workers) as loader:
            for batch, n in zip(loader, in_order, strict=True):
                rows = n % 4 + 1
                assert same(batch["x"], np.full((rows, 2), n, np.float32))
                assert same(batch["names"], utf8(["ö" * n] * rows))


# ── what the first examples do not tell ──────────────────────────────────────────────────────
@pytest.mark.parametrize("collate", ["pad", "ragged"])
@pytest.mark.parametrize("size", [1, 8])
def test_sizes_may_differ_later_than_in_the_first_examples(collate: str, size: int) -> None:
    lengths = [3] * 40 + [4, 2, 3]
    for workers in (0, 1):
        with stoker.Loader(
            [np.full(n, n) for n in lengths], batch_size=size, collate=collate, workers=workers
        ) as loader:
            rows = [row[row != 0].tolist() for batch in loader for row in batch]
        assert rows == [[n] * n for n in lengths]


def test_a_list_of_numpy_numbers_is_a_list_of_numbers() -> None:
    for collate, second in (("pad", [1, 0]), ("ragged", [1])):
        data = [{"x": [np.int32(1), np.int32(2)]}, {"x": [np.int32(1)]}]
        with stoker.Loader(data, batch_size=2, collate=collate, workers=0) as loader:
            ((first, last),) = (batch["x"] for batch in loader)
        assert (first.tolist(), last.tolist(), last.dtype) == ([1, 2], second, np.int32)


# ── output_signature ─────────────────────────────────────────────────────────────────────────
def test_pythons_numbers_take_the_dtype_of_the_signature() -> None:
    tf = pytest.importorskip("tensorflow")
    signature = {
        "x": tf.TensorSpec((None,), tf.float32),
        "n": tf.TensorSpec((), tf.uint8),
        "f": tf.TensorSpec((), tf.bfloat16),
    }

    def examples(n: int) -> Any:
        return {"x": [n / 2] * (n % 2 + 1), "n": n, "f": n}

    def collated(loader: Any) -> list[Any]:
        with loader:
            return list(loader)

    for workers in (0, 1):
        (batch,) = collated(
            stoker.Loader(
                ByIndex(examples, 3), batch_size=3, collate="pad", output_signature=signature, workers=workers
            )
        )
        assert same(batch["x"], np.array([[0, 0], [0.5, 0.5], [1, 0]], np.float32))
        assert same(batch["n"], np.array([0, 1, 2], np.uint8))
        assert batch["f"].dtype.name == "bfloat16"
        assert batch["f"].tolist() == [0, 1, 2]


# ── what crosses the sockets, and what lies in the slots ─────────────────────────────────────
@pytest.mark.parametrize("how", SOURCES)
def test_data_never_crosses_a_socket(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    crossed = 0

    def counting(convert: Any, is_data: bool) -> Any:
        def counted(message: Any) -> Any:
            nonlocal crossed
            made = convert(message)
            crossed += len(message if is_data else made)
            return made

        return counted

    monkeypatch.setattr(line, "encode", counting(line.encode, False))
    monkeypatch.setattr(line, "decode", counting(line.decode, True))
    data, transform = source(how, large)
    with stoker.Loader(data, batch_size=2, transform=transform, collate="ragged", workers=2) as loader:
        made = list(loader)
    assert all(len(batch["ragged"]) for batch in made)
    assert 0 < crossed < 2_000 * len(made), crossed / len(made)


@pytest.mark.parametrize("data", [ByIndex(of_size, 6), stoker.from_generator(sized, 2)], ids=["map", "generator"])
def test_a_slot_grows_from_a_byte_to_two_hundred_megabytes(data: Any) -> None:
    with stoker.Loader(data, batch_size=1, collate="ragged", workers=2, prefetch=1) as loader:
        came = {}
        for batch in loader:
            (row,) = batch
            came[int(row[0])] = (len(row), int(row[-1]))
            del batch, row
    assert came == {n: (size, n) for n, size in enumerate(SIZES)}


def test_a_batch_beyond_the_memory_limit_is_an_error_that_tells_its_size() -> None:
    limited = {"batch_size": 4, "workers": 1, "memory_limit": 10_000_000}
    with (
        stoker.Loader(ByIndex(lambda n: np.zeros(n * 1_000_000, np.uint8), 8), collate="ragged", **limited) as loader,
        pytest.raises(
            stoker.SpecError, match=r"a batch of 4 examples takes 21\.0 MB, but memory_limit=9\.5 MB"
        ) as caught,
    ):
        list(loader)
    assert "smaller batch_size" in str(caught.value)
    with (
        stoker.Loader(ByIndex(lambda n: np.zeros(3_000_000, np.uint8), 8), **limited) as loader,
        pytest.raises(
            stoker.StokerError, match=r"4 examples takes 12,000,000 bytes, more than memory_limit=10,000,000"
        ),
    ):
        list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_collate_function_may_make_a_scalar_of_a_batch(workers: int) -> None:
    with stoker.Loader(range(8), batch_size=4, collate=lambda numbers: float(sum(numbers)), workers=workers) as loader:
        assert [batch.tolist() for batch in loader] == [6.0, 22.0]
