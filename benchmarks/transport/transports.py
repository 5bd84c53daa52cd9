"""Five ways for a batch from the worker to the trainer."""

from __future__ import annotations

import pickle
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from multiprocessing import reduction
from multiprocessing.context import SpawnContext
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from benchmarks.transport.payloads import PAYLOADS, Array, Payload
from stoker.memory.layout import Layout
from stoker.memory.slot import Slot

#: Batches that may be on their way at a time, where a transport lets one choose.
IN_FLIGHT = 4
LAYOUTS = {name: Layout.of_arrays(payload.kinds) for name, payload in PAYLOADS.items()}


class Transport(ABC):
    """Made in the trainer; the worker gets its copy while it is spawned.

    The worker calls `send`, which may wait, with a batch that it keeps. The trainer calls `receive` and, when nothing
    refers to that batch any more, `release`.
    """

    title: str

    @abstractmethod
    def __init__(self, context: SpawnContext) -> None: ...

    @abstractmethod
    def send(self, payload: Payload, batch: Any) -> None: ...

    @abstractmethod
    def receive(self, payload: Payload) -> Any: ...

    def release(self) -> None:  # noqa: B027 - not abstract: there is nothing to do for most
        """Most transports gave the trainer memory of its own."""


class Queue(Transport):
    """`multiprocessing.Queue`: a thread in the worker pickles the batch and writes it to a pipe."""

    title = "Queue"

    def __init__(self, context: SpawnContext) -> None:
        self._queue = context.Queue(IN_FLIGHT)

    def send(self, payload: Payload, batch: Any) -> None:
        self._queue.put(batch)

    def receive(self, payload: Payload) -> Any:
        return self._queue.get()


class Pipe(Transport):
    """A `multiprocessing.Pipe` and pickle protocol 5: the arrays follow the pickle as they are.

    `recv_bytes` and not `recv_bytes_into`, which in CPython receives the same way and then copies.
    """

    title = "Pipe, pickle 5"

    def __init__(self, context: SpawnContext) -> None:
        self._reader, self._writer = context.Pipe(duplex=False)

    def send(self, payload: Payload, batch: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
        self._writer.send_bytes(bytes([len(buffers)]) + pickled)
        for buffer in buffers:
            self._writer.send_bytes(buffer.raw())

    def receive(self, payload: Payload) -> Any:
        head = self._reader.recv_bytes()
        buffers = [self._reader.recv_bytes() for _ in range(head[0])]
        return pickle.loads(memoryview(head)[1:], buffers=buffers)


class Tensors(Transport):
    """Each array as the bytes of `tf.io.serialize_tensor` over a `multiprocessing.Pipe`."""

    title = "serialize_tensor"

    def __init__(self, context: SpawnContext) -> None:
        self._reader, self._writer = context.Pipe(duplex=False)

    def send(self, payload: Payload, batch: Any) -> None:
        import tensorflow as tf

        for value in payload.tensors(batch):
            self._writer.send_bytes(tf.io.serialize_tensor(value).numpy())

    def receive(self, payload: Payload) -> Any:
        import tensorflow as tf

        dtypes = [tf.string] if payload.name == "texts" else [dtype for _, dtype in payload.kinds]
        values = [tf.io.parse_tensor(self._reader.recv_bytes(), dtype).numpy() for dtype in dtypes]
        return payload.from_tensors(values)


class Segments(Transport):
    """A new `multiprocessing.shared_memory` segment for each batch, its name sent over a pipe."""

    title = "new segment"

    def __init__(self, context: SpawnContext) -> None:
        self._reader, self._writer = context.Pipe(duplex=False)
        self._room = context.Semaphore(IN_FLIGHT)
        self._segment: SharedMemory | None = None

    def send(self, payload: Payload, batch: Any) -> None:
        self._room.acquire()
        layout = LAYOUTS[payload.name]
        segment = SharedMemory(create=True, size=layout.nbytes)
        _copy(payload.leaves(batch), layout.view(segment.buf))
        segment.close()
        self._writer.send_bytes(segment.name.encode())

    def receive(self, payload: Payload) -> Any:
        self._segment = SharedMemory(self._reader.recv_bytes().decode())
        return payload.batch(LAYOUTS[payload.name].view(self._segment.buf))

    def release(self) -> None:
        assert self._segment is not None
        self._segment.close()
        self._segment.unlink()
        self._room.release()


class Slots(Transport):
    """Stoker's way: memfds made once and filled again and again; a socket tells which is full and which is free."""

    title = "Stoker's slots"

    def __init__(self, context: SpawnContext) -> None:
        self._socket, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._slots = [Slot.create("transport") for _ in range(IN_FLIGHT)]
        for slot in self._slots:  # as large as the largest batch; memory is taken where something is written
            slot.resize(max(layout.nbytes for layout in LAYOUTS.values()))
        self._free: deque[int] = deque(range(IN_FLIGHT))
        self._leased = -1

    def __getstate__(self) -> Any:
        """What the worker gets: its end of the socket, the slots' descriptors."""
        return self._far, [reduction.DupFd(slot.fd) for slot in self._slots]

    def __setstate__(self, state: Any) -> None:
        self._socket, descriptors = state
        self._slots = [Slot(descriptor.detach()) for descriptor in descriptors]
        self._free = deque(range(IN_FLIGHT))

    def send(self, payload: Payload, batch: Any) -> None:
        number = self._free.popleft() if self._free else self._socket.recv(1)[0]
        _copy(payload.leaves(batch), LAYOUTS[payload.name].view(self._slots[number].writable()))
        self._socket.send(bytes([number]))

    def receive(self, payload: Payload) -> Any:
        self._leased = self._socket.recv(1)[0]
        return payload.batch(LAYOUTS[payload.name].view(self._slots[self._leased].readable()))

    def release(self) -> None:
        self._socket.send(bytes([self._leased]))


def _copy(leaves: Sequence[Array], views: Sequence[Array]) -> None:
    for leaf, view in zip(leaves, views, strict=True):
        np.copyto(view[: len(leaf)], leaf)


TRANSPORTS: dict[str, type[Transport]] = {
    "queue": Queue,
    "pipe": Pipe,
    "tensors": Tensors,
    "segments": Segments,
    "slots": Slots,
}
