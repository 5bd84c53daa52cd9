"""Starts fresh interpreters for workers and the zygote, with the environment that user code gets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import stoker
from stoker.engines.forked_process import Process
from stoker.memory.process_page import ProcessPage

#: Runs an entry point. While the worker's own modules are imported, nothing may shadow the standard library: no file
#: beside them, and none in the current directory (the "" that -c prepends). The trainer's `sys.path` comes with the
#: program.
_START = """\
import os, sys
del sys.path[:sys.path[:1] == [""]]
sys.path[:] = os.environ.pop("STOKER_PATH").split("\\n")
from stoker.worker.{entry} import run
run(sys.argv[2:])
"""
_LAST = len(_START.splitlines())
#: The prefixes of frames that are not the user's.
OURS = str(Path(stoker.__file__).parent) + os.sep, f'<string>", line {_LAST} in <module>'

#: Native libraries use one thread per worker unless the user says otherwise: the workers are the parallelism.
_ONE_THREAD = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
#: Make glibc keep freed memory instead of returning it to the kernel. User code allocates and frees an image per
#: example, and faulting its pages in again costs more than decoding it. 32 MiB is the largest threshold of glibc.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20)}
#: The accelerators belong to the trainer: a worker that saw them would allocate memory there. CUDA, ROCm,
#: TensorFlow, PyTorch and JAX all read "-1" as no device.
_NO_GPU = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "HIP_VISIBLE_DEVICES": "-1",
    "ROCR_VISIBLE_DEVICES": "-1",
    "JAX_PLATFORMS": "cpu",  # otherwise JAX takes a TPU, and complains about the hidden GPU
}


class Interpreters:
    """Starts interpreters, in this process's environment as it was when this object was made.

    Args:
        variables: variables that the user sets in workers; None removes one.
    """

    def __init__(self, variables: Mapping[str, str | None]) -> None:
        self.environment = _environment(variables)  # now: the supervisor must not read what user code may be changing

    def worker(self, number: int, control: int, page: ProcessPage) -> Process:
        """A worker. It dies when the calling thread ends."""
        inherited = [control, page.fd]
        return self._started("__main__", "stoker.worker", [number, os.getpid(), *inherited], inherited)

    def zygote(self, channel: int, program: int) -> subprocess.Popen[bytes]:
        """The interpreter that workers are forked from. It dies when the calling thread ends."""
        inherited = [channel, program]
        return self._started("zygote", "stoker.zygote", [os.getpid(), *inherited], inherited)

    def _started(
        self, entry: str, name: str, arguments: Sequence[int], inherited: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _START.format(entry=entry), name, *map(str, arguments)],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,  # only the trainer handles Ctrl-C in its terminal
        )


def _environment(variables: Mapping[str, str | None]) -> dict[str, str]:
    """The trainer's environment plus the user's variables and the path of the worker's own modules: see `_START`."""
    home, standard = str(Path(stoker.__file__).parents[1]), str(Path(os.__file__).parent)
    paths = [standard, str(Path(standard, "lib-dynload")), home, *sys.path]
    path = "\n".join(path for path in paths if path and isinstance(path, str))
    no_gpu = {} if variables.keys() & _NO_GPU.keys() else _NO_GPU
    wanted = {**_ONE_THREAD, **_KEEP_MEMORY, **os.environ, **no_gpu, **variables, "STOKER_PATH": path}
    return {name: value for name, value in wanted.items() if value is not None}
