"""The trainer's side of the zygote: an interpreter that has imported what workers need, and forks them.

A fork takes milliseconds where a fresh interpreter takes a few tenths of a second, and workers share the pages of what
was imported. See `stoker.worker.zygote` for what the zygote runs, and why the workers are not its children. A zygote
that cannot fork becomes a worker itself.
"""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

from stoker.engines.forked_process import ForkedProcess, Process
from stoker.engines.interpreters import Interpreters
from stoker.engines.sockets import pair
from stoker.memory.process_page import ProcessPage

log = logging.getLogger("stoker")

#: What the zygote sends when it can fork workers, and when it has forked one.
_READY, _FORKED = b"ready", b"forked"
#: Seconds that a fork may take, and that the zygote has to exit.
_FORK, _EXIT = 2.0, 0.5
#: Seconds for which importing may use no CPU, and that it may take in all. Imports that take long would take as long in
#: each fresh interpreter; one that hangs is left to these, which are watched (`stoker.engines.watch`).
_STALLED, _IMPORT = 10.0, 60.0


class ZygoteGone(Exception):
    """The zygote has ended, or does not answer."""


class Zygote:
    """The interpreter that workers are forked from. Used only by the supervisor, which must outlive it.

    Args:
        interpreters: starts it.
        program: descriptor of the program whose modules it imports.

    Attributes:
        is_ready: True once it can fork workers.
        is_idle: True once it has said that it cannot fork workers.
        forks: how many workers it has forked.
        channel: its socket, readable when it has something to say or has ended.
    """

    def __init__(self, interpreters: Interpreters, program: int) -> None:
        self.is_ready, self.is_idle, self.forks = False, False, 0
        self.channel, theirs = pair(socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process: subprocess.Popen[bytes] = interpreters.zygote(theirs.fileno(), program)
            except BaseException:
                self.channel.close()
                raise
        self._started = self._ran_at = time.monotonic()
        self._ran = 0
        log.debug("zygote started, pid %d", self._process.pid)

    def hear(self) -> None:
        """Take in what it sent. Raises `ZygoteGone` if it cannot fork workers."""
        message = self._receive()
        if message != _READY:
            self.is_idle = bool(message) and not self.is_ready
            raise ZygoteGone(message.decode("utf-8", "replace") or "it ended")
        self.is_ready = True
        log.debug("zygote is ready after %.2f s", time.monotonic() - self._started)

    def seconds_left(self) -> float:
        """The seconds that it still has to become ready. They are more after a later call if it has run since."""
        now, ran = time.monotonic(), _ticks(self._process.pid)
        if ran != self._ran:
            self._ran, self._ran_at = ran, now
        return max(0.0, min(self._ran_at + _STALLED, self._started + _IMPORT) - now)

    def fork(self, number: int, control: int, page: ProcessPage) -> Process:
        """A new worker. Raises `ZygoteGone` if there is none."""
        try:
            self._ask_for(number, control, page)
            answer = self._receive() if self._poll(_FORK) else b"it did not answer"
        except OSError as error:
            answer = str(error).encode()
        if answer != _FORKED:
            self._kill()  # now, so that it cannot fork any more
        if not page.process():  # else the worker is there, even if the zygote died right after the fork
            raise ZygoteGone(answer.decode("utf-8", "replace") or "it ended")
        self.forks += 1
        return ForkedProcess(page.process())

    def become(self, number: int, control: int, page: ProcessPage) -> Process:
        """Let the zygote, which cannot fork, be this worker. Raises `ZygoteGone` if it has ended."""
        try:
            self._ask_for(number, control, page)
        except OSError as error:
            self.close()
            raise ZygoteGone(str(error)) from None
        self.channel.close()
        return self._process

    def _ask_for(self, number: int, control: int, page: ProcessPage) -> None:
        socket.send_fds(self.channel, [str(number).encode()], [control, page.fd])

    def close(self) -> None:
        """End the zygote; the workers live on."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
        if self.is_ready:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT)
        self._kill()
        self.channel.close()

    def _kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        log.debug("zygote exited with code %d", self._process.wait())

    def _poll(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _receive(self) -> bytes:
        """The next message; empty if the zygote has ended."""
        try:
            return self.channel.recv(4096)
        except OSError:
            return b""


def _ticks(pid: int) -> int:
    """The CPU time that a process has used, in ticks of the system's clock; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
