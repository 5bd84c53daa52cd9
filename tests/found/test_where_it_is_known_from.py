"""An error about an example that does not fit names the examples, or the option, that set the expectation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stoker


def told(source: Any, **options: Any) -> str:
    made = stoker.Loader(source, **{"batch_size": 2, "workers": 0, **options})
    with made as loader, pytest.raises(stoker.SpecError) as caught:
        list(loader)
    return str(caught.value)


def later(first: Any, odd: Any) -> list[Any]:
    return [first] * 40 + [odd]


def test_the_first_examples() -> None:
    for odd in (np.zeros(2), 1, None, {"x": 1}):
        assert "as in the first examples" in told(later(np.zeros(3), odd))


def test_a_signature() -> None:
    tf = pytest.importorskip("tensorflow")
    for odd in (np.zeros(2), "text", {"x": 1}):
        message = told([odd] * 4, output_signature=tf.TensorSpec((3,), tf.float64))
        assert "as declared by output_signature" in message
        assert "first" not in message


def test_what_collate_made() -> None:
    def collate(examples: list[Any]) -> Any:
        batch = np.stack(examples)
        return batch if batch.max() < 1 else batch.astype(np.float32)

    assert "as in collate's results for the first examples" in told(later(np.zeros(3), np.ones(3)), collate=collate)


def test_a_source_of_batches() -> None:
    batches = stoker.from_generator(lambda shard: iter(later(np.zeros((4, 3)), np.zeros((4, 2)))), 1, batched=True)
    assert "as in the first batches" in told(batches, batch_size=None)


def test_a_single_leaf_is_named_in_words() -> None:
    assert "Expected a single leaf as in the first examples" in told(later(1, None))
    assert "a single leaf unexpected. Got a single leaf, expected {'x': *}" in told(later({"x": 1}, 1))
