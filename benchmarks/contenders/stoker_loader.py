"""Stoker, with its defaults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import stoker
from benchmarks.contenders import Job

PACKAGE = "-e ."


@contextmanager
def feed(job: Job) -> Iterator[Any]:
    case = job.case
    with stoker.Loader(
        job.source, batch_size=case.batch_size, workers=job.workers, collate=case.batching.stoker
    ) as loader:
        yield loader.to_tf()
