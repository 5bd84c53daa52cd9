"""Copies of an object within a process, which share its large arrays."""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import types
from typing import Any

from stoker.errors import summary
from stoker.pickling.tensors import dispatch_table

#: Parts that copies share: functions, classes, modules. Copying these would only multiply them.
_CODE = types.FunctionType, type, types.ModuleType, functools._lru_cache_wrapper
#: Arrays of this many bytes or more are shared.
_LARGE = 1 << 16


class Copies:
    """Makes copies of an object as it is now.

    Parts that cannot be pickled, such as locks and open handles, are shared by all copies.

    Args:
        original: the object.

    Attributes:
        refusal: why the object cannot be copied; None if it can.
    """

    def __init__(self, original: Any) -> None:
        self._shared: list[Any] = []
        self._buffers: list[pickle.PickleBuffer] = []
        self._pickled, self.refusal = b"", None
        for lenient in (False, True):
            try:
                self._pickled, self.refusal = self._taken(original, lenient=lenient), None
                break
            except Exception as error:  # the user's own pickling, or a structure too deep for it
                self.refusal = summary(error)

    def __reduce__(self) -> Any:
        return Copies, (None,)  # each process makes its own, of the object that arrives there

    def make(self) -> Any:
        """A new copy."""
        return _SharingUnpickler(self._pickled, self._buffers, self._shared).load()

    def _taken(self, original: Any, *, lenient: bool) -> bytes:
        self._shared.clear()
        self._buffers.clear()
        file = io.BytesIO()
        _SharingPickler(file, self._buffers, self._shared, lenient=lenient).dump(original)
        if any(part is original for part in self._shared):
            raise TypeError(f"a {type(original).__name__} cannot be pickled")
        return file.getvalue()


class _SharingPickler(pickle.Pickler):
    """Pickles an object, apart from its shared parts and large arrays."""

    def __init__(self, file: Any, buffers: list[pickle.PickleBuffer], shared: list[Any], *, lenient: bool) -> None:
        def is_small(buffer: pickle.PickleBuffer) -> bool:
            if buffer.raw().nbytes < _LARGE:
                return True
            buffers.append(buffer)
            return False

        super().__init__(file, protocol=5, buffer_callback=is_small)
        self.dispatch_table = dispatch_table(copyreg.dispatch_table)
        self._parts, self._lenient = shared, lenient

    def reducer_override(self, value: Any) -> Any:
        """Replace a shared part by its number. Not called for strings, numbers and plain containers."""
        if value is _shared:
            return NotImplemented
        if isinstance(value, _CODE) or _is_large_tensor(value) or (self._lenient and not self._reduces(value)):
            self._parts.append(value)
            return _shared, (len(self._parts) - 1,)
        return NotImplemented

    def _reduces(self, value: Any) -> bool:
        """True if a part can be pickled, apart from its own parts."""
        if type(value) in copyreg.dispatch_table:
            return True
        try:
            value.__reduce_ex__(5)
        except Exception:
            return False
        return True


class _SharingUnpickler(pickle.Unpickler):
    def __init__(self, pickled: bytes, buffers: list[pickle.PickleBuffer], shared: list[Any]) -> None:
        super().__init__(io.BytesIO(pickled), buffers=buffers)
        self._parts = shared

    def find_class(self, module: str, name: str) -> Any:
        """The function that returns a shared part by its number, in place of `_shared`."""
        is_shared = (module, name) == (__name__, _shared.__name__)
        return self._parts.__getitem__ if is_shared else super().find_class(module, name)


def _shared(number: int) -> Any:
    """Stands for a shared part in the pickle."""
    raise AssertionError(number)


def _is_large_tensor(value: Any) -> bool:
    """True for a large tensor of PyTorch, which pickles as a copy."""
    return hasattr(type(value), "untyped_storage") and value.nelement() * value.element_size() >= _LARGE
