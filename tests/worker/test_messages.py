from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.scheduler.machine import TASK_ROWS
from stoker.worker.messages import (
    MAX_BYTES,
    Describe,
    Described,
    Failure,
    Finished,
    Hello,
    Message,
    SpecKnown,
    Work,
    decode,
    encode,
)

tasks = st.integers(0, 2**62)
small = st.integers(0, 2**31 - 1)
messages = st.one_of(
    st.builds(Describe, tasks),
    st.builds(SpecKnown, st.binary()),
    st.builds(Hello),
    st.builds(Described, tasks, st.binary()),
    st.builds(Finished, tasks, st.floats(0, 1e6)),
    st.builds(
        Failure, st.integers(-1, 2**62), st.text(), st.text(), st.text(), st.none() | st.integers(0, 2**62), st.binary()
    ),
)


@given(messages)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


@given(tasks, tasks, small, small, small, st.lists(st.integers(0, 2**62), max_size=50))
def test_work_arrives_as_it_was_sent(task: int, epoch: int, slot: int, first: int, rows: int, which: list[int]) -> None:
    sent = Work(task, epoch, slot, first, rows, np.array(which, np.int64))
    came = decode(encode(sent))
    assert isinstance(came, Work)
    assert (came.task, came.epoch, came.slot, came.first, came.rows) == (task, epoch, slot, first, rows)
    assert came.indices.tolist() == which


def test_the_largest_task_fits_into_a_message() -> None:
    assert len(encode(Work(0, 0, 0, 0, 0, np.zeros(TASK_ROWS, np.int64)))) < MAX_BYTES


@pytest.mark.parametrize("data", [b"", b"?", b"Hello there"[1:]])
def test_other_bytes_are_no_message(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        decode(data)
