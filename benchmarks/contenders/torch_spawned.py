"""PyTorch ``DataLoader`` with workers that are fresh interpreters, not forks: differs in the first batch only."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from benchmarks.contenders import Job, torch_loader

PACKAGE = "torch"


def feed(job: Job) -> AbstractContextManager[Any]:
    return torch_loader.feed(job, start_method="spawn")
