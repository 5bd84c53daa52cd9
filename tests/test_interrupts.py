"""Ctrl-C comes at any moment, and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import textwrap
import threading
import time
from typing import Any

import pytest

import stoker
from stoker.interrupts import interruptible, shielded

pytestmark = pytest.mark.alone


def interrupt(seconds: float = 0) -> threading.Timer:
    """Ctrl-C, so many seconds from now."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_is_interrupted_again_and_again_goes_on_where_it_was(workers: int) -> None:
    seed = random.randrange(10**6)
    dice, interrupts, noted = random.Random(seed), 0, []

    def handler(number: int, frame: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    with stoker.Loader(range(4000), batch_size=8, workers=workers) as loader:
        for sent in range(1, 13):
            batches, came = iter(loader), []
            timer = interrupt(dice.uniform(0, 0.05))
            while not came or came[-1] is not None:
                try:
                    batch = next(batches, None)
                except KeyboardInterrupt:
                    interrupts += 1
                else:
                    came.append(None if batch is None else batch.tolist())
            try:
                timer.join()
                while len(noted) < sent:
                    time.sleep(0.001)
            except KeyboardInterrupt:
                """The epoch was over before it came."""
            lost = 500 - len(came[:-1])
            assert lost <= 1, f"seed {seed}"  # between two operations of this test itself
            assert lost or came[:-1] == [list(range(n, n + 8)) for n in range(0, 4000, 8)]
    assert interrupts
    assert signal.signal(signal.SIGINT, before) is handler


def test_a_loader_that_waits_for_its_workers_can_be_interrupted_and_used_again() -> None:
    def slow(example: Any) -> Any:
        time.sleep(0.5)
        return example

    with stoker.Loader(range(4), batch_size=2, workers=1, transform=slow) as loader:
        next(iter(loader))
        interrupt(0.2)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(iter(loader))
        assert time.monotonic() - begun < 0.4, "it does not wait for the batch"
        assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]


def test_ctrl_c_waits_for_the_end_of_a_shielded_block_or_an_open_place_in_it() -> None:
    done: list[str] = []

    def half() -> None:
        with shielded():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("half")
            interruptible(done.append, "waiting")
            done.append("never")

    def whole() -> None:
        with shielded():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("whole")

    for work in (half, whole):
        with pytest.raises(KeyboardInterrupt):
            work()
    assert done == ["half", "whole"]


def test_a_handler_of_the_users_is_called_once_and_stays() -> None:
    calls: list[int] = []

    def handler(number: int, frame: object) -> None:
        calls.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with shielded():
            os.kill(os.getpid(), signal.SIGINT)
            assert not calls
        assert calls == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_cell_that_is_interrupted_leaves_its_loader_usable() -> None:
    """In the kernel of a notebook, whose Ctrl-C is the button "interrupt"."""
    from jupyter_client.manager import start_new_kernel

    make = """
    import sys, time, stoker
    def slow(n):
        time.sleep(0.2)
        return n
    loader = stoker.Loader(range(4), batch_size=2, transform=slow, workers=2)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
    """
    endless = "print('reading', flush=True)\nwhile True:\n    for batch in loader:\n        pass"
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        told = client.execute_interactive(textwrap.dedent(make), timeout=30)
        assert told["content"]["status"] == "ok", told["content"]
        request = client.execute(endless)
        while client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
            """It has not begun yet."""
        manager.interrupt_kernel()
        begun = time.monotonic()
        while (told := client.get_shell_msg(timeout=30))["parent_header"]["msg_id"] != request:
            """An answer to something before it."""
        assert time.monotonic() - begun < 2
        assert told["content"]["ename"] == "KeyboardInterrupt"
        told = client.execute_interactive("assert len(list(loader)) == 2; loader.close()", timeout=30)
        assert told["content"]["status"] == "ok", told["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_an_error_from_a_handler_ends_no_iteration() -> None:
    """Such as a TimeoutError of the user's, while workers start and make the first batch."""

    def handler(number: int, frame: object) -> None:
        raise TimeoutError("too slow")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with stoker.Loader(range(400), batch_size=4, workers=1) as loader:
            batches, errors = iter(loader), 0
            while True:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.02)
                    first = next(batches)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except TimeoutError:
                    errors += 1
                else:
                    break
            assert errors
            numbers = [*first.tolist(), *(number for batch in batches for number in batch.tolist())]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert numbers == list(range(400))
