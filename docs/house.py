"""Draws docs/house.svg from the imports themselves: each room of the package, above those that it imports.

    python docs/house.py

An arrow that other arrows imply (a room imports another, which imports a third) is left out.
`tests/test_layering.py` fails when the drawing is not that of the code.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path
from xml.sax.saxutils import escape

PACKAGE = Path(__file__).parents[1] / "src" / "stoker"
DRAWING = Path(__file__).with_name("house.svg")
WIDTH, HEIGHT, GAP_X, GAP_Y = 124, 44, 26, 56
TOP = {"__init__", "cli"}  # they are about the package, not of its machinery


def rooms() -> dict[str, set[str]]:
    """Each room, and the rooms that it imports."""
    paths = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    names = {path.stem for path in paths} - TOP
    found: dict[str, set[str]] = {name: set() for name in sorted(names)}
    for path in paths:
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    path.stem in names
                    and isinstance(node, ast.ImportFrom)
                    and (node.module or "").startswith("stoker.")
                ):
                    found[path.stem] |= {str(node.module).split(".")[1]} & (names - {path.stem})
    return found


def ranks(imports: dict[str, set[str]]) -> list[list[str]]:
    """The rooms in rows, the lowest first: each stands above all that it imports."""
    rank: dict[str, int] = {}
    for name in TopologicalSorter(imports).static_order():
        rank[name] = max((rank[other] + 1 for other in imports[name]), default=0)
    return [sorted(name for name in rank if rank[name] == row) for row in range(max(rank.values()) + 1)]


def direct(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The imports that no others imply."""

    def below(name: str) -> set[str]:
        return imports[name].union(*map(below, imports[name]))

    return {name: others - set().union(*map(below, others)) for name, others in imports.items()}


def draw() -> str:
    """The drawing as SVG."""
    imports = rooms()
    rows = ranks(imports)[::-1]
    width = max(map(len, rows)) * (WIDTH + GAP_X) + GAP_X
    height = len(rows) * (HEIGHT + GAP_Y) - GAP_Y + 40
    place: dict[str, tuple[float, int]] = {}
    for number, row in enumerate(rows):
        start = (width - len(row) * (WIDTH + GAP_X) + GAP_X) / 2
        for column, name in enumerate(row):
            place[name] = start + column * (WIDTH + GAP_X), 20 + number * (HEIGHT + GAP_Y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="15">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#667"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for name, others in sorted(direct(imports).items()):
        x, y = place[name]
        for other in sorted(others):
            to_x, to_y = place[other]
            parts.append(
                f'<path d="M{x + WIDTH / 2:.0f} {y + HEIGHT}C{x + WIDTH / 2:.0f} {y + HEIGHT + 40} '
                f'{to_x + WIDTH / 2:.0f} {to_y - 40} {to_x + WIDTH / 2:.0f} {to_y}" fill="none" stroke="#99a" '
                'marker-end="url(#tip)"/>'
            )
    for name, (x, y) in sorted(place.items()):
        parts.append(
            f'<rect x="{x:.0f}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#eef2f8" stroke="#456"/>'
            f'<text x="{x + WIDTH / 2:.0f}" y="{y + HEIGHT / 2 + 5:.0f}" text-anchor="middle">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    DRAWING.write_text(draw())
