"""Rows that name the process that made them; their code imports: SciPy, Pillow and, if it is installed, OpenCV."""

from __future__ import annotations

import contextlib

import PIL.Image  # noqa: F401
import scipy.ndimage  # noqa: F401

from benchmarks.imports import numpy_only

with contextlib.suppress(ImportError):
    import cv2  # noqa: F401


class Rows(numpy_only.Rows):
    """The same dataset, defined here, so that a worker imports this module."""
