"""Cells of `keras_cells` for JAX and PyTorch: where the batches lie, and what these backends have no type for."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import numpy as np

import stoker
from tests.examples import Squares
from tests.feed.keras_cells import (
    BATCH,
    LENGTH,
    Cell,
    Examples,
    Result,
    arrays,
    fit,
    loader,
    model,
    new_model,
    raises,
    same,
    similar,
)

CELLS: dict[str, Cell] = {}


def cell(function: Cell) -> Cell:
    CELLS[function.__name__.replace("_", " ")] = function
    return function


def backend() -> str:
    import keras

    return str(keras.backend.backend())


def batches(data: Any) -> Any:
    """What Keras gets on this backend, as its loops get it."""
    from keras.src.trainers.data_adapters import get_data_adapter

    adapter = get_data_adapter(data)
    return iter(adapter.get_torch_dataloader() if backend() == "torch" else adapter.get_jax_iterator())


def address(value: Any) -> int:
    """Where the library reads the value; JAX's compiled functions read arrays where `device_put` does."""
    if backend() == "torch":
        return int(value.data_ptr())
    import jax

    return int(jax.device_put(value).unsafe_buffer_pointer())


def slots() -> list[tuple[int, int]]:
    """The addresses of the slots' memory in this process."""
    with open("/proc/self/maps") as file:  # noqa: PTH123, as in conftest
        places = [line.split()[0].split("-") for line in file if "memfd:stoker-" in line]
    return [(int(start, 16), int(stop, 16)) for start, stop in places]


@cell
def a_batch_lies_in_its_slot() -> Iterator[None]:
    with stoker.Loader(Squares(400), batch_size=8, workers=1) as train:
        for _, (x, _) in zip(range(5), batches(train.to_keras()), strict=False):
            assert any(start <= address(x) < stop for start, stop in slots()), "it was copied"
    yield


@cell
def compiled_steps_read_the_slot() -> Iterator[None]:
    if backend() == "jax":
        import jax
        import jax.numpy as jnp

        @jax.jit
        def reads_late(x: Any) -> Any:
            late = jax.lax.fori_loop(0, 300, lambda _, m: jnp.tanh(m @ m), jnp.ones((300, 300)) / 300)
            return (x + 0 * late[0, 0]).sum()

        with stoker.Loader(Squares(400), batch_size=8, workers=1) as train:
            for _, (x, _) in zip(range(3), batches(train.to_keras()), strict=False):
                result, memory = reads_late(x), x.view()
                memory.flags.writeable = True
                memory[...] = 5  # after the call, before the step comes to it
                assert float(result) == 5 * 8 * 4, "it was copied"
    yield


@cell
def held_batches_stay_whole() -> Iterator[None]:
    put: Any = lambda value: value  # noqa: E731
    if backend() == "jax":
        import jax

        put = jax.device_put
    with stoker.Loader(Squares(4000), batch_size=8, workers=2) as train:
        held = [(put(x), put(y)) for x, y in batches(train.to_keras())]
        rows = [put(x)[2] for x, _ in batches(train.to_keras())]
        gc.collect()
        assert len(held) == 500
        assert all(np.array_equal(x[:, 0], range(8 * n, 8 * n + 8)) for n, (x, _) in enumerate(held))
        assert all(y.tolist() == [m * m for m in range(8 * n, 8 * n + 8)] for n, (_, y) in enumerate(held))
        assert [float(row[0]) for row in rows] == [8 * n + 2 for n in range(500)]
    yield


@cell
def a_slot_is_not_reused_while_a_step_still_computes() -> Iterator[None]:
    if backend() == "jax":
        import jax

        @jax.jit
        def slow(x: Any) -> Any:
            return jax.lax.fori_loop(0, 2000, lambda _, total: total + x.sum() * 1e-9, x.sum())

        with stoker.Loader(Squares(320), batch_size=8, workers=2, prefetch=2) as train:
            sums = [slow(x) for x, _ in batches(train.to_keras())]  # not awaited
            expected = [4 * sum(range(8 * n, 8 * n + 8)) for n in range(40)]
            assert np.allclose(sums, expected, rtol=1e-4)
    yield


def padded(examples: list[Any]) -> Any:
    longest = max(map(len, examples))
    return np.stack([np.pad(one, (0, longest - len(one))) for one in examples])


@cell
def ragged_values_are_padded() -> Iterator[None]:
    with loader("words", collate={(0,): "ragged"}) as train:
        found = [np.asarray(x).tolist() for x, _ in batches(train.to_keras())]
    source = Examples("words")
    starts = range(0, LENGTH, BATCH)
    assert found == [padded([source[n][0] for n in range(s, min(s + BATCH, LENGTH))]).tolist() for s in starts]
    yield


