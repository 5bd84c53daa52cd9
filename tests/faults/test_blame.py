"""Which example is at fault is found out, wherever on its way into a batch it does harm; and no other is accused."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker
from tests.faults.code import AT
from tests.soak.tools import Killer, digest, poll, send, workers

COUNT = 64


class Lazy:
    """An array that is made, or does harm, when it is converted."""

    def __init__(self, number: int, how: str) -> None:
        self.number, self.how = number, how

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self.number == AT:
            if self.how == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("truncated")
        return np.array([self.number, self.number])


def source_of(kind: str) -> Any:
    if kind == "map":
        return range(COUNT)
    if kind == "generator":
        return stoker.from_generator(lambda shard: iter(range(COUNT)), shards=1)
    return stoker.from_iterable(lambda: iter(range(COUNT)))


def cases() -> Iterator[Any]:
    quick = ("map", "pad", "SIGKILL"), ("generator", "stack", "SIGKILL"), ("iterable", "pad", "raise")
    for case in itertools.product(("map", "generator", "iterable"), ("stack", "pad"), ("raise", "SIGKILL")):
        yield pytest.param(*case, marks=[] if case in quick else pytest.mark.stress)


@pytest.mark.parametrize(("kind", "collate", "how"), list(cases()))
def test_an_example_that_does_harm_when_it_is_converted_is_named_and_left_out(
    kind: str, collate: str, how: str
) -> None:
    def lazy(number: Any) -> Any:
        return Lazy(int(number), how)

    options: Any = {"batch_size": 8, "collate": collate, "workers": 2, "transform": lazy}
    with stoker.Loader(source_of(kind), **options) as loader, pytest.raises(stoker.WorkerError) as raised:
        list(loader)
    assert raised.value.example == AT
    assert isinstance(raised.value, stoker.WorkerDied) == (how == "SIGKILL")
    with stoker.Loader(source_of(kind), on_error="skip", **options) as loader:
        found = [int(row[0]) for batch in loader for row in batch]
        assert [skipped.example for skipped in loader.stats().skipped] == [AT]
    assert found == [number for number in range(COUNT) if number != AT]


@pytest.mark.parametrize("kind", ["map", "generator", pytest.param("iterable", marks=pytest.mark.stress)])
def test_an_example_that_becomes_many_and_dies_on_the_way_gives_what_came_before(kind: str) -> None:
    def many(number: Any) -> Any:
        def outputs() -> Iterator[int]:
            for part in range(6):
                if (number, part) == (AT, 4):
                    os._exit(3)
                yield 10 * int(number) + part

        return stoker.Many(outputs())

    with stoker.Loader(source_of(kind), batch_size=4, transform=many, on_error="skip", workers=2) as loader:
        found = [int(number) for batch in loader for number in batch]
        assert [skipped.example for skipped in loader.stats().skipped] == [AT]
    all_of = [10 * number + part for number in range(COUNT) for part in range(6)]
    lost = set(all_of) - set(found)
    assert found == [number for number in all_of if number not in lost]
    assert {10 * AT + 4, 10 * AT + 5} <= lost <= set(range(10 * AT, 10 * AT + 6))


@pytest.mark.parametrize("kind", ["generator", pytest.param("map", marks=pytest.mark.stress)])
def test_slow_examples_are_not_accused_of_what_kills_workers_from_outside(kind: str) -> None:
    def slow(number: Any, rng: np.random.Generator) -> Any:
        time.sleep(0.02)
        return np.array([int(number), rng.integers(1000)])

    options: Any = {"batch_size": 16, "transform": slow, "on_error": "skip"}
    with stoker.Loader(source_of(kind), workers=0, **options) as quiet:
        expected = digest({"batch": batch} for batch in [*quiet, *quiet])
    with stoker.Loader(source_of(kind), workers=2, **options) as loader:
        with Killer(0.5):
            found = digest({"batch": batch} for batch in [*loader, *loader])
        assert loader.stats().deaths
        assert not loader.stats().skips
    assert found == expected


@pytest.mark.stress
def test_when_every_example_kills_an_error_ends_it() -> None:
    def kills(number: Any) -> Any:
        os._exit(3)

    options: Any = {"on_error": "skip", "retries": 0, "workers": 2}
    with (
        stoker.Loader(range(COUNT), batch_size=8, transform=kills, **options) as loader,
        pytest.raises(stoker.WorkerDied, match="exited with code 3"),
    ):
        list(loader)


def test_a_worker_that_sends_what_is_no_message_is_replaced(tmp_path: Path) -> None:
    note = tmp_path / "written"

    def scribbles(number: Any) -> Any:
        if number == AT and not note.exists():
            note.touch()
            for link in Path("/proc/self/fd").iterdir():
                if link.is_symlink() and str(link.readlink()).startswith("socket:"):
                    os.write(int(link.name), b"garbage")
        return number

    with stoker.Loader(range(COUNT), batch_size=8, transform=scribbles, workers=2, ahead=False) as loader:
        assert [number for batch in loader for number in batch.tolist()] == list(range(COUNT))
        assert poll(lambda: loader.stats().deaths == 1, 10), "it may have finished its task before it was killed"
    assert note.exists()


def test_idle_workers_wait_whatever_the_default_timeout_of_sockets() -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.1)
    try:
        with stoker.Loader(range(COUNT), batch_size=8, workers=2) as loader:
            for _ in range(2):
                assert len(list(loader)) == 8
                time.sleep(0.3)
            assert loader.stats().deaths == 0
    finally:
        socket.setdefaulttimeout(before)


def test_programs_that_user_code_starts_get_no_memory_of_stokers() -> None:
    def starts(number: Any) -> Any:
        with os.popen("ls -l /proc/self/fd") as program:
            return program.read().count("stoker")

    with stoker.Loader(range(2), batch_size=2, transform=starts, workers=1) as loader:
        assert [batch.tolist() for batch in loader] == [[0, 0]]


def test_a_worker_that_must_leave_does_so_whatever_threads_user_code_has_running() -> None:
    def leaves_a_thread(number: Any) -> Any:
        if number == AT:
            threading.Thread(target=time.sleep, args=(60,)).start()
            raise MemoryError  # another process must take over
        return number

    begun = time.monotonic()
    with stoker.Loader(range(COUNT), batch_size=4, transform=leaves_a_thread, workers=1, on_error="skip") as loader:
        found = [number for batch in loader for number in batch.tolist()]
        assert loader.stats().deaths
    assert found == [number for number in range(COUNT) if number != AT]
    assert time.monotonic() - begun < 20, "the thread runs for a minute"


def test_workers_that_are_killed_as_soon_as_they_start_are_started_again_with_pauses() -> None:
    with stoker.Loader(range(COUNT), batch_size=8, workers=1, start="fresh") as loader:  # a fork is up before the kill
        next(iter(loader))  # the program can be loaded
        killed: set[int] = set()
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            for worker in workers():
                if worker.pid not in killed:
                    killed.add(worker.pid)
                    send(worker, signal.SIGKILL)
            time.sleep(0.002)
        assert 3 <= len(killed) <= 12, "without pauses 25, and the Loader gives up"
        batches = list(loader)
        assert loader.stats().deaths == len(killed)
    assert [number for batch in batches for number in batch.tolist()] == list(range(COUNT))
