"""After every test: no child, no thread, no descriptor of ours is left."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def left_behind() -> list[str]:
    """What this process still holds of Stoker's: workers, threads, memfds."""
    children = [f"process {child.pid}" for child in psutil.Process().children() if child.is_running()]
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("stoker")]
    links = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return children + threads + [link for link in links if "stoker" in link]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 3
    while (left := left_behind()) and time.monotonic() < deadline:
        gc.collect()
        threading.Event().wait(0.02)
    assert not left
