"""Many workers, many batches, many epochs: it works, and nothing grows with their number."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import stoker
from tests.soak.code import Numbers, Work
from tests.soak.tools import Gauge, memory_of_workers, read, workers

pytestmark = pytest.mark.stress


def test_many_more_workers_than_cpus_start_deliver_and_end(capfd: pytest.CaptureFixture[str]) -> None:
    count, begun = 64, time.monotonic()
    with stoker.Loader(Numbers(12_800), batch_size=10, transform=Work(), workers=count) as loader:
        batches = iter(loader)
        first = next(batches)
        delivered = time.monotonic()
        numbers = [*first["number"].tolist(), *(number for batch in batches for number in batch["number"].tolist())]
        assert numbers == list(range(12_800))
        while len(workers()) < count:
            time.sleep(0.05)
            assert time.monotonic() < begun + 120
        started, second = time.monotonic(), read(loader)
        assert sum(map(len, second.batches)) == 12_800
        ending = time.monotonic()
    ended = time.monotonic()
    with capfd.disabled():
        print(
            f"\n{count} workers on {len(os.sched_getaffinity(0))} CPUs: first batch after {delivered - begun:.1f} s, "
            f"all started after {started - begun:.1f} s, second epoch {ending - started:.1f} s, "
            f"ended in {ended - ending:.2f} s"
        )
    assert not workers()
    assert ended - ending < 4, "2 s, and what so many processes take to go"


def test_a_million_batches_of_one_small_row(capfd: pytest.CaptureFixture[str]) -> None:
    count, gauge, theirs = 1_000_000, Gauge(), []
    with stoker.Loader(np.arange(count), batch_size=1, workers=2) as loader:
        begun = time.monotonic()
        for number, batch in enumerate(loader):
            if batch[0] != number:
                raise AssertionError(f"batch {number} has {batch[0]}")
            if number % 20_000 == 0:
                gauge.sample()
                theirs.append(memory_of_workers())
        taken = time.monotonic() - begun
    with capfd.disabled():
        print(
            f"\n{count:,} batches in {taken:.1f} s: {count / taken:,.0f} a second; {gauge.check(mib=8)}; workers:",
            end=" ",
        )
        print(f"{theirs[len(theirs) // 3]:.1f} MiB, and at the end {theirs[-1]:.1f}")
    assert number == count - 1
    assert theirs[-1] - theirs[len(theirs) // 3] < 8


def test_a_thousand_epochs(capfd: pytest.CaptureFixture[str]) -> None:
    gauge, theirs = Gauge(), []
    with stoker.Loader(Numbers(64), batch_size=8, shuffle=True, transform=Work(), workers=2) as loader:
        begun = time.monotonic()
        for epoch in range(1000):
            numbers = [number for batch in loader for number in batch["number"].tolist()]
            assert sorted(numbers) == list(range(64)), epoch
            if epoch % 20 == 0:
                gauge.sample()
                theirs.append(memory_of_workers())
        taken = time.monotonic() - begun
    with capfd.disabled():
        print(f"\n1,000 epochs in {taken:.1f} s; {gauge.check(mib=4)}; workers:", end=" ")
        print(f"{theirs[len(theirs) // 3]:.1f} MiB, and at the end {theirs[-1]:.1f}")
    assert theirs[-1] - theirs[len(theirs) // 3] < 4
