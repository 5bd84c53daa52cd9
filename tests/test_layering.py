"""The rooms of the house: who may import whom, and whether the map shows them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import stoker

PACKAGE = Path(stoker.__file__).parent
ROOMS = sorted(path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())
PURE = {"errors", "casting", "foreign", "lists", "options", "values", "spec", "collation", "plan", "scheduler"}

#: What a room may import of the others; rooms that are not here join the others and may import all.
MAY = {
    "errors": set(),
    "interrupts": set(),
    "locks": {"errors", "interrupts"},
    "stats": set(),
    "casting": set(),
    "lists": set(),
    "foreign": set(),
    "values": {"foreign", "lists"},
    "spec": {"casting", "lists", "values"},
    "options": {"errors"},
    "collation": {"errors", "lists", "options", "values", "spec"},
    "plan": {"errors"},
    "scheduler": set(),
    "sources": PURE | {"locks"},
    "travel": set(),
    "memory": PURE | {"travel"},
    "worker": PURE | {"sources", "travel", "memory"},
    "engines": PURE | {"interrupts", "locks", "sources", "memory", "worker"},
}


def files(room: str) -> list[Path]:
    path = PACKAGE / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imports(path: Path, *, top: bool = False) -> set[str]:
    """Dotted names of all modules that a file imports; `top`: only at import time of the file."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for path in files(room):
        others = {name.split(".")[1] for name in imports(path) if name.startswith("stoker.")} - {room}
        assert others <= MAY[room], path


def test_dangerous_abilities_live_in_one_place_each() -> None:
    for room in ROOMS:
        for path in files(room):
            names, text = {name.split(".")[0] for name in imports(path)}, path.read_text()
            assert room in ("engines", "cli") or not names & {"subprocess", "multiprocessing"}, path
            assert room == "memory" or "memfd_create" not in text, path
            assert (
                room in ("feed", "insight", "cli")
                or not re.search(r"^\s+import (tensorflow|keras)", text, re.M)
                or ("TYPE_CHECKING" in text)
            ), path
            top = {name.split(".")[0] for name in imports(path, top=True)}
            if path != PACKAGE / "feed" / "keras.py":  # a subclass of Keras' own, loaded when it is asked for
                assert not top & {"tensorflow", "keras"}, path
    for room in PURE:
        for path in files(room):
            assert not imports(path) & {"os", "time", "socket", "threading", "subprocess"}, path


def listed(docstring: str | None) -> set[str]:
    """The names at the start of the lines of a package's map."""
    return set(re.findall(r"^(?:    )?(\w+)  +\S", docstring or "", re.M))


@pytest.mark.parametrize("package", [PACKAGE, *(PACKAGE / room for room in ROOMS if (PACKAGE / room).is_dir())])
def test_the_map_of_a_package_shows_its_rooms_and_no_others(package: Path) -> None:
    inside = {
        path.stem
        for path in package.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }
    tree = ast.parse((package / "__init__.py").read_text())
    assert listed(ast.get_docstring(tree, clean=False)) == inside, package


def test_every_public_name_is_there_and_documented() -> None:
    for name in stoker.__all__:
        assert getattr(stoker, name).__doc__, name
    assert len(stoker.__all__) <= 12
