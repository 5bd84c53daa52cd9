"""The coordinator over an engine that is told what its workers do: no process runs, so each test takes milliseconds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from stoker import errors
from stoker.protocol.replies import FailureKind, FailureReply
from tests.coordinator.fake_engine import EXPECTED, pull_all


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
    engine.script = iter(())  # no worker comes up

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
