"""Options may be NumPy's numbers and bools: they come out of arrays, searches over settings and configurations."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import stoker

ROWS = [np.arange(n % 3 + 1) for n in range(20)]

PLAIN: dict[str, Any] = {
    "batch_size": 4,
    "seed": 7,
    "workers": 0,
    "prefetch": 3,
    "memory_limit": 1 << 24,
    "retries": 1,
    "timeout": 30.0,
    "verify": 0.5,
    "shard_index": 0,
    "shard_count": 1,
    "shuffle": True,
    "drop_remainder": True,
    "seed_globals": True,
    "pad_remainder": False,
}


def batches(source: Any, **options: Any) -> list[Any]:
    with stoker.Loader(source, **options) as loader:
        taken = [np.asarray(batch).tolist() for batch in loader]
        return [taken, loader.state_dict()]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("whole", "real"), [(np.int64, np.float64), (np.int32, np.float32), (np.uint16, np.float16), (np.array, np.array)]
)
def test_options_of_numpy_are_the_numbers_they_are(workers: int, whole: Any, real: Any) -> None:
    plain = {**PLAIN, "workers": workers}
    given = {
        name: np.bool_(value)
        if isinstance(value, bool)
        else real(value)
        if isinstance(value, float)
        else whole(value if value < 1 << 16 else 1 << 15)
        for name, value in plain.items()
    }
    assert batches(range(20), **given) == batches(range(20), **plain)
    json.dumps(batches(range(20), **given)[1])


def test_the_numbers_of_sources_buffers_and_padding_too() -> None:
    def numbers(shard: stoker.Shard) -> Any:
        yield from shard.split(range(24))

    def made(number: Any, flag: Any, endless: Any) -> list[Any]:
        plain = stoker.from_generator(numbers, shards=number(4), length=number(24), open_shards=number(2), batched=flag)
        assert stoker.from_generator(numbers, 1, length=endless).length == math.inf
        padded = batches(ROWS, collate=stoker.pad(to=number(4), multiple_of=number(2)), batch_size=number(5), workers=0)
        wider = batches(ROWS, collate=stoker.pad(to=(number(5),)), workers=0)
        return [batches(plain, shuffle=number(8), batch_size=4, workers=0), padded, wider]

    assert made(np.int64, np.False_, np.float32("inf")) == made(int, False, math.inf)


def test_a_state_with_a_number_of_numpy_is_json() -> None:
    with stoker.Loader(range(20), batch_size=np.int64(4), workers=0) as loader:
        iterator = iter(loader)
        next(iterator)
        state = json.loads(json.dumps(loader.state_dict(consumed=np.int64(1))))
        assert state["batches"] == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", np.float64(4)),
        ("batch_size", np.True_),
        ("workers", np.int64(-1)),
        ("timeout", np.float64("nan")),
        ("timeout", np.True_),
        ("timeout", "3"),
        ("verify", np.float32(2)),
        ("drop_remainder", "no"),
        ("pad_remainder", np.array([True, False])),
        ("seed_globals", None),
    ],
)
def test_what_is_no_such_number_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(stoker.OptionError, match=option):
        stoker.Loader(range(20), **{option: value})
