"""Rows that name the process that made them; their code imports: SciPy and Pillow."""

from __future__ import annotations

import PIL.Image  # noqa: F401
import scipy.ndimage  # noqa: F401

from benchmarks.imports import numpy_only


class Rows(numpy_only.Rows):
    """The same dataset, defined here, so that a worker imports this module."""
