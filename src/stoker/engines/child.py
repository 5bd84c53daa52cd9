"""One worker process: starts it, exchanges messages with it, ends it."""

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

from stoker.engines.engine import StuckWorker
from stoker.engines.forked_process import Process
from stoker.engines.interpreters import OURS
from stoker.memory import long_message
from stoker.memory.memfd import above_standard
from stoker.memory.progress_page import STACK_SIGNAL, ProgressPage
from stoker.protocol.messages import MAX_BYTES, bundled, decode, encode
from stoker.protocol.replies import Reply
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest

log = logging.getLogger("stoker")

#: Starts the process of a worker, given its number, the descriptor of its socket, and its progress page.
WorkerStart = Callable[[int, int, ProgressPage], Process]


class WorkerProcess:
    """A worker process, its socket, and a descriptor (pidfd) that becomes readable when it exits.

    Args:
        number: the worker's number.
        start: starts the process.

    The calling thread must outlive the worker: the kernel kills the worker when that thread ends.
    """

    def __init__(self, number: int, start: WorkerStart) -> None:
        self.number = number
        self.has_form = False  # True once the form of the batches was sent
        self.renewed = False  # True once the values of `Loader.update` were sent
        self.ended = False
        self._posted: list[bytes] = []
        self._posted_bytes = 0
        #: A reusable receive buffer: `recv` would map and unmap that much per message (glibc, with TensorFlow loaded).
        self._heard = memoryview(bytearray(MAX_BYTES))
        self.requests, self.replies = 1, 0  # how many; initially the worker owes a `ReadyReply`
        self.stuck: StuckWorker | None = None  # why it is killed
        self.page = ProgressPage.fresh()
        self.channel, theirs = pair(socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self.process = start(number, theirs.fileno(), self.page)
            except BaseException:
                self.channel.close()
                self.page.close()
                raise
        self.channel.setblocking(False)
        try:
            self.pidfd = above_standard(os.pidfd_open(self.process.pid))
        except OSError:  # no descriptor is left
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.channel.close()
            self.page.close()
            raise
        log.debug("worker %d started, pid %d", number, self.process.pid)

    def post(self, message: Request | FormRequest | LeaveEpochRequest | UpdateRequest) -> None:
        """Queue a message for the next `flush`."""
        data = encode(message)
        if self._posted and self._posted_bytes + len(data) > MAX_BYTES // 2:
            self.flush()
        self._posted.append(data)
        self._posted_bytes += len(data)

    def flush(self) -> None:
        """Send without waiting. If the worker is gone, nothing is sent; its death is reported elsewhere."""
        posted, self._posted, self._posted_bytes = self._posted, [], 0
        try:
            long_message.send(self.channel, bundled(posted), MAX_BYTES)
        except BlockingIOError:  # more than `MAX_BYTES` allows for: raise, or the worker would wait forever
            raise
        except OSError:  # it is gone, or this engine is being closed
            log.debug("worker %d was gone before %d messages were sent", self.number, len(posted))

    def receive(self) -> list[Reply] | None:
        """The replies that have arrived, or None at the end of the stream."""
        replies: list[Reply] = []
        while True:
            try:
                message = long_message.receive(self.channel, self._heard)
            except BlockingIOError:
                return replies
            except OSError:  # it ended without reading all messages, or this engine is being closed
                message = b""
            if not message:
                return replies or None
            try:
                reply = decode(message)
            except ValueError as error:  # user code wrote to a descriptor that is not its own
                log.warning("worker %d is killed because it sent invalid data: %s", self.number, str(error))
                self.signal(signal.SIGKILL)
                return replies or None
            assert isinstance(reply, Reply), reply
            replies.append(reply)

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        log.debug("worker %d is sent signal %d", self.number, number)
        self.process.send_signal(number)

    def retire(self) -> None:
        """Let the worker exit: it reads the end of the stream where its next task would be."""
        with contextlib.suppress(OSError):  # it is gone
            self.channel.shutdown(socket.SHUT_WR)

    def owes(self) -> bool:
        """True if the worker is busy starting or with a task."""
        return self.requests > self.replies

    def stack(self, seconds: float) -> str:
        """The worker's Python stacks if it writes them within `seconds`, else the reason why there are none."""
        if _state(self.process.pid) in ("T", "t"):
            return "(no stack: the process is stopped)"
        begin, deadline = self.page.stack_end(), time.monotonic() + seconds
        self.signal(STACK_SIGNAL)
        while time.monotonic() < deadline:
            time.sleep(0.01)
            if (end := self.page.stack_end()) > begin:
                time.sleep(0.02)  # it writes line by line
                if self.page.stack_end() == end:
                    break
        if stack := self.page.stack(begin):
            return _theirs(stack)
        return "(no stack: the process did not write one)"

    def code(self) -> int:
        """The exit code of the process, which must have ended."""
        return self.process.wait()

    def reap(self) -> None:
        """Reap the ended process and close the descriptors."""
        log.debug("worker %d exited with code %d", self.number, self.code())
        os.close(self.pidfd)
        self.channel.close()
        self.page.close()


def end(children: Sequence[WorkerProcess], grace: float = 0.5) -> None:
    """End all workers: ask, wait, terminate, wait, kill."""
    for child in children:  # a worker that waits for a task reads the end of the stream and exits
        with contextlib.suppress(OSError):  # it is gone
            child.channel.shutdown(socket.SHUT_RDWR)  # for a fork of this process may hold a copy, which close() leaves
        child.channel.close()
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


def pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, which block regardless of `socket.setdefaulttimeout`."""
    found = tuple(socket.socket(fileno=above_standard(end.detach())) for end in socket.socketpair(socket.AF_UNIX, kind))
    for end in found:
        end.setblocking(True)
    return found  # type: ignore[return-value]  # two


def _theirs(stack: str) -> str:
    """The stack without the frames of Stoker and of the interpreter that called it."""
    return "\n".join(line for line in stack.splitlines() if not any(f'File "{ours}' in line for ours in OURS))


def _state(pid: int) -> str:
    """The state of a process, as its letter in `/proc`; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it is gone
        return ""
