"""Rows that name the process that made them; their code imports: PyTorch."""

from __future__ import annotations

import torch  # noqa: F401

from benchmarks.imports import numpy_only


class Rows(numpy_only.Rows):
    """The same dataset, defined here, so that a worker imports this module."""
