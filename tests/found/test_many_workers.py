"""Many more workers than CPUs: one warning that says what they cost and what to give."""

from __future__ import annotations

import pytest

import stoker
from stoker.runtime.cpus import usable_cpus


def test_many_more_workers_than_cpus_are_remarked_once(caplog: pytest.LogCaptureFixture) -> None:
    cpus = usable_cpus()
    many = max(9, 4 * cpus + 1)
    stoker.Loader(range(4), workers=many, prefetch=1).close()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("stoker", "WARNING")
    assert f"workers={many} on {cpus} CPU" in record.message
    assert f"one per CPU ({cpus})" in record.message


def test_some_more_are_not(caplog: pytest.LogCaptureFixture) -> None:
    for workers in (0, 8, 2 * usable_cpus(), None):
        stoker.Loader(range(4), workers=workers, prefetch=1).close()
    assert not caplog.records
