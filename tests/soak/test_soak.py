"""The long runs of `make stress`: nothing is lost, doubled or stuck, and nothing grows.

STRESS_SECONDS is how long the longest takes (600), STRESS_SEED repeats a run.
"""

from __future__ import annotations

import gc
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

import stoker
from tests.soak.code import KINDS, Work, source
from tests.soak.tools import MANY, Gauge, give_back_freed, new_seed, seconds, send, workers

pytestmark = pytest.mark.stress

LENGTH, BATCH = 2_000, 16
#: Seconds in which a worker starts. Those that are killed in it are few: a Loader gives up when starts fail in a row.
YOUNG, BETWEEN_YOUNG = 2.0, 8.0


class Trouble:
    """A context: kills and stops workers at random, whosever they are; each that it stops goes on after a while."""

    def __init__(self, dice: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self._dice, self._done = dice, threading.Event()
        self._stopped: list[tuple[float, psutil.Process]] = []
        self._seen: dict[int, float] = {}  # worker: when first
        self._last_young = 0.0
        self._thread = threading.Thread(target=self._run, name="trouble")

    def _run(self) -> None:
        while not self._done.wait(self._dice.random() * 0.4):
            kind = self._dice.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGTERM])
            now, victims = time.monotonic(), []
            for worker in workers():
                if now - self._seen.setdefault(worker.pid, now) > YOUNG or now - self._last_young > BETWEEN_YOUNG:
                    victims.append(worker)
            if victims:
                chosen = self._dice.choice(victims)
                if now - self._seen[chosen.pid] <= YOUNG and kind != signal.SIGSTOP:
                    self._last_young = now
                    self.counts["young"] += 1
                send(chosen, kind)
                self.counts[kind.name] += 1
                if kind == signal.SIGSTOP:
                    self._stopped.append((now + self._dice.random(), chosen))
            self._go_on(now)
        self._go_on(float("inf"))

    def _go_on(self, now: float) -> None:
        for when, process in self._stopped:
            if when <= now:
                send(process, signal.SIGCONT)
        self._stopped = [(when, process) for when, process in self._stopped if when > now]

    def __enter__(self) -> Trouble:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


class Reader(threading.Thread):
    """Makes Loaders and reads them, in every way that there is, until `deadline`; keeps what went wrong."""

    def __init__(self, seed: int, deadline: float) -> None:
        super().__init__(name=f"reader {seed}")
        self.dice, self.deadline = random.Random(seed), deadline
        self.counts: Counter[str] = Counter()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while time.monotonic() < self.deadline:
                self.one_loader()
        except BaseException as error:
            self.error = error

    def one_loader(self) -> None:
        kind, dice = self.dice.choice(KINDS), self.dice
        work = Work(
            delays={dice.randrange(LENGTH): dice.random() * 0.2 for _ in range(3)},
            pace=dice.choice([0, 0, 0.0005]),
            width=dice.choice([1, 100, 10_000]),
        )
        shuffle: Any = dice.choice([False, True]) if kind in ("map", "arrays") else dice.choice([False, 100])
        with stoker.Loader(
            source(kind, LENGTH),
            batch_size=BATCH,
            shuffle=shuffle,
            transform=work,
            workers=dice.choice([1, 2, 3]),
            prefetch=dice.choice([None, 1, 4]),
            timeout=dice.choice([None, None, 5]),
            retries=MANY,
        ) as loader:
            for _ in range(dice.randrange(1, 5)):
                getattr(self, dice.choice(["whole", "held", "cut_short", "dropped", "two_at_once"]))(loader)
            self.counts["deaths seen"] += loader.stats().deaths
            self.counts["stuck"] += loader.stats().stuck
        self.counts["loaders"] += 1

    def compare(self, numbers: list[int]) -> None:
        """Each example once."""
        seen = Counter(numbers)
        self.counts["lost"] += LENGTH - len(seen)
        self.counts["doubled"] += sum(count - 1 for count in seen.values())
        self.counts["epochs"] += 1

    def whole(self, loader: stoker.Loader) -> None:
        self.compare([number for batch in loader for number in self.checked(batch)])

    def held(self, loader: stoker.Loader) -> None:
        batches = list(loader)
        gc.collect()
        self.compare([number for batch in batches for number in self.checked(batch)])

    def cut_short(self, loader: stoker.Loader) -> None:
        batches = iter(loader)
        for _ in range(self.dice.randrange(100)):
            self.checked(next(batches))
        batches.close()  # type: ignore[attr-defined]
        self.counts["cut short"] += 1

    def dropped(self, loader: stoker.Loader) -> None:
        for batch in loader:
            self.checked(batch)
            break
        self.counts["cut short"] += 1

    def two_at_once(self, loader: stoker.Loader) -> None:
        pairs = list(zip(loader, loader, strict=True))
        for one in (0, 1):
            self.compare([number for pair in pairs for number in self.checked(pair[one])])

    def checked(self, batch: Any) -> list[int]:
        assert (batch["row"] == batch["number"][:, None]).all(), "an example of several parts"
        numbers: list[int] = batch["number"].tolist()
        return numbers


@contextmanager
def thresholds_restored() -> Iterator[None]:
    before = gc.get_threshold()
    try:
        yield
    finally:
        gc.set_threshold(*before)


def a_round(dice: random.Random, length: float) -> Counter[str]:
    """Two readers, trouble and changing thresholds for so many seconds; what happened, in numbers."""
    deadline = time.monotonic() + length
    readers = [Reader(dice.randrange(10**6), deadline) for _ in range(2)]
    with thresholds_restored(), Trouble(dice) as trouble:
        for reader in readers:
            reader.start()
        while any(reader.is_alive() for reader in readers):
            gc.set_threshold(dice.choice([1, 10, 100, 700, 10_000]), dice.choice([1, 10]), dice.choice([1, 10]))
            time.sleep(0.2)
            assert time.monotonic() < deadline + 60, "a reader is stuck"
    for reader in readers:
        if reader.error is not None:
            raise reader.error
    return sum((reader.counts for reader in readers), trouble.counts)


def test_nothing_is_lost_doubled_or_stuck_while_everything_goes_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    seed, limit, gauge = new_seed(), seconds(600), Gauge()
    dice, end, counts = random.Random(seed), time.monotonic() + limit, Counter[str]()
    with capfd.disabled():
        print(f"\nseed {seed}, {limit:.0f} s")
        while time.monotonic() < end:
            try:
                counts += a_round(dice, min(20.0, limit / 9))
            finally:
                print({"lost": 0, "doubled": 0, **counts})
            gc.collect()
            give_back_freed()
            gauge.sample()  # no Loader is alive
        assert (counts["lost"], counts["doubled"]) == (0, 0)
        assert counts["epochs"]
        assert counts["SIGKILL"]
        print(gauge.check(mib=32))
