"""Sockets between threads and processes of this program."""

from __future__ import annotations

import contextlib
import socket

from stoker.memory.memfd import above_standard


def pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, which block regardless of `socket.setdefaulttimeout`."""
    found = tuple(socket.socket(fileno=above_standard(end.detach())) for end in socket.socketpair(socket.AF_UNIX, kind))
    for end in found:
        end.setblocking(True)
    return found  # type: ignore[return-value]  # two


def wakers() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that never block: one to wake a thread that waits for the other."""
    one, other = pair(socket.SOCK_STREAM)
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def drain(calls: socket.socket) -> None:
    """Take in wake-ups."""
    with contextlib.suppress(OSError):  # another thread woken by the same call was quicker, or closed it
        calls.recv(64)
