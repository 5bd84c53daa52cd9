"""While a lock is held nothing else begins in its thread; a fork gets nothing of it."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

import stoker
from stoker.runtime.locks import Lock


def test_no_garbage_is_collected_while_any_lock_is_held() -> None:
    one, other, seen = Lock(), Lock(), list[bool]()
    with one:
        with other:
            assert not gc.isenabled()
        assert not gc.isenabled()
        one.without(lambda: seen.append(gc.isenabled()))
        assert seen == [True]
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_collector_that_the_user_turned_off_stays_off() -> None:
    gc.disable()
    try:
        with Lock():
            """Nothing."""
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_is_on_again_whatever_threads_do() -> None:
    locks = Lock(), Lock()

    def use() -> None:
        for turn in range(5000):
            with locks[turn % 2]:
                assert not gc.isenabled()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gc.isenabled()


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.stress) for name in ("SIGALRM", "SIGUSR1"))]
)
def test_a_handler_that_raises_leaves_the_loader_usable(name: str) -> None:
    number = signal.Signals[name]

    def handler(*_: object) -> None:
        raise TimeoutError

    before, came = signal.signal(number, handler), 0
    try:
        with stoker.Loader(range(800), batch_size=1, workers=1) as loader:
            for turn in range(12):
                timer = threading.Timer(0.01 + turn / 500, os.kill, (os.getpid(), number))
                try:  # from here on: on a busy machine the signal comes before the iteration begins
                    timer.start()
                    batches = iter(loader)
                    while True:  # not `list`: an iteration that ends is finalized, and a finalizer cannot raise
                        next(batches, None)
                except TimeoutError:
                    came += 1
                assert len(list(loader)) == 800
        assert came == 12
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_a_handler_may_close_the_loader() -> None:
    loader = stoker.Loader(range(10**7), batch_size=1, workers=2)
    before = signal.signal(signal.SIGTERM, lambda *_: loader.close())
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(stoker.ClosedError):
            deque(loader, maxlen=0)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_process_forked_during_a_pull_has_the_users_handlers() -> None:
    codes: list[int] = []

    def fork() -> None:
        while len(codes) < 20:
            pid = os.fork()
            if pid == 0:
                os._exit(signal.getsignal(signal.SIGINT) is not signal.default_int_handler)
            codes.append(os.waitpid(pid, 0)[1])

    thread = threading.Thread(target=fork)
    with stoker.Loader(range(10**7), batch_size=1, workers=1) as loader:
        batches = iter(loader)
        thread.start()
        while thread.is_alive():
            next(batches)
    assert codes == [0] * 20


def entries(loader: stoker.Loader, batches: Any) -> list[Callable[[], object]]:
    """All that can be called."""
    state = loader.state_dict()
    return [
        lambda: next(batches),
        lambda: batches.leaves(),
        lambda: iter(loader),
        lambda: loader.stats(),
        lambda: loader.state_dict(),
        lambda: loader.load_state_dict(state),
        lambda: loader.to_tf(),
    ]


@pytest.mark.parametrize("arrays", [False, True])
def test_a_fork_is_told_so_at_every_entry_and_disturbs_nobody(arrays: bool) -> None:
    """Also when another thread holds the locks at that moment; it goes on in the parent."""
    import numpy as np

    size = 60_000
    with stoker.Loader(np.arange(size) if arrays else range(size), batch_size=4, workers=0 if arrays else 2) as loader:
        batches, came = iter(loader), []
        came.append(next(batches).tolist())
        calls = entries(loader, batches)
        is_enough = threading.Event()
        thread = threading.Thread(
            target=lambda: came.extend(
                batch.tolist() for batch in itertools.takewhile(lambda _: not is_enough.is_set(), batches)
            )
        )
        thread.start()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(5)
                told = 0
                for call in calls:
                    try:
                        call()
                    except stoker.ClosedError as error:
                        told += "fork" in str(error)
                batches.close()
                loader.close()
                del batches, calls
                os._exit(told != 7)
            assert os.waitpid(pid, 0)[1] == 0
            time.sleep(0.005)
        is_enough.set()
        thread.join()
        assert came == [list(range(n, n + 4)) for n in range(0, size, 4)][: len(came)]


def test_what_is_logged_may_use_the_loader() -> None:
    seen: list[int] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(loader.stats().skips)

    handler = Handler()
    logging.getLogger("stoker").addHandler(handler)
    try:
        with stoker.Loader([1, 0, 4], transform=lambda n: 12 // n, batch_size=1, on_error="skip", workers=1) as loader:
            assert len(list(loader)) == 2
    finally:
        logging.getLogger("stoker").removeHandler(handler)
    assert seen == [1]
