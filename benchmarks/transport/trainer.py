"""One transport in two fresh processes: what a batch costs, and whether each came whole."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.transport.payloads import PAYLOADS, READY, Payload
from benchmarks.transport.transports import LAYOUTS, TRANSPORTS, Transport

#: Batches before the clock runs and after it, each compared in full.
_CHECKED = 4
#: The timed window has at least so many.
_LEAST = 6


@dataclass(frozen=True)
class Figure:
    """What one cell found.

    Attributes:
        batches: sent in the timed window.
        nbytes: bytes of content in a batch (the mean, where they differ).
        seconds: wall time of a batch.
        cpu_seconds: CPU time of a batch, user and system, all threads of both processes.
    """

    transport: str
    payload: str
    batches: int
    nbytes: float
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Order:
    """The trainer asks for so many batches."""

    payload: str
    count: int


@dataclass(frozen=True)
class AllCame:
    """The trainer has the last batch of its order; the worker answers with its CPU seconds, a float."""


def train(name: str, payloads: Sequence[str], seconds: float, results: Connection) -> None:
    """The trainer's process: start a worker, measure each payload, send a `Figure` of each.

    The largest payload comes first: after a batch of 64 MB malloc keeps the memory of smaller ones instead
    of giving it back each time, which makes pickles of 256 kB up to three times as fast.
    """
    os.setpgid(0, 0)  # with its worker, for one kill
    context = multiprocessing.get_context("spawn")
    transport = TRANSPORTS[name](context)
    control, far = context.Pipe()
    context.Process(target=_work, args=(transport, far), daemon=True).start()
    for payload in sorted(payloads, key=lambda name: -LAYOUTS[name].nbytes):
        results.send(_Cell(transport, PAYLOADS[payload], control).measure(name, seconds))
    control.send(None)


def _work(transport: Transport, control: Connection) -> None:
    """The worker's process. Its batches are ready before any clock runs: the first order is a warm-up."""
    ready: dict[str, list[Any]] = {}
    while (order := control.recv()) is not None:
        payload = PAYLOADS[order.payload]
        if order.payload not in ready:
            ready = {order.payload: payload.ready()}
        cpu = time.process_time()
        for number in range(order.count):
            transport.send(payload, ready[order.payload][number % READY])
        control.recv()  # AllCame: a queue's thread may be writing until then
        control.send(time.process_time() - cpu)


class _Cell:
    def __init__(self, transport: Transport, payload: Payload, control: Connection) -> None:
        self._transport, self._payload, self._control = transport, payload, control
        self._ready = payload.ready()
        self._touched = [payload.touch(batch) for batch in self._ready]

    def measure(self, name: str, seconds: float) -> Figure:
        self._take(_CHECKED, compare=True)
        count, taken = _LEAST, self._take(_LEAST)
        while taken[0] < seconds / 8:  # short orders tell little about a long one
            count *= 4
            taken = self._take(count)
        if taken[0] < seconds:
            count = max(_LEAST, round(count * seconds / taken[0]))
            taken = self._take(count)
        wall, cpu = taken
        self._take(_CHECKED, compare=True)
        nbytes = sum(map(self._payload.nbytes, self._ready)) / READY
        return Figure(name, self._payload.name, count, nbytes, wall / count, cpu / count)

    def _take(self, count: int, compare: bool = False) -> tuple[float, float]:
        """Take so many batches, look at each; wall and CPU seconds of all. Raises RuntimeError if one is not right."""
        wall, cpu = time.perf_counter(), time.process_time()
        self._control.send(Order(self._payload.name, count))
        for number in range(count):
            batch = self._transport.receive(self._payload)
            turn = number % READY
            right = self._payload.touch(batch) == self._touched[turn]
            if compare:
                right = right and self._payload.same(batch, self._ready[turn])
            if not right:
                raise RuntimeError(f"batch {number} of {self._payload.name} has wrong content")
            del batch
            self._transport.release()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self._control.send(AllCame())
        return wall, cpu + self._control.recv()
