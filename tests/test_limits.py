"""Too few descriptors, too little memory, no standard streams: an error before anything starts, or no effect."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker

ROOT = Path(__file__).parents[1]
SUM = """
import stoker
with stoker.Loader(range(100), batch_size=4, workers=2) as loader:
    total = sum(batch.sum() for batch in loader)
"""


def run(script: str, *before: str) -> subprocess.CompletedProcess[str]:
    """A trainer in an interpreter of its own, started by the command `before`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    command = [*before, sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)


def test_too_few_descriptors_are_an_error_before_anything_starts() -> None:
    script = "import resource, stoker\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    ended = run(script + "stoker.Loader(range(9), workers=16)")
    assert "OptionError: workers=16 need" in ended.stderr
    assert "the limit of this process is 64 (RLIMIT_NOFILE)" in ended.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_have_no_effect(closed: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = SUM + f"open({str(told)!r}, 'w').write(str(total))"
    run(script, "sh", "-c", f'exec "$@" {closed}', "sh")
    assert told.read_text() == "4950"


def test_a_small_dev_shm_has_no_effect() -> None:
    mount = 'mount -t tmpfs -o size=16m tmpfs /dev/shm && exec "$@"'
    if subprocess.run(["unshare", "-m", "sh", "-c", mount, "sh", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    script = (
        "import numpy as np, stoker\nx = np.zeros((64, 1_000_000), np.uint8)\n"
        "with stoker.Loader(x, batch_size=32, workers=2) as loader: print(sum(map(len, loader)))"
    )
    ended = run(script, "unshare", "-m", "sh", "-c", mount, "sh")
    assert (ended.returncode, ended.stdout) == (0, "64\n"), ended.stderr


@pytest.mark.parametrize(("limit", "most"), [(1_700_000, 1), (4_000_000, 4), (100_000_000, 33)])
def test_little_memory_means_fewer_batches_ahead_and_the_same_batches(
    limit: int, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.arange(400, dtype=np.uint16).reshape(400, 1).repeat(50_000, 1)
    with stoker.Loader(x, batch_size=10, workers=2, memory_limit=limit) as loader:
        held = list(loader)
        taken = sum(slot.taken() for slot in loader._producer._slot_table._slots)
    assert np.array_equal(np.concatenate([batch[:, 0] for batch in held]), np.arange(400))
    assert taken <= most * 1_003_520
    assert [record.message.split(". ")[0] for record in caplog.records] == (
        [f"memory_limit={limit:,} holds {most} batches of 1,000,000 bytes"] if most < 33 else []
    )


class Odd:
    """Example 137 is another one each time, where that is asked for."""

    def __init__(self, odd: bool) -> None:
        self.odd = odd

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> Any:
        return int.from_bytes(os.urandom(4)[:3], "big") if self.odd and index == 137 else index + np.random.randint(9)


@pytest.mark.parametrize(("workers", "collate"), [(0, "stack"), (1, "pad"), (2, "stack")])
def test_code_that_is_not_deterministic_is_told_by_the_example(workers: int, collate: str) -> None:
    with stoker.Loader(Odd(False), batch_size=16, workers=workers, verify=1.0, collate=collate) as loader:
        assert len(list(loader)) == 13
    with stoker.Loader(Odd(True), batch_size=16, workers=workers, verify=1.0, collate=collate) as loader:
        batches = iter(loader)
        assert len([next(batches) for _ in range(8)]) == 8, "the error comes in its batch's turn"
        with pytest.raises(stoker.WorkerError, match=r"example 137 .* not deterministic") as raised:
            next(batches)
    assert raised.value.example == 137


def records(shard: stoker.Shard) -> Iterator[Any]:
    for number in range(40 + shard.index):
        yield np.full(3, 100 * shard.index + number + np.random.rand())


def odd_records(shard: stoker.Shard) -> Iterator[Any]:
    for number in range(40):
        yield int.from_bytes(os.urandom(4)[:3], "big") if (shard.index, number) == (1, 21) else number


def some_of(example: Any) -> Any:
    kind = int(example[0]) % 7
    return stoker.SKIP if kind == 3 else stoker.Many([example, -example]) if kind == 5 else example


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.stress), 3])
@pytest.mark.parametrize("options", [{}, {"shuffle": 5}, {"transform": some_of}, {"collate": "pad"}])
def test_shards_that_are_made_twice_give_the_same_batches(workers: int, options: Any) -> None:
    source = stoker.from_generator(records, shards=5, open_shards=3)
    with stoker.Loader(source, batch_size=8, workers=workers, **options) as loader:
        expected = list(loader)
    for verify in (0.3, 1.0):
        with stoker.Loader(source, batch_size=8, workers=workers, verify=verify, **options) as loader:
            assert all(np.array_equal(*pair) for pair in zip(loader, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_generator_that_is_not_deterministic_is_told_by_shard_and_example(workers: int) -> None:
    with stoker.Loader(
        stoker.from_generator(odd_records, shards=3), batch_size=8, workers=workers, verify=1.0
    ) as loader:
        batches = iter(loader)
        assert len([next(batches) for _ in range(7)]) == 7, "the error comes in its batch's turn"
        with pytest.raises(stoker.WorkerError, match=r"shard 1, example 21 .* not deterministic"):
            next(batches)


def one_to_many(example: Any) -> Any:
    """Some examples are left out, some become two, some raise; 137 comes out differently each time."""
    number = int(example)
    if number % 50 == 3:
        raise ValueError("left out")
    value = number + (int.from_bytes(os.urandom(3), "big") if number == 137 else np.random.randint(9))
    return stoker.SKIP if number % 5 == 1 else stoker.Many([value, value]) if number % 7 == 4 else value


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.stress), 3])
@pytest.mark.parametrize("kind", ["map", "iterable"])
def test_parts_of_a_source_are_compared_too(kind: str, workers: int) -> None:
    def source(length: int) -> Any:
        return range(length) if kind == "map" else stoker.from_iterable(lambda: iter(range(length)))

    options: Any = {"batch_size": 8, "workers": workers, "transform": one_to_many, "on_error": "skip"}
    with stoker.Loader(source(137), **options) as loader:
        expected = list(loader)
    with stoker.Loader(source(137), verify=1.0, **options) as loader:
        assert all(np.array_equal(*pair) for pair in zip(loader, expected, strict=True))
        assert loader.stats().skips == 3
    with (
        stoker.Loader(source(150), verify=1.0, **options) as loader,
        pytest.raises(stoker.WorkerError, match=r"example 137 .* not deterministic"),
    ):
        list(loader)


