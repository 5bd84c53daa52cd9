from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker.runtime.cpus import usable_cpus


@pytest.fixture(autouse=True)
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 16
    unlimited = {"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/cpu.max": "max 100000"}
    assert usable_cpus(write(tmp_path, unlimited)) == 16


@pytest.mark.parametrize(("quota", "cpus"), [("200000 100000", 2), ("250000 100000", 3), ("50000 100000", 1)])
def test_the_quota_of_cgroup_v2_counts_rounded_up(tmp_path: Path, quota: str, cpus: int) -> None:
    assert usable_cpus(write(tmp_path, {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": quota})) == cpus


def test_the_quota_of_a_cgroup_above_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b",
        "sys/fs/cgroup/a/cpu.max": "300000 100000",
        "sys/fs/cgroup/a/b/cpu.max": "max 100000",
    }
    assert usable_cpus(write(tmp_path, files)) == 3


def test_the_quota_of_cgroup_v1_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "3:memory:/x\n2:cpu,cpuacct:/docker/abc",
        "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "400000",
        "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert usable_cpus(write(tmp_path, files)) == 4


def test_affinity_counts_when_it_is_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "400000 100000"}
    assert usable_cpus(write(tmp_path, files)) == 1
