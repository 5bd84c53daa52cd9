"""Augmentation as users write it, and libraries: nothing of it knows a Loader's random states."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

import stoker


def by_random(example: Any) -> Any:
    return [random.random(), random.gauss(0, 1), random.randint(0, 1 << 30)]


def by_numpy(example: Any) -> Any:
    return np.random.uniform(size=3)


def by_all(example: Any) -> Any:
    return np.array([random.random(), np.random.rand()])


def by_rng(example: Any, rng: np.random.Generator) -> Any:
    return rng.random(3)


def by_torch(example: Any) -> Any:
    import torch

    return torch.rand(3).numpy()


def by_tensorflow(example: Any) -> Any:
    import tensorflow as tf

    return tf.random.uniform((3,)).numpy()


class Augment:
    """As albumentations' transforms: with a generator of its own, in whatever order it is called."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def __call__(self, example: Any) -> Any:
        return [self.generator.random() for _ in range(3)]


class Several:
    """Transforms that share one generator, beside one that has another."""

    def __init__(self) -> None:
        shared = np.random.default_rng(1)
        self.parts = [Augment(shared), Augment(shared), Augment(random.Random(1))]

    def __call__(self, example: Any) -> Any:
        return [number for part in self.parts for number in part(example)]


def mixed(examples: list[Any], rng: np.random.Generator) -> Any:
    return np.stack([np.array(examples, float), np.full(len(examples), rng.random())], axis=1)


def numbers(shard: stoker.Shard) -> Iterator[int]:
    yield from range(shard.index, shard.index + 11)


def asked(example: Any) -> Any:
    now = stoker.current()
    assert now.shard is None
    return np.array([now.epoch, now.example, now.worker, now.seed % (1 << 62)])


def asked_in_shard(shard: stoker.Shard) -> Iterator[Any]:
    for _ in range(2):
        now = stoker.current()
        yield np.array([now.shard, now.example])


def after_an_import(example: Any) -> Any:
    import drawing_when_imported  # type: ignore[import-not-found]  # a test writes it

    return np.array([random.random(), drawing_when_imported.NUMBER > 0])
