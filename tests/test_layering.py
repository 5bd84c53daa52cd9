"""The rooms (packages and modules) of stoker: which may import which, are they mapped, are names unique."""

from __future__ import annotations

import ast
import re
import runpy
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import stoker

PACKAGE = Path(stoker.__file__).parent
ROOMS = sorted(
    path.stem
    for path in PACKAGE.iterdir()
    if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
)
PURE = {"errors", "plan", "scheduler", "stats", "structure", "validation"}

#: What each room may import of the others, also within functions and for type checkers alone.
MAY = {
    "errors": set(),
    "stats": set(),
    "validation": {"errors"},
    "structure": {"errors", "validation"},
    "plan": {"errors", "validation"},
    "scheduler": {"plan", "stats"},
    "runtime": {"errors"},
    "pickling": {"errors"},
    "memory": {"errors", "pickling", "runtime", "structure"},
    "insight": {"memory", "stats"},
    "protocol": {"errors", "memory", "pickling", "plan", "structure"},
    "worker": {"errors", "memory", "pickling", "plan", "protocol", "sources", "structure"},
    "epochs": {"errors", "memory", "plan", "protocol", "runtime", "scheduler", "stats"},
    "sources": {"epochs", "errors", "pickling", "plan", "structure", "validation"},
    "engines": {"errors", "memory", "pickling", "protocol", "runtime", "scheduler", "worker"},
    "coordinator": {
        *("engines", "epochs", "errors", "insight", "memory", "options", "plan", "protocol", "runtime"),
        *("scheduler", "sources", "stats", "structure"),
    },
    "feed": {"coordinator", "errors", "memory", "plan", "runtime", "structure", "validation"},
    "pool": {"engines", "errors", "protocol", "runtime", "validation"},
    "options": {"errors", "plan", "pool", "runtime", "scheduler", "sources", "structure", "validation"},
    "build": {
        *("coordinator", "engines", "epochs", "errors", "memory", "options", "plan", "protocol", "runtime"),
        *("scheduler", "sources", "structure"),
    },
    "loader": {
        *("build", "errors", "feed", "insight", "options", "plan", "pool", "scheduler", "stats", "structure"),
        "validation",
    },
    "keras": {"coordinator", "errors", "feed", "loader", "validation"},
    "cli": {"runtime"},
}
#: Libraries that only those need whose data or models are of them; imported within functions.
OPTIONAL = {"tensorflow", "keras", "torch", "jax", "datasets", "grain", "tensorflow_datasets"}
#: Those of `engines` that run the user's code in the trainer: the only code of the trainer's that needs the worker's.
RUN_USER_CODE = {"inline", "program_copy", "snapshot"}


def files(room: str) -> list[Path]:
    path = PACKAGE / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def module(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, top: bool = False) -> set[str]:
    """Dotted names of all modules that a file imports; `top`: only at import time of the file."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def for_types(path: Path) -> set[str]:
    """Modules that a file imports for type checkers alone."""
    blocks = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
    blocks = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
    return {
        alias.name for block in blocks for node in block.body if isinstance(node, ast.Import) for alias in node.names
    }


def rooms_of(path: Path) -> set[str]:
    """The rooms that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("stoker.")} & set(ROOMS)


def test_every_room_is_ruled() -> None:
    assert set(MAY) == set(ROOMS)


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for path in files(room):
        assert rooms_of(path) - {room} <= MAY[room], path


def test_the_trainer_runs_the_workers_code_only_where_there_are_no_workers() -> None:
    for room in set(ROOMS) - {"worker"}:
        for path in files(room):
            assert "worker" not in rooms_of(path) or (room == "engines" and path.stem in RUN_USER_CODE), path


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {module(path): path for path in PACKAGE.rglob("*.py")}
    edges = {name: {other for other in imports(path) & set(modules) if other != name} for name, path in modules.items()}
    for name in edges:  # the `__init__` of a package is only a docstring
        edges[name] = {other for other in edges[name] if other != "stoker" and not name.startswith(other + ".")}
    edges.pop("stoker")
    while leaves := [name for name, others in edges.items() if not others & set(edges)]:
        for name in leaves:
            del edges[name]
    assert not edges, f"among these there is a circle: {sorted(edges)}"


def test_dangerous_abilities_live_in_one_place_each() -> None:
    for room in ROOMS:
        for path in files(room):
            names, text = {name.split(".")[0] for name in imports(path)}, path.read_text()
            assert room in ("engines", "cli") or not names & {"subprocess", "multiprocessing"}, path
            assert room == "memory" or "os.memfd_create" not in text, path
            assert room in ("feed", "keras", "cli") or not names & {"tensorflow", "keras"} - for_types(path), path
            top = {name.split(".")[0] for name in imports(path, top=True)}
            if room != "keras":  # a subclass of Keras' own, loaded when it is asked for
                assert not top & OPTIONAL, path
    for room in PURE:
        for path in files(room):
            assert not imports(path) & {"os", "time", "socket", "threading", "subprocess"}, path


def test_nobody_asks_for_kinds_of_sources_or_epochs_outside_their_rooms() -> None:
    kinds = {
        node.name
        for room in ("sources", "epochs")
        for path in files(room)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Source", "Epoch", "Rows"))
    }
    assert {"MapSource", "GeneratorSource", "IndexEpoch", "StoredRows"} <= kinds
    for room in set(ROOMS) - {"sources", "epochs"}:
        for path in files(room):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
                    asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
                    assert not asked & kinds, f"{path}:{node.lineno}"


def test_no_call_has_more_than_five_positional_arguments() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) != "libc.mmap":  # C takes no keywords
                assert len(node.args) <= 5, f"{path}:{node.lineno}"


def test_no_two_classes_share_a_name() -> None:
    homes = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes[node.name.lstrip("_")].append(module(path))
    assert not {name: places for name, places in homes.items() if len(places) > 1}


def test_no_two_modules_share_a_name() -> None:
    names = Counter(path.stem for path in PACKAGE.rglob("*.py") if path.stem not in ("__init__", "__main__"))
    assert not [name for name, count in names.items() if count > 1]


def listed(docstring: str | None) -> set[str]:
    """The names at the start of the lines of a package's map."""
    return set(re.findall(r"^(?:    )?(\w+)  +\S", docstring or "", re.M))


@pytest.mark.parametrize(
    "package", [path.parent for path in sorted(PACKAGE.rglob("__init__.py"))], ids=lambda path: path.name
)
def test_the_map_of_a_package_shows_its_rooms_and_no_others(package: Path) -> None:
    inside = {
        path.stem
        for path in package.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }
    tree = ast.parse((package / "__init__.py").read_text())
    assert listed(ast.get_docstring(tree, clean=False)) == inside, package


def test_the_drawing_of_the_house_is_that_of_the_code() -> None:
    docs = PACKAGE.parents[1] / "docs"
    drawn = runpy.run_path(str(docs / "house.py"))["draw"]()
    assert (docs / "house.svg").read_text() == drawn, "run: python docs/house.py"


def test_scripts_in_strings_import_modules_that_exist() -> None:
    modules = {module(path) for path in PACKAGE.rglob("*.py")}
    for path in Path(__file__).parent.rglob("*.py"):
        for name in re.findall(r"^\s*(?:from|import) (stoker[\w.]*)", path.read_text(), re.M):
            assert name in modules, path


def test_every_public_name_is_there_and_documented() -> None:
    for name in stoker.__all__:
        assert getattr(stoker, name).__doc__, name
    doors = [name for name in stoker.__all__ if name.startswith("from_")]  # one for each kind of data that people have
    assert len(stoker.__all__) - len(doors) <= 14
