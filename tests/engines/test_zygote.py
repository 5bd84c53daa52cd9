"""Workers are forked from one interpreter, the zygote; how they were started changes nothing but the time."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import stoker
from stoker.engines import zygote_process

SIZE = 64


class Numbers:
    """Which process made which example."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[int, int]:
        time.sleep(0.002)
        return index, os.getpid()


def named(name: str) -> list[psutil.Process]:
    """This process's children with that argument."""
    return [child for child in psutil.Process().children() if child.is_running() and name in _arguments(child)]


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def epoch(loader: stoker.Loader) -> tuple[list[int], set[int]]:
    """The examples of an epoch, and the processes that made them."""
    batches = [(indices.tolist(), processes.tolist()) for indices, processes in loader]
    found = [pair for batch in batches for pair in zip(*batch, strict=True)]
    return [index for index, _ in found], {process for _, process in found}


def test_workers_are_children_of_the_trainer_and_live_on_without_the_zygote() -> None:
    with stoker.Loader(Numbers(), batch_size=8, workers=2, ahead=False) as loader:
        assert epoch(loader)[0] == list(range(SIZE))
        (zygote,), workers = named("stoker.zygote"), {worker.pid for worker in named("stoker.worker")}
        assert len(workers) == 2
        zygote.send_signal(signal.SIGKILL)
        wait_for(lambda: [one.pid for one in named("stoker.zygote")] not in ([], [zygote.pid]))
        assert epoch(loader) == (list(range(SIZE)), workers)
        assert loader.stats().deaths == 0
        for worker in named("stoker.worker"):
            worker.send_signal(signal.SIGKILL)
        indices, others = epoch(loader)
        assert indices == list(range(SIZE))
        assert not others & workers
    assert not named("stoker.zygote")


