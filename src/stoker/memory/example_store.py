"""Single examples that were made before it was known what batches look like: each at its own place in one file.

The file is sparse and is never mapped: the places lie so far apart that nobody needs to know the size of another one.
"""

from __future__ import annotations

import os
from typing import Any

from stoker.memory.memfd import Memfd
from stoker.memory.packed import unpack

#: Bytes between one place and the next. A file may have 2**63.
_APART = 1 << 40
#: The first place of those for what the user's function makes of batches.
BATCHES = 1 << 22


class ExampleStore:
    """What workers put in and, until the trainer empties it, take out.

    Args:
        file: where it lies.
    """

    def __init__(self, file: Memfd) -> None:
        self._file = file

    def put(self, place: int, data: bytes) -> None:
        """Put a segment (see `packed`) into a place; raises OSError where the system gives no memory."""
        view, offset = memoryview(data), 0
        while offset < len(data):
            offset += os.pwrite(self._file.fd, view[offset:], place * _APART + offset)

    def get(self, place: int, size: int) -> Any:
        """The object of a segment of so many bytes."""
        data = bytearray(size)
        view, offset = memoryview(data), 0
        while offset < size:
            count = os.preadv(self._file.fd, [view[offset:]], place * _APART + offset)
            if not count:
                raise AssertionError(f"place {place} is empty")
            offset += count
        return next(unpack(view, 1))

    def empty(self) -> None:
        """Give all memory back."""
        if self._file.fd >= 0:
            os.ftruncate(self._file.fd, 0)

    def close(self) -> None:
        """Give up the file."""
        self._file.close()
