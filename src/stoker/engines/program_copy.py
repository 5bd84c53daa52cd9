"""Runs the user's code without workers: one copy of the program, used by one thread at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from stoker.engines.engine import APART, Listener
from stoker.engines.snapshot import Snapshot
from stoker.memory.slot import Inbox, Slot
from stoker.protocol.failures import failure
from stoker.protocol.program import Program
from stoker.protocol.replies import FailureKind, FailureReply, ReadyReply, Reply
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest
from stoker.worker.batching.fork_guard import ForkGuard
from stoker.worker.context import TaskContext
from stoker.worker.runner import Runner
from stoker.worker.user_code.current import telling
from stoker.worker.user_code.epoch_hooks import EpochHooks
from stoker.worker.user_code.libraries import IN_TRAINER
from stoker.worker.user_code.seeding import KeptState, Seeder
from stoker.worker.user_code.worker_init import InitRaised, initialise

Order = ReadyReply | Request | LeaveEpochRequest | UpdateRequest | FormRequest


class ProgramCopy:
    """A copy of the program and its runner. The thread that uses it creates it, which also calls `worker_init`.

    Args:
        snapshot: makes copies of the program.
        slots: the slots.
        inboxes: the inboxes of the slots.
        words: its progress page.
        passes: exceptions of the user's code that propagate instead of becoming a `FailureReply`.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        slots: Sequence[Slot],
        inboxes: Sequence[Inbox],
        words: memoryview,
        passes: tuple[type[BaseException], ...],
    ) -> None:
        program, held = snapshot.copy()
        seeds = program.seeds_globals
        seeder = Seeder(program.seed, None, seeds_globals=seeds, held=held)
        self._kept = KeptState(held, seeder) if seeds else contextlib.nullcontext()
        if program.worker_init is not None:
            with self._kept:
                _initialise(program)
        turns = EpochHooks(program, held, snapshot.copy if snapshot.can_copy else None, seeder, snapshot.only)
        context = TaskContext.of(program, seeder, words, slots=slots, inboxes=inboxes, fork=ForkGuard(), passes=passes)
        self._runner = Runner(context, turns)
        self.thread = threading.get_ident()

    def do(self, order: Order) -> Reply | None:
        """Carry out an order. Returns the reply to a request, else None."""
        self.thread = threading.get_ident()
        with self._kept, telling(self._runner.current):
            match order:
                case ReadyReply():
                    return order
                case FormRequest():
                    self._runner.learn(order)
                case LeaveEpochRequest():
                    self._runner.leave(order)
                case UpdateRequest():
                    self._runner.note_update(order)
                case _:
                    return self._runner.reply_to(order)
        return None

    def close(self) -> None:
        """Close all open shards."""
        with self._kept, telling(self._runner.current):
            self._runner.leave_all()


def _initialise(program: Program) -> None:
    assert program.worker_init is not None
    try:
        initialise(program.worker_init, program.seed if program.seeds_globals else None, None, IN_TRAINER)
    except (Exception, SystemExit) as error:
        raise InitRaised from error


def copy_failure(error: Exception) -> FailureReply:
    """The reply when no program copy can be made because `worker_init` or the user's unpickling raised."""
    if isinstance(error, InitRaised) and error.__cause__ is not None:
        return failure(None, FailureKind.INIT, error.__cause__)
    return failure(None, FailureKind.PROGRAM, error)


class ApartThread:
    """A program copy with a thread of its own, which runs until `request_stop`. The first order makes the copy.

    Args:
        make: makes the program copy.
        running: held while user code runs, so that no two program copies run it at the same time.
        listener: receives the replies.
    """

    def __init__(self, make: Callable[[], ProgramCopy], running: threading.Lock, listener: Listener) -> None:
        self._make, self._running, self._listener = make, running, listener
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="stoker-inline", daemon=True)
        self._thread.start()

    def put(self, order: Order) -> None:
        """Queue an order; orders are carried out in sequence."""
        self._orders.put(order)

    def request_stop(self) -> None:
        """Request the end of the thread, without waiting and without a lock."""
        self._stopping = True
        self._orders.put(None)

    def stop(self, seconds: float) -> None:
        """Request the end of the thread, and wait up to `seconds` for it."""
        self.request_stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def _run(self) -> None:
        copy: ProgramCopy | None = None
        try:
            while not self._stopping and (order := self._orders.get()) is not None:
                with self._running:
                    reply: Reply | None
                    try:
                        copy = copy or self._make()
                        reply = copy.do(order)
                    except Exception as error:
                        if copy is not None:
                            raise
                        reply = copy_failure(error)
                if isinstance(reply, Reply):
                    self._listener.heard(APART, [reply])
        except BaseException as error:
            self._listener.collapsed(error)
        finally:
            if copy is not None:
                with self._running:
                    copy.close()