@pytest.mark.parametrize("kind", ["map", "generator"])
def test_a_collate_function_is_compared_too(kind: str) -> None:
    source: Any = range(64) if kind == "map" else stoker.from_generator(lambda shard: iter(range(64)), shards=1)
    for odd in (False, True):

        def collate(examples: list[int]) -> Any:
            noise = np.random.rand() if not odd or examples[0] != 24 else os.getpid() + time.monotonic_ns() % 1000  # noqa: B023
            return np.array(examples, np.float64) + noise

        with stoker.Loader(source, batch_size=8, collate=collate, workers=2, verify=1.0) as loader:
            if not odd:
                assert len(list(loader)) == 8
                continue
            with pytest.raises(
                stoker.WorkerError, match=r"collate's result for a batch \(epoch 0, batch 3.* not determ"
            ):
                list(loader)


def test_a_very_large_batch_is_compared_in_runs_of_examples() -> None:
    source = stoker.from_generator(odd_records, shards=3)
    with (
        stoker.Loader(source, batch_size=8000, transform=lambda n: stoker.Many([n] * 200), verify=1.0) as loader,
        pytest.raises(stoker.WorkerError, match=r"shard 1, example 2[01] \(or one of the 7 after it\) .* not determin"),
    ):
        list(loader)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, "all"])
def test_options_without_meaning_are_refused(wrong: Any) -> None:
    with pytest.raises(stoker.OptionError, match="verify must be a fraction"):
        stoker.Loader(range(4), verify=wrong)
    with pytest.raises(stoker.OptionError, match="on_error must be"):
        stoker.Loader(range(4), on_error=wrong)
    with pytest.raises(stoker.OptionError, match="timeout must be"):
        stoker.Loader(range(4), timeout=-1)
    with pytest.raises(stoker.OptionError, match="retries must be"):
        stoker.Loader(range(4), retries=wrong)


def test_loaders_that_live_side_by_side_share_what_is_free() -> None:
    def limit(loader: stoker.Loader) -> int:
        producer: Any = loader._producer
        return int(producer._slot_table._limit)

    def loader(**options: Any) -> stoker.Loader:
        return stoker.Loader(range(8), transform=lambda n: n, batch_size=4, workers=0, **options)

    with loader() as first:
        with loader() as second:
            assert limit(second) < 0.6 * limit(first)
        with loader() as third:
            assert limit(third) < 0.6 * limit(first)
            list(first)  # now it is known that its batches are tiny
            with loader() as fourth:
                assert limit(fourth) > 1.2 * limit(third)
    with loader(memory_limit=1 << 60), loader() as beside:
        assert limit(beside) > 0.1 * limit(first), "a limit is no demand"


def test_the_warning_about_little_memory_says_what_is_true(caplog: pytest.LogCaptureFixture) -> None:
    for prefetch, says in (
        (1, "bytes. Batches beyond the first "),
        (16, "instead of 16 batches ahead, so training may wait for data. Batches beyond"),
    ):
        caplog.clear()
        with stoker.Loader(
            np.zeros((100, 100_000), np.uint8),
            transform=lambda row: row,
            batch_size=10,
            workers=1,
            memory_limit=12_000_000,
            prefetch=prefetch,
        ) as loader:
            list(loader)
        assert [says in record.message for record in caplog.records] == [True]
        enough = int(caplog.records[0].message.split("set memory_limit=")[1].split()[0])
        caplog.clear()
        with stoker.Loader(
            np.zeros((100, 100_000), np.uint8),
            transform=lambda row: row,
            batch_size=10,
            workers=1,
            memory_limit=enough,
            prefetch=prefetch,
        ) as loader:
            list(loader)
        assert not caplog.records, "what is advised is enough"
