"""The connection of one Loader with one worker process."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket

from stoker.engines.child import WorkerProcess
from stoker.engines.engine import StuckWorker
from stoker.engines.sockets import pair
from stoker.memory import long_message
from stoker.memory.progress_page import ProgressPage
from stoker.protocol.messages import MAX_BYTES, bundled, decode, encode
from stoker.protocol.replies import Reply
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest

log = logging.getLogger("stoker")


class WorkerLine:
    """A socket and a progress page over which a worker process serves a Loader.

    Args:
        process: the process.

    Attributes:
        number: the number of the worker.
        their_end: the worker's end of the socket, until it is sent.
        has_form: True once the form of the batches was sent.
        renewed: True once the values of `Loader.update` were sent.
        ended: True once the process has ended.
        requests: number of requests; a line begins with one, for the `ReadyReply`.
        replies: number of replies.
        stuck: why the process is killed, or None.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self.process, self.number = process, process.number
        self.has_form = self.renewed = self.ended = False
        self._posted: list[bytes] = []
        self._posted_bytes = 0
        #: A reusable receive buffer: `recv` would map and unmap that much per message (glibc, with TensorFlow loaded).
        self._heard = memoryview(bytearray(MAX_BYTES))
        self.requests, self.replies = 1, 0
        self.stuck: StuckWorker | None = None
        self.page = ProgressPage.fresh()
        try:
            self.channel, self.their_end = pair(socket.SOCK_SEQPACKET)
        except BaseException:
            self.page.close()
            raise
        self.channel.setblocking(False)

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
        except OSError:  # it is gone, or the Loader is being closed
            log.debug("worker %d was gone before %d messages were sent", self.number, len(posted))

    def receive(self) -> list[Reply] | None:
        """The replies that have arrived, or None at the end of the stream."""
        replies: list[Reply] = []
        while True:
            try:
                message = long_message.receive(self.channel, self._heard)
            except BlockingIOError:
                return replies
            except OSError:  # it ended without reading all messages, or the Loader is being closed
                message = b""
            if not message:
                return replies or None
            try:
                reply = decode(message)
            except ValueError as error:  # user code wrote to a descriptor that is not its own
                log.warning("worker %d is killed because it sent invalid data: %s", self.number, str(error))
                self.process.signal(signal.SIGKILL)
                return replies or None
            assert isinstance(reply, Reply), reply
            replies.append(reply)

    def owes(self) -> bool:
        """True if the worker is busy starting or with a task."""
        return self.requests > self.replies

    @property
    def is_busy(self) -> bool:
        """True if the process runs code of this Loader; if it has ended, if it did then."""
        return self.page.place().phase.is_busy

    def hang_up(self) -> None:
        """Tell the worker that the Loader is closed. It closes its end once it uses nothing of the Loader's."""
        with contextlib.suppress(OSError):  # it is gone
            self.channel.shutdown(socket.SHUT_WR)

    def has_hung_up(self) -> bool:
        """True if the worker has closed its end. Drops what it sent before that."""
        try:
            while self.channel.recv_into(self._heard):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Close the descriptors."""
        for its in (self.channel, self.their_end, self.page):
            its.close()
