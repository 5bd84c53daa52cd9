"""The shards that are open in this worker, and their progress."""

from __future__ import annotations

import base64
import json
import logging
import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from stoker.memory.progress_page import EXAMPLE, PHASE, Phase
from stoker.plan.permutation import mix, mix_array
from stoker.plan.position import ShardProgress
from stoker.plan.shuffle_buffer import shuffled
from stoker.protocol.messages import size
from stoker.protocol.program import Program
from stoker.protocol.replies import STATE_BYTES
from stoker.protocol.requests import JSON, PICKLE
from stoker.sources.markers import SKIP, Many
from stoker.sources.sharded import ShardedSource
from stoker.worker.tasks.digests import digest
from stoker.worker.user_code.reading import Reader, SourceChanged
from stoker.worker.user_code.seeding import Seeder

log = logging.getLogger("stoker")

_END = object()
_NO_MORE = _END, 0
_PULLING, _READING = int(Phase.PULLING), int(Phase.READING)  # enum lookups are slow
#: Number of ended shards to remember. Exceeds the number of steps that can be requested ahead.
_ENDED = 256
_BLOCK = 256  # seeds computed at once
#: Maximum examples and bytes of a `Many` that are made before other user code runs. The rest, which may be endless, is
#: made on demand.
_AHEAD, _AHEAD_BYTES = 1024, 16 << 20


@dataclass(frozen=True)
class _Raised:
    """Marks an output of a `Many` that raised."""

    error: BaseException


def _weight(output: Any) -> int:
    """The approximate size of an output in bytes."""
    leaves = optree.tree_leaves(output)
    return sum(len(leaf) if isinstance(leaf, str | bytes) else getattr(leaf, "nbytes", 64) for leaf in leaves)


