"""Copies of the program in this process, for `workers=0`: the source as it was when the Loader was made.

A worker process always has such a copy. Here functions, classes and modules are not copied, so that a
breakpoint, a counter or a list in them is the user's own. Data is copied: the source's attributes, lists and arrays.
Objects that cannot be pickled (an open handle, a lock) are used as they are.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import threading
import types
from typing import TYPE_CHECKING, Any

import numpy as np

from stoker.memory.bundle import open_bundle, write_bundle
from stoker.memory.memfd import Memfd
from stoker.pickling.tensors import dispatch_table
from stoker.protocol.program import Program, held_by, mapped_file

if TYPE_CHECKING:
    from stoker.protocol.random_objects import Held
    from stoker.worker.user_code.epoch_hooks import SourceCopy

#: The types that are used as they are.
_CODE = types.FunctionType, type, types.ModuleType, functools._lru_cache_wrapper

_loading = threading.Lock()
_kept: list[Any] = []  # for `_same`, during a copy


class Snapshot:
    """The program as it is now.

    Attributes:
        can_copy: True if the program can be copied; otherwise it is used as it is.
        only: the record of changes to the user's own object in that case.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._kept: list[Any] = []
        self.only: list[SourceCopy] = []
        self._bundle = self._taken()
        self.can_copy = self._bundle is not None and not any(one is program.source for one in self._kept)
        if self._bundle is not None:
            self._program = None  # type: ignore[assignment]  # do not keep the user's object alive

    def copy(self) -> tuple[Program, list[Held]]:
        """A new copy of the program, and the random generators that its objects hold."""
        program = self._program if self._bundle is None else self._loaded(self._bundle)
        return program, held_by(program)

    def close(self) -> None:
        """Release the memory of the snapshot; no more copies can be made."""
        if self._bundle is not None:
            self._bundle.close()

    def _taken(self) -> Memfd | None:
        for lenient in (False, True):
            self._kept.clear()
            buffers: list[pickle.PickleBuffer] = []
            try:
                pickled = _pickled(self._program, buffers, self._kept, lenient=lenient)
            except Exception:  # the user's own pickling, or a structure too deep for it
                continue
            parts: list[bytes | memoryview] = [pickled, *(buffer.raw() for buffer in buffers)]
            return write_bundle(parts, shared=self._program.shares)
        return None

    def _loaded(self, bundle: Memfd) -> Program:
        pickled, *buffers = open_bundle(bundle.fd)
        with _loading:
            _kept[:] = self._kept
            try:
                program = pickle.loads(pickled, buffers=buffers)
            finally:
                _kept.clear()
        assert isinstance(program, Program)
        return program


def _same(number: int) -> Any:
    """The object with this number that was left out of the pickle."""
    return _kept[number]


def _pickled(program: Program, buffers: list[pickle.PickleBuffer], kept: list[Any], *, lenient: bool) -> bytes:
    import cloudpickle

    def left_out(value: Any) -> Any:
        kept.append(value)
        return _same, (len(kept) - 1,)

    class SnapshotPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        dispatch_table = dispatch_table(cloudpickle.Pickler.dispatch_table)

        def reducer_override(self, value: Any) -> Any:
            if value is _same:
                return NotImplemented
            if isinstance(value, _CODE):
                return left_out(value)
            if isinstance(value, np.memmap) and (mapped := mapped_file(value)):
                return mapped
            if not lenient or type(value) in self.dispatch_table or type(value) in copyreg.dispatch_table:
                return super().reducer_override(value)
            try:
                return value.__reduce_ex__(5)
            except Exception:
                return left_out(value)

    file = io.BytesIO()
    SnapshotPickler(file, protocol=5, buffer_callback=buffers.append).dump(program)
    return file.getvalue()
