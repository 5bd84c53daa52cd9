"""The coordinator over an engine that is told what its workers do: no process runs, so each test takes milliseconds."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from stoker import build, errors
from stoker.engines.engine import WorkerDeath
from stoker.memory.progress_page import Activity, Phase
from stoker.options import LoaderOptions
from stoker.protocol.replies import FailureKind, FailureReply, ReadyReply, TaskDoneReply
from stoker.protocol.requests import IndexTaskRequest
from stoker.structure.collation import Collation, Form

SIZE, LENGTH = 4, 16


class FakeEngine:
    """Keeps what its workers are asked; the test answers for them."""

    def __init__(self, slots: list[Any]) -> None:
        self.slots, self.asked = slots, list[tuple[int, Any]]()
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
        self.listener.heard(worker, [TaskDoneReply(request.task, 0.001)])

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


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    engines: list[FakeEngine] = []

    def fake(options: Any, program: Any, slots: Any, inboxes: Any) -> FakeEngine:
        engines.append(FakeEngine(slots))
        return engines[0]

    monkeypatch.setattr(build, "_engine", fake)
    producer: Any = build.build(LoaderOptions(source=range(LENGTH), batch_size=SIZE, workers=2, memory_limit=1 << 20))
    spec = Collation().spec(0)
    producer._given_form = Form.of(spec, Collation().rules(spec))
    engines[0].producer = producer  # type: ignore[attr-defined]
    yield engines[0]
    producer.close()
    assert engines[0].stopped


def pull_all(engine: Any, stream: int) -> list[list[int]]:
    batches = []
    while True:
        try:
            batches += [leaves[0].tolist() for leaves in engine.producer.pull(stream)]
        except StopIteration:
            return batches


EXPECTED = [[10 * (start + row) for row in range(SIZE)] for start in range(0, LENGTH, SIZE)]


def test_whoever_answers_first_the_batches_come_in_order(engine: Any) -> None:
    def late() -> Iterator[str]:
        engine.join(0)
        engine.join(1)
        yield "both are up"
        engine.work(1)
        yield "worker 1 has done all that it was given"
        while True:
            engine.work(0, 1)
            yield "both work"

    engine.script = late()
    assert pull_all(engine, engine.producer.open_stream()) == EXPECTED


def test_what_a_dead_worker_was_at_is_given_to_another(engine: Any) -> None:
    def dying() -> Iterator[str]:
        engine.join(0)
        yield "one is up"
        engine.die(0)
        assert engine.restarted == [0]
        engine.join(1)
        yield "one has died, the other is up"
        while True:
            engine.work(0, 1)
            yield "the other works"

    engine.script = dying()
    assert pull_all(engine, engine.producer.open_stream()) == EXPECTED
    assert engine.producer.stats().deaths == 1


def test_an_error_comes_in_the_turn_of_its_batch(engine: Any) -> None:
    def failing() -> Iterator[str]:
        engine.join(0)
        engine.join(1)
        yield "both are up"
        while True:
            for worker in (0, 1):
                while engine.has(worker):
                    place = next(place for place, (asked, _) in enumerate(engine.asked) if asked == worker)
                    request = engine.asked[place][1]
                    if 9 in request.indices:
                        engine.take(worker)
                        engine.listener.heard(
                            worker, [FailureReply(request.task, FailureKind.USER, "ValueError: nine", example=9)]
                        )
                    else:
                        engine.write(worker)
            yield "all have answered"

    engine.script = failing()
    stream = engine.producer.open_stream()
    assert [engine.producer.pull(stream, 1)[0][0].tolist() for _ in range(2)] == EXPECTED[:2]
    with pytest.raises(errors.WorkerError, match=r"example 9 \(epoch 0, batch 2, worker \d\) raised ValueError: nine"):
        engine.producer.pull(stream)


def test_a_closed_iteration_gives_its_slots_back(engine: Any) -> None:
    def working() -> Iterator[str]:
        engine.join(0)
        while True:
            engine.work(0)
            yield "it works"

    engine.script = working()
    for _ in range(20):  # more than there are slots
        stream = engine.producer.open_stream()
        assert engine.producer.pull(stream)[0][0].tolist() == EXPECTED[0]
        engine.producer.close_stream(stream)
        engine.work(0)


def test_when_the_engine_collapses_whoever_waits_is_told(engine: Any) -> None:
    def collapsing() -> Iterator[str]:
        engine.join(0)
        yield "one is up"
        engine.listener.collapsed(RuntimeError("no more threads"))
        yield "it is broken"

    engine.script = collapsing()
    with pytest.raises(errors.StokerError, match=r"this Loader was interrupted \(RuntimeError: no more threads\)"):
        pull_all(engine, engine.producer.open_stream())


def test_close_wakes_a_thread_that_waits(engine: Any) -> None:
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            pull_all(engine, engine.producer.open_stream())
        except errors.StokerError as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    engine.producer.close()
    waiting.join(5)
    assert not waiting.is_alive()
    assert [type(error) for error in raised] == [errors.ClosedError]
