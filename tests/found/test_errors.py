"""Errors as a consumer meets them: of the user's type too, with the repair, and out of TensorFlow."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import Any

import pytest

import stoker
from tests.found import raising


def raised(example: Any, workers: int) -> stoker.WorkerError:
    with stoker.Loader([example], transform=raising.transform, workers=workers) as loader:
        with pytest.raises(stoker.WorkerError) as info:
            list(loader)
        last = loader.last_error
        assert (type(last), str(last)) == (type(info.value), str(info.value))
        assert last.__traceback__ is None
        return info.value


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_of_the_users_type_too(workers: int) -> None:
    for name, kind in raising.KINDS.items():
        error = raised(name, workers)
        assert isinstance(error, kind), name
        assert str(error).startswith("example 0 (epoch 0, batch 0"), "the text is ours, not a repr"
        assert (error.example, error.epoch) == (0, 0)
        for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (type(other), str(other), other.example) == (type(error), str(error), 0)
        assert "stoker.errors.WorkerError: example 0" in "".join(traceback.format_exception(error))
    error: Any = raised("file", workers)
    assert (error.errno, error.filename) == (2, "gone.png")
    error = raised("own", workers)
    assert (error.code, error.__cause__.code) == (7, 7)


@pytest.mark.parametrize("name", ["stop", "exit", "group", "final", "syntax"])
def test_types_that_cannot_be_joined_are_told_as_before(name: str) -> None:
    error = raised(name, 1)
    assert type(error) is stoker.WorkerError
    assert isinstance(error, RuntimeError)


def test_an_error_of_the_users_ends_no_loop_in_silence() -> None:
    with (
        stoker.Loader(range(4), transform=raising.stops, batch_size=2, workers=0) as loader,
        pytest.raises(stoker.WorkerError, match="StopIteration"),
    ):
        list(loader)  # it must not look like the end


@pytest.mark.parametrize("source", [raising.Scratch(), raising.Doubled()])
def test_who_writes_to_a_shared_array_is_told_why_not_and_what_to_do(source: Any) -> None:
    with stoker.Loader(source, batch_size=2, workers=1) as loader, pytest.raises(ValueError, match="read-only") as info:
        list(loader)
    assert all(each in str(info.value) for each in ("All workers share one copy", "x = x * 2", "share=False"))


def test_a_buffer_of_the_sources_own_works_where_arrays_are_not_shared() -> None:
    source = raising.Scratch()
    with stoker.Loader(source, batch_size=3, workers=2, share=False) as loader:
        assert [batch.tolist() for batch in loader] == [[[0, 0], [1, 1], [2, 2]], [[3, 3], [4, 4], [5, 5]]]
    assert source.buffer.tolist() == [9, 9], "the trainer's own is not written to"


def test_a_debugger_in_a_worker_names_what_to_do() -> None:
    with (
        stoker.Loader(range(2), transform=raising.debugs, workers=1) as loader,
        pytest.raises(stoker.WorkerError, match="With workers=0 the code runs in this process"),
    ):
        list(loader)


def test_the_error_behind_tensorflows_is_kept() -> None:
    import tensorflow as tf

    with stoker.Loader([*["fine"] * 40, "key"], batch_size=8, transform=raising.transform, workers=0) as loader:
        assert loader.last_error is None
        with pytest.raises(
            tf.errors.UnknownError, match=r"(?s)in transform.*The error itself is `loader.last_error`"
        ) as info:
            list(loader.to_tf())
        assert info.value.__cause__ is loader.last_error
        assert isinstance(loader.last_error, KeyError)
        assert isinstance(loader.last_error.__cause__, KeyError)
        with pytest.raises(tf.errors.UnknownError, match=r"loader\.last_error"):
            loader.to_tf().reduce(0, lambda number, _: number)


def test_a_kept_error_keeps_no_loader_alive() -> None:
    import weakref

    loader = stoker.Loader(["key"], transform=raising.transform, workers=0)
    try:
        list(loader)
    except KeyError:
        """Its traceback goes with it."""
    gone = weakref.ref(loader)
    del loader
    assert gone() is None
