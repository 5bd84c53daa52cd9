from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.memory.progress_page import words_here
from stoker.plan.position import ShardProgress
from stoker.protocol.failures import failure
from stoker.protocol.messages import MAX_BYTES, Message, decode, encode, size
from stoker.protocol.replies import (
    DIGESTS,
    SHOWN,
    STATE_BYTES,
    DescribedReply,
    ExamplesMadeReply,
    FailureKind,
    FailureReply,
    ReadyReply,
    ShardOpenedReply,
    TaskDoneReply,
)
from stoker.protocol.requests import (
    MAKE,
    MANY,
    DescribeRequest,
    FormRequest,
    IndexTaskRequest,
    JoinTaskRequest,
    LeaveEpochRequest,
    MakeExamplesRequest,
    OpenShardRequest,
    ShardOpening,
    ShardTaskRequest,
)
from stoker.scheduler.pace import TASK_ROWS
from stoker.worker.current_task import CurrentTask

tasks = st.integers(0, 2**62)
small = st.integers(0, 2**31 - 1)
seconds = st.floats(0, 1e6)
any_text = st.text(st.characters())  # lone surrogates too: a file name may be no UTF-8
indices = st.lists(st.integers(0, 2**62), max_size=50).map(lambda some: np.array(some, np.int64))
dims = st.lists(tasks, max_size=8).map(tuple)
progress = st.builds(
    ShardProgress, raw=tasks, within=tasks, digest=st.integers(0, 2**64 - 1), state=any_text, state_raw=tasks
)
openings = st.builds(ShardOpening, progress, items=small, first=tasks)
flag = st.booleans()
numbers = st.lists(tasks, max_size=50).map(tuple)
skipped = st.lists(st.tuples(tasks, any_text), max_size=9).map(tuple)
digests = st.lists(st.tuples(tasks, st.integers(0, 2**64 - 1)), max_size=50).map(tuple)
left_out = st.lists(st.tuples(st.integers(-1, 2**31), tasks), max_size=9).map(tuple)
made = st.lists(st.tuples(st.integers(-1, 2**31), tasks, tasks), max_size=50).map(
    lambda rows: np.array(rows, np.int64).reshape(-1, 3)
)
messages = st.one_of(
    st.builds(MakeExamplesRequest, tasks, tasks, numbers, numbers, small, numbers),
    st.builds(ExamplesMadeReply, tasks, numbers, flag),
    st.builds(OpenShardRequest, tasks, tasks, small, progress, small, numbers, tasks),
    st.builds(ShardOpenedReply, tasks, flag, st.binary()),
    st.builds(DescribeRequest, tasks, small, numbers, numbers, numbers, numbers, flag, flag, left_out),
    st.builds(FormRequest, st.binary(), flag),
    st.builds(IndexTaskRequest, tasks, tasks, small, small, small, flag, flag, small, indices),
    st.builds(IndexTaskRequest, tasks, tasks, small, small, small, flag, flag, small, indices, trial=flag, made=made),
    st.builds(ShardTaskRequest, tasks, tasks, small, small, flag, flag, st.none() | openings),
    st.builds(
        ShardTaskRequest,
        tasks,
        tasks,
        small,
        small,
        flag,
        flag,
        st.none() | openings,
        small,
        indices,
        numbers,
        made=made,
        key=tasks,
    ),
    st.builds(JoinTaskRequest, tasks, small, small, flag),
    st.builds(LeaveEpochRequest, tasks, tasks, flag),
    st.builds(ReadyReply),
    st.builds(DescribedReply, tasks, st.binary(), numbers, flag),
    st.builds(TaskDoneReply, tasks, seconds, dims),
    st.builds(TaskDoneReply, tasks, seconds, dims, small, flag, flag, progress),
    st.builds(TaskDoneReply, tasks, seconds, dims, small, flag, flag, progress, skipped, tasks),
    st.builds(TaskDoneReply, tasks, seconds, dims, digests=digests),
    st.builds(
        FailureReply,
        st.none() | st.integers(0, 2**62),
        st.sampled_from(FailureKind),
        any_text,
        any_text,
        st.none() | tasks,
        st.none() | small,
        st.binary(),
    ),
)


def plain(message: Message) -> dict[str, Any]:
    """What it says, to be compared: arrays as lists."""
    told = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(message).items()}
    return {"kind": type(message), **told}


@given(messages)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert plain(decode(encode(message))) == plain(message)


