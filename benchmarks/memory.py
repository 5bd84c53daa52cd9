"""Memory of a tree of processes, as Linux shares it out: PSS, in which a page of n processes counts 1/n for each."""

from __future__ import annotations

from pathlib import Path

import psutil


def process_pss(pid: int) -> int:
    """PSS of one process in bytes; 0 if it has just ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def tree(pid: int) -> list[psutil.Process]:
    """The process and all its descendants that are alive."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def tree_pss(pid: int) -> int:
    """PSS of the process and all its descendants, in bytes."""
    return sum(process_pss(process.pid) for process in tree(pid))
