"""The destinations of a worker's writes.

These are batches, as arrays in a slot, or single examples where rows are joined with others later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stoker.memory.layout import Layout
from stoker.memory.packed import pack
from stoker.memory.slot import Slot
from stoker.structure.collation import Form
from stoker.structure.forms import STRING, Misfit, cut_strings
from stoker.structure.leaf import Kind
from stoker.structure.tensorproto import tensor_bytes
from stoker.worker.batching.assemble import Assembler, Block, string_blocks
from stoker.worker.batching.fitting import at
from stoker.worker.batching.fixed_rows import FixedRows


class Output:
    """Writes this worker's batches and examples into slots.

    Args:
        slots: the slots, by number.
        batch_size: rows of a full batch.
        function: the user's collate function, or None.
        memory_limit: maximum bytes of all slots together.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        batch_size: int,
        function: Callable[[list[Any]], Any] | None,
        memory_limit: int,
    ) -> None:
        self._slots, self._batch_size = slots, batch_size
        self._function, self._limit = function, memory_limit
        self._rows: dict[tuple[int, int], FixedRows] = {}

    def learn(self, form: Form) -> None:
        """Adopt the form of the batches."""
        self.form = form
        self._assembler = Assembler(form.spec, form.rules, self._function)
        if form.in_place:
            self._layout = Layout.of(form.spec.leaves, self._batch_size)

    def rows(self, slot: int, rows: int) -> FixedRows:
        """The writer of a batch in which every example has a fixed place."""
        found = self._rows.get((slot, rows))
        if found is None:
            columns = self._layout.view(self._slots[slot].writable(self._layout.nbytes), rows)
            found = self._rows[slot, rows] = FixedRows(self.form.spec, columns)
        return found

    def columns(self, slot: int, rows: int) -> list[Any]:
        """The arrays of a batch in which every example has a fixed place."""
        return self._layout.view(self._slots[slot].writable(self._layout.nbytes), rows)

    def kept(self, slot: int, rows: int) -> list[Any]:
        """Copies of the first `rows` examples of a batch in which every example has a fixed place."""
        columns = self.columns(slot, rows)
        return [self.form.spec.unflatten([column[row].copy() for column in columns]) for row in range(rows)]

    def whole(self, slot: int, examples: list[Any], serialized: bool) -> tuple[int, ...]:
        """Write the batch of `examples`; returns the concatenated shapes of its parts."""
        blocks = self._assembler.blocks(examples)
        if serialized:
            blocks = self._serialized(blocks, len(examples))
        layout = Layout.of_arrays((block.shape, block.dtype) for block in blocks)
        views = layout.view(self._room(slot, layout.nbytes, f"a batch of {len(examples)} examples"))
        for view, block in zip(views, blocks, strict=True):
            block.fill(view)
        return tuple(size for block in blocks for size in block.shape)

    def packed(self, slot: int, examples: list[Any]) -> None:
        """Write single examples, each preceded by its shard and number.

        The end offsets of all segments come first, then the segments.
        """
        segments = [pack(example) for example in examples]
        ends = np.cumsum([len(segment) for segment in segments], dtype=np.int64)
        size = 8 * len(ends) + sum(map(len, segments))
        buffer = memoryview(self._room(slot, max(1, size), f"{len(examples)} examples"))
        offset = 8 * len(ends)
        buffer[:offset] = ends.tobytes()
        for segment in segments:
            buffer[offset : offset + len(segment)] = segment
            offset += len(segment)

    def _room(self, slot: int, nbytes: int, what: str) -> Any:
        """The slot's memory, grown to `nbytes`; raises `Misfit` if that would exceed the memory limit."""
        mine = self._slots[slot]
        if nbytes > mine.size():
            taken = sum(other.taken() for other in self._slots) - mine.taken()
            if taken + nbytes > self._limit:
                raise Misfit(
                    f"{what} takes {_size(nbytes)}, but memory_limit={_size(self._limit)} leaves "
                    f"{_size(max(0, self._limit - taken))} beside the other batches. Use a smaller batch_size, a "
                    "smaller prefetch, or a larger memory_limit."
                )
        return mine.writable(nbytes)

    def _serialized(self, blocks: list[Block], rows: int) -> list[Block]:
        """Blocks of strings, each a serialized tensor: one per component of the batch, or one per example."""
        single = "single" in self.form.rules
        strings: list[Block] = []
        place = 0
        for leaf in self.form.batch.leaves:
            count = len(leaf.parts())
            arrays = [_made(block) for block in blocks[place : place + count]]
            place += count
            if leaf.dtype == STRING:
                arrays[:2] = [cut_strings(*arrays[:2])]
            if single:
                strings += string_blocks(_each(leaf, arrays, rows), (rows,))
            else:
                for component in _components(leaf.kind, arrays):
                    strings += string_blocks([component], ())
        return strings


def _made(block: Block) -> Any:
    array = np.empty(block.shape, block.dtype)
    block.fill(array)
    return array


def _components(kind: Kind, arrays: list[Any]) -> list[bytes]:
    """The serialized components of a leaf, in the order of `Form.serialized`."""
    values, *rest = map(tensor_bytes, arrays)
    if kind is Kind.SPARSE:
        indices, shape = rest
        return [shape, indices, values]
    return [values, *rest]


def _each(leaf: Any, arrays: list[Any], rows: int) -> list[bytes]:
    """One serialized tensor per example, for consumers that receive examples one by one."""
    if leaf.kind not in (Kind.DENSE, Kind.VARYING):
        raise Misfit(
            f"{at(leaf)}it is {leaf.kind.name.lower()}: to_tf(serialized=True) with batch_size=None can serialise "
            "only arrays and strings. Set a batch_size, or convert it."
        )
    if leaf.kind is Kind.DENSE:
        as_array = _strings if leaf.dtype == STRING else np.asarray
        return [tensor_bytes(as_array(arrays[0][row])) for row in range(rows)]
    flat, splits, shapes = arrays
    return [tensor_bytes(flat[splits[row] : splits[row + 1]].reshape(tuple(shapes[row]))) for row in range(rows)]


def _strings(value: Any) -> Any:
    """An array of strings, or a single one, as an object array."""
    return np.asarray(value, object)


def _size(nbytes: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} bytes"
