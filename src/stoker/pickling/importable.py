"""Which modules a fresh interpreter cannot import: the script, a notebook, those from `exec` or outside `sys.path`."""

from __future__ import annotations

import os
import sys
from importlib.machinery import BuiltinImporter, ExtensionFileLoader, FrozenImporter, PathFinder
from types import FrameType, FunctionType
from typing import Any

#: Names of the script: the second in a process that multiprocessing started with spawn or forkserver.
MAIN = "__main__", "__mp_main__"
_STANDARD = BuiltinImporter, FrozenImporter, PathFinder
#: Result of the last scan: the number of loaded modules, and the names of those that cannot be imported.
_seen: tuple[int, tuple[bytes, ...]] = (0, ())


def unimportable() -> tuple[bytes, ...]:
    """The names, as written in a pickle, of all loaded modules that a fresh interpreter cannot import."""
    global _seen
    count = len(sys.modules)
    if _seen[0] != count:
        modules = ImportableModules()
        names = [name for name in list(sys.modules) if isinstance(name, str) and not modules.is_importable(name)]
        others = {name.encode() for name in names if name not in MAIN}
        _seen = count, (b"main__", *others)  # one search finds both names of the script
    return _seen[1]


def _defines(name: str) -> bool:
    """True if the module has functions or classes written in Python."""
    return any(
        isinstance(value, FunctionType) or (isinstance(value, type) and "__weakref__" in vars(value))
        for value in list(vars(sys.modules[name]).values())
    )


class ImportableModules:
    """A snapshot of the loaded modules, to ask which are importable."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}
        self._running = _running()

    def is_importable(self, name: str) -> bool:
        """True if a fresh interpreter with this `sys.path` finds the module `name` in the same file.

        A module whose own code is running now counts as a script, because importing it would run that code again.
        """
        if name not in self._known:
            try:
                self._known[name] = self._is_importable(name)
            except Exception:  # a third-party finder raised: let the worker report the problem
                self._known[name] = True
        return self._known[name]

    def _is_importable(self, name: str) -> bool:
        module = sys.modules.get(name)
        if module is None or name in MAIN or id(vars(module)) in self._running:
            return False
        top, _, _ = name.partition(".")
        if top in sys.stdlib_module_names:
            return True
        parent, _, _ = name.rpartition(".")
        if parent and not self.is_importable(parent):
            return False
        spec = getattr(module, "__spec__", None)
        if spec is None:  # made by C code on import, or never imported
            return bool(parent) or not _defines(name)
        if isinstance(spec.loader, ExtensionFileLoader):  # C code cannot travel by value
            return True
        return _is_in_place(spec, parent) or _is_found(name, spec, parent)


def _running() -> set[int]:
    """The ids of the global namespaces of modules whose code is running now, in any thread."""
    found = set()
    frames: list[FrameType | None] = [*sys._current_frames().values()]
    while frames:  # ends empty: a frame that stays referenced keeps alive all that its callers hold
        frame = frames.pop()
        if frame is not None:
            if frame.f_code.co_name == "<module>":
                found.add(id(frame.f_globals))
            frames.append(frame.f_back)
    return found


def _is_in_place(spec: Any, parent: str) -> bool:
    """True if the module's file lies where its name says. A quick check that settles nearly all modules."""
    if not spec.has_location or not spec.origin:
        return spec.loader in _STANDARD
    folder, _, file = spec.origin.rpartition(os.sep)
    if file == "__init__.py":
        folder, _, file = folder.rpartition(os.sep)
    places = getattr(sys.modules[parent], "__path__", ()) if parent else sys.path
    return folder in places and file.partition(".")[0] == spec.name.rpartition(".")[2]


def _is_found(name: str, spec: Any, parent: str) -> bool:
    path = getattr(sys.modules[parent], "__path__", None) if parent else None
    if parent and path is None:  # made by a module that is not a package
        return True
    found = PathFinder.find_spec(name, path)
    if found is not None:
        return found.origin == spec.origin or os.path.realpath(found.origin or "") == os.path.realpath(
            spec.origin or ""
        )
    others = [finder for finder in sys.meta_path if finder not in _STANDARD]
    return any(_lives_on(finder) and finder.find_spec(name, path) is not None for finder in others)


def _lives_on(finder: Any) -> bool:
    """True if a fresh interpreter may have this finder, as for an editable installation or a library."""
    kind = finder if isinstance(finder, type) else type(finder)
    return kind.__module__ not in MAIN and not kind.__module__.startswith(("stoker.", "_pytest."))