@pytest.mark.parametrize("how", ["SIGKILL", "exit0", "SIGSTOP"])
@pytest.mark.parametrize("where", ["fork", "forked"])
def test_a_zygote_that_fails_while_it_forks_loses_no_worker(
    where: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKER_FAILPOINT", f"{where}:{how}:{tmp_path / 'once'}")
    with stoker.Loader(Numbers(), batch_size=8, workers=2) as loader:
        assert epoch(loader)[0] == list(range(SIZE))
        assert (tmp_path / "once").exists()
        wait_for(lambda: len(named("stoker.worker")) == 2)
        assert loader.stats().deaths == 0


def test_a_zygote_that_is_killed_while_it_starts_is_done_without() -> None:
    with stoker.Loader(Numbers(), batch_size=8, workers=2) as loader:
        batches = iter(loader)

        def kill() -> None:
            wait_for(lambda: named("stoker.zygote"))
            named("stoker.zygote")[0].send_signal(signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        assert [int(index) for indices, _ in batches for index in indices] == list(range(SIZE))
        killer.join()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a module of the user's from its text."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(name: str, text: str) -> Any:
        (tmp_path / f"{name}.py").write_text(text)
        made.append(name)
        return importlib.import_module(name)

    yield make
    for name in made:
        del sys.modules[name]


DATASET = """
class Dataset:
    def __len__(self):
        return 64
    def __getitem__(self, index):
        import os, time
        time.sleep(0.002)
        return index, os.getpid(), {value}
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import tempfile\nfile = tempfile.TemporaryFile()\n", "opened /tmp"),
        ("import socket\none, other = socket.socketpair()\n", "opened socket:"),
        ("import sqlite3, tempfile\nd = tempfile.mkdtemp()\nc = sqlite3.connect(d + '/a.db')\n", "a.db"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(3,), daemon=True).start()\n", "1 thread"),
        ("import lmdb, tempfile\nc = lmdb.open(tempfile.mkdtemp())\n", ".mdb"),
        (
            "import cv2, numpy\ncv2.setNumThreads(2)\ncv2.GaussianBlur(numpy.ones((2000, 2000), 'u1'), (15, 15), 0)\n",
            "1 thread",
        ),
    ],
    ids=["file", "socket", "sqlite", "thread", "lmdb", "cv2"],
)
def test_what_importing_opens_is_not_shared(
    text: str, reason: str, module: Any, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    if (library := request.node.callspec.id) in ("lmdb", "cv2"):
        pytest.importorskip(library)
    caplog.set_level(logging.DEBUG, "stoker")
    its = module("opens_at_import", text + DATASET.format(value="0"))
    with stoker.Loader(its.Dataset(), batch_size=8, workers=2) as loader:
        assert [int(index) for batch in loader for index in batch[0]] == list(range(SIZE))
        assert not named("stoker.zygote")
    (line,) = [record.getMessage() for record in caplog.records if "not forked" in record.getMessage()]
    assert reason in line
    for name in ("one", "other", "file", "c"):
        if hasattr(its, name):
            getattr(its, name).close()


NOTES = """
import os, {library}
with open({file!r}, "a") as file:
    file.write(str(os.getpid()) + "\\n")
"""


def test_a_zygote_that_cannot_fork_becomes_a_worker(module: Any, tmp_path: Path) -> None:
    file = tmp_path / "imported"
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(3,), daemon=True).start()\n"
    text = NOTES.format(library="sys", file=str(file)) + thread + DATASET.format(value=0)
    its = module("starts_a_thread", text)
    file.unlink()
    with stoker.Loader(its.Dataset(), batch_size=8, workers=2) as loader:
        assert [int(index) for batch in loader for index in batch[0]] == list(range(SIZE))
        wait_for(lambda: len(named("stoker.worker")) == 2 and len(file.read_text().split()) == 2)
        workers = {worker.pid for worker in named("stoker.worker")}
    assert set(map(int, file.read_text().split())) == workers  # no interpreter has imported it in vain


def test_importing_these_libraries_keeps_a_zygote_able_to_fork(module: Any, tmp_path: Path) -> None:
    library = ", ".join(name for name in ("pandas", "pyarrow", "lmdb", "cv2", "h5py", "sys") if find_spec(name))
    file = tmp_path / "imported"
    value = "('JE_ARROW_MALLOC_CONF' in os.environ, threads())"
    threads = "def threads():\n    return len(os.listdir('/proc/self/task'))\n"
    its = module(
        "imports_a_library", NOTES.format(library=library, file=str(file)) + threads + DATASET.format(value=value)
    )
    file.unlink()
    with stoker.Loader(its.Dataset(), batch_size=8, workers=2) as loader:
        for _, _, (is_set, count) in loader:
            assert not is_set.any()  # the user's code sees the trainer's environment
            assert (count == 1).all()
        assert [int(pid) for pid in file.read_text().split()] == [one.pid for one in named("stoker.zygote")]


@pytest.mark.parametrize(
    ("does", "stalled", "forks"),
    [("time.sleep(1)", 0.2, False), ("while time.process_time() < 0.8: pass", 0.5, True)],
    ids=["hangs", "runs"],
)
def test_slow_imports_are_waited_for_and_those_that_hang_are_not(
    does: str, stalled: float, forks: bool, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote_process, "_STALLED", stalled)
    its = module("imports_slowly", f"import time\n{does}\n" + DATASET.format(value=0))
    with stoker.Loader(its.Dataset(), batch_size=8, workers=1) as loader:
        assert [int(index) for batch in loader for index in batch[0]] == list(range(SIZE))
        assert bool(named("stoker.zygote")) is forks


class Database:
    """Opens its file when it is unpickled, as people write it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self.connection, self.opened_by = sqlite3.connect(self.path), os.getpid()

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[int, bool]:
        time.sleep(0.002)
        (value,) = self.connection.execute("select value from numbers where id = ?", (index,)).fetchone()
        return value, self.opened_by == os.getpid()


def test_what_unpickling_opens_belongs_to_one_worker(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "numbers.db") as connection:
        connection.execute("create table numbers (id integer primary key, value integer)")
        connection.executemany("insert into numbers values (?, ?)", [(index, index * index) for index in range(SIZE)])
    connection.close()
    database = Database(tmp_path / "numbers.db")
    with stoker.Loader(database, batch_size=8, workers=2) as loader:
        assert named("stoker.zygote") or next(iter(loader)) is not None
        values, its_own = zip(*loader, strict=True)
    database.connection.close()
    assert np.concatenate(values).tolist() == [index * index for index in range(SIZE)]
    assert np.concatenate(its_own).all()


def test_generators_without_a_seed_differ_between_workers_and_others_do_not(module: Any) -> None:
    its = module(
        "has_generators",
        "import random\nimport numpy as np\n"
        "values = [np.random.default_rng().integers(2**40), random.Random().getrandbits(40)]\n"
        "numpys, pythons, seeded = np.random.default_rng(), random.Random(), np.random.default_rng(7)\n"
        + DATASET.format(value="(int(numpys.integers(2**40)), pythons.getrandbits(40), int(seeded.integers(2**40)))"),
    )
    by_worker: dict[int, list[tuple[int, ...]]] = {}
    with stoker.Loader(its.Dataset(), batch_size=8, workers=2) as loader:
        for _, processes, drawn in loader:
            for process, *numbers in zip(processes.tolist(), *(part.tolist() for part in drawn), strict=True):
                by_worker.setdefault(process, []).append(tuple(numbers))
        assert named("stoker.zygote")
    one, other = by_worker.values()
    assert not {numbers[:2] for numbers in one} & {numbers[:2] for numbers in other}
    assert one[0][2] == other[0][2]


def test_fresh_interpreters_are_started_on_request() -> None:
    with stoker.Loader(Numbers(), batch_size=8, workers=2, start="fresh") as loader:
        assert epoch(loader)[0] == list(range(SIZE))
        assert not named("stoker.zygote")
    with pytest.raises(stoker.OptionError, match='start must be "warm" or "fresh", got \'spawn\''):
        stoker.Loader(Numbers(), start="spawn")  # type: ignore[arg-type]


@pytest.mark.alone
def test_a_dead_worker_is_replaced_within_50_ms() -> None:
    with stoker.Loader(Numbers(), batch_size=8, workers=2) as loader:
        epoch(loader)
        taken = []
        for _ in range(9):
            victim, *_ = named("stoker.worker")
            before = {worker.pid for worker in named("stoker.worker")}
            begun = time.perf_counter()
            victim.send_signal(signal.SIGKILL)
            wait_for(lambda before=before: len({one.pid for one in named("stoker.worker")} - before) == 1)
            taken.append(time.perf_counter() - begun)
        assert sorted(taken)[len(taken) // 2] < 0.05, taken
