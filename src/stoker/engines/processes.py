"""Worker processes: starts them, reads their messages, ends them.

One thread, the supervisor, starts every worker (the kernel kills a worker when the thread that
started it ends), waits for the workers to exit, and ends them on request.

Messages are read by the thread that needs them. A thread that waits for a batch reads them itself, so that
the batch reaches it without a thread switch: it is the leader, and other waiting threads follow. If no thread
waits, the supervisor checks for messages every `_TICK`, so that workers always have a next task.
No lock is shared with any process. Messages are passed on through the `Listener`.
"""

from __future__ import annotations

import contextlib
import logging
import select
import selectors
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from stoker.engines.child import WorkerProcess, end, pair
from stoker.engines.engine import Listener, WorkerDeath
from stoker.engines.interpreters import Interpreters
from stoker.engines.launcher import Launcher
from stoker.engines.watch import ProgressWatch
from stoker.engines.zygote_process import Zygote
from stoker.memory.memfd import Memfd
from stoker.memory.slot import Inbox, Slot
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest
from stoker.runtime.free_memory import oom_kills
from stoker.runtime.locks import Lock
from stoker.runtime.shortage import wanted
from stoker.runtime.signals import interruptible

log = logging.getLogger("stoker")

#: The most seconds until a message is read: while no thread waits for a batch, and while a leader reads.
_TICK, _TICK_LED = 0.002, 0.02
#: Seconds that a worker has to exit by itself after it closed its socket.
_SILENT = 1.0
#: Seconds before a worker is restarted, by the number of its failed starts in a row: avoids a storm of restarts.
_PAUSES = 0.0, 0.05, 0.1, 0.2, 0.4


