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
from functools import partial

from stoker.memory import long_message
from stoker.memory.progress_page import PHASE, STACK_SIGNAL, Phase, ProgressPage
from stoker.memory.slot import Inbox, Slot
from stoker.protocol.failures import failure
from stoker.protocol.messages import MAX_BYTES, Message, decode, encode, unbundled
from stoker.protocol.program import LoadedProgram, load_again
from stoker.protocol.random_objects import came_with_program
from stoker.protocol.replies import FailureKind, ReadyReply
from stoker.protocol.requests import (
    DescribeRequest,
    FormRequest,
    IndexTaskRequest,
    JoinTaskRequest,
    LeaveEpochRequest,
    MakeExamplesRequest,
    OpenShardRequest,
    ShardTaskRequest,
    UpdateRequest,
)
from stoker.worker.batching.fork_guard import ForkGuard
from stoker.worker.context import TaskContext
from stoker.worker.failpoints import Failpoint, reach
from stoker.worker.multiprocessing_tracker import TrainersMultiprocessing
from stoker.worker.runner import Runner
from stoker.worker.user_code.current import tells_in_process
from stoker.worker.user_code.epoch_hooks import EpochHooks
from stoker.worker.user_code.libraries import ImportWatch
from stoker.worker.user_code.seeding import Seeder, install_lazy_random
from stoker.worker.user_code.worker_init import initialise

_PR_SET_PDEATHSIG = 1


def run(arguments: list[str]) -> None:
    """Run a worker until it is dismissed or must be replaced."""
    del sys.argv[1:]  # user modules must not see our arguments
    try:
        is_done_for = _main(arguments)
    except BaseException:
        try:
            traceback.print_exc()
        finally:  # a user exception may itself raise while it is formatted
            _leave_at_once(1)
    if is_done_for:
        _leave_at_once(0)


def _main(arguments: list[str]) -> bool:
    """Run the worker; returns True if it must be replaced, False if it was dismissed.

    The module docstring describes the arguments.
    """
    number, parent, channel_fd, page_fd, program_fd, tracker, *memory = map(int, arguments)
    _die_with(parent)
    for fd in (channel_fd, page_fd, program_fd, *memory, *([tracker] if tracker >= 0 else [])):
        os.set_inheritable(fd, False)  # programs started by user code must not inherit them
    reach(Failpoint.SPAWN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer handles Ctrl-C
    faulthandler.register(STACK_SIGNAL, page_fd, all_threads=True)  # in C: works even while the GIL is held
    page = ProgressPage(page_fd)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # show user output immediately
    channel = socket.socket(fileno=channel_fd)
    _guard_forks(channel)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the trainer is gone: exit too
        slots, inboxes = [Slot(fd) for fd in memory[::2]], [Inbox(fd) for fd in memory[1::2]]
        fds = program_fd, tracker if tracker >= 0 else None
        return _serve(number, channel, fds, page, slots, inboxes)
    return False


def _serve(
    number: int,
    channel: socket.socket,
    fds: tuple[int, int | None],
    page: ProgressPage,
    slots: list[Slot],
    inboxes: list[Inbox],
) -> bool:
    """Process requests until the socket closes; returns True if another worker must take over."""

    def send(message: Message) -> None:
        long_message.send(channel, encode(message), MAX_BYTES)

    lazy = install_lazy_random()
    words = page.words()
    words[PHASE] = Phase.LOADING
    kind = FailureKind.PROGRAM
    try:
        arrived = LoadedProgram(fds[0])
        TrainersMultiprocessing(fds[1], arrived.key)
        if (init := arrived.worker_init()) is not None:
            kind = FailureKind.INIT
            initialise(init, arrived.seed, number)
            kind = FailureKind.PROGRAM
        program = arrived.program()
        del arrived  # it holds references to everything that arrived
    except BaseException as error:
        send(failure(None, kind, error))
        return True
    seeder = Seeder(program.seed, lazy, seeds_globals=program.seeds_globals, held=came_with_program)
    if program.seeds_globals:
        ImportWatch(seeder.found)
    turns = EpochHooks(program, list(came_with_program), partial(load_again, fds[0]), seeder)
    context = TaskContext.of(program, seeder, words, slots=slots, inboxes=inboxes, fork=_fork)
    runner = Runner(context, turns, number)
    tells_in_process(runner.current)
    words[PHASE] = Phase.IDLE
    send(ReadyReply())
    heard = memoryview(bytearray(MAX_BYTES))
    while data := long_message.receive(channel, heard):
        for part in unbundled(data):
            match decode(part):
                case (
                    IndexTaskRequest()
                    | ShardTaskRequest()
                    | JoinTaskRequest()
                    | MakeExamplesRequest()
                    | OpenShardRequest()
                    | DescribeRequest() as question
                ):
                    answer = runner.answer(question)
                    reach(Failpoint.REPORT)
                    send(answer)
                    reach(Failpoint.REPORTED)
                    if runner.exhausted:
                        return True
                case FormRequest() as known:
                    runner.learn(known)
                case LeaveEpochRequest() as leave:
                    runner.leave(leave)
                case UpdateRequest() as renew:
                    runner.renew(renew)
                case other:
                    raise AssertionError(f"the trainer sent {other}")
    reach(Failpoint.SHUTDOWN)
    return False


def _die_with(parent: int) -> None:
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
            _die_with(ours)

    os.register_at_fork(before=before, after_in_child=in_child)


def _leave_at_once(code: int) -> None:
    """Exit without waiting for threads that user code left running."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
