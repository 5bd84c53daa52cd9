"""Rows that name the process that made them; their code imports: SciPy and Pillow."""

from __future__ import annotations

import os
import time

import numpy as np
import PIL.Image  # noqa: F401
import scipy.ndimage  # noqa: F401


class Rows:
    """A map-style dataset."""

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> np.ndarray:
        time.sleep(0.001)
        return np.full(100, os.getpid(), np.float32)
