"""Entry point of a worker process. Arguments: NUMBER PARENT CONTROL PAGE.

CONTROL and PAGE are file descriptors. Over the control socket, the worker says that it is up, and is asked to serve
Loaders: see `stoker.protocol.invitations`. It does until the trainer closes that socket. It dies with its trainer.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from stoker.memory.process_page import STACK_SIGNAL
from stoker.protocol.invitations import UP, received
from stoker.worker.failpoints import Failpoint, reach
from stoker.worker.multiprocessing_tracker import TrainersMultiprocessing
from stoker.worker.served_loader import ServedLoader, SharedProcess
from stoker.worker.user_code.seeding import LazyRandom, install_lazy_random

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
    """The arguments of a worker; see the docstring of this module."""

    number: int
    parent: int
    control: int
    page: int

    @classmethod
    def of(cls, arguments: list[str]) -> WorkerArguments:
        """Read the arguments of the command line."""
        return cls(*map(int, arguments))


def _main(arguments: WorkerArguments, lazy: LazyRandom) -> bool:
    """Run the worker; returns True if it must be replaced, False if it was dismissed."""
    _bind_to_trainer(arguments)
    _show_stacks(arguments.page)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the trainer is gone: exit too
        return Worker(arguments, lazy).serve()
    return False


class Worker:
    """Serves the Loaders that the trainer names, taking turns.

    A Loader for which the trainer waits goes first, then the one whose requests have taken the least time.
    """

    def __init__(self, arguments: WorkerArguments, lazy: LazyRandom) -> None:
        self._control = socket.socket(fileno=arguments.control)
        self._process = SharedProcess(arguments.number, lazy, TrainersMultiprocessing())
        self._loaders: dict[int, ServedLoader] = {}  # by the descriptor of their sockets
        self._entered: ServedLoader | None = None
        self._news = select.poll()
        self._news.register(self._control, select.POLLIN)
        _guard_forks(self._process, self._close_sockets)

    def serve(self) -> bool:
        """Serve until the control socket is closed; returns True if another process must take over."""
        self._control.send(UP)
        while (loader := self._next()) is not None:
            self._enter(loader)
            loader.serve()
            if loader.exhausted:
                return True
            del loader  # it may be dismissed next
        reach(Failpoint.SHUTDOWN)
        for loader in self._loaders.values():
            self._close(loader)
        return False

    def _next(self) -> ServedLoader | None:
        """Wait for the next Loader that has a message; None if this worker is dismissed."""
        while True:
            ready = [loader for loader in self._loaders.values() if loader.is_ready]
            if ready and len(self._loaders) == 1:
                return ready[0]
            if not self._listen(0 if ready else None):
                return None
            ready = [loader for loader in self._loaders.values() if loader.is_ready]
            if ready:
                return min(ready, key=lambda loader: (not loader.is_waited_for, loader.seconds))

    def _listen(self, milliseconds: int | None) -> bool:
        """Receive what has arrived or arrives within that time; returns False if this worker is dismissed."""
        for fd, _ in self._news.poll(milliseconds):
            loader = self._loaders.get(fd)
            if loader is not None:
                self._receive(loader)
            elif (invitation := received(self._control)) is not None:
                self._admit(ServedLoader(invitation, self._process))
            else:
                return False
        return True

    def _receive(self, loader: ServedLoader) -> None:
        if not loader.is_ready:  # it did not want its turns, so it gets no more of them now
            loader.seconds = max([loader.seconds, *(one.seconds for one in self._loaders.values() if one.is_ready)])
        loader.receive()
        if loader.is_over:
            self._dismiss(loader)

    def _admit(self, loader: ServedLoader) -> None:
        """Begin to serve a Loader."""
        fd = loader.channel.fileno()
        self._loaders[fd] = loader
        self._news.register(fd, select.POLLIN)
        self._leave()
        loader.load()
        self._entered = loader
        if loader.is_over:
            self._dismiss(loader)

    def _dismiss(self, loader: ServedLoader) -> None:
        """Serve a Loader no more."""
        fd = loader.channel.fileno()
        self._news.unregister(fd)
        del self._loaders[fd]
        self._close(loader)
        gc.collect()  # its objects refer to one another

    def _close(self, loader: ServedLoader) -> None:
        self._enter(loader)  # closing its shards runs the user's code
        loader.close()
        self._entered = None

    def _enter(self, loader: ServedLoader) -> None:
        if loader is not self._entered:
            self._leave()
            loader.enter()
            self._entered = loader

    def _leave(self) -> None:
        if self._entered is not None:
            self._entered.leave()
            self._entered = None

    def _close_sockets(self) -> None:
        self._control.close()
        for loader in self._loaders.values():
            loader.channel.close()


def _bind_to_trainer(arguments: WorkerArguments) -> None:
    """Die with the trainer, and keep what comes from it from others."""
    die_with(arguments.parent)
    for fd in (arguments.control, arguments.page):
        os.set_inheritable(fd, False)  # programs started by user code must not inherit them
    reach(Failpoint.SPAWN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer handles Ctrl-C


def _show_stacks(page: int) -> None:
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


def _guard_forks(process: SharedProcess, close_sockets: Callable[[], None]) -> None:
    """Keep processes forked by user code from answering for this worker or outliving it."""
    ours = os.getpid()

    by_main = False

    def before() -> None:
        nonlocal by_main
        by_main = threading.get_ident() == threading.main_thread().ident

    def in_child() -> None:
        process.fork.happened = True
        close_sockets()
        if by_main:  # else the signal would arrive when the forking thread ends
            die_with(ours)

    os.register_at_fork(before=before, after_in_child=in_child)


def leave_at_once(code: int) -> NoReturn:
    """Exit without waiting for threads that user code left running."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
