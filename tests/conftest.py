"""After every test: nothing of Stoker's is left, and no worker has complained.

What counts as left: child processes, threads, memfds and pidfds (open or still mapped), entries of /dev/shm.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

from stoker.runtime.ctrl_c import listen_for_interrupts

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what it lets run in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
listen_for_interrupts()  # its thread and its pipe stay, so no test counts as the one that left them

#: Seconds that a test's processes and threads have to end.
PATIENCE = 3.0
SHM = Path("/dev/shm")
#: What a worker prints when something goes wrong where nobody catches it.
NOISE = "Traceback (most recent call last)", "Exception ignored in", "Fatal Python error", "resource_tracker"

# How long an example of a property takes depends on what else the machine does.
settings.register_profile("stoker", deadline=None)
settings.load_profile("stoker")


@dataclass(frozen=True)
class Holdings:
    """What this process holds at a moment; two of them are compared, by `left_since`."""

    children: frozenset[int]
    threads: frozenset[threading.Thread]
    descriptors: Counter[str]
    mappings: frozenset[str]
    named: frozenset[str]

    @classmethod
    def now(cls, mapped: frozenset[str] | None = None) -> Holdings:
        """Look; `mapped` spares reading what is mapped."""
        threads = [one for one in threading.enumerate() if not isinstance(one, threading._DummyThread)]
        return cls(
            frozenset(children()),
            frozenset(threads),
            Counter(descriptors()),
            frozenset(mappings()) if mapped is None else mapped,
            frozenset(os.listdir(SHM)) if SHM.is_dir() else frozenset(),  # noqa: PTH208, it is asked after every test
        )

    def left_since(self, before: Holdings) -> list[str]:
        """What is held now and was not before, a line for each."""
        shm = self.named - before.named
        return [
            *(
                f"process {pid}: {name}"
                for pid in self.children - before.children
                if not is_pythons(name := command(pid))
            ),
            *(f"thread {one.name}\n{stack(one)}" for one in self.threads - before.threads),
            *(f"descriptor {link} (x{count})" for link, count in (self.descriptors - before.descriptors).items()),
            *(f"mapping {line}" for line in sorted(self.mappings - before.mappings)),
            *(f"/dev/shm/{name}" for name in (unmapped(shm) if shm else [])),
        ]


def children() -> Iterator[int]:
    """Processes that this one started, zombies too."""
    try:
        for task in os.listdir("/proc/self/task"):  # noqa: PTH208, fast
            with open(f"/proc/self/task/{task}/children") as file:  # noqa: PTH123, fast
                yield from map(int, file.read().split())
    except OSError:  # a kernel without these files, or a thread that has just ended
        yield from (child.pid for child in psutil.Process().children())


def command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error as error:
        return str(error)


def is_pythons(command: str) -> bool:
    """Whether it is multiprocessing's tracker of resources, which lives as long as the process that needed it first."""
    return "multiprocessing.resource_tracker" in command


def stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else "(it has ended)"


def descriptors() -> Iterator[str]:
    """Open ones of the kinds that Stoker makes and hardly anyone else does."""
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208, fast
        try:
            link = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115, fast
        except OSError:
            continue
        if "memfd:stoker" in link or "pidfd" in link:
            yield link


def mappings() -> Iterator[str]:
    """Memory of Stoker's that is still mapped here: some array keeps it, or it leaks."""
    with open("/proc/self/maps", "rb") as file:  # noqa: PTH123, fast
        found = file.read()
    if b"memfd:stoker-" in found:
        yield from (line.decode() for line in found.splitlines() if b"memfd:stoker-" in line)


def unmapped(names: frozenset[str]) -> Iterator[str]:
    """Those entries of /dev/shm that no living process maps; what is mapped belongs to another program."""
    maps = [path for path in Path("/proc").glob("[0-9]*/maps") if os.access(path, os.R_OK)]
    used = set()
    for path in maps:
        try:
            text = path.read_text()
        except OSError:
            continue
        used.update(name for name in names if f"{SHM}/{name}" in text)
    yield from (name for name in names - used if (SHM / name).exists())


#: What was mapped after the test before this one. It is read once a test: TensorFlow makes it long.
_mapped: list[frozenset[str]] = []


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    gc.freeze()  # what is there already need not be searched again after each test
    before = Holdings.now(mapped=_mapped[0] if _mapped else None)
    yield
    deadline = time.monotonic() + PATIENCE
    while (left := (after := Holdings.now()).left_since(before)) and time.monotonic() < deadline:
        gc.collect()
        threading.Event().wait(0.02)
    _mapped[:] = [after.mappings]
    assert not left, "\n".join(["the test left behind:", *left])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Fail a test whose workers complained on stderr; one that takes stderr itself (capfd) looks itself."""
    report = yield
    if report.when == "call" and report.passed:
        noise = [line for line in report.capstderr.splitlines() if any(word in line for word in NOISE)]
        if noise:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} left this on stderr:\n{report.capstderr}"
    return report
