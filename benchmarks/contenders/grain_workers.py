"""Grain's worker processes, its batches handed to ``from_generator``.

Batching comes before the workers, so whole batches cross, through Grain's shared memory. The read options are set
for data that is at hand: Grain's defaults (16 threads that read 500 elements ahead, in each worker) would hold
hundreds of batches. By default each array, however small, gets a segment of its own; arrays under 192 KiB sent
through the pipe took half the CPU time on d and h, and as much on f and g.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grain
from absl import flags

from benchmarks.contenders import Job, into_tf

PACKAGE = "grain"
_LEAST_SEGMENT = 192 << 10
flags.FLAGS.mark_as_parsed()  # Grain reads its flags, which a program that is not absl's has not parsed


@contextmanager
def feed(job: Job) -> Iterator[Any]:
    dataset = (
        grain.MapDataset.source(job.source)
        .batch(job.case.batch_size, drop_remainder=True, batch_fn=job.case.batching.collate_fn)
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        .mp_prefetch(grain.MultiprocessingOptions(num_workers=job.workers, per_worker_buffer_size=2))
    )
    small = grain.experimental.DatasetOptions(min_shm_size=_LEAST_SEGMENT)
    dataset = grain.experimental.WithOptionsIterDataset(dataset, small)
    yield into_tf(job, lambda: iter(dataset))
