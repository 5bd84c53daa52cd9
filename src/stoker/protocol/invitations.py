"""Asks a worker process to serve a Loader: sends it the descriptors of the Loader's memory, over its control socket."""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: What a worker sends once it is up.
UP = b"up"
#: The most descriptors in one message; Linux allows 253 (SCM_MAX_FD).
_MOST = 250


@dataclass(frozen=True)
class Invitation:
    """File descriptors of what a worker needs to serve a Loader.

    Attributes:
        channel: the socket for requests and replies.
        page: the `ProgressPage`.
        wait_page: the `WaitPage` of the Loader.
        program: the bundle of the program.
        slots: the slots; the last one is the store.
        inboxes: the inboxes of the slots.
        tracker: the resource tracker of the trainer's multiprocessing, if it has one.
    """

    channel: int
    page: int
    wait_page: int
    program: int
    slots: tuple[int, ...]
    inboxes: tuple[int, ...]
    tracker: int | None = None

    def descriptors(self) -> list[int]:
        """All of them, in the order in which they are sent."""
        tracker = [] if self.tracker is None else [self.tracker]
        return [self.channel, self.page, self.wait_page, self.program, *self.slots, *self.inboxes, *tracker]

    @classmethod
    def of(cls, fds: Sequence[int]) -> Invitation:
        """The invitation with these descriptors."""
        channel, page, wait_page, program, *memory = fds
        tracker = memory.pop() if len(memory) % 2 else None  # for each slot has its inbox
        count = len(memory) // 2
        slots, inboxes = (*memory[:count],), (*memory[count:],)
        return cls(channel, page, wait_page, program, slots=slots, inboxes=inboxes, tracker=tracker)


class Outgoing:
    """Invitations that are still to be sent over a control socket.

    The kernel limits the number of descriptors that are under way. While busy workers have not taken in theirs, sending
    others has to wait.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._waiting: deque[tuple[Invitation, Callable[[], None]]] = deque()
        self._left: list[int] | None = None  # descriptors of the first one that are still to be sent, once it is begun

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, invitation: Invitation, sent: Callable[[], None]) -> None:
        """Queue an invitation. Its descriptors must stay open until `sent` is called."""
        self._waiting.append((invitation, sent))

    def withdraw(self, invitation: Invitation) -> bool:
        """Take an invitation back. Returns False if a part of it was sent."""
        number = next((n for n, (waiting, _) in enumerate(self._waiting) if waiting is invitation), None)
        if number is None or (number == 0 and self._left is not None):
            return False
        del self._waiting[number]
        return True

    def flush(self) -> None:
        """Send as much as can be sent now."""
        while self._waiting:
            invitation, sent = self._waiting[0]
            left = invitation.descriptors() if self._left is None else self._left
            part, rest = left[:_MOST], left[_MOST:]
            try:
                socket.send_fds(self._control, [str(len(rest)).encode()], part)
            except OSError as error:
                if error.errno not in (errno.ETOOMANYREFS, errno.EAGAIN):
                    self._waiting.clear()  # the process has ended, as its pidfd tells
                return
            self._left = rest or None
            if not rest:
                self._waiting.popleft()
                sent()


def received(control: socket.socket) -> Invitation | None:
    """The next invitation, in the worker. None at the end of the stream."""
    fds: list[int] = []
    left = 1
    while left:
        data, more, flags, _ = socket.recv_fds(control, 64, _MOST, socket.MSG_CMSG_CLOEXEC)
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, "a worker has too many open files")
        if not data:
            return None
        fds += more
        left = int(data)
    return Invitation.of(fds)
