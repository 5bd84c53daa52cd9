"""Several trainers: the same examples at each step, whatever their number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stoker
from tests.worker.augmentation import by_numpy

HOSTS = (1, 2, 4, 8)


def batches(length: int, host: int, hosts: int, workers: int = 0, **options: Any) -> list[Any]:
    how = {"shuffle": True, "seed": 3, "shard_index": host, "shard_count": hosts, "workers": workers, **options}
    with stoker.Loader(range(length), **how) as loader:
        return list(loader)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.sampled_from([8, 16, 24]), st.booleans())
def test_a_step_sees_the_same_examples_whatever_the_number_of_trainers(length: int, size: int, drop: bool) -> None:
    rest = length % size
    if drop and length < size:
        return
    expected = [batch.tolist() for batch in batches(length, 0, 1, batch_size=size, drop_remainder=drop)]
    for hosts in HOSTS[1:]:
        if 0 < rest < hosts and not drop:
            with pytest.raises(stoker.OptionError, match=rf"the last batch has {rest} of {size} examples, too few"):
                batches(length, 0, hosts, batch_size=size)
            continue
        parts = [batches(length, host, hosts, batch_size=size, drop_remainder=drop) for host in range(hosts)]
        assert {len(part) for part in parts} == {len(expected)}, "all take as many steps"
        assert [np.concatenate(step).tolist() for step in zip(*parts, strict=True)] == expected


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.sampled_from(HOSTS))
def test_what_fills_the_last_batch_up_has_no_weight(length: int, hosts: int) -> None:
    source = [(np.float32(n), n) for n in range(length)]
    seen: list[float] = []
    for host in range(hosts):
        how = {"batch_size": 8, "shard_index": host, "shard_count": hosts, "pad_remainder": True}
        with stoker.Loader(source, **how, workers=0) as loader:
            for x, y, weight in loader:
                assert len(x) == 8 // hosts
                assert set(weight.tolist()) <= {0.0, 1.0}
                seen += y[weight == 1].tolist()
    assert sorted(seen) == list(range(length))


def test_weights_of_ones_own_are_kept_and_other_examples_refused() -> None:
    source = [(n, n, np.float64(n / 2)) for n in range(5)]
    with stoker.Loader(source, batch_size=4, pad_remainder=True, workers=1) as loader:
        weights = [batch[2].tolist() for batch in loader]
        assert loader.to_tf().element_spec[0].shape == (4,)
    assert weights == [[0, 0.5, 1, 1.5], [2, 0, 0, 0]]
    with (
        stoker.Loader([{"x": 1}], batch_size=4, pad_remainder=True, workers=0) as loader,
        pytest.raises(stoker.SpecError, match="it is a dict; pad_remainder=True adds a sample_weight"),
    ):
        next(iter(loader))


def test_another_number_of_trainers_goes_on_from_the_same_state() -> None:
    how = {"batch_size": 8, "shuffle": True, "transform": by_numpy}
    with stoker.Loader(range(64), **how, workers=0) as one:
        expected = [batch.tolist() for batch in one]
        state = one.state_dict()
    state = {**state, "epoch": 0, "batches": 3}
    for hosts in HOSTS:
        parts = []
        for host in range(hosts):
            with stoker.Loader(range(64), **how, shard_index=host, shard_count=hosts, workers=host % 2) as loader:
                loader.load_state_dict(json.loads(json.dumps(state)))
                parts.append(list(loader))
        assert [np.concatenate(step).tolist() for step in zip(*parts, strict=True)] == expected[3:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_index": 2, "shard_count": 2}, "shard_index=2 must be less than shard_count=2"),
        ({"shard_index": -1}, "shard_index must be an int of at least 0"),
        ({"shard_count": 0}, "shard_count must be an int of at least 1"),
        ({"shard_count": 3}, "batch_size=32 covers all trainers.*not divisible by shard_count=3. Use 30 or 33"),
        ({"shard_count": 2, "batch_size": None}, "batch_size=None has none"),
        ({"shard_count": 2, "on_error": "skip"}, "but on_error='skip' makes them unknown"),
        ({"pad_remainder": True, "drop_remainder": True}, "left out or filled up"),
        ({"pad_remainder": True, "source": stoker.from_iterable([1])}, "a generator or iterable has none"),
    ],
)
def test_what_cannot_be_dealt_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(stoker.OptionError, match=message):
        stoker.Loader(**{"source": range(100), "workers": 0, **options})


STRATEGIES = Path(__file__).parent / "strategies.py"


def run(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(STRATEGIES), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "AutoShard" not in err, err
    assert "AUTO sharding" not in err, err
    return json.loads(out.splitlines()[-1])


def test_replicas_of_one_process_take_each_example_once() -> None:
    """MirroredStrategy and DataParallel with two logical CPUs."""
    parallel = True if sys.version_info >= (3, 11) else None  # Keras for 3.10 has no DataParallel for TensorFlow
    assert told(run("one")) == {"fit": True, "function": True, "dataset": True, "data_parallel": parallel}


@pytest.mark.stress  # each imports TensorFlow, and the strategies of one process are tested above
def test_two_processes_take_each_example_once() -> None:
    """MultiWorkerMirroredStrategy on loopback, by TF_CONFIG."""
    import socket

    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = [str(one.getsockname()[1]), str(other.getsockname()[1])]
    both = [run("many", str(index), *ports) for index in range(2)]
    first, second = map(told, both)
    for how in ("dataset", "function"):
        steps = [sorted(mine + theirs) for mine, theirs in zip(first[how], second[how], strict=True)]
        assert steps == first["expected"], how


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("prefetch", [None, 1, 3])
@pytest.mark.parametrize("collate", ["stack", "pad"])
def test_slots_hold_the_rows_of_this_trainer_alone(workers: int, prefetch: int | None, collate: str) -> None:
    """A batch of all trainers takes 1.6 MB, this trainer's part 0.2 MB, and memory_limit is between the two."""
    source = [np.full(25_000, number % 256, np.uint8) for number in range(128)]
    how = {"shard_index": 3, "shard_count": 8, "workers": workers, "prefetch": prefetch, "collate": collate}
    with stoker.Loader(source, batch_size=64, memory_limit=1_400_000, **how) as loader:
        held = list(loader)
        slots = loader._producer._slot_table._slots
        assert sum(slot.taken() for slot in slots) <= 1_400_000
    assert [batch[:, 0].tolist() for batch in held] == [list(range(24, 32)), list(range(88, 96))]


def test_a_part_of_a_batch_that_is_too_large_for_the_memory_is_told_in_rows_of_this_trainer() -> None:
    source = [np.zeros(1_000_000, np.uint8)] * 64
    with (
        pytest.raises(stoker.OptionError, match=r"a batch of 8 examples takes 8,000,000 bytes, more than memory_limit"),
        stoker.Loader(source, batch_size=64, shard_count=8, workers=0, memory_limit=4_000_000) as loader,
    ):
        list(loader)


MARKS = {"skip": stoker.SKIP}


def unannounced(number: int) -> Any:
    """Leaves numbers out without naming SKIP, so that the Loader learns of it late."""
    return MARKS["skip"] if number in (0, 18) else number


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", [{"batch_size": 4}, {"order": [[1, 2], [18, 3], [4, 0]]}], ids=["", "order"])
def test_an_example_that_is_left_out_unannounced_is_an_error_for_several_trainers(
    options: dict[str, Any], workers: int
) -> None:
    for host in range(2):
        with (
            stoker.Loader(
                range(20), transform=unannounced, shard_index=host, shard_count=2, workers=workers, **options
            ) as loader,
            pytest.raises(stoker.OptionError, match="other trainers would take another number of steps"),
        ):
            list(loader)
