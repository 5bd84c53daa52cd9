from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stoker.plan.order import Plan

plans = st.builds(
    Plan,
    length=st.integers(1, 20_000),
    batch_size=st.integers(1, 700),
    shuffle=st.booleans(),
    seed=st.integers(),
    drop_remainder=st.booleans(),
)


@given(plans, st.integers(0, 5))
def test_an_epoch_has_each_example_once(plan: Plan, epoch: int) -> None:
    order = plan.order(epoch)
    starts = [batch * plan.batch_size for batch in range(plan.batches)]
    taken = [order.indices(start, start + plan.rows(batch)) for batch, start in enumerate(starts)]
    examples = np.concatenate([*taken, np.empty(0, np.int64)])
    whole = plan.length - plan.length % plan.batch_size if plan.drop_remainder else plan.length
    assert len(examples) == len(np.unique(examples)) == whole
    if not plan.shuffle:
        assert np.array_equal(examples, np.arange(whole))


@given(plans, st.data())
def test_any_run_of_positions_is_a_part_of_the_epoch(plan: Plan, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, plan.length - 1))
    stop = data.draw(st.integers(start + 1, plan.length))
    assert np.array_equal(plan.order(1).indices(start, stop), plan.order(1).indices(0, plan.length)[start:stop])


def test_epochs_and_seeds_differ() -> None:
    orders = [
        tuple(Plan(100, 10, True, seed, False).order(epoch).indices(0, 100)) for seed in (0, 1) for epoch in (0, 1, 2)
    ]
    assert len(set(orders)) == 6


def test_rows_are_static_when_every_batch_is_full() -> None:
    assert Plan(12, 4, False, 0, False).static_rows() == 4
    assert Plan(13, 4, False, 0, True).static_rows() == 4
    assert Plan(13, 4, False, 0, False).static_rows() is None
