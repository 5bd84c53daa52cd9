"""Runs Python commands, each in a fork of one interpreter that has imported what they need: a second instead of six.

A command begins as `python` would begin it: it is `__main__`, in a session of its own, and ends as an interpreter ends.
Only its imports are faster. The interpreter that is forked has imported libraries and used none of them.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class Warm:
    """An interpreter to fork; a context.

    Args:
        modules: what it imports.
        environment: variables that these imports depend on.
    """

    def __init__(self, *modules: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.warm", *modules],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._heard = b""

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=10)  # it ends with its input

    def run(
        self, *command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run `path arguments…` or `-m module arguments…`; `env` is added to the environment."""
        assert self._process.stdin is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("out", "err")]
            told = {"command": [*map(str, command)], "cwd": str(cwd), "env": dict(env or {}), "to": [*map(str, files)]}
            self._process.stdin.write(json.dumps(told).encode() + b"\n")
            pid = self._answer(120)
            try:
                status = self._answer(timeout)
            except TimeoutError:
                os.killpg(pid, signal.SIGKILL)
                self._answer(10)
                raise
            return subprocess.CompletedProcess(command, status, *(file.read_text() for file in files))

    def _answer(self, timeout: float) -> int:
        """The next line that the interpreter writes: two may have come at once."""
        assert self._process.stdout is not None
        while b"\n" not in self._heard:
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                raise TimeoutError(f"no answer within {timeout} s")
            data = self._process.stdout.read(4096)
            assert data, "the interpreter has ended"
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return int(line)


def main() -> None:
    """Import the modules that the arguments name, and run what each line of the input tells."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in iter(sys.stdin.readline, ""):
        told = json.loads(line)
        pid = os.fork()
        if not pid:
            become(told)
            return
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def become(told: Mapping[str, Any]) -> None:
    """Run a command in this fork, as the main module."""
    os.setsid()
    for number, path in enumerate([os.devnull, *told["to"]]):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(told["cwd"])
    os.environ.update(told["env"])
    name, *arguments = told["command"]
    module: Any = types.ModuleType("__main__")
    module.__builtins__ = builtins
    if name == "-m":
        name, *arguments = arguments
        module.__spec__ = importlib.util.find_spec(name)
        module.__package__ = name.rpartition(".")[0]
        module.__file__, sys.path[0] = module.__spec__.origin, told["cwd"]
    else:
        module.__file__, sys.path[0] = name, str(Path(name).parent)
    sys.argv[:] = [module.__file__, *arguments]
    sys.modules["__main__"] = module
    exec(compile(Path(module.__file__).read_bytes(), module.__file__, "exec"), module.__dict__)


if __name__ == "__main__":
    main()
