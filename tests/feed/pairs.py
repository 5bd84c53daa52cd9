"""Transforms for tests of `fit`, in a module of their own: workers import it, and with it no TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

import stoker


def pair(number: float) -> tuple[Any, Any]:
    return np.array([number], np.float32), np.array([1], np.float32)


def two_of_three(number: float) -> Any:
    return stoker.SKIP if number % 3 == 1 else pair(number)
