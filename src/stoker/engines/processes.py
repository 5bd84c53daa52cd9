"""Runs one Loader's tasks in the workers of a pool.

Messages are read by the thread that needs them. A thread that waits for a batch reads them itself, so that
the batch reaches it without a thread switch: it is the leader, and other waiting threads follow. If no thread
waits, the pool's supervisor checks for messages often, so that workers always have a next task.
No lock is shared with any process. Messages are passed on through the `Listener`.
"""

from __future__ import annotations

import contextlib
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from stoker.engines.child import WorkerProcess
from stoker.engines.engine import Listener, WorkerDeath
from stoker.engines.line import WorkerLine
from stoker.engines.member import Member, ProcessEnd
from stoker.engines.sockets import drain, wakers
from stoker.engines.trainers_tracker import resource_tracker
from stoker.engines.watch import ProgressWatch
from stoker.engines.worker_pool import WorkerPool
from stoker.memory.memfd import Memfd
from stoker.memory.slot import Inbox, Slot
from stoker.memory.wait_page import WaitPage
from stoker.memory.worker_times import WorkerTimes
from stoker.protocol.invitations import Invitation
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest
from stoker.runtime.locks import Lock
from stoker.runtime.shortage import wanted
from stoker.runtime.signals import interruptible

#: Seconds that a worker has to exit by itself after it closed its socket.
_SILENT = 1.0


