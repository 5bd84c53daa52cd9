"""What the tests of this folder share: who the workers are, what kills them, what is measured, what must come."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

import stoker

#: More often than any test kills: a worker that is killed from outside must not make an example look guilty.
MANY = 1000


def poll(condition: Callable[[], bool], seconds: float = 2.0) -> bool:
    """Wait until the condition holds; returns whether it does after `seconds` at the latest."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return holds


def workers() -> list[psutil.Process]:
    """The worker processes of all Loaders of this process."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "stoker.worker" in child.cmdline():
                found.append(child)
    return found


def send(worker: psutil.Process, kind: signal.Signals) -> bool:
    """Send a signal to a process that may be gone; psutil sees to it that no other one gets it."""
    try:
        worker.send_signal(kind)
    except psutil.NoSuchProcess:
        return False
    return True


def hit(number: int) -> psutil.Process | None:
    """Kill the worker with this number, counted round; None if there is none to kill."""
    alive = workers()
    if not alive:
        return None
    chosen = alive[number % len(alive)]
    return chosen if send(chosen, signal.SIGKILL) else None


class Killer:
    """A context: kills a worker every `every` seconds, or at random times about so far apart.

    Attributes:
        kills: how many signals were sent.
    """

    def __init__(self, every: float, dice: random.Random | None = None) -> None:
        self.kills, self._every, self._dice = 0, every, dice
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer")

    def _run(self) -> None:
        while not self._done.wait(self._every * (2 * self._dice.random() if self._dice else 1)):
            self.kills += hit(self._dice.randrange(1000) if self._dice else self.kills) is not None

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


# ── what must come ───────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Epoch:
    """One epoch from its first pull to its end: the batches, and the example that ended it early."""

    batches: list[Any]
    error: int | None = None


def read(batches: Iterable[Any]) -> Epoch:
    """All that an iteration gives, or has left."""
    found: list[Any] = []
    try:
        for batch in batches:
            found.append(plain(batch))
    except stoker.WorkerError as error:
        return Epoch(found, error.example)
    return Epoch(found)


def plain(batch: Any) -> Any:
    """A batch of `Work` as Python's numbers; it also sees that the parts of an example came together."""
    assert (batch["row"] == batch["number"][:, None]).all()
    return list(zip(batch["number"].tolist(), batch["noise"].tolist(), strict=True))


def digest(batches: Iterable[Any]) -> str:
    """One number for all that came, in its order."""
    made = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            made.update(np.ascontiguousarray(batch[name]).tobytes())
        made.update(b"|")
    return made.hexdigest()


# ── what is measured ─────────────────────────────────────────────────────────────────────────
@dataclass
class Gauge:
    """Descriptors, threads and memory of this process over time; `is_flat` after a third of the time to settle."""

    samples: list[tuple[float, int, int, float]] = field(default_factory=list)

    def sample(self) -> None:
        process = psutil.Process()
        here = time.monotonic(), process.num_fds(), process.num_threads(), process.memory_info().rss / 2**20
        self.samples.append(here)

    def _settled(self) -> Any:
        return np.array(self.samples[len(self.samples) // 3 :])

    def growth(self) -> tuple[float, float, float]:
        """By how much descriptors, threads and MiB grew, by the line that fits their settled samples best."""
        settled = self._settled()
        when = settled[:, 0] - settled[0, 0]
        slopes = np.polyfit(when, settled[:, 1:], 1)[0] if len(settled) > 2 else np.zeros(3)
        fds, threads, mib = (slopes * when[-1]).tolist()
        return fds, threads, mib

    def check(self, mib: float) -> str:
        """Fail on growth, of memory by more than `mib`; returns a line of what was measured."""
        settled, (fds, threads, grown) = self._settled(), self.growth()
        line = (
            f"descriptors {settled[:, 1].min():.0f}–{settled[:, 1].max():.0f}, "
            f"threads {settled[:, 2].min():.0f}–{settled[:, 2].max():.0f}, "
            f"memory {settled[0, 3]:.0f} MiB and {grown:+.1f} MiB"
        )
        assert abs(fds) < 4, line
        assert abs(threads) < 4, line
        assert grown < mib, line
        return line


def give_back_freed() -> None:
    """Make glibc give freed memory back to the kernel: it keeps some for each thread that there was."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def memory_of_workers() -> float:
    """MiB that the workers keep for themselves alone."""
    total = 0
    for worker in workers():
        with contextlib.suppress(psutil.Error):
            total += worker.memory_info().rss - worker.memory_info().shared
    return total / 2**20


def seconds(default: float) -> float:
    return float(os.environ.get("STRESS_SECONDS", default))


def new_seed() -> int:
    """A seed that the caller prints; STRESS_SEED sets it, to see a failure again."""
    return int(os.environ.get("STRESS_SEED", random.randrange(10**6)))
