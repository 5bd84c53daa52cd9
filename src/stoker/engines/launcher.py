"""Decides how a worker is started: forked from the zygote, once that is ready, or as a fresh interpreter."""

from __future__ import annotations

import logging
import selectors
from collections.abc import Callable
from functools import partial

from stoker.engines.child import WorkerProcess, WorkerStart
from stoker.engines.interpreters import Interpreters
from stoker.engines.zygote_process import Zygote, ZygoteGone

log = logging.getLogger("stoker")


class Launcher:
    """Starts workers. Used only by the supervisor, which must outlive them.

    Args:
        interpreters: starts interpreters.
        exits: what the supervisor waits for, with what to call then.
        program: returns the descriptor of a program whose modules a zygote imports; None to have no zygote.

    Attributes:
        has_begun: True after `begin`.
    """

    def __init__(
        self, interpreters: Interpreters, exits: selectors.BaseSelector, program: Callable[[], int | None] | None
    ) -> None:
        self._interpreters, self._exits, self._program = interpreters, exits, program
        self._zygote: Zygote | None = None
        self._idle: Zygote | None = None  # a zygote that cannot fork, but has imported everything
        self.has_begun = False
        self._waiting: list[int] = []  # workers that are started once the zygote is ready

    def begin(self) -> None:
        """Start the zygote, if there is to be one."""
        self.has_begun = True
        program = self._program() if self._program is not None else None
        if program is not None:
            self._zygote = Zygote(self._interpreters, program)
            self._exits.register(self._zygote.channel, selectors.EVENT_READ, partial(self.hear, self._zygote))

    def launch(self, worker: int) -> WorkerProcess | None:
        """Start a worker. Returns None if it must wait for the zygote; then `due` names it."""
        if self._zygote is not None and not self._zygote.is_ready:
            self._waiting.append(worker)
            return None
        try:
            return WorkerProcess(worker, self._way())
        except ZygoteGone as gone:
            self._lose(gone)
            return self.launch(worker)

    def awaits(self, worker: int) -> bool:
        """True if a worker waits for the zygote."""
        return worker in self._waiting

    def due(self) -> list[int]:
        """The workers that no longer wait for the zygote: it is ready or has ended, or its imports hang."""
        zygote = self._zygote
        if zygote is not None and not zygote.is_ready:
            if not self._waiting or zygote.seconds_left():
                return []
            self._lose(ZygoteGone("importing the program's modules takes long"))
        waiting, self._waiting = self._waiting, []
        return waiting

    def seconds_left(self) -> float | None:
        """The seconds after which `due` must be called, or None."""
        return self._zygote.seconds_left() if self._waiting and self._zygote is not None else None

    def hear(self, zygote: Zygote) -> None:
        """Take in what the zygote sent: it is ready, cannot fork workers, or has ended."""
        if zygote is not self._zygote:  # it was replaced in the same turn
            return
        try:
            zygote.hear()
        except ZygoteGone as gone:
            if zygote.is_idle and self._waiting:
                log.debug("workers are not forked: %s", gone)
                self._exits.unregister(zygote.channel)
                self._zygote, self._idle = None, zygote
            else:
                self._lose(gone)

    def close(self) -> None:
        """End the zygote; the workers live on."""
        for zygote in (self._zygote, self._idle):
            if zygote is not None:
                zygote.close()

    def _way(self) -> WorkerStart:
        """How to start the next worker."""
        if self._idle is not None:
            idle, self._idle = self._idle, None
            return idle.become
        return self._interpreters.worker if self._zygote is None else self._zygote.fork

    def _lose(self, gone: ZygoteGone) -> None:
        """End the zygote. If it has forked workers, another one may do so too: start it."""
        log.debug("workers are not forked: %s", gone)
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            self._exits.unregister(zygote.channel)
            zygote.close()
            if zygote.forks:
                self.begin()
