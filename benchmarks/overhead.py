"""What Stoker itself costs: a batch in the trainer, a row in a worker, a position of a shuffle, random states.

    python -m benchmarks.overhead

The figures behind docs/decisions.md. Rows of 100 floats and a label, 256 a batch, so that nearly all
is overhead; the least of several runs each.
"""

from __future__ import annotations

import os
import pickle
import random
import time
import timeit
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import stoker
from benchmarks.cases import CASES
from stoker.memory.layout import Layout, aligned_copy
from stoker.memory.progress_page import words_here
from stoker.memory.slot import Inbox, Slot
from stoker.plan.permutation import Permutation
from stoker.protocol.program import Program
from stoker.protocol.replies import DescribedReply
from stoker.protocol.requests import DescribeRequest, FormRequest, IndexTaskRequest
from stoker.structure.collation import Collation
from stoker.worker.batching.fork_guard import ForkGuard
from stoker.worker.context import TaskContext
from stoker.worker.runner import Runner
from stoker.worker.user_code.epoch_hooks import EpochHooks
from stoker.worker.user_code.seeding import Seeder, install_lazy_random

BATCH, BATCHES = 256, 1500


def tell(what: str, *microseconds: float) -> None:
    print(f"{what:64}" + "".join(f"{value:9.2f}" for value in microseconds), flush=True)


def a_batch(batches: Iterable[Any]) -> tuple[float, float]:
    """Wall time and the trainer's CPU time of a batch, in µs."""
    pulled = iter(batches)
    for _ in range(50):
        next(pulled)
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    for _ in pulled:
        count += 1
    return (time.perf_counter() - wall) / count * 1e6, (time.process_time() - cpu) / count * 1e6


def least(run: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    return min(run() for _ in range(4))


def batches_in_the_trainer() -> None:
    import tensorflow as tf

    source = CASES["d"].make(BATCH * BATCHES)
    with stoker.Loader(source, batch_size=BATCH, workers=2, drop_remainder=True) as loader:
        tell("a batch to NumPy: wall, CPU of the trainer", *least(lambda: a_batch(loader)))
        tell("a batch to an eager loop over to_tf()", *least(lambda: a_batch(loader.to_tf())))
    ready = [aligned_copy(np.zeros((BATCH, 100), np.float32)), aligned_copy(np.zeros(BATCH, np.int64))]
    spec = (tf.TensorSpec((BATCH, 100), tf.float32), tf.TensorSpec((BATCH,), tf.int64))

    def from_generator() -> tuple[float, float]:
        made = tf.data.Dataset.from_generator(lambda: (tuple(ready) for _ in range(BATCHES)), output_signature=spec)
        return a_batch(made.prefetch(2))

    tell("a ready batch through from_generator", *least(from_generator))


def a_row_in_a_worker() -> None:
    source = CASES["d"].make(BATCH)
    slots, inboxes = [Slot.create(name) for name in ("slot", "store")], [Inbox.create("inbox") for _ in range(2)]
    program = Program(source, None, False, 0, BATCH, BATCH, Collation(), 0, 1 << 30)
    seeder = Seeder(0, None)
    turns = EpochHooks(program, [], None, seeder)
    context = TaskContext.of(program, seeder, words_here(), slots=slots, inboxes=inboxes, fork=ForkGuard())
    runner = Runner(context, turns)
    described = runner.reply_to(DescribeRequest(0, 0, numbers=(0,), places=(0,), sizes=(0,), rows=(BATCH,), one=True))
    assert isinstance(described, DescribedReply)
    slots[0].resize(Layout.of(pickle.loads(described.pickled).spec.leaves, BATCH).nbytes)
    runner.learn(FormRequest(described.pickled))
    work = IndexTaskRequest(1, 0, 0, 0, BATCH, False, False, BATCH, np.arange(BATCH))
    seconds = min(timeit.repeat(lambda: runner.reply_to(work), number=50, repeat=5)) / 50
    tell("a row made and written", seconds / BATCH * 1e6)


def random_states() -> None:
    """Of an example: what is set before it, and the `rng` that it may ask for."""
    for what, uses in (("nothing is drawn", False), ("all of it is drawn from", True)):
        seeder = Seeder(0, install_lazy_random())
        if uses:
            seeder.seed_all()

        def one(seeder: Seeder = seeder, uses: bool = uses) -> None:
            seeder.begin(12345)
            if uses:
                seeder.rng(12345)
                random.random()

        seconds = min(timeit.repeat(one, number=2000, repeat=5)) / 2000
        tell(f"the random states of an example, when {what}", seconds * 1e6)


def single_steps() -> None:
    order, positions = Permutation(10**9, 1), np.arange(4096)
    tell("a position of a shuffle", min(timeit.repeat(lambda: order(positions), number=20, repeat=5)) / 20 / 4096 * 1e6)
    tell("random.seed", min(timeit.repeat(lambda: random.Random.seed(random._inst, 12345), number=2000)) / 2000 * 1e6)  # type: ignore[attr-defined]
    tell("numpy.random.seed", min(timeit.repeat(lambda: np.random.seed(12345), number=2000)) / 2000 * 1e6)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(f"{'µs':>73}")
    single_steps()
    batches_in_the_trainer()
    a_row_in_a_worker()
    random_states()
