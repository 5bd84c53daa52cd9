"""One worker process: starts it, signals it, ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from stoker.engines.forked_process import Process
from stoker.engines.interpreters import OURS
from stoker.engines.sockets import pair
from stoker.memory.memfd import above_standard
from stoker.memory.process_page import STACK_SIGNAL, ProcessPage
from stoker.protocol.invitations import Invitation, Outgoing

log = logging.getLogger("stoker")

#: Starts the process of a worker, given its number, the descriptor of its control socket, and its page.
WorkerStart = Callable[[int, int, ProcessPage], Process]


class WorkerProcess:
    """A worker process, its control socket, and a descriptor (pidfd) that becomes readable when it exits.

    Args:
        number: the worker's number.
        start: starts the process.

    Attributes:
        is_up: True once it takes in invitations.
        invitations: those that were not sent yet.
        is_given_up: True once it is ended because it hangs in the code of a Loader that was closed.

    The calling thread must outlive the worker: the kernel kills the worker when that thread ends.
    """

    def __init__(self, number: int, start: WorkerStart) -> None:
        self.number, self.is_up, self.is_given_up = number, False, False
        self._page = ProcessPage.fresh()
        self.control, theirs = pair(socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self.process = start(number, theirs.fileno(), self._page)
            except BaseException:
                self.control.close()
                self._page.close()
                raise
        self.control.setblocking(False)
        self.invitations = Outgoing(self.control)
        try:
            self.pidfd = above_standard(os.pidfd_open(self.process.pid))
        except OSError:  # no descriptor is left
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.control.close()
            self._page.close()
            raise
        log.debug("worker %d started, pid %d", number, self.process.pid)

    def invite(self, invitation: Invitation, sent: Callable[[], None]) -> None:
        """Ask the worker to serve a Loader, at once or when it is up. Calls `sent` after that."""
        self.invitations.put(invitation, sent)
        if self.is_up:
            self.invitations.flush()

    def hear(self) -> bool:
        """Take in what it sent over the control socket: that it is up. Returns False at the end of the stream."""
        try:
            self.is_up = bool(self.control.recv(64))
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.invitations.flush()
        return self.is_up

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        log.debug("worker %d is sent signal %d", self.number, number)
        self.process.send_signal(number)

    def dismiss(self) -> None:
        """Let the worker exit, once it has no more to do."""
        with contextlib.suppress(OSError):  # it is gone
            self.control.shutdown(socket.SHUT_RDWR)  # a fork of this process may hold a copy, which close() leaves

    def stack(self, seconds: float) -> str:
        """The worker's Python stacks if it writes them within `seconds`, else the reason why there are none."""
        if _state(self.process.pid) in ("T", "t"):
            return "(no stack: the process is stopped)"
        begin, deadline = self._page.stack_end(), time.monotonic() + seconds
        self.signal(STACK_SIGNAL)
        while time.monotonic() < deadline:
            time.sleep(0.01)
            if (end := self._page.stack_end()) > begin:
                time.sleep(0.02)  # it writes line by line
                if self._page.stack_end() == end:
                    break
        if stack := self._page.stack(begin):
            return _theirs(stack)
        return "(no stack: the process did not write one)"

    def code(self) -> int:
        """The exit code of the process, which must have ended."""
        return self.process.wait()

    def reap(self) -> None:
        """Reap the ended process and close the descriptors."""
        log.debug("worker %d exited with code %d", self.number, self.code())
        os.close(self.pidfd)
        self.control.close()
        self._page.close()


def end(children: Sequence[WorkerProcess], grace: float = 0.5) -> None:
    """End all workers: ask, wait, terminate, wait, kill."""
    for child in children:
        child.dismiss()
    left = _wait(children, grace)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in left:
            child.signal(number)
        left = _wait(left, grace)
    for child in children:
        child.reap()


def _wait(children: Sequence[WorkerProcess], seconds: float) -> list[WorkerProcess]:
    """Wait up to `seconds` for all to exit. Returns those that have not."""
    deadline = time.monotonic() + seconds
    left = list(children)
    while left and (remaining := deadline - time.monotonic()) > 0:
        try:
            left[0].process.wait(remaining)
        except subprocess.TimeoutExpired:
            break
        left.pop(0)
    return [child for child in left if child.process.poll() is None]


def _theirs(stack: str) -> str:
    """The stack without the frames of Stoker and of the interpreter that called it."""
    return "\n".join(line for line in stack.splitlines() if not any(f'File "{ours}' in line for ours in OURS))


def _state(pid: int) -> str:
    """The state of a process, as its letter in `/proc`; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it is gone
        return ""
