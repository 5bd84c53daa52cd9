"""Examples of thousands of features, each a leaf of its own; and the longest sources."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

import numpy as np
import pytest

import stoker
from stoker.structure.collation import Collation, Form


def example(leaves: int, n: int = 0) -> dict[str, Any]:
    return {f"feature_{place}": np.float32(n + place) for place in range(leaves)}


class Features:
    def __init__(self, leaves: int) -> None:
        self.leaves = leaves

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return example(self.leaves, index)


@pytest.mark.parametrize("collate", ["stack", "pad"])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_example_may_have_ten_thousand_leaves(workers: int, collate: str) -> None:
    with stoker.Loader(Features(10_000), batch_size=2, collate=collate, workers=workers, prefetch=1) as loader:
        for number, batch in enumerate(loader):
            assert len(batch) == 10_000
            assert batch["feature_9999"].tolist() == [9999 + 2 * number, 10_000 + 2 * number]


def test_what_is_found_out_of_leaves_takes_time_in_proportion_to_their_number() -> None:
    def seconds(leaves: int) -> float:
        first, times = example(leaves), []
        for _ in range(3):
            begun = time.process_time()
            spec = Collation().spec(first)
            form = Form.of(spec.widened(first), Collation().rules(spec))
            form.serialized()
            times.append(time.process_time() - begun)
        return min(times)

    assert seconds(8_000) < 8 * 3 * seconds(1_000)


class Longest:
    def __len__(self) -> int:
        return 2**63 - 1

    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_source_may_be_as_long_as_len_can_tell(shuffle: bool) -> None:
    with stoker.Loader(Longest(), batch_size=4, shuffle=shuffle, workers=0) as loader:
        assert len(loader) == 2**61
        first = [number for batch in islice(loader, 8) for number in batch.tolist()]
        state = loader.state_dict(8)
        loader.load_state_dict({**state, "batches": 2**61 - 1})
        (last,) = (batch.tolist() for batch in loader)
    assert len(last) == 3
    assert len({*first, *last}) == 35
    assert all(0 <= number < 2**63 - 1 for number in [*first, *last])
