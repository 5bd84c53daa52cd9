"""How much memory the slots may take: by default, half of what is free; and out-of-memory kills."""

from __future__ import annotations

import math
from pathlib import Path

#: The share of the free memory that one Loader's slots may take if the user gives no limit.
SHARE = 0.5
#: The minimum share, regardless of what others may take: most never take all of it.
_LEAST_SHARE = 0.125


#: Bytes that stay free: no more worker processes are added when less is left.
_RESERVE = 1 << 30


def is_scarce(root: Path = Path("/"), promised: int = 0) -> bool:
    """True if too little memory is left for more worker processes. Arguments: as for `fair_share`."""
    return min(_machine(root), _cgroup(root)) - promised < _RESERVE


def fair_share(root: Path = Path("/"), promised: int = 0) -> int:
    """The default memory limit in bytes: half of what the machine or this process's cgroup (v2 or v1) has free.

    Args:
        root: where `proc` and `sys` are mounted.
        promised: bytes of the free memory that others may still take.
    """
    if not math.isfinite(_machine(root)):
        return 1 << 62
    free = min(_machine(root), _cgroup(root))
    return int(max((free - promised) * SHARE, free * _LEAST_SHARE))


def oom_kills(root: Path = Path("/")) -> int:
    """The number of processes in this cgroup (v2 or v1) that the kernel has killed because memory ran out."""
    count = 0
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        base, file = root / "sys/fs/cgroup", "memory.events"
        if "memory" in controllers.split(","):
            base, file = base / "memory", "memory.oom_control"
        for fields in map(str.split, _read(base / path.strip("/") / file).splitlines()):
            count += int(fields[1]) if fields[0] == "oom_kill" else 0
    return count


def _machine(root: Path) -> float:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return math.inf


def _cgroup(root: Path) -> float:
    """The least memory, in bytes, that this process's cgroup or any ancestor has left."""
    left = [math.inf]
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, usage = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        here = base / path.strip("/")
        for folder in (here, *here.parents):
            most, used = _read(folder / limit), _read(folder / usage)
            if folder.is_relative_to(base) and most.isdigit() and used.isdigit():
                left.append(max(0, int(most) - int(used)) + _cache(folder))
    return min(left)


def _cache(folder: Path) -> int:
    """The bytes of cached files that the kernel releases when memory is short."""
    lines = (line.split() for line in _read(folder / "memory.stat").splitlines())
    return sum(int(line[1]) for line in lines if line[0] in ("inactive_file", "total_inactive_file"))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # missing or unreadable: no known limit
        return ""
