"""Data that belong to no library need none of those that Stoker can read."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import numpy as np
import stoker

def imported(example):
    return any(name in sys.modules for name in LIBRARIES)

LIBRARIES = "datasets grain keras tensorflow tensorflow_datasets torch jax".split()
for source in ([1, 2, 3], np.zeros((3, 2)), stoker.from_iterable([1, 2, 3])):
    with stoker.Loader(source, batch_size=3, transform=imported, workers=1) as loader:
        assert [batch.tolist() for batch in loader] == [[False] * 3]
assert not any(name in sys.modules for name in LIBRARIES)
"""


def test_other_data_import_no_library() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
