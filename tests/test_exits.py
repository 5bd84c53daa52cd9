"""The end of a trainer, told twice, or with several Loaders, or with threads that pull on."""

from __future__ import annotations

import signal
import time

import pytest

from tests.test_ends import run

SLOW = """
import sys, time, threading, stoker
def slow(example):
    if example > 7:
        time.sleep(60)
    return example
def make():
    return stoker.Loader(range(64), batch_size=4, pool=stoker.Pool(workers=1), transform=slow)
"""
LEFT = {
    "with": "with make() as loader:\n for number, _ in enumerate(loader):\n  if number: print(flush=True)",
    "exit": "a, b = make(), make()\nnext(iter(b))\nfor number, _ in enumerate(a):\n  if number: print(flush=True)",
}


@pytest.mark.parametrize("left", LEFT)
def test_ctrl_c_twice_gives_one_traceback(left: str) -> None:
    trainer = run(SLOW + LEFT[left])
    assert trainer.stdout is not None
    trainer.stdout.readline()
    time.sleep(0.3)  # it waits for a batch
    for _ in range(2):
        trainer.send_signal(signal.SIGINT)
        time.sleep(0.15)
    _, err = trainer.communicate(timeout=20)
    assert err.count("Traceback") == 1, err


@pytest.mark.alone
def test_many_loaders_end_side_by_side() -> None:
    trainer = run(SLOW + "every = [iter(make()) for _ in range(6)]\nfor one in every: next(one)\nprint(flush=True)")
    assert trainer.stdout is not None
    trainer.stdout.readline()
    begun = time.monotonic()
    _, err = trainer.communicate(timeout=20)
    assert (err, trainer.returncode) == ("", 0)
    assert time.monotonic() - begun < 2


def test_a_daemon_thread_that_pulls_says_nothing_when_the_interpreter_ends() -> None:
    pull = "for _ in stoker.Loader(range(10**8), batch_size=4, workers=1): pass"
    trainer = run(SLOW + f"def pull():\n {pull}\nthreading.Thread(target=pull, daemon=True).start()\ntime.sleep(1)")
    _, err = trainer.communicate(timeout=20)
    assert (err, trainer.returncode) == ("", 0)
