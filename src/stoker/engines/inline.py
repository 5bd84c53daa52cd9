"""Runs without workers: the pulling thread executes the user's code, so that breakpoints in it work.

TensorFlow pulls from threads that come and go. Code that is tied to a thread (a database handle, a
`threading.local`) would break there. So batches for TensorFlow are made in a single thread of the engine, which has
its own copy of the program.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from stoker.engines.engine import APART, HERE, Listener
from stoker.engines.program_copy import ApartThread, Order, ProgramCopy, copy_failure
from stoker.engines.snapshot import Snapshot
from stoker.memory.progress_page import words_here
from stoker.memory.slot import Inbox, Slot
from stoker.memory.worker_times import WorkerTimes
from stoker.protocol.program import Program
from stoker.protocol.replies import ReadyReply
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest
from stoker.runtime.locks import Lock
from stoker.runtime.signals import interruptible

#: Seconds that `stop` waits for the example in progress.
_GRACE = 1.0


class InlineEngine:
    """Makes each batch when it is pulled, with the same code that workers run.

    The source is a copy, as in a worker; functions are the user's own. Ctrl-C propagates, and the interrupted
    task is repeated at the next pull.
    """

    def __init__(self, program: Program, slots: Sequence[Slot], inboxes: Sequence[Inbox]) -> None:
        self._snapshot, self._slots, self._inboxes = Snapshot(program), slots, inboxes
        self._words: list[memoryview] = []  # the progress pages of the copies
        self._here: ProgramCopy | None = None
        self._apart: ApartThread | None = None
        self._form: FormRequest | None = None
        self._updates: dict[int, UpdateRequest] = {}
        self._pending: deque[Order] = deque([ReadyReply()])
        self._running = threading.Lock()
        self._stopping = False

    def start(self, listener: Listener) -> None:
        self._listener = listener

    def submit(self, worker: int, message: Request) -> None:
        self._put(message, apart=worker == APART)

    def flush(self) -> None:
        """Does nothing, as nothing is sent."""

    def send_form(self, form: FormRequest) -> None:
        self._form = form
        self._put_to_all(form)

    def leave(self, leave: LeaveEpochRequest) -> None:
        if leave.is_last:
            self._updates.pop(leave.epoch, None)
        self._put_to_all(leave)

    def send_update(self, update: UpdateRequest) -> None:
        self._updates[update.epoch] = update
        self._put_to_all(update)

    def times(self) -> dict[int, WorkerTimes]:
        now = time.perf_counter_ns()
        return {HERE: sum((WorkerTimes.of(words.tolist(), now) for words in list(self._words)), start=WorkerTimes())}

    def start_worker(self, worker: int) -> None:
        """Does nothing: without worker processes, none can die."""

    def retire_worker(self, worker: int) -> None:
        """Does nothing: the number of workers never changes."""

    def idle(self, changed: Lock) -> None:
        if not self._pending:  # another thread runs the task that this thread waits for
            changed.wait(0.1)
            return
        changed.without(self._run_next)

    def stand_by(self, changed: Lock) -> None:
        if self._pending and isinstance(self._pending[0], ReadyReply):
            changed.without(self._greet)
        else:
            changed.wait(0.1)

    def nudge(self) -> None:
        """Does nothing: waiting threads wait only for `changed`."""

    def request_stop(self) -> None:
        self._stopping = True
        if self._apart is not None:
            self._apart.request_stop()

    def stop(self) -> None:
        self.request_stop()
        if self._apart is not None:
            self._apart.stop(_GRACE)
        here = self._here
        if here is not None and here.thread == threading.get_ident() and self._running.acquire(blocking=False):
            try:
                here.close()
            finally:
                self._running.release()
        self._snapshot.close()

    def _put(self, order: Order, *, apart: bool) -> None:
        if not apart:
            self._pending.append(order)
            return
        if self._apart is None and not self._stopping:
            self._apart = ApartThread(lambda: self._make(()), self._running, self._listener)
            for earlier in self._so_far():
                self._apart.put(earlier)
        if self._apart is not None:
            self._apart.put(order)

    def _put_to_all(self, order: Order) -> None:
        """Give the order to the existing program copies; later ones receive it when they are made."""
        if self._here is not None:
            self._pending.append(order)
        if self._apart is not None:
            self._apart.put(order)

    def _so_far(self) -> list[Order]:
        """The orders that a newly made program copy must receive first."""
        return [*([] if self._form is None else [self._form]), *self._updates.values()]

    def _make(self, passes: tuple[type[BaseException], ...]) -> ProgramCopy:
        words = words_here()
        copy = ProgramCopy(self._snapshot, self._slots, self._inboxes, words, passes)
        self._words.append(words)
        return copy

    def _greet(self) -> None:
        """Report both workers as ready at once, since there is nothing to start."""
        with self._running:
            if self._pending and isinstance(order := self._pending[0], ReadyReply):
                self._pending.popleft()
                self._listener.heard(HERE, [order])
                self._listener.heard(APART, [order])

    def _run_next(self) -> None:
        self._greet()
        with self._running:
            if self._pending:
                self._run(self._pending[0])

    def _run(self, order: Order) -> None:
        """Carry out an order in the pulling thread."""
        if self._here is None:
            try:
                self._here = interruptible(self._make, (KeyboardInterrupt,))
            except Exception as error:
                self._listener.heard(HERE, [copy_failure(error)])
                return
            for earlier in self._so_far():  # read last: from here on, new ones are queued behind the order
                self._here.do(earlier)
        reply = interruptible(self._here.do, order)
        self._pending.popleft()
        if reply is not None:
            self._listener.heard(HERE, [reply])
