"""A training run in one file: JSON and arrays in a zip archive, written whole or not at all; never a pickle."""

from __future__ import annotations

import contextlib
import json
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from stoker.errors import StateError

_FORMAT, _VERSION = "stoker training state", 1
_TOLD = "state.json"


class ResumeFile:
    """The file.

    Args:
        path: where it is; beside it a new one is written, which takes its place when it is whole and on the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, told: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Save: after this, or a crash within it, the file is the new one or the one before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        text = json.dumps({"format": _FORMAT, "version": _VERSION, **told}, default=_number)
        try:
            with new.open("wb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    archive.writestr(_TOLD, text)
                    for name, array in arrays.items():
                        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too
        finally:
            os.close(folder)

    def read(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """What was saved, None if nothing was; raises `StateError` if the file is no such thing, or is damaged."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                told = json.loads(archive.read(_TOLD))
                self._check(told)
                arrays = {}
                for name in archive.namelist():
                    if name != _TOLD:
                        with archive.open(name) as member:
                            arrays[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
                return told, arrays
        except FileNotFoundError:
            return None
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
            if isinstance(error, StateError):
                raise
            raise StateError(
                f"{self.path} is damaged, or no state that stoker saved ({type(error).__name__}: {error}). Remove it, "
                "or give strict=False, to begin afresh."
            ) from error

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)
        for new in self.path.parent.glob(f"{self.path.name}.*.new"):  # of saves that were interrupted
            new.unlink(missing_ok=True)

    def _check(self, told: Any) -> None:
        if not isinstance(told, dict) or told.get("format") != _FORMAT:
            raise StateError(f"{self.path} is no state that stoker saved. Give another path.")
        if told.get("version") != _VERSION:
            raise StateError(
                f"{self.path} has version {told.get('version')!r}, this stoker reads version {_VERSION}. Use the "
                "stoker that wrote it, or remove it to begin afresh."
            )


def randomness() -> dict[str, Any]:
    """The random states of Python and NumPy in this process."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    inner = {**numpy["state"], "key": numpy["state"]["key"].tolist()}
    return {"python": random.getstate(), "numpy": {**numpy, "state": inner}}


def restore_randomness(told: dict[str, Any]) -> None:
    """Set them back."""
    version, words, gauss = told["python"]
    random.setstate((version, tuple(words), gauss))
    inner = told["numpy"]["state"]
    np.random.set_state({**told["numpy"], "state": {**inner, "key": np.array(inner["key"], np.uint32)}})


def _number(value: Any) -> Any:
    """A number of NumPy's, or a tensor, that stands in the history."""
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        return float(value)
    raise TypeError(f"{value!r} in the history of training cannot be saved: no number")
