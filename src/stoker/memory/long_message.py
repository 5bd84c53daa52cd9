"""Messages between trainer and worker that are too long for the socket: they are sent as a memfd."""

from __future__ import annotations

import os
import socket
import sys

from stoker.memory.memfd import Memfd
from stoker.runtime.shortage import wanted

#: The payload that accompanies the descriptor.
_LONG = b"M"
_ROOM = socket.CMSG_SPACE(4)  # of one descriptor
_PIECE = 1 << 20


def send(channel: socket.socket, message: bytes, most: int) -> None:
    """Send a message, through a memfd if it is longer than `most`."""
    if len(message) <= most:
        channel.send(message)
        return
    memory, view, offset = Memfd.create("message"), memoryview(message), 0
    try:
        while offset < len(view):
            with wanted("shared memory for a message", len(view)):
                offset += os.pwrite(memory.fd, view[offset : offset + _PIECE], offset)
        socket.send_fds(channel, [_LONG], [memory.fd])
    finally:
        memory.close()


def receive(channel: socket.socket, buffer: memoryview) -> bytes:
    """The next message; empty at the end of the stream. Short messages are received into `buffer`."""
    size, ancillary, _, _ = channel.recvmsg_into([buffer], _ROOM, socket.MSG_CMSG_CLOEXEC)
    for _, _, descriptor in ancillary:
        fd = int.from_bytes(descriptor[:4], sys.byteorder)
        memory = Memfd(fd)
        try:
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            memory.close()
    return buffer[:size].tobytes()
