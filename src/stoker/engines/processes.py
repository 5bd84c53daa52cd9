"""Worker processes, watched by one thread.

The thread starts every worker (the kernel kills a worker when the thread that started it ends),
waits for all messages and all exits in one call, and ends the workers when it is asked to. It
shares no lock with any process; what it tells, it tells through the `Listener`.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import threading
import time
from collections.abc import Sequence

from stoker.engines import Death, Listener
from stoker.engines.child import Child, end
from stoker.memory import Memfd, Slot
from stoker.worker.messages import Describe, SpecKnown, Work

#: Seconds that a worker that closed its socket has left to exit by itself.
_SILENT = 1.0


class ProcessEngine:
    """Runs `workers` processes over the same program and slots.

    Args:
        program: the program's bundle, which the engine closes at its end.
        slots: the slots.
        workers: number of processes, at least 1.
    """

    def __init__(self, program: Memfd, slots: Sequence[Slot], workers: int) -> None:
        self._program, self._slots, self._workers = program, slots, workers
        self._children: dict[int, Child] = {}
        self._silent: dict[int, float] = {}  # worker: when it is killed if it has not exited
        self._known: SpecKnown | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, listener: Listener) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._woken = socket.socketpair()
        self._wakeup.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="stoker-supervisor", daemon=True)
        self._thread.start()

    def submit(self, worker: int, message: Describe | Work) -> None:
        child = self._children[worker]
        if self._known is not None and not child.told:
            child.told = True
            child.send(self._known)
        child.send(message)

    def tell(self, known: SpecKnown) -> None:
        self._known = known

    def respawn(self, worker: int) -> None:
        if not self._stopping:
            self._spawn(worker)

    def idle(self, changed: threading.Condition) -> None:
        changed.wait(0.1)

    def request_stop(self) -> None:
        self._stopping = True
        if self._thread is None:
            return
        with contextlib.suppress(OSError):  # full or closed: the thread is awake, or gone
            self._wakeup.send(b"!")

    def stop(self) -> None:
        self.request_stop()
        if self._thread is None:
            self._program.close()
        elif threading.current_thread() is not self._thread:
            self._thread.join()

    # ── in the supervising thread ────────────────────────────────────────────────────────────
    def _run(self) -> None:
        try:
            self._selector.register(self._woken, selectors.EVENT_READ, None)
            for worker in range(self._workers):
                self._spawn(worker)
            while not self._stopping:
                self._turn()
        except BaseException as error:
            self._listener.collapsed(error)
        finally:
            end(list(self._children.values()))
            self._selector.close()
            self._wakeup.close()
            self._woken.close()
            self._program.close()

    def _spawn(self, worker: int) -> None:
        child = self._children[worker] = Child(worker, self._program.fd, [slot.fd for slot in self._slots])
        self._selector.register(child.channel, selectors.EVENT_READ, child)
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    def _turn(self) -> None:
        """Wait for news, and pass it on."""
        ready = self._selector.select(_SILENT if self._silent else None)
        exited = []
        for key, _ in ready:
            child: Child | None = key.data
            if child is None:
                self._woken.recv(64)
            elif key.fileobj == child.pidfd:
                exited.append(child)
            else:
                self._hear(child)
        for child in exited:
            self._bury(child)
        for worker, deadline in list(self._silent.items()):
            if time.monotonic() >= deadline:
                self._children[worker].signal(signal.SIGKILL)

    def _hear(self, child: Child) -> None:
        answers = child.receive()
        if answers is None:
            self._selector.unregister(child.channel)
            self._silent[child.number] = time.monotonic() + _SILENT
            return
        for answer in answers:
            self._listener.heard(child.number, answer)

    def _bury(self, child: Child) -> None:
        """A process has exited: hear what it had still sent, then tell its death."""
        if child.number not in self._silent:
            for answer in child.receive() or ():
                self._listener.heard(child.number, answer)
            self._selector.unregister(child.channel)
        self._silent.pop(child.number, None)
        self._selector.unregister(child.pidfd)
        del self._children[child.number]
        self._listener.died(Death(child.number, child.reap()))
