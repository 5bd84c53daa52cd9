"""Worker processes that serve one or more Loaders: starts them, notices their end, ends them.

One thread, the supervisor, starts every worker (the kernel kills a worker when the thread that started it ends), waits
for the workers to exit, and ends them on request. Each Loader talks with the workers over sockets of its own:
see `stoker.engines.processes`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

from stoker.engines.child import WorkerProcess, end
from stoker.engines.departure import Departure
from stoker.engines.interpreters import Interpreters
from stoker.engines.launcher import Launcher
from stoker.engines.line import WorkerLine
from stoker.engines.member import Member, ProcessEnd
from stoker.engines.sockets import drain, wakers
from stoker.errors import ClosedError
from stoker.runtime.free_memory import oom_kills
from stoker.runtime.shortage import wanted

#: The most seconds until a message is read: while no thread waits for a batch, and while a leader reads.
_TICK, _TICK_LED = 0.002, 0.02
#: The most seconds until a process is looked after that has closed its socket.
_SOON = 0.05
#: Seconds before a worker is restarted, by the number of its failed starts in a row: avoids a storm of restarts.
_PAUSES = 0.0, 0.05, 0.1, 0.2, 0.4


class WorkerPool:
    """Runs `workers` processes, from the first Loader that joins until the last one has left.

    Args:
        workers: the number of processes, at least 1.
        interpreters: makes what starts interpreters, when the first Loader joins.
        forks: True to fork workers from a zygote where that is possible.
        stays: True to go on without a Loader, until `close`.

    Attributes:
        has_ended: True once no Loader can join any more.
    """

    def __init__(
        self, workers: int, interpreters: Callable[[], Interpreters], *, forks: bool = True, stays: bool = False
    ) -> None:
        self._workers, self._interpreters, self._forks, self._stays = workers, interpreters, forks, stays
        self._joining = deque[Member]()
        self._members: list[Member] = []
        self._departures: dict[Member, Departure] = {}
        self._processes: dict[int, WorkerProcess] = {}
        self._failed_starts: Counter[int] = Counter()  # in a row
        self._due: dict[int, float] = {}  # worker: when to start it
        self._oom_kills = oom_kills()
        self._asleep = False  # the supervisor sleeps without a tick, as no worker owes a reply
        self._stopping = self.has_ended = False
        self._process = os.getpid()
        self._entry = threading.Lock()  # held to join, and to end as no Loader is left
        self._thread: threading.Thread | None = None

    # ── from any thread ──────────────────────────────────────────────────────────────────────
    def join(self, member: Member) -> bool:
        """Serve a Loader too. Returns False if this pool has ended.

        Raises:
            ClosedError: this process is a fork of the one that created the pool.
        """
        if os.getpid() != self._process:
            raise ClosedError(
                "this Pool belongs to the process that created it, and this process is a fork of that one. Create a "
                "new Pool here."
            )
        with self._entry:
            if self.has_ended or self._stopping:
                return False
            if self._thread is None:
                self._begin()
            self._joining.append(member)
        self.wake()
        return True

    def start_worker(self, worker: int) -> None:
        """Start the process of a worker that is not there; several Loaders may ask for it."""
        pause = _PAUSES[min(self._failed_starts[worker], len(_PAUSES) - 1)]
        self._due.setdefault(worker, time.monotonic() + pause)
        self.wake()

    def wake(self) -> None:
        """Wake the supervisor."""
        if self._thread is not None:
            with contextlib.suppress(OSError):  # full or closed: the supervisor is awake, or gone
                self._wakeup.send(b"!")

    def rouse(self) -> None:
        """Tell the supervisor that a worker owes a reply."""
        if self._asleep:
            self.wake()

    def is_supervised_here(self) -> bool:
        """True if the calling thread is the supervisor."""
        return threading.current_thread() is self._thread

    def request_stop(self) -> None:
        """Request the end, without waiting and without a lock, so that finalizers can call it."""
        self._stopping = True
        self.wake()

    def close(self) -> None:
        """End all workers. Returns when none is left, within 2 s."""
        self.request_stop()
        if self._thread is not None and not self.is_supervised_here():
            self._thread.join()

    def _begin(self) -> None:
        with wanted("descriptors for watching workers"):
            self._exits = selectors.DefaultSelector()  # exits, what zygote and workers say, and wake-ups
            self._wakeup, self._woken = wakers()
        self._exits.register(self._woken, selectors.EVENT_READ, partial(drain, self._woken))
        self._launcher = Launcher(self._interpreters(), self._exits, self._program if self._forks else None)
        thread = threading.Thread(target=self._supervise, name="stoker-supervisor", daemon=True)
        thread.start()
        self._thread = thread

    # ── in the supervisor ────────────────────────────────────────────────────────────────────
    def _supervise(self) -> None:
        try:
            while not self._is_over():
                self._turn()
            self._collapse(ClosedError("the Pool of this Loader was closed. Create both again."))
        except BaseException as error:
            self._collapse(error)
        finally:
            self._launcher.close()
            end(list(self._processes.values()))
            for member in [*self._members, *self._joining]:
                member.release()
            for keeping in (self._members, self._joining, self._departures, self._processes):
                keeping.clear()  # the user may keep the Pool
            for closing in (self._exits, self._wakeup, self._woken):
                closing.close()

    def _collapse(self, error: BaseException) -> None:
        """End the Loaders that are not closed. No other one joins from now on."""
        with self._entry:
            self.has_ended = True
        for member in [*self._members, *self._joining]:
            if not member.is_stopping:
                member.collapsed(error)

    def _is_over(self) -> bool:
        """True if this pool was closed, or serves no Loader any more."""
        with self._entry:
            is_needed = self._stays or self._joining or any(not member.is_stopping for member in self._members)
            self.has_ended = self._stopping or not is_needed
            return self.has_ended

    def _turn(self) -> None:
        """Wait for an exit, a wake-up, or the next check for messages, and see to everything that is due."""
        while self._joining:
            self._admit(self._joining.popleft())
        self._asleep = True  # set before the check: any request from here on wakes the supervisor
        for key, _ in self._exits.select(self._patience()):
            key.data()
        if self._is_over():  # a Loader that is the last one is released once the processes have ended
            return
        for member in list(self._members):
            if member.is_stopping:
                self._let_go(member)
            elif not member.is_led:
                member.listen(0)
        self._start_due()
        for process in self._processes.values():
            if process.is_up and process.invitations:
                process.invitations.flush()
        for member in self._members:
            if not member.is_stopping:
                member.watch(partial(self._is_behind, member))

    def _patience(self) -> float | None:
        """The seconds to wait for an event; None for any number."""
        found = [max(0.0, when - time.monotonic()) for when in list(self._due.values())]
        if (left := self._launcher.seconds_left()) is not None:
            found.append(left)
        if self._joining:
            found.append(0)
        if self._departures or any(process.is_up and process.invitations for process in self._processes.values()):
            found.append(_TICK)
        for member in self._members:
            if member.is_stopping and member not in self._departures:
                found.append(0)
            if member.is_silent:
                found.append(_SOON)
            if member.is_owed():
                self._asleep = False
                found.append(_TICK_LED if member.is_led else _TICK)
        return min(found, default=None)

    def _admit(self, member: Member) -> None:
        """Serve a Loader, with the processes that there are, and start those that are missing."""
        self._members.append(member)
        if not self._launcher.has_begun:
            self._launcher.begin()
        for process in self._processes.values():
            self._connect(member, process)
        for worker in range(self._workers):
            self._due.setdefault(worker, 0.0)

    def _connect(self, member: Member, process: WorkerProcess) -> None:
        try:
            member.connect(process)
        except Exception as error:  # descriptors have run out
            member.collapsed(error)

    def _let_go(self, member: Member) -> None:
        """Serve a Loader no more that was closed."""
        if member not in self._departures:
            self._departures[member] = Departure(member)
        if self._departures[member].is_over():
            del self._departures[member]
            self._members.remove(member)
            member.release()

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in [worker for worker, when in list(self._due.items()) if now >= when]:
            del self._due[worker]
            if worker not in self._processes and not self._launcher.awaits(worker):
                self._spawn(worker)
        for worker in self._launcher.due():
            self._spawn(worker)

    def _spawn(self, worker: int) -> None:
        """Start a worker, now or when the zygote is ready."""
        process = None if self._stopping else self._launcher.launch(worker)
        if process is not None:
            self._processes[worker] = process
            self._exits.register(process.control, selectors.EVENT_READ, partial(self._hear, process))
            self._exits.register(process.pidfd, selectors.EVENT_READ, partial(self._bury, process))
            for member in self._members:
                if not member.is_stopping:
                    self._connect(member, process)

    def _hear(self, process: WorkerProcess) -> None:
        """Take in what a process says on its control socket."""
        if self._processes.get(process.number) is process and not process.hear():
            self._exits.unregister(process.control)

    def _bury(self, process: WorkerProcess) -> None:
        """Handle the exit of a process: tell the Loaders that it served."""
        self._exits.unregister(process.pidfd)
        with contextlib.suppress(KeyError):  # it was the first to hang up
            self._exits.unregister(process.control)
        del self._processes[process.number]
        kills = oom_kills()
        more, self._oom_kills = kills - self._oom_kills, kills
        lines = [(member, line) for member in self._members if (line := member.line(process)) is not None]
        has_replied = any(line.replies for _, line in lines)
        self._failed_starts[process.number] = 0 if has_replied else self._failed_starts[process.number] + 1
        busy = [line for _, line in lines if line.is_busy]
        for member, line in lines:
            is_elsewhere = process.is_given_up or (bool(busy) and line not in busy)
            member.bury(line, ProcessEnd(process.code(), more), elsewhere=is_elsewhere)
        process.reap()
        if not lines and self._failed_starts[process.number] < len(_PAUSES):  # no Loader is there to ask for it
            self.start_worker(process.number)

    def _is_behind(self, member: Member, line: WorkerLine) -> bool:
        """True if the process of a Loader's line is busy with another Loader's task."""
        others = [other.line(line.process) for other in self._members if other is not member]
        return any(other is not None and other.is_busy for other in others)

    def _program(self) -> int | None:
        """The descriptor of a Loader's program."""
        return next((member.program for member in self._members if not member.is_stopping), None)