class ProcessEngine:
    """The workers of a pool, for one Loader.

    Args:
        program: the program's bundle; the engine closes it when it ends.
        slots: the slots.
        inboxes: the inboxes of the slots.
        join: finds a pool, which serves this Loader from then on.
        timeout: seconds without progress after which a worker is killed, or None.
    """

    def __init__(
        self,
        program: Memfd,
        slots: Sequence[Slot],
        inboxes: Sequence[Inbox],
        join: Callable[[Member], WorkerPool],
        timeout: float | None,
    ) -> None:
        self._program, self._join, self._watch = program, join, ProgressWatch(timeout)
        self._pool: WorkerPool | None = None
        self._slots, self._inboxes = [slot.fd for slot in slots], [inbox.fd for inbox in inboxes]
        self._wait_page = WaitPage.fresh()
        self._lines: dict[int, WorkerLine] = {}
        self._invitations: dict[WorkerLine, Invitation] = {}
        self._posted: dict[int, WorkerLine] = {}
        self._pages = Lock()  # held while progress pages are read or closed
        self._former: dict[int, WorkerTimes] = {}  # of processes that have ended
        self._silent: dict[WorkerLine, float] = {}  # when to kill its process if that has not exited
        self._form: FormRequest | None = None
        self._updates: dict[int, UpdateRequest] = {}  # by epoch
        self._reading = Lock()  # makes reading a message and delivering it atomic
        self._leader: int | None = None  # the waiting thread that reads messages
        self.is_stopping = False
        self._left = threading.Event()

    # ── called by the Loader ─────────────────────────────────────────────────────────────────
    def start(self, listener: Listener) -> None:
        self._listener = listener
        with wanted("descriptors for listening to workers"):
            self._news = select.epoll()  # what workers send, and nudges for the leader
            self._nudge, self._nudged = wakers()
        self._news.register(self._nudged, select.EPOLLIN)
        try:
            self._pool = self._join(self)
        except BaseException:  # the user's Pool was closed
            self._close_sockets()
            raise

    def submit(self, worker: int, message: Request) -> None:
        line = self._lines[worker]
        if not line.renewed:
            line.renewed = True
            for update in self._updates.values():
                line.post(update)
        if self._form is not None and not line.has_form:
            line.has_form = True
            line.post(self._form)
        line.post(message)
        line.requests += 1
        self._posted[worker] = line

    def flush(self) -> None:
        for line in self._posted.values():
            line.flush()
        if self._posted and self._pool is not None:
            self._pool.rouse()
        self._posted.clear()

    def leave(self, leave: LeaveEpochRequest) -> None:
        if leave.is_last:
            self._updates.pop(leave.epoch, None)
        for line in list(self._lines.values()):
            if line.requests > 1:  # it was given work, perhaps only to find the form
                line.post(leave)
                self._posted[line.number] = line

    def send_update(self, update: UpdateRequest) -> None:
        self._updates[update.epoch] = update
        for line in list(self._lines.values()):
            if line.renewed:
                line.post(update)
                self._posted[line.number] = line

    def send_form(self, form: FormRequest) -> None:
        self._form = form

    def times(self) -> dict[int, WorkerTimes]:
        with self._pages:
            found = dict(self._former)
            for line in list(self._lines.values()):
                found[line.number] = found.get(line.number, WorkerTimes()) + line.page.times()
            return found

    def start_worker(self, worker: int) -> None:
        assert self._pool is not None
        self._pool.start_worker(worker)

    def retire_worker(self, worker: int) -> None:
        self._lines[worker].process.dismiss()

    def idle(self, changed: Lock) -> None:
        self._wait_page.count(1)
        try:
            self._idle(changed)
        finally:
            self._wait_page.count(-1)

    def stand_by(self, changed: Lock) -> None:
        self.idle(changed)

    def nudge(self) -> None:
        if self._leader not in (None, threading.get_ident()):
            with contextlib.suppress(OSError):  # full: the leader is awake; closed: it wakes by itself
                self._nudge.send(b"!")

    def request_stop(self) -> None:
        self.is_stopping = True
        self._wake()

    def stop(self) -> None:
        self.request_stop()
        if self._pool is None:
            self._program.close()
            self._wait_page.close()
        elif not self._pool.is_supervised_here():
            self._left.wait()

    def _wake(self) -> None:
        if self._pool is not None:
            self._pool.wake()

    def _idle(self, changed: Lock) -> None:
        if self._leader is not None or self.is_stopping:
            if not changed.wait(0.1) and not self.is_stopping:
                # The leader does not read: it is in one of the user's signal handlers, or the garbage collector makes
                # it destroy a tf.data iterator, which waits for this very thread.
                changed.without(self.listen, 0)
            return
        self._leader = threading.get_ident()
        try:
            changed.without(self.listen, 0.1)
        finally:
            self._leader = None
            changed.notify_all()  # a follower may lead now

    # ── messages, in the leader or the supervisor ────────────────────────────────────────────
    def listen(self, seconds: float) -> None:
        """Wait up to `seconds` for messages, and deliver them to the listener."""
        try:
            ready = interruptible(self._news.poll, seconds)
        except (ValueError, OSError):
            if not self._news.closed:  # raised by a signal handler of the user's, perhaps a TimeoutError
                raise
            return  # closed before or during this call: the Loader was closed
        lines = {line.channel.fileno(): line for line in list(self._lines.values())}
        for fd, _ in ready:
            if fd == self._nudged.fileno():
                drain(self._nudged)
            elif (line := lines.get(fd)) is not None:
                self._hear(line)

    def _hear(self, line: WorkerLine) -> None:
        with self._reading:
            if self.is_stopping or line.ended or line in self._silent:
                return
            try:
                self._receive(line)
            except BaseException as error:  # a message that was read but not delivered would be awaited forever
                self._listener.collapsed(error)
                if not isinstance(error, Exception):
                    raise

    def _receive(self, line: WorkerLine) -> None:
        replies = line.receive()
        if replies is None:
            self._news.unregister(line.channel)
            self._silent[line] = time.monotonic() + _SILENT
            self._wake()
            return
        if replies:
            line.replies += len(replies)
            self._listener.heard(line.number, replies)

    # ── called by the pool, in the supervisor ────────────────────────────────────────────────
    @property
    def is_led(self) -> bool:
        """True while a thread that waits for a batch reads messages."""
        return self._leader is not None

    @property
    def is_silent(self) -> bool:
        """True if a worker has closed its socket, and its process still runs."""
        return bool(self._silent)

    @property
    def program(self) -> int:
        """The descriptor of the program."""
        return self._program.fd

    def is_owed(self) -> bool:
        """True if a worker is busy starting or with a task."""
        return any(line.owes() for line in list(self._lines.values()))

    def connect(self, process: WorkerProcess) -> None:
        """Have this Loader served by another process too."""
        line = WorkerLine(process)
        their_end, page = line.their_end.fileno(), line.page.fd
        memory = tuple(self._slots), tuple(self._inboxes)
        program, tracker = self._program.fd, resource_tracker()
        invitation = Invitation(their_end, page, self._wait_page.fd, program, *memory, tracker=tracker)
        self._invitations[line] = invitation
        self._lines[process.number] = line
        self._news.register(line.channel, select.EPOLLIN)
        process.invite(invitation, line.their_end.close)

    def line(self, process: WorkerProcess) -> WorkerLine | None:
        """The line to a process."""
        line = self._lines.get(process.number)
        return line if line is not None and line.process is process else None

    def bury(self, line: WorkerLine, end: ProcessEnd, *, elsewhere: bool) -> None:
        """Handle the end of a process: deliver its remaining messages, then report its death."""
        self._hear(line)
        with self._reading:
            line.ended = True
            if self._silent.pop(line, None) is None:
                self._news.unregister(line.channel)
        place = line.page.place()
        self._listener.died(WorkerDeath(line.number, end.code, place, line.stuck, end.oom_kills, elsewhere=elsewhere))
        self._drop(line)  # now that its death is known, it is given no more tasks

    def watch(self, is_behind: Callable[[WorkerLine], bool]) -> None:
        """Kill processes that make no progress, that hang after they closed their socket, or whose work is needless."""
        for line, deadline in list(self._silent.items()):
            if time.monotonic() >= deadline:
                line.process.signal(signal.SIGKILL)
        for stuck in self._watch.look(list(self._lines.values()), is_behind):
            self._listener.stuck(stuck)
            if stuck.killed:
                self._lines[stuck.worker].stuck = stuck
                self._lines[stuck.worker].process.signal(signal.SIGKILL)
        for line in self._watch.reported():
            if self._listener.is_needless(line.number):
                line.process.signal(signal.SIGKILL)

    def collapsed(self, error: BaseException) -> None:
        """End the Loader with an error."""
        self._listener.collapsed(error)

    def hang_up(self) -> None:
        """Begin to end, now that `is_stopping`: tell all workers. Those that were never invited need not know."""
        for line in list(self._lines.values()):
            if line.process.invitations.withdraw(self._invitations[line]):
                self._drop(line)
            else:
                line.hang_up()

    def served(self) -> Iterator[WorkerLine]:
        """The lines to workers that may still use this Loader's memory, after `hang_up`."""
        for line in list(self._lines.values()):
            if line.has_hung_up():
                line.process.is_given_up |= line.is_busy  # it has died in this Loader's code
                self._drop(line)
            else:
                yield line

    def release(self) -> None:
        """End, as no worker uses this Loader's memory any more."""
        for line in list(self._lines.values()):
            self._drop(line)
        self._close_sockets()
        self._program.close()
        self._wait_page.close()
        self._left.set()

    def _close_sockets(self) -> None:
        for closing in (self._news, self._nudge, self._nudged):
            closing.close()

    def _drop(self, line: WorkerLine) -> None:
        with self._pages:
            self._former[line.number] = self._former.get(line.number, WorkerTimes()) + line.page.times()
            del self._lines[line.number], self._invitations[line]
            line.close()