@cell
def sparse_values() -> Iterator[None]:
    import scipy.sparse

    dense = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    dense[np.abs(dense) < 1] = 0
    source = [(scipy.sparse.csr_array(row[None]), np.float32(row.sum())) for row in dense]
    source = [(scipy.sparse.coo_array(x.toarray()[0]), y) for x, y in source]
    with stoker.Loader(source, batch_size=BATCH, workers=1) as train:
        ours = fit(model(), train.to_keras())
    yield
    theirs = fit(model(), dense, dense.sum(1), batch_size=BATCH, shuffle=False)
    similar(ours, theirs)


@cell
def other_dtypes() -> Iterator[None]:
    results = {}
    for form in ("bfloat16", "uint16"):
        with loader(form) as train:
            results[form] = fit(model(form), train.to_keras())
            x, _ = next(batches(train.to_keras()))
            if backend() == "torch":
                assert str(x.dtype) == {"bfloat16": "torch.bfloat16", "uint16": "torch.int32"}[form]
    if backend() == "torch":
        with (
            stoker.Loader([np.uint64(1)], workers=0) as train,
            raises(stoker.OptionError, "uint64, which PyTorch lacks"),
        ):
            train.to_keras()
    yield
    for form, ours in results.items():
        x, y = arrays(form)
        same(ours, fit(model(form), x, y, batch_size=BATCH, shuffle=False))


@cell
def strings_are_refused() -> Iterator[None]:
    source = [{"id": n, "text": str(n)} for n in range(8)]
    with (
        stoker.Loader(source, workers=0) as train,
        raises(stoker.OptionError, r"\['text'\] is a string, which only Tensor"),
    ):
        train.to_keras()
    yield


@cell
def a_look_uses_up_no_epoch() -> Iterator[None]:
    with loader("x, y", shuffle=True) as train:
        before, data = train.state_dict(), train.to_keras()
        made = model(built=False)
        made._symbolic_build(iterator=_epoch_iterator(data))
        assert train.state_dict() == before
        assert [y.tolist() for _, y in batches(data)] == _targets(0), "the batch that was looked at is the first"
        made = model(built=False)
        made._symbolic_build(iterator=_epoch_iterator(data))
        state = {**before, "epoch": 7, "batches": 2}
        train.load_state_dict(state)
        assert [y.tolist() for _, y in batches(data)] == _targets(7)[2:], "another position came in between"
        made = model(built=False)
        made._symbolic_build(iterator=_epoch_iterator(data))
        assert [y.tolist() for _, y in train] == _targets(8), "another iteration came in between"
        assert [y.tolist() for _, y in batches(data)] == _targets(9)
    yield


def _epoch_iterator(data: Any) -> Any:
    import keras

    if backend() == "torch":
        from keras.src.backend.torch.trainer import TorchEpochIterator as Kind
    else:
        from keras.src.backend.jax.trainer import JAXEpochIterator as Kind
    assert keras.backend.backend() == backend()
    return Kind(x=data)


def _targets(epoch: int) -> list[list[float]]:
    with loader("x, y", shuffle=True) as train:
        train.load_state_dict({**train.state_dict(), "epoch": epoch})
        return [y.tolist() for _, y in train]


@cell
def several_devices() -> Iterator[None]:
    results: list[Result] = []
    if backend() == "jax":
        import keras

        with distributed(), loader("x, y", pad_remainder=True) as train:
            results.append(fit(new_model(), train.to_keras()))
        with distributed(), loader("x, y", drop_remainder=True) as train:
            made = new_model()
            results.append(fit(made, train.to_keras(), validation_data=train.to_keras(), validation_steps=2))
        assert keras.distribution.distribution() is None
    yield
    if results:
        (x, y), plain = arrays("x, y"), {"batch_size": BATCH, "shuffle": False}
        theirs = fit(new_model(), x, y, **plain)
        similar((results[0][0], {}), (theirs[0], {}))  # Keras weighs a filled-up batch like a full one in the loss
        theirs = fit(new_model(), x[:48], y[:48], **plain)
        similar(results[1], (theirs[0], {"loss": theirs[1]["loss"]}))


@contextlib.contextmanager
def distributed() -> Iterator[None]:
    """Distribute batches over four devices of the CPU."""
    import keras

    assert len(keras.distribution.list_devices()) == 4
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        yield
    finally:
        keras.distribution.set_distribution(None)
