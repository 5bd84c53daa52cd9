"""Seeds the random states of imported libraries, in addition to Python's and NumPy's global ones.

Imports are watched, and a library's state is set as soon as it is loaded. So even the example whose code imports a
library is reproducible.
"""

from __future__ import annotations

import importlib.machinery
import random
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import dropwhile, islice
from types import ModuleType
from typing import Any, cast

from stoker.worker.user_code.keras_seeds import MODULE as KERAS
from stoker.worker.user_code.keras_seeds import KerasSeeds, begin_here

SetSeed = Callable[[int], Any]


def set_torch_seed(module: ModuleType) -> SetSeed:
    """The function that sets PyTorch's random state."""
    set_seed: SetSeed = module.default_generator.manual_seed  # 60 times faster than `torch.manual_seed`
    return set_seed


def _tensorflow(module: ModuleType) -> SetSeed:
    return lambda seed: module.random.set_seed(seed & 0x7FFFFFFF)


def _keras(module: ModuleType) -> SetSeed:
    seeds = KerasSeeds(module)
    seeds.everywhere()
    return seeds.begin


#: In a worker.
LIBRARIES: dict[str, Callable[[ModuleType], SetSeed]] = {
    "torch": set_torch_seed,
    "tensorflow": _tensorflow,
    KERAS: _keras,
}


#: In the trainer: only what can be put back, and only in the thread that runs the user's code.
IN_TRAINER: dict[str, Callable[[ModuleType], SetSeed]] = {
    "torch": set_torch_seed,
    KERAS: lambda _: begin_here,
}


class Importing(ABC):
    """Calls `imported` with each of the named modules once it has been loaded.

    Args:
        names: names of the modules. Those already imported are passed to `imported` immediately.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        for name in list(self._names):
            if name in sys.modules:
                self._is_there(sys.modules[name])
        sys.meta_path.insert(0, self)

    @abstractmethod
    def imported(self, module: ModuleType) -> None:
        """Called with a watched module that has just been loaded."""

    def end(self) -> None:
        """Stop watching."""
        sys.meta_path.remove(self)

    def wants(self, name: str) -> bool:
        """True if the loading of this module is watched."""
        return name in self._names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that the other finders return, with its loader wrapped, if the module is watched."""
        if not self.wants(name):
            return None
        finders = dropwhile(lambda finder: finder is not self, list(sys.meta_path))  # another thread may remove us
        for finder in islice(finders, 1, None):
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = cast("Any", _WatchedLoader(spec.loader, self))
                return spec
        return None

    def load(self, loader: Any, module: ModuleType) -> None:
        """Load a module as `loader` does."""
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = loader  # as if the import were not watched
        self.run(loader, module)
        if module.__name__ in self._names:
            self._is_there(module)

    def run(self, loader: Any, module: ModuleType) -> None:
        """Run the module's code."""
        loader.exec_module(module)

    def _is_there(self, module: ModuleType) -> None:
        self._names.discard(module.__name__)
        self.imported(module)


class ImportWatch(Importing):
    """Calls `found` with the function that sets a library's seed once the library has been imported.

    Importing a module leaves the random states unchanged. Otherwise modules that draw from `random` when they are
    loaded would affect the first example in each process.

    Args:
        found: called immediately for libraries already imported.
        libraries: by module name, a function that returns the library's seed function.
        thread: the only one whose imports count; None for all.
    """

    def __init__(
        self,
        found: Callable[[SetSeed], None],
        libraries: Mapping[str, Callable[[ModuleType], SetSeed]] = LIBRARIES,
        *,
        thread: int | None = None,
    ) -> None:
        self._found, self._libraries, self._thread, self._loading = found, libraries, thread, 0
        super().__init__(libraries)

    def imported(self, module: ModuleType) -> None:
        """Pass the library's seed function to `found`."""
        self._found(self._libraries[module.__name__](module))

    def wants(self, name: str) -> bool:
        """True for all modules, as any may draw random numbers; while one is being loaded, only for the libraries."""
        return self._thread in (None, threading.get_ident()) and (not self._loading or name in self._names)

    def run(self, loader: Any, module: ModuleType) -> None:
        """Run the module's code, then restore the random states."""
        numpys = sys.modules.get("numpy.random") if module.__name__ != "numpy.random" else None
        states = random.getstate(), numpys and numpys.get_state()
        self._loading += 1
        try:
            super().run(loader, module)
        finally:
            self._loading -= 1
            random.setstate(states[0])
            if numpys is not None:
                numpys.set_state(states[1])


class _WatchedLoader:
    """Wraps the loader of a watched module."""

    def __init__(self, loader: Any, watch: Importing) -> None:
        self._loader, self._watch = loader, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """See `importlib.abc.Loader`."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """See `importlib.abc.Loader`."""
        self._watch.load(self._loader, module)


class SeededLibraries:
    """The libraries whose random states are set for the examples of each Loader that this process serves.

    Attributes:
        entered: what is told last of a library that is imported, so that its seed counts: that of the Loader at work.
    """

    def __init__(self) -> None:
        self.entered: Callable[[SetSeed], None] | None = None
        self._set_seeds: list[SetSeed] = []
        self._told: list[Callable[[SetSeed], None]] = []
        self._watch: ImportWatch | None = None

    def tell(self, found: Callable[[SetSeed], None]) -> None:
        """Call `found` with the seed function of each library, now or as soon as it is imported."""
        for set_seed in self._set_seeds:
            found(set_seed)
        self._told.append(found)
        self._watch = self._watch or ImportWatch(self._found)

    def forget(self, found: Callable[[SetSeed], None]) -> None:
        """Call `found` no more."""
        if found in self._told:
            self._told.remove(found)

    def _found(self, set_seed: SetSeed) -> None:
        self._set_seeds.append(set_seed)
        for found in sorted(self._told, key=lambda one: one == self.entered):
            found(set_seed)
