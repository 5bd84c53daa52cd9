"""PyTorch ``DataLoader`` with worker processes, its batches handed to ``from_generator``.

``fork`` is PyTorch's default on Linux up to Python 3.13 and the quickest to start. TensorFlow's documentation
warns of forking once it has started its threads; these workers touch no TensorFlow, and it held here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from benchmarks.cases import collate
from benchmarks.contenders import Job, into_tf

PACKAGE = "torch==2.13.0"


@contextmanager
def feed(job: Job, start_method: str = "fork") -> Iterator[Any]:
    loader: DataLoader[Any] = DataLoader(
        job.source,  # type: ignore[arg-type]  # any object with __len__ and __getitem__ will do
        batch_size=job.case.batch_size,
        num_workers=job.workers,
        collate_fn=collate,
        drop_last=True,
        prefetch_factor=2,
        persistent_workers=True,
        multiprocessing_context=start_method,
    )
    yield into_tf(job, lambda: iter(loader))
