"""What the user's code finds in a worker besides its own objects, as it is in the trainer.

A worker that serves several Loaders changes between their surroundings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from stoker.pickling.stand_ins import UniqueObjects

_entered_one = False


class Surroundings:
    """The working directory, `sys.path`, `sys.argv`, and what only this program's pickles define.

    Args:
        where: the result of `described`.
        modules: stand-ins for the modules that cannot be imported here, by name.
    """

    def __init__(self, where: Mapping[str, Any], modules: Mapping[str, ModuleType]) -> None:
        self._path, self._arguments, self._folder = where["path"], where["argv"], where["cwd"]
        self._modules, self._before = modules, dict[str, ModuleType | None]()
        self._unique = UniqueObjects()
        self._opened: int | None = None  # the working directory, which may have been removed, after `leave`

    def enter(self) -> None:
        """Make them those of this process. Raises OSError if the trainer's working directory is gone."""
        global _entered_one
        _entered_one = True
        sys.path[:], sys.argv[:] = self._path, self._arguments
        if self._opened is not None:
            os.fchdir(self._opened)
            self.close()
        elif self._folder is not None:
            os.chdir(self._folder)
        self._before = {name: sys.modules.get(name) for name in self._modules}
        sys.modules.update(self._modules)
        self._unique.exchange()

    def leave(self) -> None:
        """Note what the user's code has changed, for the next `enter`."""
        self._unique.exchange()
        for name, module in self._before.items():
            if module is not None:
                sys.modules[name] = module
            else:
                sys.modules.pop(name, None)
        self._path, self._arguments = list(sys.path), list(sys.argv)
        self._opened = os.open(".", os.O_PATH | os.O_DIRECTORY)

    def close(self) -> None:
        """Close the working directory."""
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None


def described(modules: list[str]) -> dict[str, Any]:
    """The surroundings of this process, JSON-compatible. `modules`: the names of those that workers cannot import."""
    return {
        "path": [path for path in sys.path if isinstance(path, str)],
        "cwd": _cwd(),
        "argv": sys.argv,
        "modules": modules,
    }


def is_in_worker() -> bool:
    """True in a worker, and in the zygote that workers are forked from."""
    return _entered_one


def _cwd() -> str | None:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # the trainer's working directory was removed
        return None
