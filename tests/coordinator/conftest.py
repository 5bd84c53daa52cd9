"""Coordinators over a fake engine: no process runs, so each test takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stoker import build
from stoker.options import LoaderOptions
from stoker.structure.collation import Collation, Form
from tests.coordinator.fake_engine import LENGTH, SIZE, FakeEngine, at_work


@pytest.fixture
def make_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeEngine]]:
    """Makes engines, each with the producer that it works for; the examples of the source are numbers."""
    engines: list[FakeEngine] = []

    def fake(options: Any, program: Any, slots: Any, inboxes: Any) -> FakeEngine:
        engines.append(FakeEngine(slots))
        return engines[-1]

    def make(source: Any, **options: Any) -> FakeEngine:
        options = {"batch_size": SIZE, "workers": 2, "memory_limit": 1 << 20, **options}
        producer: Any = build.build(LoaderOptions(source=source, **options))
        spec = Collation().spec(0)
        producer._given_form = Form.of(spec, Collation().rules(spec))
        engines[-1].producer, engines[-1].script = producer, at_work(engines[-1])
        return engines[-1]

    monkeypatch.setattr(build, "_engine", fake)
    yield make
    for engine in engines:
        engine.producer.close()
        assert engine.stopped


@pytest.fixture
def engine(make_engine: Callable[..., FakeEngine]) -> FakeEngine:
    return make_engine(range(LENGTH))