class ProcessEngine:
    """Runs `workers` processes over the same program and slots.

    Args:
        program: the program's bundle; the engine closes it when it ends.
        slots: the slots.
        inboxes: the inboxes of the slots.
        workers: the number of processes, at least 1.
        timeout: seconds without progress after which a worker is killed, or None.
        environment: variables that the user sets in workers; None removes one.
        forks: True to fork workers from a zygote where that is possible.
    """

    def __init__(
        self,
        program: Memfd,
        slots: Sequence[Slot],
        inboxes: Sequence[Inbox],
        workers: int,
        timeout: float | None,
        environment: Mapping[str, str | None],
        *,
        forks: bool = True,
    ) -> None:
        self._program, self._workers = program, workers
        self._watch, self._oom_kills = ProgressWatch(timeout), oom_kills()
        self._memory = [memory.fd for pair in zip(slots, inboxes, strict=True) for memory in pair]
        self._environment, self._forks = environment, forks
        self._children: dict[int, WorkerProcess] = {}
        self._posted: dict[int, WorkerProcess] = {}
        self._silent: dict[int, float] = {}  # worker: when to kill it if it has not exited
        self._failed_starts: Counter[int] = Counter()  # in a row
        self._due: dict[int, float] = {}  # worker: when to restart it
        self._form: FormRequest | None = None
        self._updates: dict[int, UpdateRequest] = {}  # by epoch
        self._asleep = False  # the supervisor sleeps without a tick, as no worker owes a reply
        self._reading = Lock()  # makes reading a message and delivering it atomic
        self._leader: int | None = None  # the waiting thread that reads messages
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, listener: Listener) -> None:
        self._listener = listener
        with wanted("descriptors for listening to workers"):
            self._news = select.epoll()  # what workers send, and nudges for the leader
            self._exits = selectors.DefaultSelector()  # exits, and wake-ups for the supervisor
            self._nudge, self._nudged = _pair()
            self._wakeup, self._woken = _pair()
        self._news.register(self._nudged, select.EPOLLIN)
        self._exits.register(self._woken, selectors.EVENT_READ, None)
        interpreters = Interpreters(self._program.fd, self._memory, self._environment)
        self._launcher = Launcher(interpreters, self._exits, forks=self._forks)
        thread = threading.Thread(target=self._supervise, name="stoker-supervisor", daemon=True)
        thread.start()
        self._thread = thread

    def submit(self, worker: int, message: Request) -> None:
        child = self._children[worker]
        if not child.renewed:
            child.renewed = True
            for update in self._updates.values():
                child.post(update)
        if self._form is not None and not child.has_form:
            child.has_form = True
            child.post(self._form)
        child.post(message)
        child.requests += 1
        self._posted[worker] = child

    def flush(self) -> None:
        for child in self._posted.values():
            child.flush()
        if self._posted and self._asleep:
            self._wake()
        self._posted.clear()

    def leave(self, leave: LeaveEpochRequest) -> None:
        if leave.is_last:
            self._updates.pop(leave.epoch, None)
        for child in list(self._children.values()):
            if child.requests > 1:  # it was given work, perhaps only to find the form
                child.post(leave)
                self._posted[child.number] = child

    def send_update(self, update: UpdateRequest) -> None:
        self._updates[update.epoch] = update
        for child in list(self._children.values()):
            if child.renewed:
                child.post(update)
                self._posted[child.number] = child

    def send_form(self, form: FormRequest) -> None:
        self._form = form

    def start_worker(self, worker: int) -> None:
        pause = _PAUSES[min(self._failed_starts[worker], len(_PAUSES) - 1)]
        if pause or threading.current_thread() is not self._thread:
            self._due[worker] = time.monotonic() + pause
            self._wake()
        elif not self._stopping:
            self._spawn(worker)

    def retire_worker(self, worker: int) -> None:
        self._children[worker].retire()

    def idle(self, changed: Lock) -> None:
        if self._leader is not None or self._stopping:
            if not changed.wait(0.1) and not self._stopping:
                # The leader does not read: it is in one of the user's signal handlers, or the garbage collector makes
                # it destroy a tf.data iterator, which waits for this very thread.
                changed.without(self._listen, 0)
            return
        self._leader = threading.get_ident()
        try:
            changed.without(self._listen, 0.1)
        finally:
            self._leader = None
            changed.notify_all()  # a follower may lead now

    def stand_by(self, changed: Lock) -> None:
        self.idle(changed)

    def nudge(self) -> None:
        if self._leader not in (None, threading.get_ident()):
            with contextlib.suppress(OSError):  # full: the leader is awake; closed: it wakes by itself
                self._nudge.send(b"!")

    def request_stop(self) -> None:
        self._stopping = True
        self._wake()

    def stop(self) -> None:
        self.request_stop()
        if self._thread is None:
            self._program.close()
        elif threading.current_thread() is not self._thread:
            self._thread.join()

    def _wake(self) -> None:
        if self._thread is not None:
            with contextlib.suppress(OSError):  # full or closed: the supervisor is awake, or gone
                self._wakeup.send(b"!")

    # ── messages, in the leader or the supervisor ────────────────────────────────────────────
    def _listen(self, seconds: float) -> None:
        """Wait up to `seconds` for messages, and deliver them to the listener."""
        try:
            ready = interruptible(self._news.poll, seconds)
        except (ValueError, OSError):
            if not self._news.closed:  # raised by a signal handler of the user's, perhaps a TimeoutError
                raise
            return  # closed before or during this call: the supervisor has ended
        channels = {child.channel.fileno(): child for child in list(self._children.values())}
        for fd, _ in ready:
            if fd == self._nudged.fileno():
                _drain(self._nudged)
            elif (child := channels.get(fd)) is not None:
                self._hear(child)

    def _hear(self, child: WorkerProcess) -> None:
        with self._reading:
            if self._stopping or child.ended or child.number in self._silent:
                return
            try:
                self._receive(child)
            except BaseException as error:  # a message that was read but not delivered would be awaited forever
                self._listener.collapsed(error)
                if not isinstance(error, Exception):
                    raise

    def _receive(self, child: WorkerProcess) -> None:
        replies = child.receive()
        if replies is None:
            self._news.unregister(child.channel)
            self._silent[child.number] = time.monotonic() + _SILENT
            self._wake()
            return
        if replies:
            child.replies += len(replies)
            self._listener.heard(child.number, replies)

    # ── in the supervisor ────────────────────────────────────────────────────────────────────
    def _supervise(self) -> None:
        try:
            self._launcher.begin()
            for worker in range(self._workers):
                if not self._stopping:
                    self._spawn(worker)
            while not self._stopping:
                self._turn()
        except BaseException as error:
            self._listener.collapsed(error)
        finally:
            self._launcher.close()
            end(list(self._children.values()))
            for closing in (self._exits, self._news, self._nudge, self._nudged, self._wakeup, self._woken):
                closing.close()
            self._program.close()

    def _spawn(self, worker: int) -> None:
        """Start a worker, now or when the zygote is ready."""
        child = self._launcher.launch(worker)
        if child is not None:
            self._children[worker] = child
            self._news.register(child.channel, select.EPOLLIN)
            self._exits.register(child.pidfd, selectors.EVENT_READ, child)

    def _turn(self) -> None:
        """Wait for an exit, a wake-up, or the next check for messages."""
        self._asleep = True  # set before the check: any request from here on wakes the supervisor
        timeout = _SILENT if self._silent else None
        if self._due:
            timeout = max(0.0, min(list(self._due.values())) - time.monotonic())
        if (left := self._launcher.seconds_left()) is not None:
            timeout = left if timeout is None else min(left, timeout)
        if self._is_owed():
            tick = _TICK if self._leader is None else _TICK_LED
            self._asleep, timeout = False, tick if timeout is None else min(tick, timeout)
        for key, _ in self._exits.select(timeout):
            if key.data is None:
                _drain(self._woken)
            elif isinstance(key.data, Zygote):
                self._launcher.hear(key.data)
            else:
                self._bury(key.data)
        if self._leader is None:
            self._listen(0)
        for worker, when in list(self._due.items()):
            if time.monotonic() >= when and not self._stopping:
                del self._due[worker]
                self._spawn(worker)
        for worker in self._launcher.due():
            if not self._stopping:
                self._spawn(worker)
        for worker, deadline in list(self._silent.items()):
            if time.monotonic() >= deadline:
                self._children[worker].signal(signal.SIGKILL)
        for stuck in self._watch.look(list(self._children.values())):
            self._listener.stuck(stuck)
            if stuck.killed:
                self._children[stuck.worker].stuck = stuck
                self._children[stuck.worker].signal(signal.SIGKILL)
        for child in self._watch.reported():
            if self._listener.is_needless(child.number):
                child.signal(signal.SIGKILL)

    def _is_owed(self) -> bool:
        return any(child.owes() for child in list(self._children.values()))

    def _bury(self, child: WorkerProcess) -> None:
        """Handle the exit of a process: deliver its remaining messages, then report its death."""
        self._hear(child)
        with self._reading:
            child.ended = True
            if self._silent.pop(child.number, None) is None:
                self._news.unregister(child.channel)
        self._exits.unregister(child.pidfd)
        kills = oom_kills()
        more, self._oom_kills = kills - self._oom_kills, kills
        self._failed_starts[child.number] = 0 if child.replies else self._failed_starts[child.number] + 1
        death = WorkerDeath(child.number, child.code(), child.page.place(), child.stuck, more)
        self._listener.died(death)  # until this is reported, the worker may be given tasks
        if self._children[child.number] is child:
            del self._children[child.number]
        child.reap()


def _pair() -> tuple[socket.socket, socket.socket]:
    one, other = pair(socket.SOCK_STREAM)
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def _drain(calls: socket.socket) -> None:
    with contextlib.suppress(OSError):  # another thread woken by the same call was quicker, or closed it
        calls.recv(64)
