"""Entry point of a worker process. Arguments: NUMBER PARENT SOCKET PAGE PROGRAM TRACKER [SLOT INBOX …].

From SOCKET on, the arguments are file descriptors. TRACKER is -1 if the trainer has no multiprocessing resource
tracker. The worker takes tasks from its socket until the trainer closes it. It dies with its trainer.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from stoker.memory import long_message
from stoker.memory.progress_page import PHASE, STACK_SIGNAL, Phase, ProgressPage
from stoker.memory.slot import Inbox, Slot
from stoker.protocol.failures import failure
from stoker.protocol.messages import MAX_BYTES, Message, decode, encode, unbundled
from stoker.protocol.program import LoadedProgram, Program, load_again
from stoker.protocol.random_objects import came_with_program
from stoker.protocol.replies import FailureKind, FailureReply, ReadyReply
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest
from stoker.worker.batching.fork_guard import ForkGuard
from stoker.worker.context import TaskContext
from stoker.worker.failpoints import Failpoint, reach
from stoker.worker.multiprocessing_tracker import TrainersMultiprocessing
from stoker.worker.runner import Runner
from stoker.worker.user_code.current import tells_in_process
from stoker.worker.user_code.epoch_hooks import EpochHooks
from stoker.worker.user_code.libraries import ImportWatch
from stoker.worker.user_code.seeding import LazyRandom, Seeder, install_lazy_random
from stoker.worker.user_code.worker_init import initialise

_PR_SET_PDEATHSIG = 1


def run(arguments: list[str]) -> None:
    """Run a worker in a fresh interpreter."""
    del sys.argv[1:]  # user modules must not see our arguments
    run_worker(WorkerArguments.of(arguments), install_lazy_random())


def run_worker(arguments: WorkerArguments, lazy: LazyRandom) -> None:
    """Run a worker until it is dismissed or must be replaced."""
    try:
        is_done_for = _main(arguments, lazy)
    except BaseException:
        try:
            traceback.print_exc()
        finally:  # a user exception may itself raise while it is formatted
            leave_at_once(1)
    if is_done_for:
        leave_at_once(0)


@dataclass(frozen=True)
class WorkerArguments:
    """The arguments of a worker; see the docstring of this module. Each slot has its inbox."""

    number: int
    parent: int
    socket: int
    page: int
    program: int
    tracker: int | None
    slots: tuple[int, ...]
    inboxes: tuple[int, ...]

    @classmethod
    def of(cls, arguments: list[str]) -> WorkerArguments:
        """Read the arguments of the command line."""
        number, parent, channel, page, program, tracker, *memory = map(int, arguments)
        its = None if tracker < 0 else tracker
        return cls(number, parent, channel, page, program, tracker=its, slots=(*memory[::2],), inboxes=(*memory[1::2],))

    def descriptors(self) -> tuple[int, ...]:
        """All file descriptors."""
        tracker = () if self.tracker is None else (self.tracker,)
        return self.socket, self.page, self.program, *tracker, *self.slots, *self.inboxes


def _main(arguments: WorkerArguments, lazy: LazyRandom) -> bool:
    """Run the worker; returns True if it must be replaced, False if it was dismissed."""
    _bind_to_trainer(arguments)
    _show_progress(arguments.page)
    channel = socket.socket(fileno=arguments.socket)
    _guard_forks(channel)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the trainer is gone: exit too
        return _serve(channel, arguments, lazy)
    return False


def _serve(channel: socket.socket, arguments: WorkerArguments, lazy: LazyRandom) -> bool:
    """Load the program and answer requests until the socket closes; returns True if another worker must take over."""

    def send(message: Message) -> None:
        long_message.send(channel, encode(message), MAX_BYTES)

    page = ProgressPage(arguments.page)  # it owns the descriptor, to which the stack is written too
    words = page.words()
    words[PHASE] = Phase.LOADING
    program = _loaded(arguments)
    if isinstance(program, FailureReply):
        send(program)
        return True
    runner = _runner(program, arguments, words, lazy)
    words[PHASE] = Phase.IDLE
    send(ReadyReply())
    for message in _received(channel):
        if isinstance(message, Request):
            reply = runner.reply_to(message)
            reach(Failpoint.REPORT)
            send(reply)
            reach(Failpoint.REPORTED)
            if runner.exhausted:
                return True
        else:
            _heed(runner, message)
    reach(Failpoint.SHUTDOWN)
    return False


def _loaded(arguments: WorkerArguments) -> Program | FailureReply:
    """The program, after the call of `worker_init`; the reply if one of them raises."""
    kind = FailureKind.PROGRAM
    try:
        arrived = LoadedProgram(arguments.program)
        TrainersMultiprocessing(arguments.tracker, arrived.key)
        if (init := arrived.worker_init()) is not None:
            kind = FailureKind.INIT
            initialise(init, arrived.seed, arguments.number)
            kind = FailureKind.PROGRAM
        return arrived.program()
    except BaseException as error:
        return failure(None, kind, error)


def _runner(program: Program, arguments: WorkerArguments, words: memoryview, lazy: LazyRandom) -> Runner:
    """The runner of this process, whose state `stoker.current()` reports."""
    seeder = Seeder(program.seed, lazy, seeds_globals=program.seeds_globals, held=came_with_program)
    if program.seeds_globals:
        ImportWatch(seeder.found)
    turns = EpochHooks(program, list(came_with_program), partial(load_again, arguments.program), seeder)
    slots, inboxes = [Slot(fd) for fd in arguments.slots], [Inbox(fd) for fd in arguments.inboxes]
    context = TaskContext.of(program, seeder, words, slots=slots, inboxes=inboxes, fork=_fork)
    runner = Runner(context, turns, arguments.number)
    tells_in_process(runner.current)
    return runner


def _received(channel: socket.socket) -> Iterator[Message]:
    """The trainer's messages, until it closes the socket."""
    heard = memoryview(bytearray(MAX_BYTES))
    while data := long_message.receive(channel, heard):
        yield from map(decode, unbundled(data))


def _heed(runner: Runner, message: Message) -> None:
    """Take in a message that is no request and has no reply."""
    match message:
        case FormRequest():
            runner.learn(message)
        case LeaveEpochRequest():
            runner.leave(message)
        case UpdateRequest():
            runner.note_update(message)
        case _:
            raise AssertionError(f"the trainer sent {message}")


def _bind_to_trainer(arguments: WorkerArguments) -> None:
    """Die with the trainer, and keep what comes from it from others."""
    die_with(arguments.parent)
    for fd in arguments.descriptors():
        os.set_inheritable(fd, False)  # programs started by user code must not inherit them
    reach(Failpoint.SPAWN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer handles Ctrl-C


def _show_progress(page: int) -> None:
    """Show this worker's stack to the trainer when asked, and user output immediately."""
    faulthandler.register(STACK_SIGNAL, page, all_threads=True)  # in C: works even while the GIL is held
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # sys.stdout is one of open()'s


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the trainer's supervising thread ends, for whatever reason."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before the call above
        os._exit(1)


_fork = ForkGuard()


def _guard_forks(channel: socket.socket) -> None:
    """Keep processes forked by user code from answering for this worker or outliving it."""
    ours = os.getpid()

    by_main = False

    def before() -> None:
        nonlocal by_main
        by_main = threading.get_ident() == threading.main_thread().ident

    def in_child() -> None:
        _fork.happened = True
        channel.close()
        if by_main:  # else the signal would arrive when the forking thread ends
            die_with(ours)

    os.register_at_fork(before=before, after_in_child=in_child)


def leave_at_once(code: int) -> NoReturn:
    """Exit without waiting for threads that user code left running."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
