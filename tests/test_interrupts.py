"""Ctrl-C comes at any moment, and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import stoker
from stoker.runtime.signals import interruptible, shielded


def interrupt(seconds: float = 0) -> threading.Timer:
    """Ctrl-C, so many seconds from now."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_is_interrupted_again_and_again_goes_on_where_it_was(workers: int) -> None:
    seed = random.randrange(10**6)
    dice, interrupts, noted = random.Random(seed), 0, []

    reads = False  # a signal before or after that is only noted

    def handler(number: int, frame: object) -> None:
        noted.append(number)
        if reads:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    with stoker.Loader(range(4000), batch_size=8, workers=workers) as loader:
        for sent in range(1, 13):
            batches, came = iter(loader), []
            timer = interrupt(dice.uniform(0, 0.05))
            while not came or came[-1] is not None or reads:
                try:
                    reads = True
                    while not came or came[-1] is not None:
                        batch = next(batches, None)
                        came.append(None if batch is None else batch.tolist())
                    reads = False
                except KeyboardInterrupt:
                    interrupts += 1
            timer.join()
            while len(noted) < sent:
                time.sleep(0.001)
            lost = 500 - len(came[:-1])
            assert lost <= 1, f"seed {seed}"  # between two operations of this test itself
            assert lost or came[:-1] == [list(range(n, n + 8)) for n in range(0, 4000, 8)]
    assert interrupts
    assert signal.signal(signal.SIGINT, before) is handler


@pytest.mark.alone
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


def test_fit_that_waits_for_a_batch_can_be_interrupted_and_its_loader_used_again(tmp_path: Path) -> None:
    go_on = tmp_path / "go on"

    def stuck(example: Any) -> Any:
        until = time.monotonic() + 60
        while example == 4 and not go_on.exists() and time.monotonic() < until:
            time.sleep(0.01)
        return np.float32([example]), np.float32(example)

    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with stoker.Loader(range(6), batch_size=2, workers=2, transform=stuck) as loader:
        batches = loader.to_tf().cache()  # which keeps what came to its end
        second = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batch and interrupt(0.3))
        begun = time.monotonic()
        with pytest.raises((KeyboardInterrupt, RuntimeError)) as caught:
            model.fit(batches, callbacks=[second], verbose=0)
        if sys.version_info < (3, 12):  # what is raised in the main thread while TensorFlow makes an exception there
            assert "KeyboardInterrupt" in str(caught.value)
        else:
            assert caught.type is KeyboardInterrupt
        assert time.monotonic() - begun < 10, "the stuck example ends after a minute"
        go_on.touch()
        assert [labels.numpy().tolist() for _, labels in batches] == [[0, 1], [2, 3], [4, 5]]


def test_what_ctrl_c_does_later_or_to_others_ends_no_iteration() -> None:
    def slow(example: Any) -> Any:
        time.sleep(1.5 * (example == 4))
        return example

    noted: list[int] = []
    with stoker.Loader(range(6), batch_size=2, workers=1, transform=slow) as loader:
        batches = iter(loader.to_tf())
        found = [next(batches).numpy().tolist()]
        with pytest.raises(KeyboardInterrupt):  # heeded before it waits
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        found += [batch.numpy().tolist() for batch in batches]
        before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
        interrupt(0.3)
        try:
            found += [batch.numpy().tolist() for batch in loader.to_tf()]
        finally:
            signal.signal(signal.SIGINT, before)
    assert found == [[0, 1], [2, 3], [4, 5]] * 2
    assert noted == [signal.SIGINT]


def test_ctrl_c_ends_no_iteration_that_a_thread_of_the_users_reads() -> None:
    """While the main thread waits in TensorFlow, for something that is not Stoker's."""

    def slow(example: Any) -> Any:
        time.sleep(0.35)
        return example

    def slower(number: Any) -> Any:
        time.sleep(1.3)
        return number

    found: list[Any] = []
    elsewhere = tf.data.Dataset.range(1).map(lambda n: tf.numpy_function(slower, [n], tf.int64)).prefetch(1)
    with stoker.Loader(range(6), batch_size=2, workers=1, transform=slow) as loader:
        list(loader.to_tf().take(1))  # from here on it listens
        thread = threading.Thread(target=lambda: found.extend(batch.tolist() for batch in loader))
        thread.start()
        interrupt(0.2)
        with pytest.raises(KeyboardInterrupt):
            next(iter(elsewhere))
        thread.join()
    assert found == [[0, 1], [2, 3], [4, 5]]


def test_signals_are_told_to_who_asked_first_and_those_of_a_fork_not_to_its_parent() -> None:
    script = """
    import os, select, signal, socket, time
    from stoker.runtime.ctrl_c import listen_for_interrupts
    theirs = socket.socketpair()[0]
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno())
    listen_for_interrupts()
    assert signal.set_wakeup_fd(-1) == theirs.fileno()
    listen_for_interrupts()
    ours = signal.set_wakeup_fd(-1)
    assert ours != -1
    listen_for_interrupts()
    if not (child := os.fork()):
        os._exit(signal.set_wakeup_fd(-1) + 1)
    assert os.waitpid(child, 0)[1] == 0
    assert signal.set_wakeup_fd(-1) == ours
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


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
        request = client.execute(endless, stop_on_error=False)  # else the next cell may be aborted with it
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
