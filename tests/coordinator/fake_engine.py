"""An engine that is told what its workers do, under a real coordinator."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from stoker.engines.engine import WorkerDeath
from stoker.memory.progress_page import Activity, Phase
from stoker.protocol.replies import ReadyReply, TaskDoneReply
from stoker.protocol.requests import IndexTaskRequest

SIZE, LENGTH = 4, 16


class FakeEngine:
    """Keeps what its workers are asked; the test answers for them."""

    def __init__(self, slots: list[Any]) -> None:
        self.producer: Any = None
        self.slots, self.asked = slots, list[tuple[int, Any]]()
        self.wrote = list[int]()  # the epoch of each request that was answered
        self.told, self.restarted, self.stopped = list[Any](), list[int](), False
        self.script: Iterator[Any] = iter(())  # what happens while somebody waits

    def start(self, listener: Any) -> None:
        self.listener = listener

    def submit(self, worker: int, message: Any) -> None:
        self.asked.append((worker, message))

    def send_form(self, message: Any) -> None:
        self.told.append(message)

    leave = send_update = send_form

    def start_worker(self, worker: int) -> None:
        self.restarted.append(worker)

    def flush(self) -> None:
        """Nothing waits."""

    nudge = flush

    def idle(self, changed: Any) -> None:
        changed.without(self._go_on)

    stand_by = idle

    def _go_on(self) -> None:
        if next(self.script, None) is None:
            time.sleep(0.001)

    def stop(self) -> None:
        self.stopped = True

    request_stop = stop

    # ── what workers do ──────────────────────────────────────────────────────────────────────
    def join(self, worker: int) -> None:
        self.listener.heard(worker, [ReadyReply()])

    def take(self, worker: int) -> IndexTaskRequest:
        """The oldest request that a worker has."""
        place = next(place for place, (asked, _) in enumerate(self.asked) if asked == worker)
        request: IndexTaskRequest = self.asked.pop(place)[1]
        return request

    def has(self, worker: int) -> bool:
        return any(asked == worker for asked, _ in self.asked)

    def write(self, worker: int) -> None:
        """Write the rows of the oldest request: each example is ten times its number."""
        request = self.take(worker)
        os.pwrite(self.slots[request.slot].fd, (request.indices * 10).astype(np.int64).tobytes(), 8 * request.first)
        self.wrote.append(request.epoch)
        self.listener.heard(worker, [TaskDoneReply(request.task, 0.02)])  # long, so that no batch waits for another

    def die(self, worker: int) -> None:
        """As if somebody had killed it while it was at the oldest request."""
        task = self.take(worker).task
        self.asked = [(asked, request) for asked, request in self.asked if asked != worker]
        self.listener.died(WorkerDeath(worker, -9, Activity(task, None, None, Phase.IDLE)))

    def work(self, *workers: int) -> None:
        """Let workers write, in turn, until none of them has anything to do."""
        while any(map(self.has, workers)):
            for worker in workers:
                if self.has(worker):
                    self.write(worker)


def at_work(engine: FakeEngine) -> Iterator[str]:
    """A script: both workers come up, and do all that they are asked while somebody waits."""
    engine.join(0)
    engine.join(1)
    while True:
        yield "both are up"
        engine.work(0, 1)


def pull_all(engine: Any, stream: int) -> list[list[int]]:
    batches = []
    while True:
        try:
            batches += [leaves[0].tolist() for leaves in engine.producer.pull(stream)]
        except StopIteration:
            return batches


EXPECTED = [[10 * (start + row) for row in range(SIZE)] for start in range(0, LENGTH, SIZE)]
