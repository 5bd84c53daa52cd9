"""Loaders share workers: each gets what it would get alone, and those that are waited for go first."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import stoker
from tests.soak.tools import Killer, poll, workers

SIZE = 48


class Numbers:
    """Which process made which example, after some time. One example may be a fault."""

    def __init__(self, fault: str = "", seconds: float = 0.0) -> None:
        self.fault, self.seconds = fault, seconds

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[int, int]:
        time.sleep(self.seconds)
        if index == 20 and self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 20 and self.fault == "hang":
            time.sleep(60)
        return index, os.getpid()


def epoch(loader: stoker.Loader) -> tuple[list[int], set[int]]:
    """The examples of an epoch, and the processes that made them."""
    pairs = [pair for indices, pids in loader for pair in zip(indices.tolist(), pids.tolist(), strict=True)]
    return [index for index, _ in pairs], {pid for _, pid in pairs}


def draws(index: int) -> tuple[float, float, int]:
    current = stoker.current()
    assert current.example == index
    return random.random(), float(np.random.random()), current.epoch


ALL = list(range(SIZE))


def test_loaders_of_a_pool_share_its_workers() -> None:
    with (
        stoker.Pool(workers=2) as pool,
        stoker.Loader(Numbers(seconds=0.002), batch_size=4, pool=pool) as one,
        stoker.Loader(Numbers(seconds=0.002), batch_size=8, pool=pool, shuffle=True) as other,
        stoker.Loader(Numbers(), batch_size=8, workers=2) as alone,
    ):
        found = [epoch(each) for each in (one, other, alone)]
        assert all(sorted(indices) == ALL for indices, _ in found)
        assert found[0][1] == found[1][1]
        assert len(found[0][1]) == 2
        assert not found[0][1] & found[2][1]


def test_each_draws_what_it_draws_alone() -> None:
    def epochs(**options: Any) -> list[Any]:
        with (
            stoker.Loader(range(SIZE), batch_size=4, seed=1, transform=draws, **options) as one,
            stoker.Loader(range(SIZE), batch_size=4, seed=2, transform=draws, **options) as other,
        ):
            return [read(one, other) for _ in range(2)]

    with stoker.Pool(workers=2) as pool:
        assert epochs(pool=pool) == epochs(workers=0)


def read(*loaders: stoker.Loader) -> list[Any]:
    """The batches of several Loaders, in turn."""
    return [[leaf.tolist() for leaf in batch] for some in zip(*loaders, strict=True) for batch in some]


def test_a_death_in_the_work_of_one_disturbs_no_other() -> None:
    with (
        stoker.Pool(workers=2) as pool,
        stoker.Loader(Numbers("kill", 0.002), batch_size=4, pool=pool) as deadly,
        stoker.Loader(Numbers(seconds=0.002), batch_size=4, pool=pool) as other,
    ):
        batches = iter(deadly)
        for _ in range(5):
            assert len(next(batches)[0]) == 4
            assert epoch(other)[0] == ALL
        with pytest.raises(stoker.WorkerDied) as caught:
            next(batches)
        assert caught.value.example == 20
        assert epoch(other)[0] == ALL
        assert deadly.stats().deaths > 1
        assert other.stats().deaths == 0


@pytest.mark.parametrize("kind", ["map-style", "generator"])
def test_killed_workers_change_no_batch_of_any_loader(kind: str) -> None:
    def make(seed: int, pool: stoker.Pool) -> stoker.Loader:
        options: dict[str, Any] = {"batch_size": 4, "seed": seed, "transform": draws, "pool": pool, "retries": 1000}
        if kind == "map-style":
            return stoker.Loader(range(SIZE), shuffle=True, **options)
        return stoker.Loader(stoker.from_generator(slowly, shards=3), **options)

    with stoker.Pool(workers=2) as pool:
        with make(1, pool) as one, make(2, pool) as other:
            expected = [read(one, other) for _ in range(3)]
        with make(1, pool) as one, make(2, pool) as other, Killer(0.15, random.Random(0)) as killer:
            assert [read(one, other) for _ in range(3)] == expected
    assert killer.kills or kind == "map-style"


def slowly(shard: stoker.Shard) -> Iterator[int]:
    for index in range(SIZE // 3):
        time.sleep(0.002)
        yield index


def test_the_one_that_is_waited_for_goes_first() -> None:
    with (
        stoker.Pool(workers=1) as pool,
        stoker.Loader(Numbers(seconds=0.01), batch_size=1, pool=pool, prefetch=SIZE) as unread,
        stoker.Loader(Numbers(seconds=0.001), batch_size=1, pool=pool, ahead=False) as read,
    ):
        next(batches := iter(unread))  # from now on, a worker has half a second of work that nothing waits for
        begun = time.monotonic()
        assert epoch(read)[0] == ALL
        assert time.monotonic() - begun < 0.3
        assert len(list(batches)) == SIZE - 1


def test_those_that_are_waited_for_take_turns() -> None:
    with (
        stoker.Pool(workers=1) as pool,
        stoker.Loader(Numbers(seconds=0.004), batch_size=1, pool=pool, prefetch=2, ahead=False) as one,
        stoker.Loader(Numbers(seconds=0.004), batch_size=1, pool=pool, prefetch=2, ahead=False) as other,
    ):
        assert [len(list(each)) for each in (one, other)] == [SIZE, SIZE]
        ends: list[float] = []

        def read(loader: stoker.Loader) -> None:
            assert epoch(loader)[0] == ALL
            ends.append(time.monotonic())

        threads = [threading.Thread(target=read, args=(each,)) for each in (one, other)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(ends) - begun < 1.5 * (min(ends) - begun)


# ── one is closed ────────────────────────────────────────────────────────────────────────────
def test_one_that_is_closed_leaves_the_workers_to_the_others() -> None:
    with (
        stoker.Pool(workers=2) as pool,
        stoker.Loader(Numbers(seconds=0.001), batch_size=4, pool=pool, ahead=False) as stays,
    ):
        before, (pid, *_) = epoch(stays), sorted(epoch(stays)[1])
        held = memfds(pid)
        for _ in range(3):
            with stoker.Loader(Numbers(seconds=0.001), batch_size=4, pool=pool) as goes:
                assert epoch(goes) == before
            assert poll(lambda: memfds(pid) == held)
        assert epoch(stays) == before
        assert stays.stats().deaths == 0


def memfds(pid: int) -> int:
    """How many descriptors and mappings of Stoker's a worker has."""
    return sum("memfd:stoker" in str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())


