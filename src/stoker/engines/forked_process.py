"""A child process that this process did not start itself: one that the zygote forked."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import Protocol


class Process(Protocol):
    """The part of `subprocess.Popen` that the engine uses."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int) -> None: ...


class ForkedProcess:
    """A child of this process, by its number, with the methods of `subprocess.Popen` that are needed.

    Thread-safe.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None
        self._waiting = threading.Lock()

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that killed the process, or None if it runs."""
        with self._waiting:
            if self._code is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except (
                    ChildProcessError
                ):  # this process ignores SIGCHLD, or the user's code has waited for all children
                    pid, status = self.pid, 0
                if pid == self.pid:
                    self._code = os.waitstatus_to_exitcode(status)
            return self._code

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once the process has ended. Raises `subprocess.TimeoutExpired`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.0005
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout or 0.0)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)
