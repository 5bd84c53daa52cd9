"""A batch of examples that were left over is the same, whichever worker joins it, and whatever that did before."""

from __future__ import annotations

from typing import Any

import numpy as np

from stoker.memory.packed import pack
from stoker.memory.progress_page import words_here
from stoker.memory.slot import Inbox, Slot
from stoker.protocol.program import Program
from stoker.protocol.replies import DescribedReply
from stoker.protocol.requests import DescribeRequest, FormRequest, JoinTaskRequest
from stoker.structure.collation import Collation
from stoker.worker.batching.fork_guard import ForkGuard
from stoker.worker.context import TaskContext
from stoker.worker.runner import Runner
from stoker.worker.user_code.epoch_hooks import EpochHooks
from stoker.worker.user_code.seeding import Seeder


def noisy(examples: list[Any]) -> Any:
    return np.array(examples) + np.random.random(len(examples))


def test_a_collate_function_draws_the_same_numbers_in_a_worker_that_only_joins() -> None:
    slot, inbox = Slot.create("slot"), Inbox.create("inbox")
    store, its = Slot.create("store"), Inbox.create("inbox")
    program = Program(range(8), None, False, 0, 8, 2, Collation(function=noisy), 0, 1 << 30)

    def worker(state: int) -> Runner:
        seeder = Seeder(0, None)
        turns = EpochHooks(program, [], None, seeder)
        memory = {"slots": [slot, store], "inboxes": [inbox, its]}
        runner = Runner(TaskContext.of(program, seeder, words_here(), **memory, fork=ForkGuard()), turns)
        np.random.seed(state)
        return runner

    def joined(state: int) -> bytes:
        runner = worker(state)
        runner.learn(FormRequest(described.pickled))
        inbox.put(pack((0, 6, 6.0)) + pack((0, 7, 7.0)))
        runner.reply_to(JoinTaskRequest(1, 0, 0, 3, 2, False))
        return bytes(slot.readable(16))[:16]

    before = np.random.get_state()
    try:
        described = worker(0).reply_to(DescribeRequest(0, 0, (0, 1), (0, 1), (0, 0), (2,)))
        assert isinstance(described, DescribedReply)
        slot.resize(64)
        first = joined(1)
        assert np.frombuffer(first).astype(int).tolist() == [6, 7]
        assert joined(2) == first
    finally:
        np.random.set_state(before)
        slot.close()
        inbox.close()
        store.close()
        its.close()