class ShardReader:
    """One open shard: a sequence of raw examples and their transformed outputs.

    Args:
        raws: the shard's examples before the transform, each with its seed.
        transform: makes the output from a raw example and its seed.
        progress: where another worker left the shard. Examples up to there are read and dropped.
        own_state: returns the iterator's own state; None if it has none.
        name: for messages.
        words: the worker's progress page, if this reader records the current example; else the maker of `raws` does so.
        numbers: the examples' numbers, in the order of `raws`; None if they are counted from 0.
        without: numbers of examples left out because they kill workers.
        keep: applied to an output of a `Many` before the next one is made.
        keep_ahead: applied to an output of a `Many` that waits while other user code runs.
        skip: called with the number of an example to leave out because it raised, and the error.

    Attributes:
        came: numbers of the examples whose outputs the last call of `take` delivered.
    """

    def __init__(
        self,
        raws: Generator[tuple[Any, int], None, None],
        transform: Callable[[Any, int], Any] | None,
        progress: ShardProgress,
        *,
        own_state: Callable[[], str] | None = None,
        name: str,
        words: memoryview | None = None,
        numbers: Sequence[int] | None = None,
        without: frozenset[int] = frozenset(),
        keep: Callable[[Any], Any],
        keep_ahead: Callable[[Any], Any],
        skip: Callable[[int, BaseException], None],
    ) -> None:
        self._keep, self._keep_ahead = keep, keep_ahead
        self._ahead: deque[Any] = deque()
        self._words, self._numbers, self._without, self._skip = words, numbers, without, skip
        self.came: list[int] = []
        self._raws, self._transform, self._own_state, self._name = raws, transform, own_state, name
        self._raw, self._within, self._digest = progress.state_raw, 0, 0
        self._state, self._state_raw = progress.state, progress.state_raw
        self._many: Iterator[Any] | None = None
        self._last: Any = None
        self._has_many = self._is_putting = self.ended = False
        self.left = progress
        self._skip_to(progress)

    @property
    def example(self) -> int:
        """The number of the current raw example."""
        return self._number(self._raw - self._is_putting)

    def begin_step(self, without: frozenset[int]) -> None:
        """Begin a step. From now on, leave out the examples in `without`."""
        self._without = without

    def take(self, count: int, last: int, put: Callable[[Any], None]) -> int:
        """Pass the next `count` outputs, or fewer at the end, to `put`, each before the next is made.

        `last` is the number of outputs that the step still needs. Returns the number of outputs passed.
        """
        came = self.came
        came.clear()
        self._is_putting = False  # the last `put` may have raised
        while len(came) < count:
            output = self._next(len(came) >= last - 1) if self._many is None else self._next_of_many()
            if output is _END:
                if self._many is None:
                    self.ended = True
                    break
                self._many, self._within = None, 0
                continue
            if self._many is not None:
                self._within += 1
            elif type(output) is Many:
                self._many, self._has_many = iter(output.examples), True
                continue
            elif output is SKIP:
                continue
            came.append(self._raw - 1 if self._numbers is None else self._number(self._raw - 1))
            self._is_putting = True
            put(output)
            self._is_putting = False
        self._make_ahead()
        return len(came)

    def progress(self) -> ShardProgress:
        """Update and return the shard's progress, after a step."""
        if self._transform is None and self._raw:
            self._digest = digest(self._last)
        if self._own_state is not None and self._many is None and not self.ended:
            state = self._own_state()
            if size(state) <= STATE_BYTES:  # else the shard is read again
                self._state, self._state_raw = state, self._raw
        self.left = ShardProgress(self._raw, self._within, self._digest, self._state, self._state_raw)
        return self.left

    def close(self) -> None:
        """Release the user's iterator."""
        self._many = None
        self._ahead.clear()
        raws, self._raws = self._raws, _nothing()
        try:
            raws.close()
        except (Exception, SystemExit, GeneratorExit):  # a `finally` that raises: this shard is no longer needed
            log.warning("closing %s raised", self._name, exc_info=True)

    def _next(self, may_be_last: bool) -> Any:
        """The output of the next raw example. Its digest is taken if the step may end with it."""
        raw, seed = self._pulled()
        if raw is _END:
            return _END
        self._last = raw
        is_left_out = bool(self._without) and self._number(self._raw) in self._without
        if self._transform is None:
            self._raw += 1
            return SKIP if is_left_out else raw
        if may_be_last or self._has_many:
            self._digest = digest(raw)
        output: Any = SKIP
        if not is_left_out:
            try:
                output = self._transform(raw, seed)
            except BaseException as error:
                self._skip(self._number(self._raw), error)
        self._raw += 1
        return output

    def _next_of_many(self) -> Any:
        assert self._many is not None
        try:
            if self._ahead:
                output = self._ahead.popleft()
                if type(output) is _Raised:
                    raise output.error
                return output
            return self._keep(next(self._many, _END))
        except BaseException as error:
            self._skip(self._number(self._raw - 1), error)
            return _END

    def _make_ahead(self) -> None:
        """Make the rest of a `Many` ahead of time, as its generator may read buffers that the transform reuses."""
        room = _AHEAD_BYTES - sum(map(_weight, self._ahead))
        while self._many is not None and len(self._ahead) < _AHEAD and room > 0:
            try:
                output = self._keep_ahead(next(self._many, _END))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # raised when its turn comes
                output, self._many = _Raised(error), iter(())
            if output is _END:
                return
            self._ahead.append(output)
            room -= _weight(output)

    def _pulled(self) -> tuple[Any, int]:
        """The next raw example and its seed."""
        if self._words is None:
            return next(self._raws, _NO_MORE)
        words = self._words
        words[EXAMPLE], words[PHASE] = self._raw, _PULLING
        pulled = next(self._raws, _NO_MORE)
        words[PHASE] = _READING
        return pulled

    def _skip_to(self, progress: ShardProgress) -> None:
        for _ in range(progress.raw - (progress.within > 0) - self._raw):
            self._last, _ = self._pulled()
            if self._last is _END:
                raise SourceChanged(self._changed(f"it ended after {self._raw} examples, not yet at {progress.raw}"))
            self._raw += 1
        if progress.within and self._number(self._raw) in self._without:
            self._next(True)  # the rest of its outputs is left out
            self._digest = progress.digest
            return
        if progress.within:
            came = self.take(progress.within, 1, lambda output: None)
            if came < progress.within or self._raw != progress.raw:
                raise SourceChanged(self._changed(f"its example {self._raw} has become fewer"))
        if self._last is not None and progress.digest and progress.raw > progress.state_raw:
            now = self._digest if progress.within else digest(self._last)
            if now != progress.digest:
                raise SourceChanged(self._changed(f"its example {self._raw - 1} is another one now"))
        self._digest = progress.digest

    def _number(self, position: int) -> int:
        """The number of the example at a position of the shard."""
        if self._numbers is None:
            return position
        return int(self._numbers[min(position, len(self._numbers) - 1)])

    def _changed(self, what: str) -> str:
        return (
            f"{self._name} was read again, because its worker died, and gave something else: {what}. Examples would "
            "be lost or repeated. Make it the same each time: sort file lists, draw from `shard.rng`."
        )


def _told(state: Any) -> str:
    """Encode an iterator's state as text: as JSON, which may be kept in a file, if lossless; else as a pickle."""
    try:
        text = json.dumps(state)
        if json.loads(text) == state:
            return JSON + text
    except (TypeError, ValueError):
        pass  # JSON cannot represent it
    return PICKLE + base64.b64encode(pickle.dumps(state)).decode()


def _own_state(text: str) -> Any:
    """Decode a state encoded by `_told`."""
    kind, told = text[:2], text[2:]
    if kind == JSON:
        return json.loads(told)
    if kind == PICKLE:
        return pickle.loads(base64.b64decode(told))
    raise ValueError(f"{text[:20]!r} is no state of an iterator")


def _nothing() -> Generator[tuple[Any, int], None, None]:
    yield from ()


