"""A last batch that is filled up changes no number of a training: neither weights nor losses nor metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stoker

keras = pytest.importorskip("keras")

REDUCTIONS = ["sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", None]
LENGTH, SIZE = 42, 16
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(LENGTH, 3)).astype("float32"), RANDOM.normal(size=(LENGTH, 1)).astype("float32")
OWN = RANDOM.uniform(0.5, 2, LENGTH).astype("float32")


def model(reduction: Any) -> Any:
    keras.utils.set_random_seed(3)
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    made.compile(keras.optimizers.SGD(0.01), loss, metrics=["mae"], weighted_metrics=["mse"])
    return made


def trained(reduction: Any, source: Any, **options: Any) -> list[Any]:
    """All numbers of a training of two epochs, with validation, and of an evaluation."""
    made = model(reduction)
    with stoker.Loader(source, batch_size=SIZE, workers=0, **options) as loader:
        history = made.fit(loader.to_tf(), validation_data=loader.to_tf(), epochs=2, shuffle=False, verbose=0)
        evaluated = made.evaluate(loader.to_tf(), verbose=0)
        assert len(made.predict(loader.to_tf(), verbose=0)) == LENGTH
    return [*made.get_weights(), *history.history.values(), evaluated]


@pytest.mark.parametrize(
    "reduction",
    [
        "sum_over_batch_size",
        "sum",
        *(pytest.param(each, marks=pytest.mark.stress) for each in ("mean_with_sample_weight", None)),
    ],
)
def test_fit_and_evaluate_give_the_numbers_of_the_unpadded_run(reduction: Any) -> None:
    source = list(zip(X, Y, OWN, strict=True))
    plain, filled = trained(reduction, source), trained(reduction, source, pad_remainder=True)
    assert all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(plain, filled, strict=True))


def test_weights_that_are_added_change_nothing_either() -> None:
    source = list(zip(X, Y, strict=True))
    plain = trained("sum_over_batch_size", source)
    filled = trained("sum_over_batch_size", source, pad_remainder=True)
    assert all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(plain, filled, strict=True))


def steps(datasets: list[Any], reduction: Any) -> list[Any]:
    """What several trainers compute together, step by step: loss and gradient, as `tf.distribute` joins them."""
    import tensorflow as tf

    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    joined = []
    for parts in zip(*datasets, strict=True):
        told = []
        for x, y, weight in parts:
            with tf.GradientTape() as tape:
                value = tf.reduce_sum(loss(y, made(x), weight))
            gradient = tape.gradient(value, made.trainable_variables)
            told.append(np.concatenate([[value], *(np.ravel(part) for part in gradient)]))
        joined.append(np.sum(told, 0) if reduction in ("sum", None) else np.mean(told, 0))
    return joined


@pytest.mark.parametrize("length", [44, 39, 33])  # dealt evenly to 4, not evenly, and too few for all of them
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_several_trainers_compute_together_what_one_computes(reduction: Any, length: int) -> None:
    if reduction == "mean_with_sample_weight" and length != 44:
        pytest.skip("Keras divides by the weights of each trainer: means of means, with fillers and without")
    source = list(zip(np.resize(X, (length, 3)), np.resize(Y, (length, 1)), np.ones(length, "float32"), strict=True))
    pads: Any = "sum" if reduction in ("sum", None) else True
    loaders = [
        stoker.Loader(source, batch_size=SIZE, shard_index=n, shard_count=4, pad_remainder=pads, workers=0)
        for n in range(4)
    ]
    plain = stoker.Loader(source, batch_size=SIZE, workers=0)
    together = steps([loader.to_tf() for loader in loaders], reduction)
    assert np.allclose(together, steps([plain.to_tf()], reduction), rtol=1e-5, atol=1e-6)
    for loader in (plain, *loaders):
        loader.close()


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_the_fit_of_one_of_several_trainers_knows_its_reduction(reduction: str) -> None:
    losses = []
    for index in range(2):
        made = model(reduction)
        how: dict[str, Any] = {"batch_size": SIZE, "shard_index": index, "shard_count": 2, "pad_remainder": True}
        with stoker.Loader(list(zip(X[:5], Y[:5], strict=True)), **how, workers=0) as loader:
            losses.append(made.evaluate(loader.to_tf(), verbose=0, return_dict=True)["loss"])
    plain = model(reduction).evaluate(X[:5], Y[:5], verbose=0, return_dict=True)["loss"]
    together = sum(losses) if reduction == "sum" else sum(losses) / 2
    assert together == pytest.approx(plain, rel=1e-5)


def test_losses_that_no_weight_is_right_for_are_refused() -> None:
    inputs = keras.layers.Input((3,))
    made = keras.Model(inputs, {"a": keras.layers.Dense(1)(inputs), "b": keras.layers.Dense(1)(inputs)})
    both = {"a": keras.losses.MeanSquaredError(), "b": keras.losses.MeanSquaredError(reduction="sum")}
    made.compile("sgd", both)
    source = [(X[n], {"a": Y[n], "b": Y[n]}) for n in range(5)]
    with (
        stoker.Loader(source, batch_size=4, shard_count=2, pad_remainder=True, workers=0) as loader,
        pytest.raises(stoker.OptionError, match="some of the model's losses are sums"),
    ):
        made.evaluate(loader.to_tf(), verbose=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_weights_of_several_outputs_are_filled_with_zeros(workers: int) -> None:
    source = [(X[n], (Y[n], Y[n]), {"a": 2, "b": (1.5, np.ones(2))}) for n in range(5)]
    with stoker.Loader(source, batch_size=4, pad_remainder=True, workers=workers) as loader:
        (_, _, _), (_, _, last) = list(loader)
    assert last["a"].tolist() == [2, 0, 0, 0]
    assert last["b"][0].tolist() == [1.5, 0, 0, 0]
    assert last["b"][1].tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]


def test_a_weight_that_is_no_number_is_told() -> None:
    with (
        stoker.Loader([(1, 2, "much")] * 3, batch_size=2, pad_remainder=True, workers=0) as loader,
        pytest.raises(
            stoker.SpecError, match="a sample_weight of it is neither a number nor an array of numbers: 'much'"
        ),
    ):
        next(iter(loader))
