"""The state of a training run in one file: a zip archive of JSON and arrays, written atomically, without pickles."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from stoker.errors import StateError

_FORMAT, _VERSION = "stoker training state", 1
_STATE = "state.json"


class ResumeFile:
    """A file that holds the state of a training run.

    Args:
        path: the file's path. A new file is written beside it, and replaces it once complete and on the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Save atomically: even after a crash, the file is either the new one or the previous one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        text = json.dumps({"format": _FORMAT, "version": _VERSION, **state}, default=_number)
        try:
            with new.open("wb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    archive.writestr(_STATE, text)
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
        """The saved state and arrays, or None if there is no file.

        Raises `StateError` if the file is damaged or is not a saved state.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                state = json.loads(archive.read(_STATE))
                self._check(state)
                arrays = {}
                for name in archive.namelist():
                    if name != _STATE:
                        with archive.open(name) as member:
                            arrays[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
                return state, arrays
        except FileNotFoundError:
            return None
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
            if isinstance(error, StateError):
                raise
            raise StateError(
                f"{self.path} is damaged, or was not saved by stoker ({type(error).__name__}: {error}). Remove it, or "
                "pass strict=False, to start from scratch."
            ) from error

    def remove(self) -> None:
        """Remove the file, if it exists."""
        self.path.unlink(missing_ok=True)
        for new in self.path.parent.glob(f"{self.path.name}.*.new"):  # from interrupted saves
            new.unlink(missing_ok=True)

    def _check(self, state: Any) -> None:
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise StateError(f"{self.path} was not saved by stoker. Pass another path.")
        if state.get("version") != _VERSION:
            raise StateError(
                f"{self.path} has version {state.get('version')!r}, but this stoker reads version {_VERSION}. Use the "
                "stoker that wrote it, or remove it to start from scratch."
            )


def randomness() -> dict[str, Any]:
    """The random states of Python and NumPy in this process, and those of PyTorch if it was imported."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    inner = {**numpy["state"], "key": numpy["state"]["key"].tolist()}
    found = {"python": random.getstate(), "numpy": {**numpy, "state": inner}}
    if (torch := sys.modules.get("torch")) is not None:
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        found["torch"] = [state.numpy().tobytes().hex() for state in (torch.get_rng_state(), *devices)]
    return found


def restore_randomness(state: dict[str, Any]) -> None:
    """Restore the random states that `randomness` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    inner = state["numpy"]["state"]
    np.random.set_state({**state["numpy"], "state": {**inner, "key": np.array(inner["key"], np.uint32)}})
    if "torch" in state and (torch := sys.modules.get("torch")) is not None:
        cpu, *devices = (torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8) for text in state["torch"])
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def _number(value: Any) -> Any:
    """A NumPy number or a tensor in the history, as a float."""
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        return float(value)
    raise TypeError(f"{value!r} in the training history cannot be saved: it is not a number")
