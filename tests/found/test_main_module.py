"""The user's code reaches workers from wherever it stands: scripts, notebooks, spawned processes, exec, runpy."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import nbformat
import pytest

import stoker

#: What scripts and notebooks hold that pickles by a name, or is asked for by one.
CODE = '''
import __main__, contextvars, functools, multiprocessing, pickle, threading
import numpy as np
import stoker

@functools.lru_cache
def handle():
    return object()

@functools.cache
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

@functools.singledispatch
def kind(x):
    return 0

@kind.register(int)
def kind_of_int(x):
    return 1 + kind(1.5)

class Sentinel:
    def __reduce__(self):
        return "MISSING"

MISSING = Sentinel()
local, lock, variable = threading.local(), threading.Lock(), contextvars.ContextVar("variable", default=5)
plus_one = np.vectorize(lambda x: x + 1)
plus_one([1, 2])
FACTORS = {"two": 2}

class Record:
    """No code below names it: it comes out of a pickle."""
    def __init__(self, value):
        self.value = value
    def doubled(self):
        return self.value * FACTORS["two"]

PICKLED = pickle.dumps([Record(3)])

def triple(x):
    return 3 * x

def same_handle():
    return handle()

class Source:
    missing = MISSING
    def __init__(self):
        self.bound = functools.partial(fib, 7)
    def __len__(self):
        return 4
    @functools.cached_property
    def one(self):
        return 1
    @functools.lru_cache(maxsize=2)
    def same(self, x):
        return x
    def __getitem__(self, i):
        assert handle() is handle() is same_handle()
        assert self.missing is MISSING and pickle.loads(pickle.dumps(MISSING)) is MISSING
        local.value = i
        assert __main__.triple is triple and __main__.Record.__name__ == "Record"
        with lock:
            (record,) = pickle.loads(PICKLED)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            (tripled,) = pool.map(triple, [i])
        return kind(i) + record.doubled() + tripled + self.bound() + int(plus_one(i)) + self.one + self.same(i) \\
            + variable.get() + local.value

class Item:
    def __init__(self, value):
        self.value = value

def batches(workers):
    with stoker.Loader(Source(), batch_size=4, workers=workers) as loader:
        made = [batch.tolist() for batch in loader]
    items = stoker.from_iterable(lambda: map(Item, range(2)))
    with stoker.Loader(items, batch_size=4, workers=workers, transform=lambda item: item.value) as loader:
        return made + [batch.tolist() for batch in loader]
'''
EXPECTED = [[27, 33, 39, 45], [0, 1]]


def run(*command: Any, cwd: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(stoker.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_what_pickles_by_its_name_works_from_a_script_and_in_processes_that_it_spawns(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        CODE
        + textwrap.dedent("""
        def show(workers):
            print(batches(workers), flush=True)

        if __name__ == "__main__":
            show(0)
            show(2)
            for method in ("spawn", "forkserver"):
                process = multiprocessing.get_context(method).Process(target=show, args=(2,))
                process.start()
                process.join()
        """)
    )
    assert run("script.py", cwd=tmp_path) == [str(EXPECTED)] * 4


def test_it_works_in_a_notebook(tmp_path: Path) -> None:
    from nbclient import NotebookClient

    cells = [nbformat.v4.new_code_cell(CODE), nbformat.v4.new_code_cell("print(batches(2))")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, kernel_name="python3", timeout=100, resources=where).execute()
    assert notebook.cells[1].outputs[0].text == f"{EXPECTED}\n"


SMALL = """
import stoker
from helper import half

class Source:
    def __len__(self):
        return 2
    def __getitem__(self, i):
        return half(i)

def doubled(x):
    return 2 * x

def batches():
    with stoker.Loader(Source(), transform=doubled, workers=1) as loader:
        return [batch.tolist() for batch in loader]
"""


def test_modules_that_a_fresh_interpreter_cannot_import_travel_by_value(tmp_path: Path) -> None:
    """`python -m`, runpy, exec, a module that is being imported, pytest's importlib mode."""
    (tmp_path / "helper.py").write_text("def half(x):\n    return x / 2\n")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "near.py").write_text("HERE = 1\n")
    (package / "job.py").write_text(SMALL + "from . import near\nassert near.HERE\nprint(batches())\n")
    assert run("-m", "package.job", cwd=tmp_path) == ["[[0.0, 1.0]]"]
    (tmp_path / "outer.py").write_text(
        textwrap.dedent("""
        import runpy, sys, types
        runpy.run_path("package/job.py", run_name="package.other")
        runpy.run_module("package.job", alter_sys=True)
        code = open("package/job.py").read().replace("from .", "from package")
        exec(code, {"__name__": "nowhere"})
        sys.modules["made"] = made = types.ModuleType("made")
        exec(code, vars(made))
        import package.job
        """)
    )
    assert run("outer.py", cwd=tmp_path) == ["[[0.0, 1.0]]"] * 5
    inner = tmp_path / "elsewhere" / "tests"
    inner.mkdir(parents=True)
    (inner / "test_it.py").write_text(SMALL + "def test_it():\n    assert batches() == [[0, 1]]\n")
    options = "-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={tmp_path}"
    assert "1 passed" in run("-m", "pytest", *options, inner / "test_it.py", cwd=tmp_path)[-1]


@pytest.mark.filterwarnings(r"ignore:.torch\.jit\.\w+. is deprecated:DeprecationWarning")
def test_functions_of_torchscript_are_sent() -> None:
    torch = pytest.importorskip("torch")
    scripted = torch.jit.script(plus_one)
    with stoker.Loader([1.0, 2.0], transform=lambda x: scripted(torch.tensor(x)), workers=1) as loader:
        assert [batch.tolist() for batch in loader] == [[2.0, 3.0]]


def plus_one(x):
    return x + 1


def test_nothing_of_cloudpickle_is_left_changed() -> None:
    import cloudpickle

    before = cloudpickle.list_registry_pickle_by_value()
    with stoker.Loader([1, 2], transform=lambda x: x + 1, workers=1) as loader:
        assert [batch.tolist() for batch in loader] == [[2, 3]]
    assert cloudpickle.list_registry_pickle_by_value() == before