def test_the_largest_task_fits_into_a_message() -> None:
    most = np.zeros(max(TASK_ROWS, MANY), np.int64)  # more lie in the slot's inbox
    made = np.zeros((MANY, 3), np.int64)
    for request in (
        IndexTaskRequest(0, 0, 0, 0, 0, False, False, 0, most, made=made),
        ShardTaskRequest(0, 0, 0, 0, False, True, None, 0, most, made=made),
        MakeExamplesRequest(0, 0, (2**63 - 1,) * MAKE, (2**20,) * MAKE, 0),
    ):
        assert len(encode(request)) < MAX_BYTES


NUMBER = 2**63 - 1


@given(st.lists(st.builds(ValueError, st.text(st.characters(), max_size=300)), min_size=1, max_size=40), flag)
def test_the_longest_reply_fits_into_a_message(errors: list[ValueError], emoji: bool) -> None:
    task = CurrentTask(words_here(), skips=True)
    for error in itertools.islice(itertools.cycle(errors), SHOWN):
        task.skip(NUMBER, error)
    state = "\N{GRINNING FACE}" * ((STATE_BYTES - 2) // 4) if emoji else '"' * ((STATE_BYTES - 2) // 2)
    assert STATE_BYTES - 4 < size(state) <= STATE_BYTES
    progress = ShardProgress(NUMBER, NUMBER, 2**32 - 1, state, NUMBER)
    digests = ((NUMBER, 2**32 - 1),) * DIGESTS
    its = (NUMBER,) * 200, 2**31 - 1, True, True, progress, tuple(task.skipped), NUMBER, digests, NUMBER
    assert len(encode(TaskDoneReply(NUMBER, 1 / 3, *its))) < MAX_BYTES


@given(st.text(st.characters(), max_size=9), st.integers(1, 40_000))
def test_the_longest_failure_fits_into_a_message(text: str, times: int) -> None:
    error = failure(NUMBER, FailureKind.USER, ValueError(text * times), NUMBER, 2**31 - 1)
    assert len(encode(replace(error, pickled=bytes(32_000)))) < MAX_BYTES


@pytest.mark.parametrize("data", [b"", b"?", b"Hello there"[1:]])
def test_other_bytes_are_no_message(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        decode(data)


#: One of each kind, by their first byte.
SAMPLES = [
    encode(message)
    for message in (
        IndexTaskRequest(7, 1, 2, 3, 64, False, False, 8, np.arange(8)),
        ShardTaskRequest(7, 1, 2, 3, False, True, ShardOpening(ShardProgress(4, 5), 2, 9), 3, np.arange(3), (1, 2)),
        JoinTaskRequest(7, 1, 2, 3, 64, False),
        MakeExamplesRequest(7, 2, (3, 4), (0, 1), 99),
        ExamplesMadeReply(7, (64, 0)),
        OpenShardRequest(7, 2, 3, ShardProgress(4, 5), 1, (6,)),
        ShardOpenedReply(7, True, b"specs"),
        DescribeRequest(7, 2, (3, 4), (0, 1), (9, 9), (2,), True),
        DescribedReply(7, b"form", (64,)),
        FormRequest(b"form"),
        LeaveEpochRequest(7),
        ReadyReply(),
        TaskDoneReply(7, 0.25, (64, 512)),
        TaskDoneReply(7, 0.25, (), 3, True, True, ShardProgress(4, 5), ((3, "é"),), 1),
        FailureReply(7, FailureKind.USER, "ValueError: no", "Traceback", 3, None, b"pickled"),
    )
]


def mutated(dice: random.Random) -> bytes:
    """A message with some bytes that are others, left out, put in, or from another message."""
    data = bytearray(dice.choice(SAMPLES))
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(4):
            case 0 if at < len(data):
                data[at] = dice.randrange(256)
            case 1:
                del data[at : at + dice.randrange(9)]
            case 2:
                data[at:at] = dice.randbytes(dice.randrange(9))
            case _:
                data[at:] = dice.choice(SAMPLES)[at:]
    return bytes(data)


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.stress)])
def test_damaged_bytes_are_a_message_or_a_value_error(count: int) -> None:
    seed = random.randrange(10**6)
    dice, refused = random.Random(seed), 0
    for _ in range(count):
        data = mutated(dice)
        try:
            decode(data)
        except ValueError:
            refused += 1
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {data!r}") from error
    assert count > refused > count // 20
