"""Opens shards: sets up the user's iterator, its random states and its transform."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from stoker.memory.worker_times import Stage
from stoker.plan.permutation import mix, mix_array
from stoker.plan.position import ShardProgress
from stoker.plan.shuffle_buffer import shuffled
from stoker.protocol.requests import JSON, PICKLE
from stoker.sources.markers import Many
from stoker.sources.sharded import ShardedSource
from stoker.worker.context import TaskContext
from stoker.worker.failed import SourceChanged
from stoker.worker.tasks.shard_reader import END, ShardReader
from stoker.worker.user_code.reading import Reader

_BLOCK = 256  # seeds computed at once


class ShardOpener:
    """Makes the readers of shards.

    Args:
        context: what the parts of the worker share.
        reader: calls the transform.
    """

    def __init__(self, context: TaskContext, reader: Reader) -> None:
        self._used, self._task, self._seeder, self._reader = context.used, context.task, context.seeder, reader
        self._clock = context.clock

    def shard(
        self, epoch: int, shard: int, progress: ShardProgress, without: frozenset[int] = frozenset(), *, keeps: bool
    ) -> ShardReader:
        """The reader of a shard of the user's generator function, positioned at `progress`.

        `keeps` is True if its examples are still needed when the next one is made.
        """
        program, keep = self._used.program, self._used.keep
        seeds, iterator = self._seeds(epoch, shard), self._iterator(epoch, shard)
        has_state = hasattr(iterator, "state_dict") and hasattr(iterator, "load_state_dict") and not program.shuffle
        if progress.state:
            if not has_state:
                raise SourceChanged(f"shard {shard} had a state_dict, but has none now")
            iterator.load_state_dict(_decoded(progress.state))
        keep_output = keep if keeps else partial(_keep_many, keep)
        transform = self._transform(keep_output)
        keeps_raw = program.shuffle > 0 or (keeps and transform is None)
        raws = self._pull(iterator, seeds, progress.state_raw, keep if keeps_raw else None)
        if program.shuffle:
            raws = shuffled(raws, program.shuffle, mix(program.seed, epoch, 4, shard))
        return ShardReader(
            raws,
            transform,
            progress,
            own_state=(lambda: _encoded(iterator.state_dict())) if has_state else None,
            name=f"shard {shard}",
            words=self._task.words,
            without=without,
            keep=keep_output,
            keep_ahead=keep,
            skip=self._task.skip,
        )

    def part(self, part: int, made: Iterator[Any], numbers: Sequence[int], progress: ShardProgress) -> ShardReader:
        """The reader of a part of another source, where the transform may return SKIP or Many; `made` gives outputs."""
        raws = ((output, 0) for output in made)
        return ShardReader(
            raws,
            lambda output, seed: output,
            progress,
            name=f"part {part}",
            numbers=numbers,
            without=self._task.without,
            keep=self._used.keep,
            keep_ahead=self._used.keep,
            skip=self._task.skip,
        )

    def _iterator(self, epoch: int, shard: int) -> Any:
        """The result of the user's function for a shard, called with random states set for that."""
        program = self._used.program
        source: ShardedSource = program.source
        seed = source.seed_of(program.seed, epoch, shard)
        self._seeder.begin(seed)
        return source.read_at(epoch, shard, np.random.default_rng(seed))

    def _transform(self, keep: Callable[[Any], Any]) -> Callable[[Any, int], Any] | None:
        """The function that makes the output from a raw example and its seed; None if the output is the example."""
        transform = self._used.program.transform
        if transform is None and not self._used.program.skips:
            return None
        begin, transformed, settled = self._seeder.begin, self._reader.transformed, self._reader.settled

        def output(raw: Any, seed: int) -> Any:
            if transform is not None:
                begin(seed)
                raw = transformed(transform, raw, seed)
            return settled(raw)

        return lambda raw, seed: keep(output(raw, seed))

    def _pull(
        self, iterator: Any, seeds: Iterator[int], skip: int, keep: Callable[[Any], Any] | None
    ) -> Generator[tuple[Any, int], None, None]:
        """The items of the user's iterator, with random states set before each; closes the iterator at the end."""
        begin, clock = self._seeder.begin, self._clock
        for _ in range(skip):
            next(seeds)
        try:
            iterator = iter(iterator)
            for seed in seeds:
                begin(seed)
                pull = clock.of(Stage.READ, next) if clock.is_running else next
                item = pull(iterator, END)
                if item is END:
                    return
                yield item if keep is None else keep(item), seed
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def _seeds(self, epoch: int, shard: int) -> Iterator[int]:
        key, start = mix(self._used.program.seed, epoch, 2, shard), 0
        while True:
            yield from mix_array(np.arange(start, start + _BLOCK, dtype=np.uint64), key).tolist()
            start += _BLOCK


def _keep_many(keep: Callable[[Any], Any], output: Any) -> Any:
    """Keep only a `Many`, whose examples wait for their turn. Other examples are written immediately."""
    return keep(output) if type(output) is Many else output


def _encoded(state: Any) -> str:
    """Encode an iterator's state as text: as JSON, which may be kept in a file, if lossless; else as a pickle."""
    try:
        text = json.dumps(state)
        if json.loads(text) == state:
            return JSON + text
    except (TypeError, ValueError):
        pass  # JSON cannot represent it
    return PICKLE + base64.b64encode(pickle.dumps(state)).decode()


def _decoded(text: str) -> Any:
    """Decode a state encoded by `_encoded`."""
    kind, state = text[:2], text[2:]
    if kind == JSON:
        return json.loads(state)
    if kind == PICKLE:
        return pickle.loads(base64.b64decode(state))
    raise ValueError(f"{text[:20]!r} is not the state of an iterator")