class ShardReaders:
    """Manages this worker's open shards, by epoch and shard."""

    def __init__(self, program: Program, reader: Reader, seeder: Seeder, words: memoryview) -> None:
        self._program, self._reader, self._seeder, self._words = program, reader, seeder, words
        self._open: dict[tuple[int, int], ShardReader] = {}
        self._ended: deque[tuple[int, int]] = deque()

    def get(self, epoch: int, shard: int) -> ShardReader:
        """The reader of an open shard."""
        return self._open[epoch, shard]

    def open(self, epoch: int, shard: int, make: Callable[[], ShardReader]) -> ShardReader:
        """Open a shard with `make`. If it is already open, close it first."""
        self.close(epoch, shard)
        shard_reader = self._open[epoch, shard] = make()
        return shard_reader

    def shard(
        self, epoch: int, shard: int, progress: ShardProgress, without: frozenset[int] = frozenset(), *, keeps: bool
    ) -> ShardReader:
        """The reader of a shard of the user's generator function, positioned at `progress`.

        `keeps` is True if its examples are still needed when the next one is made.
        """
        source: ShardedSource = self._program.source
        seeds = self._seeds(epoch, shard)
        mixed = mix(self._program.seed, epoch, 3, shard)
        self._seeder.begin(mixed)
        iterator: Any = source.read(shard, np.random.default_rng(mixed))
        buffer = self._program.shuffle
        own = hasattr(iterator, "state_dict") and hasattr(iterator, "load_state_dict") and not buffer
        if progress.state and own:
            iterator.load_state_dict(_own_state(progress.state))
        elif progress.state:
            raise SourceChanged(f"shard {shard} had a state_dict and has none now")
        keep = self._reader.keep if keeps else self._keep_many
        transform = self._transform(keep)
        keeps_raw = buffer > 0 or (keeps and transform is None)
        raws = self._pull(iterator, seeds, progress.state_raw, self._reader.keep if keeps_raw else None)
        if buffer:
            raws = shuffled(raws, buffer, mix(self._program.seed, epoch, 4, shard))
        return ShardReader(
            raws,
            transform,
            progress,
            own_state=(lambda: _told(iterator.state_dict())) if own else None,
            name=f"shard {shard}",
            words=self._words,
            without=without,
            keep=keep,
            keep_ahead=self._reader.keep,
            skip=self._reader.skip,
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
            without=self._reader.without,
            keep=self._reader.keep,
            keep_ahead=self._reader.keep,
            skip=self._reader.skip,
        )

    def close(self, epoch: int, shard: int) -> None:
        """Close a shard if it is open."""
        shard_reader = self._open.pop((epoch, shard), None)
        if shard_reader is not None:
            shard_reader.close()

    def finish(self, epoch: int, shard: int) -> None:
        """Release a shard that has ended. Steps requested ahead still find it, without rows."""
        self._open[epoch, shard].close()
        self._ended.append((epoch, shard))
        if len(self._ended) > _ENDED:
            self._open.pop(self._ended.popleft(), None)

    def leave(self, epoch: int) -> None:
        """Close all shards of an epoch."""
        for of, shard in [key for key in self._open if key[0] == epoch]:
            self.close(of, shard)

    def leave_all(self) -> None:
        """Close all shards."""
        for epoch, shard in list(self._open):
            self.close(epoch, shard)

    def _transform(self, keep: Callable[[Any], Any]) -> Callable[[Any, int], Any] | None:
        transform = self._program.transform
        if transform is None and not self._program.skips:
            return None

        def output(raw: Any, seed: int) -> Any:
            if transform is not None:
                self._seeder.begin(seed)
                raw = self._reader.transformed(transform, raw, seed)
            return self._reader.settled(raw)

        return lambda raw, seed: keep(output(raw, seed))

    def _keep_many(self, output: Any) -> Any:
        """Keep only a `Many`, whose examples wait for their turn. Other examples are written immediately."""
        return self._reader.keep(output) if type(output) is Many else output

    def _pull(
        self, iterator: Any, seeds: Iterator[int], skip: int, keep: Callable[[Any], Any] | None
    ) -> Generator[tuple[Any, int], None, None]:
        """The items of the user's iterator, with random states set before each; closes the iterator at the end."""
        begin = self._seeder.begin
        for _ in range(skip):
            next(seeds)
        try:
            iterator = iter(iterator)
            for seed in seeds:
                begin(seed)
                pulled = next(iterator, _END) if keep is None else keep(next(iterator, _END)), seed
                if pulled[0] is _END:
                    return
                yield pulled
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def _seeds(self, epoch: int, shard: int) -> Iterator[int]:
        key, start = mix(self._program.seed, epoch, 2, shard), 0
        while True:
            yield from mix_array(np.arange(start, start + _BLOCK, dtype=np.uint64), key).tolist()
            start += _BLOCK
