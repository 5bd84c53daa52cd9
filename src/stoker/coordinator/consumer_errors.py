"""Errors for consumers, made from the failures that workers report."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from stoker.engines.deaths import died_at_work
from stoker.engines.engine import StuckWorker, WorkerDeath
from stoker.epochs.epoch import Epoch
from stoker.errors import SourceError, StokerError
from stoker.memory.progress_page import Phase
from stoker.protocol.failures import raisable
from stoker.protocol.replies import FailureReply
from stoker.runtime.shortage import refusal
from stoker.scheduler.commands import FailCommand, KilledReason, ShrunkShardReason, WrongLengthReason
from stoker.scheduler.work import FailureReason, IndexWork


@dataclass(frozen=True)
class ReportedFailure(FailureReason):
    """A failure, and the worker that reported it; None for the inline engine."""

    worker: int | None
    failure: FailureReply


def error_of(fail: FailCommand, epoch: Epoch | None, *, skips: bool, number: int = 0) -> StokerError:
    """The exception for the consumer of a stream.

    `epoch` is None while the form of the batches is being determined, from examples of epoch `number`. `skips` says
    whether bad examples are left out.
    """
    number = epoch.number if epoch is not None else number
    batch = epoch.batch_number(fail.batch) if epoch is not None else fail.batch
    match fail.reason:
        case WrongLengthReason(declared, came, ended):
            assert epoch is not None  # its stream has counted
            return _wrong_length(epoch.length_claim, declared, came, ended)
        case ShrunkShardReason(shard):
            return SourceError(
                f"in epoch {number} shard {shard} has fewer examples than when the state was saved: its data has "
                "changed. Restart the epoch."
            )
        case ReportedFailure(worker, failure):
            return raisable(failure, epoch=number, batch=batch, worker=worker)
    assert isinstance(fail.reason, KilledReason), fail
    death, row = fail.reason.reason, fail.reason.row
    assert isinstance(death, WorkerDeath), fail
    work = fail.task.work if fail.task is not None else None
    example: int | None = death.place.example
    if epoch is None or work is None:
        examples, work = "the first examples", None
    elif isinstance(work, IndexWork):
        example = epoch.example(work, row) if row is not None else None
        examples = epoch.description(work) if row is None else epoch.description(replace(work, first=row, count=1))
    else:
        examples = epoch.description(work)
    if example is not None and not isinstance(work, IndexWork):
        of = f"shard {death.place.shard}, " if death.place.shard is not None else ""
        examples = f"{of}example {example}"
    return died_at_work(death, examples, example, number, batch, skips=skips)


def _wrong_length(claim: str, declared: float, came: int, ended: bool) -> SourceError:
    """The error for a source of shards that does not yield the declared number of examples."""
    if math.isinf(declared):
        return SourceError(
            f"the generator ended after {came:,} examples, but length=math.inf declares it endless. Omit `length`."
        )
    gave = f"{came:,} examples" if ended else f"more ({came:,} examples so far)"
    its = "`length`, or omit it" if "length=" in claim else "its `__len__`, or remove it"
    return SourceError(
        f"{claim.format(f'{int(declared):,}')} gave {gave}. Correct {its}: the cardinality is then unknown."
    )


def cut_short(error: BaseException) -> StokerError:
    """The error for consumers of a Loader that cannot continue, as an event was processed only in part."""
    if isinstance(error, OSError) and (refused := refusal("descriptors or memory for workers", error)) is not None:
        return refused
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    broken = StokerError(f"this Loader was interrupted ({what}) and cannot continue. Create a new one.")
    broken.__cause__ = error
    return broken


def warning_of(stuck: StuckWorker, examples: str, *, is_needless: bool) -> str:
    """The warning about a worker that is stuck at `examples` (a description); `is_needless`: they are not needed."""
    doing = {
        Phase.STARTING: "is starting its interpreter",
        Phase.LOADING: "is loading the source and its modules",
        Phase.IDLE: "has not started its next task",
        Phase.PULLING: f"is waiting for the generator, after {examples}",
        Phase.JOINING: f"is joining {examples}",
    }.get(stuck.place.phase, f"is at {examples}")
    what = "Pass `timeout=` to have such workers killed"
    if is_needless:
        what = "It is killed, since this work is no longer needed"
    elif stuck.killed:
        what = "It is killed, and its work is repeated"
    return f"worker {stuck.worker} has made no progress for {stuck.seconds:.1f} s: it {doing}. {what}.\n{stuck.stack}"
