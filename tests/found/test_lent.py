"""Nothing of the user's is cleaned up by a worker; what multiprocessing shares with its processes reaches workers."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path
from typing import Any

import pytest

import stoker
from tests.found.test_main_module import run

SHARED = '''
import os, shutil, signal, tempfile, weakref
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
import numpy as np
import psutil
import stoker

class Cache:
    """Removes its directory when it goes, and writes a log that nobody closes."""
    def __init__(self):
        self.folder, self.log, self.owner = Path(tempfile.mkdtemp()), None, os.getpid()
    def __del__(self):
        shutil.rmtree(self.folder)

class Source:
    def __init__(self, shared):
        self.shared, self.cache, self.temporary = shared, Cache(), tempfile.TemporaryDirectory()
        self.folder = tempfile.mkdtemp()
        self.finalizer = weakref.finalize(self, shutil.rmtree, self.folder)
    def __len__(self):
        return 96
    def __getitem__(self, i):
        if self.cache.log is None:
            self.cache.log = open(f"log{os.getpid()}", "w")
        self.cache.log.write("read\\n")
        again = SharedMemory(self.shared.name)  # by its name, as from another program
        value = int(np.ndarray(96, np.int64, self.shared.buf)[i] + np.ndarray(96, np.int64, again.buf)[i])
        again.close()
        return value

shared = SharedMemory(create=True, size=96 * 8)
np.ndarray(96, np.int64, shared.buf)[:] = np.arange(96)
source = Source(shared)
with stoker.Loader(source, batch_size=8, workers=2) as loader:
    batches = iter(loader)
    next(batches)
    for child in psutil.Process().children():
        if "stoker.worker" in child.cmdline():
            child.send_signal(signal.SIGKILL)
    list(batches)
    print(sum(int(batch.sum()) for batch in loader))
SharedMemory(shared.name).close()
print(os.path.exists(source.folder), os.path.exists(source.temporary.name), source.cache.folder.exists())
print(any(path.stat().st_size for path in Path().glob("log*")))
source.temporary.cleanup()
shared.close()
shared.unlink()
'''


def test_workers_clean_up_nothing_of_the_trainers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SHARED)
    assert run("script.py", cwd=tmp_path) == [str(2 * sum(range(96))), "True True True", "True"]


def test_a_segment_of_another_program_outlives_trainer_and_workers(tmp_path: Path) -> None:
    """The trainer itself never touches it, and has no resource tracker."""
    (tmp_path / "script.py").write_text(
        "import sys, stoker\n"
        "def read(i):\n"
        "    from multiprocessing.shared_memory import SharedMemory\n"
        "    segment = SharedMemory(sys.argv[1])\n"
        "    value = segment.buf[i]\n"
        "    segment.close()\n"
        "    return value\n"
        "with stoker.Loader(range(4), transform=read, workers=2) as loader:\n"
        "    print([batch.tolist() for batch in loader])\n"
    )
    (tmp_path / "owner.py").write_text(
        "import subprocess, sys\n"
        "from multiprocessing.shared_memory import SharedMemory\n"
        "segment = SharedMemory(create=True, size=4)\n"
        "segment.buf[:4] = bytes(range(4))\n"
        "print(subprocess.check_output([sys.executable, 'script.py', segment.name], text=True), end='')\n"
        "SharedMemory(segment.name).close()\n"
        "segment.close()\n"
        "segment.unlink()\n"
    )
    assert run("owner.py", cwd=tmp_path) == ["[[0, 1, 2, 3]]"]


class Holder:
    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> int:
        return i


def test_proxies_of_a_manager_and_the_manager_itself_can_be_sent(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import multiprocessing, stoker\n"
        "class Source:\n"
        "    def __init__(self, manager):\n"
        "        self.manager, self.seen, self.lock = manager, manager.dict(), manager.Lock()\n"
        "        self.level = manager.Value('i', 2)\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, i):\n"
        "        with self.lock: self.seen[i] = len(self.manager.list([1]))\n"
        "        return i * self.level.value\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.Manager() as manager:\n"
        "        source = Source(manager)\n"
        "        loader = stoker.Loader(source, batch_size=2, workers=2, ahead=False)\n"
        "        print([batch.tolist() for batch in loader])\n"
        "        source.level.value = 3\n"
        "        print([batch.tolist() for batch in loader], sorted(source.seen.items()))\n"
    )
    assert run("script.py", cwd=tmp_path) == [
        "[[0, 2], [4, 6]]",
        "[[0, 3], [6, 9]] [(0, 1), (1, 1), (2, 1), (3, 1)]",
    ]


@pytest.mark.parametrize(
    "name", ["Value", "Array", "Event", "Lock", "Queue", "Semaphore", "Condition", "RawValue", "Pipe"]
)
def test_what_can_only_be_inherited_is_refused_with_the_repair(name: str) -> None:
    make = getattr(multiprocessing.get_context("fork"), name)
    arguments = {"Value": ("i", 1), "Array": ("i", [1]), "RawValue": ("i",)}.get(name, ())
    made = make(*arguments)
    source = Holder(made[0] if name == "Pipe" else made)
    with pytest.raises(stoker.ProgramError) as caught:
        stoker.Loader(source, workers=1)
    message = str(caught.value)
    assert re.match(r"source\.handle \(a (\w+)\) cannot be sent|source\.handle\.\w+", message)
    assert "read `stoker.current().epoch`" in message
    assert "multiprocessing.Manager()" in message
    assert "on first use" not in message
    for part in made if name == "Pipe" else ():
        part.close()
