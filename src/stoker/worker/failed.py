"""Failures of tasks, as replies. The failure of an example made early waits in the store for its batch's turn."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stoker.protocol.failures import bounded, failure
from stoker.protocol.replies import FailureKind, FailureReply
from stoker.sources.sharded import CannotRead
from stoker.structure.forms import Misfit
from stoker.worker.batching.fitting import MisfitAt, Uneven
from stoker.worker.current_task import CurrentTask


class SourceChanged(Exception):
    """The source does not match the plan."""


class UnsuitedExample(Exception):
    """An option does not suit the examples."""


@dataclass(frozen=True)
class EarlyFailure:
    """Stands in the store for an example that raised when it was made early. User code is not called for it again."""

    reply: FailureReply


class RaisedEarly(Exception):
    """The turn of such an example has come."""

    def __init__(self, reply: FailureReply) -> None:
        self.reply = reply


def failed(task: int, error: BaseException, at: CurrentTask) -> FailureReply:
    """The reply to a task that raised `error`; `at` says which example was made."""
    at.note(error)
    if isinstance(error, RaisedEarly):
        return replace(error.reply, task=task)
    if isinstance(error, MisfitAt):
        error = error.reason
    if isinstance(error, Misfit):
        return FailureReply(task, FailureKind.SPEC, bounded(str(error)), example=at.example, shard=at.shard)
    if isinstance(error, SourceChanged | CannotRead):
        return FailureReply(task, FailureKind.SOURCE, str(error))
    if isinstance(error, UnsuitedExample):
        return FailureReply(task, FailureKind.OPTION, bounded(str(error)))
    if isinstance(error, Uneven):
        return FailureReply(task, FailureKind.UNEVEN, "", example=at.example)
    kind = FailureKind.COLLATE if at.is_joining else FailureKind.USER
    return failure(task, kind, error, at.example, at.shard)
