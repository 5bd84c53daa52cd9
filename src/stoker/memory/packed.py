"""Python objects in transit to a worker: items of an iterable, rows left over at the ends of shards.

Each object is a segment of its own: its pickle, followed by its arrays as raw bytes. So any run of
segments can be cut out and joined with others without being read. Batches do not use this format: they
lie in a slot as arrays.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

from stoker.memory.layout import align
from stoker.pickling.importable import unimportable
from stoker.pickling.tensors import dispatch_table

_HEAD = struct.Struct("<qq")  # bytes of the pickle, number of buffers; then the size of each


def pack(value: Any) -> bytes:
    """One object as a segment, whose size is a multiple of 64 bytes. Raises whatever its pickling raises."""
    buffers: list[pickle.PickleBuffer] = []
    by_value = type(value).__module__ not in sys.modules  # `pickle` would import the module, and so run a script again
    try:
        if not by_value:
            pickled = _pickled(value, buffers.append)
            for name in unimportable():
                if name in pickled:  # a class of the user's script, perhaps
                    by_value = True
                    break
    except Exception:  # a lambda, a local class: the other pickler handles it, or raises too
        by_value = True
    if by_value:
        from stoker.pickling.pickler import dumps

        buffers.clear()
        pickled = dumps(value, buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    head = _HEAD.pack(len(pickled), len(views)) + struct.pack(f"<{len(sizes)}q", *sizes)
    parts: list[bytes | memoryview] = []
    for part in (memoryview(head + pickled), *views):
        parts += (part, bytes(align(part.nbytes) - part.nbytes))
    return b"".join(parts)


def _pickled(value: Any, callback: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    if "torch" not in sys.modules:
        return pickle.dumps(value, protocol=5, buffer_callback=callback)
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5, buffer_callback=callback)
    pickler.dispatch_table = dispatch_table(copyreg.dispatch_table)
    pickler.dump(value)
    return file.getvalue()


def unpack(segments: memoryview, count: int, skip: int = 0) -> Iterator[Any]:
    """The objects of `count` segments after the first `skip`; their arrays are copies that the caller may modify."""
    offset = 0
    for number in range(skip + count):
        length, buffers = _HEAD.unpack_from(segments, offset)
        sizes = struct.unpack_from(f"<{buffers}q", segments, offset + _HEAD.size)
        start = offset + _HEAD.size + 8 * buffers
        end = offset + align(_HEAD.size + 8 * buffers + length)
        copies = []
        for size in sizes:
            if number >= skip:
                copies.append(bytearray(segments[end : end + size]))
            end += align(size)
        if number >= skip:
            yield pickle.loads(segments[start : start + length], buffers=copies)
        offset = end
