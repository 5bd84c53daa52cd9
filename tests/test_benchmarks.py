"""The benchmarks run against the code as it is: what they ask of it is there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
MODULES = sorted(
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    if path.parent.name != "contenders" and path.stem not in ("__init__", "__main__")  # those need the peers
)


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_finds_what_it_needs(name: str) -> None:
    import_module(name)


def test_the_costs_of_a_row_and_of_random_states_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import random

    from benchmarks import overhead

    for name in dir(random):  # what `install_lazy_random` replaces is put back
        monkeypatch.setattr(random, name, getattr(random, name))
    overhead.a_row_in_a_worker()
    overhead.random_states()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(0 < float(line.split()[-1]) < 1000 for line in lines)