def test_the_workers_keep_nothing_of_loaders_that_are_closed() -> None:
    with stoker.Pool(workers=1) as pool:
        sizes = []
        for _ in range(4):
            rows = np.ones((64, 1 << 16), np.float32)  # 16 MiB
            with stoker.Loader(rows, batch_size=8, transform=np.copy, pool=pool) as loader:
                assert len(list(loader)) == 8
            (worker,) = workers()
            assert poll(lambda pid=worker.pid: memfds(pid) == 1)  # type: ignore[misc]  # its own page
            sizes.append(worker.memory_full_info().uss)
        assert sizes[-1] - sizes[1] < 8 << 20


def test_one_that_hangs_is_closed_in_time_and_the_others_go_on() -> None:
    with stoker.Pool(workers=1) as pool, stoker.Loader(Numbers(seconds=0.001), batch_size=4, pool=pool) as other:
        assert epoch(other)[0] == ALL
        hangs = stoker.Loader(Numbers("hang"), batch_size=4, pool=pool)
        batches = iter(hangs)
        for _ in range(5):
            next(batches)
        begun = time.monotonic()
        hangs.close()
        assert time.monotonic() - begun < 2
        assert epoch(other)[0] == ALL
        assert other.stats().deaths == 0


def test_what_is_made_for_another_goes_on_as_one_is_closed() -> None:
    with (
        stoker.Pool(workers=2) as pool,
        stoker.Loader(Numbers(seconds=0.7), order=range(4), batch_size=1, pool=pool) as slow,
    ):
        batches, is_over = iter(slow), threading.Event()

        def come_and_go() -> None:
            while not is_over.wait(0.2):
                stoker.Loader(Numbers(), batch_size=4, pool=pool).close()

        thread = threading.Thread(target=come_and_go)
        thread.start()
        came = len(list(batches))
        is_over.set()
        thread.join()
        assert came == 4
        assert slow.stats().deaths == 0


def test_what_a_generator_does_as_it_is_closed_is_blamed_on_no_other() -> None:
    with (
        stoker.Pool(workers=1, timeout=5.0) as pool,
        stoker.Loader(stoker.from_generator(slow_to_close, shards=1), batch_size=1, pool=pool) as lingers,
        stoker.Loader(Numbers(), batch_size=4, pool=pool) as other,
    ):
        batches = iter(lingers)
        next(batches)
        batches.close()
        assert epoch(other)[0] == ALL
        assert other.stats().deaths == 0


def slow_to_close(shard: stoker.Shard) -> Iterator[int]:
    try:
        for index in range(1000):
            time.sleep(0.001)
            yield index
    finally:
        time.sleep(1.5)


