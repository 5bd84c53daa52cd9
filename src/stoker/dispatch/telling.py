"""What a consumer is told when a batch cannot be made."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.engines import Death
from stoker.engines.deaths import died_at_work
from stoker.epochs import Epoch
from stoker.errors import StokerError
from stoker.scheduler.messages import Fail, WrongLength
from stoker.worker.messages import Failure
from stoker.worker.report import raisable, wrong_length


@dataclass(frozen=True)
class Told:
    """A failure, and the worker that told of it; None for the inline engine."""

    worker: int | None
    failure: Failure


def error_of(fail: Fail, epoch: Epoch | None) -> StokerError:
    """The exception for the consumer of a stream; `epoch` is None while the form of the batches is being found."""
    number = epoch.number if epoch is not None else 0
    match fail.reason:
        case WrongLength(told, came, ended):
            return wrong_length(told, came, ended)
        case Told(worker, failure):
            return raisable(failure, epoch=number, batch=fail.batch, worker=worker)
    assert isinstance(fail.reason, Death), fail
    known = epoch is not None and fail.task is not None
    examples = epoch.examples(fail.task.work) if known else "the first examples"  # type: ignore[union-attr]  # known
    return died_at_work(fail.reason, examples, number, fail.batch)
