"""Single examples that are made before the form of the batches is known, each at its own place in one file.

The file is sparse and is never mapped. The places are so far apart that a writer need not know the sizes of others.
"""

from __future__ import annotations

import os
from typing import Any

from stoker.memory.memfd import Memfd
from stoker.memory.packed import unpack

#: Bytes between two places. A file may have 2**63 bytes.
_APART = 1 << 40
#: The first of the places for results of the user's collate function.
BATCHES = 1 << 22


class ExampleStore:
    """A store in which workers put examples, and from which they can be read until the trainer empties it.

    Args:
        file: the file that holds the examples.
    """

    def __init__(self, file: Memfd) -> None:
        self._file = file

    def put(self, place: int, data: bytes) -> None:
        """Put a segment (see `packed`) into a place. Raises OSError if the system gives no memory."""
        view, offset = memoryview(data), 0
        while offset < len(data):
            offset += os.pwrite(self._file.fd, view[offset:], place * _APART + offset)

    def get(self, place: int, size: int) -> Any:
        """The object in a segment of `size` bytes."""
        data = bytearray(size)
        view, offset = memoryview(data), 0
        while offset < size:
            count = os.preadv(self._file.fd, [view[offset:]], place * _APART + offset)
            if not count:
                raise AssertionError(f"place {place} is empty")
            offset += count
        return next(unpack(view, 1))

    def empty(self) -> None:
        """Release all memory."""
        if self._file.fd >= 0:
            os.ftruncate(self._file.fd, 0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