# ── what a worker has once, and what it has for each Loader ──────────────────────────────────
SCRIPT = """
import functools, os, shutil, sys, stoker
pool = stoker.Pool(workers=1)
def cell(number):
    global scale
    scale, folder = number, f"{FOLDER}/{number}"
    os.mkdir(folder)
    os.chdir(folder)
    sys.path.insert(0, folder)
    exec(f"class Name:\\n    value = {number}", globals())
    exec("@functools.lru_cache\\ndef cached(example): return scale", globals())
    exec("def change(example):\\n    import __main__\\n    here = os.readlink('/proc/self/cwd').split()[0]\\n"
         "    its = __main__.Name.value, Name.value, scale, cached(example)\\n"
         "    return *its, int(here[-1]), int(sys.path[0][-1])", globals())
    return stoker.Loader([0], batch_size=1, transform=change, pool=pool, ahead=False)
def read(loader):
    return [leaf.tolist() for batch in loader for leaf in batch]
one = cell(1)
print(read(one))
other = cell(2)
print(read(other))
shutil.rmtree(FOLDER)
print(read(one), read(other))
"""


def test_each_has_its_own_definitions_folder_and_path(tmp_path: Path) -> None:
    """As in a notebook, where a cell is changed and run again while the Loader of the old one lives."""
    script = f"FOLDER = {str(tmp_path / 'its')!r}\nimport os\nos.mkdir(FOLDER)\n{SCRIPT}"
    ones, twos = ([[number]] * 6 for number in (1, 2))
    assert printed(script).splitlines() == [f"{ones}", f"{twos}", f"{ones} {twos}"]


