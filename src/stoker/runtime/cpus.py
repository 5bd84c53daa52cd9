"""The number of CPUs that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cpus(root: Path = Path("/")) -> int:
    """The number of usable CPUs by affinity and by the quota of the cgroup (v2 or v1), at least 1.

    `os.cpu_count()` is the machine's number: in a container with a quota of 2 CPUs on a host with 64, it
    would lead to 64 workers.

    Args:
        root: where `proc` and `sys` are mounted.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, _quota(root))))


def _quota(root: Path) -> float:
    """The smallest quota, in CPUs, of this process's cgroup and its ancestors."""
    quotas = [math.inf]
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            base, read = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        here = base / path.strip("/")
        quotas += [read(folder) for folder in (here, *here.parents) if folder.is_relative_to(base)]
    return min(quotas)


def _quota_v2(folder: Path) -> float:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period else math.inf


def _quota_v1(folder: Path) -> float:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # no such cgroup, or unreadable: no known quota
        return ""
