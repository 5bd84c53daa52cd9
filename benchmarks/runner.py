"""One cell from outside: its process, its hard timeout, and the memory of its whole tree."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.contenders import LIMIT, LIMITS, MODULES
from benchmarks.memory import tree, tree_pss

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_S = 0.25
"""Time between two looks at memory. None is made before the first batch or in the timed window: it costs CPU time."""

_SAMPLED = ("reading", "paused")
_GRACE_S = 10.0


class Missing(Exception):
    """A contender whose package is not installed."""


def require(contender: str) -> None:
    """Import the contender in a process of its own.

    Raises:
        Missing: with the line that installs it.
    """
    if contender == LIMIT:
        return
    program = f"from benchmarks.contenders import load; load({contender!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        raise Missing(f"{contender} is skipped ({reason}). To have it: pip install {_package(contender)}")


def _package(contender: str) -> str:
    """The ``PACKAGE`` of a driver, read from its text since it cannot be imported."""
    text = (ROOT / "benchmarks" / "contenders" / f"{MODULES[contender]}.py").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("PACKAGE = "))
    return line.partition('"')[2].rstrip('"')


def run_cell(contender: str, case: str, arguments: list[str], timeout_s: float) -> dict[str, Any]:
    """Run a cell to its end or its timeout, and give back what it told: always a record, never an exception."""
    command = [sys.executable, "-m", "benchmarks.cell", "--contender", contender, "--case", case, *arguments]
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL, start_new_session=True
        )
        record: dict[str, Any] = {"contender": contender, "case": case}
        peaks: dict[str, int] = {}
        deadline = time.monotonic() + timeout_s
        try:
            for event in _events(process, peaks, deadline):
                record |= event.get("result", {})
                record |= {key: event[key] for key in ("right", "fault") if key in event}
        finally:
            ended = _end(process, _GRACE_S if time.monotonic() < deadline else 0.0)
        stderr.seek(0)
        record |= _verdict(record, ended, stderr.read(), timeout_s)
    return record | {f"peak_{phase}_bytes": peak for phase, peak in peaks.items()}


def _events(process: subprocess.Popen[bytes], peaks: dict[str, int], deadline: float) -> Iterator[dict[str, Any]]:
    """The cell's lines as they come, looking at its memory in between; ends with the cell or at the deadline."""
    assert process.stdout is not None
    pending, phase = b"", "start"
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(SAMPLE_S):
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    return
                *lines, pending = (pending + chunk).split(b"\n")
                for event in map(_parse, lines):
                    phase = event.get("phase", phase)
                    yield event
                    if "right" in event:
                        return
            elif phase in _SAMPLED:
                peaks[phase] = max(peaks.get(phase, 0), tree_pss(process.pid))


def _parse(line: bytes) -> dict[str, Any]:
    """A line of the cell's; whatever else a library prints is no event."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _verdict(record: dict[str, Any], ended: str, stderr: str, timeout_s: float) -> dict[str, Any]:
    """Whether there are figures, and whether what was delivered was right; if not, why."""
    fault = record.pop("window_fault", "") or record.get("fault", "")
    if record["contender"] in LIMITS:
        fault, right = "", None
    else:
        right = False if fault else record.get("right")
    has_figures = "examples_per_s" in record or "first_batch_s" in record
    if not has_figures or (right is None and record["contender"] not in LIMITS):
        killed = ended.startswith("killed")
        fault = fault or (f"{ended} of {timeout_s:.0f} s" if killed else f"{ended}: {_last(stderr)}")
    return {"ok": has_figures, "right": right, "fault": fault}


def _last(stderr: str) -> str:
    """The last thing that a cell said, without the folders of this machine."""
    said = (stderr.strip().splitlines() or ["it said nothing"])[-1]
    return said.replace(str(ROOT), "").replace(sys.prefix, "").replace(sys.base_prefix, "")


def _end(process: subprocess.Popen[bytes], grace_s: float) -> str:
    """Let the cell close its loader, then end its whole tree; says how it ended.

    Python's resource trackers go last: they take away the shared memory that a killed process leaves.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    ended = "killed at its limit" if process.returncode is None else f"exit code {process.returncode}"
    members = tree(process.pid) + _session(process.pid)
    trackers = [member for member in members if _is_tracker(member)]
    for member in members:
        if member not in trackers:
            _kill(member)
    psutil.wait_procs(trackers, timeout=3)
    for tracker in trackers:
        _kill(tracker)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return ended


def _session(leader: int) -> list[psutil.Process]:
    """The processes of the cell's session, whose parents may be gone."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == leader:
                members.append(process)
    return members


def _is_tracker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    return False


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.kill()