def printed(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_library_that_one_imports_is_seeded_for_it_alone() -> None:
    def drawn(pool: stoker.Pool) -> list[float]:
        with stoker.Loader(range(4), batch_size=1, transform=by_late_torch, pool=pool) as loader:
            return [float(batch[0]) for batch in loader]

    with stoker.Pool(workers=1) as pool:
        alone = drawn(pool)
    with stoker.Pool(workers=1) as pool, stoker.Loader(Numbers(), batch_size=4, seed=9, pool=pool) as other:
        assert epoch(other)[0] == ALL
        assert drawn(pool) == alone


def by_late_torch(_: int) -> float:
    import torch

    return float(torch.rand(1))


def test_worker_init_is_called_in_each_worker_for_each_loader() -> None:
    state: dict[str, float] = {}

    def init() -> None:
        state["drawn"] = random.random()

    with stoker.Pool(workers=2, worker_init=init, worker_env={"ONE": "1"}) as pool:
        loaders = [
            stoker.Loader(range(8), batch_size=8, transform=lambda _: state["drawn"], seed=seed, pool=pool)
            for seed in (1, 2, 1)
        ]
        one, other, again = ({number for batch in loader for number in batch.tolist()} for loader in loaders)
        assert len(one) == len(other) == 1
        assert one == again != other
        for loader in loaders:
            loader.close()


def test_segments_of_multiprocessing_outlive_the_worker_that_makes_them() -> None:
    """Also where the trainer imports multiprocessing after the workers have started."""
    script = """
import stoker
def make(_):
    from multiprocessing.shared_memory import SharedMemory
    segment = SharedMemory(create=True, size=8)
    segment.close()
    return segment.name
pool = stoker.Pool(workers=1)
list(stoker.Loader([0], batch_size=1, transform=abs, pool=pool))
from multiprocessing.shared_memory import SharedMemory
((name,),) = stoker.Loader([0], batch_size=1, transform=make, pool=pool)
pool.close()
SharedMemory(name.decode()).unlink()
print("there")
"""
    assert printed(script) == "there\n"


# ── the Pool itself ──────────────────────────────────────────────────────────────────────────
def test_the_workers_of_a_pool_stay_while_loaders_come_and_go() -> None:
    with stoker.Pool(workers=2) as pool:
        pids = []
        for _ in range(3):
            with stoker.Loader(Numbers(seconds=0.002), batch_size=4, pool=pool) as loader:
                indices, its = epoch(loader)
                assert indices == ALL
                pids.append(its)
            time.sleep(0.05)
        assert pids[0] == pids[1] == pids[2]
        psutil.Process(next(iter(pids[0]))).kill()  # no Loader is there to ask for another one
        with stoker.Loader(Numbers(seconds=0.002), batch_size=4, pool=pool) as loader:
            assert epoch(loader)[0] == ALL
            assert poll(lambda: len(epoch(loader)[1]) == 2)


def test_a_pool_that_is_dropped_lives_as_long_as_its_loaders() -> None:
    loader = stoker.Loader(Numbers(), batch_size=4, pool=stoker.Pool(workers=1, worker_init=int))
    assert epoch(loader)[0] == ALL
    loader.close()


def test_a_closed_pool_ends_its_loaders() -> None:
    pool = stoker.Pool(workers=1)
    loader = stoker.Loader(Numbers(), batch_size=4, pool=pool, ahead=False)
    assert epoch(loader)[0] == ALL
    pool.close()
    for _ in range(2):
        with pytest.raises(stoker.ClosedError, match="the Pool of this Loader was closed"):
            next(iter(loader))
    with pytest.raises(stoker.ClosedError, match="the Pool of this Loader was closed"):
        stoker.Loader(Numbers(), pool=pool)
    loader.close()


def test_a_loader_that_comes_as_the_pool_is_closed_is_told() -> None:
    for _ in range(20):
        pool = stoker.Pool(workers=1)
        loaders = [stoker.Loader(Numbers(), batch_size=4, pool=pool)]
        closer = threading.Thread(target=pool.close)
        closer.start()
        with contextlib.suppress(stoker.ClosedError):
            loaders.append(stoker.Loader(Numbers(), batch_size=4, pool=pool))
            assert epoch(loaders[1])[0] == ALL
        closer.join()
        for loader in loaders:
            loader.close()


def test_a_fork_of_the_trainer_is_refused() -> None:
    with stoker.Pool(workers=1) as pool, stoker.Loader(Numbers(), batch_size=4, pool=pool) as loader:
        assert epoch(loader)[0] == ALL
        pid = os.fork()
        if not pid:
            signal.alarm(5)
            try:
                stoker.Loader(Numbers(), batch_size=4, pool=pool)
            except stoker.ClosedError as error:
                os._exit("is a fork of that one" not in str(error))
            os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0


def test_the_memory_limit_is_for_all_together() -> None:
    rows, size = np.zeros((256, 1 << 16), np.uint8), 4  # batches of 256 KiB
    limit = 8 << 20
    with stoker.Pool(workers=1, memory_limit=limit) as pool:
        loaders = [stoker.Loader(rows, batch_size=size, transform=np.copy, pool=pool) for _ in range(3)]
        for batches in [iter(loader) for loader in loaders]:
            kept = [next(batches) for _ in range(20)]
            assert len(kept) == 20
        assert nbytes_of_slots() <= limit
        late = stoker.Loader(rows, batch_size=size, transform=np.copy, pool=pool)
        assert len(list(late)) == len(rows) // size
        large = stoker.Loader(rows, batch_size=256, transform=np.copy, pool=pool)
        with pytest.raises(stoker.OptionError, match="more than"):
            next(iter(large))
        for loader in [*loaders, late, large]:
            loader.close()


def nbytes_of_slots() -> int:
    found = {}
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208, one of them is that of this listing
        with contextlib.suppress(OSError):
            if "memfd:stoker-slot" in os.readlink(f"/proc/self/fd/{number}"):  # noqa: PTH115
                status = os.stat(int(number))  # noqa: PTH116
                found[status.st_ino] = status.st_blocks * 512  # a mapping has a descriptor of its own
    return sum(found.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2}, "workers=2 was given, but so was pool="),
        ({"workers": 0}, "workers=0 was given, but so was pool="),
        ({"worker_env": {"A": "b"}}, "worker_env="),
        ({"worker_init": int}, "worker_init="),
        ({"start": "fresh"}, "start='fresh' was given"),
        ({"timeout": 3.0}, "timeout=3.0 was given"),
        ({"pool": 3}, "pool must be a stoker.Pool, got 3"),
    ],
)
def test_what_a_pool_determines_is_not_given_twice(options: dict[str, Any], message: str) -> None:
    with stoker.Pool(workers=1) as pool, pytest.raises(stoker.OptionError, match=message):
        stoker.Loader(Numbers(), **{"pool": pool, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be"),
        ({"workers": "auto"}, "workers must be"),
        ({"memory_limit": 0}, "memory_limit must be"),
        ({"worker_env": "A=b"}, "worker_env must be a dict"),
        ({"worker_init": 1}, "worker_init must be a function"),
        ({"start": "cold"}, "start must be"),
        ({"timeout": -1}, "timeout must be"),
    ],
)
def test_the_options_of_a_pool_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(stoker.OptionError, match=message):
        stoker.Pool(**options)


def test_loaders_of_a_pool_agree_in_whether_they_set_random_states() -> None:
    with (
        stoker.Pool(workers=1) as pool,
        stoker.Loader(Numbers(), pool=pool),
        pytest.raises(stoker.OptionError, match="seed_globals=False was given, but other Loaders"),
    ):
        stoker.Loader(Numbers(), pool=pool, seed_globals=False)
