"""`to_keras()`: on each backend Keras computes what it computes from the same arrays; see `keras_cells`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stoker
from tests.feed import keras_cells, keras_cells_beside_tensorflow

ROOT = Path(__file__).parents[2]
#: Where `make test` puts the oldest Keras that TensorFlow 2.18 takes; it runs with this NumPy and PyTorch.
OLDEST = Path(sys.prefix) / "keras-oldest"
#: With it, these cells run with the other tests: one for each thing that Stoker does otherwise for old versions.
QUICK = ("finite", "repeated", "validation", "evaluate and predict", "class weights", "a batch lies in its slot")
#: The cells that run with the other tests on each backend; `make stress` runs all of them.
MATRIX = (
    *("finite", "sample weights", "dict inputs", "steps_per_epoch, smaller", "steps_per_epoch, larger", "endless"),
    *("of unknown length", "validation", "class weights", "evaluate and predict", "an epoch that is stopped"),
)
#: What that version cannot have, as errors say: an unknown number of batches, and epochs that are resumed.
LACKS = ("of unknown length", "a look uses up no epoch")


def environment(backend: str, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONWARNINGS": "ignore",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",  # compiles sooner
        **more,
    }


def run(code: list[str], backend: str, **more: str) -> str:
    """What a process with this backend prints."""
    done = subprocess.run(
        [sys.executable, *code],
        cwd=ROOT,
        env=environment(backend, **more),
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("some", ["matrix", pytest.param("all", marks=pytest.mark.stress)])
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_keras_computes_what_it_computes_from_arrays_in_memory(backend: str, some: str) -> None:
    expected = set(keras_cells.CELLS if some == "all" else MATRIX)
    if backend != "tensorflow":
        expected |= set(keras_cells_beside_tensorflow.CELLS)
    lines = run(["-m", "tests.feed.keras_cells", *expected], backend).splitlines()
    ended = dict(json.loads(line) for line in lines)
    bad = {name: text for name, text in ended.items() if text != "ok"}
    assert not bad, "\n".join(f"{name}: {text}" for name, text in bad.items())
    assert set(ended) == expected


@pytest.mark.skipif(not OLDEST.exists(), reason="`make test` installs it")
@pytest.mark.parametrize("some", ["quick ones", pytest.param("all", marks=pytest.mark.stress)])
def test_the_oldest_keras_takes_batches_too(some: str) -> None:
    names = [name for name in [*keras_cells.CELLS, *keras_cells_beside_tensorflow.CELLS] if name not in LACKS]
    names = names if some == "all" else [*QUICK]
    lines = run(["-m", "tests.feed.keras_cells", *names], "torch", PYTHONPATH=f"{OLDEST}:{ROOT / 'src'}").splitlines()
    assert dict(map(json.loads, lines)) == dict.fromkeys(names, "ok")


def test_importing_stoker_imports_no_keras() -> None:
    found = run(
        ["-c", "import stoker, sys; print([name for name in ('keras', 'jax', 'torch') if name in sys.modules])"], "jax"
    )
    assert found.strip() == "[]"


def error_of(code: str, backend: str = "tensorflow") -> str:
    """The error of this code, which has a Loader `train`."""
    script = (
        "import sys, stoker\n"
        "train = stoker.Loader([([1.0], 1.0)] * 4, batch_size=2, workers=0)\n"
        f"try:\n    {code}\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    return run(["-c", script], backend)


def test_without_keras_there_is_an_import_error_with_the_line_that_installs_it() -> None:
    found = error_of("sys.modules['keras'] = None; train.to_keras()")
    assert found.strip() == "ImportError to_keras() needs Keras: pip install keras"


def test_a_backend_that_is_not_there_is_reported_by_keras_itself() -> None:
    assert "jax" in error_of("sys.modules['jax'] = None; train.to_keras()", "jax")


def test_a_backend_that_stoker_does_not_know_is_an_error() -> None:
    found = error_of("train.to_keras()", "numpy")
    assert found.startswith("OptionError Keras runs on the backend 'numpy', which to_keras() does not know. Set KERAS_")


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ([1.0, 2.0], "class_weight must be a dict of weights by class"),
        ({}, "class_weight must be a dict"),
        ({"cat": 1.0}, "has the class 'cat'. Classes are whole numbers"),
        ({-1: 1.0}, "has the class -1"),
        ({True: 1.0}, "has the class True"),
        ({0: "much"}, "has 'much' for class 0. A weight is a number of at least 0"),
        ({0: float("nan")}, "has nan for class 0"),
        ({0: -1.0}, "has -1.0 for class 0"),
        ({0: 1e300}, "has 1e\\+300 for class 0"),
        ({1 << 70: 1.0}, f"has the class {1 << 70}"),
    ],
)
def test_weights_of_classes_are_checked(class_weight: Any, message: str) -> None:
    with (
        stoker.Loader([([1.0], 1)] * 4, batch_size=2, workers=0) as train,
        pytest.raises(stoker.OptionError, match=message),
    ):
        train.to_keras(class_weight)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (([1.0], 1, 1.0), "cannot be used with examples .x, y, sample_weight."),
        ([1.0, 2.0], "needs examples .x, y., but these have 1 part."),
        (([1.0], {"a": 1, "b": 2}), "single array of targets, but the targets y are nested"),
        (([1.0], None), "single array of targets"),
        (([1.0], "cat"), "needs one class for each example"),
        (([1.0], [[1, 0], [0, 1]]), "needs one class for each example"),
    ],
)
def test_examples_without_a_class_each_cannot_be_weighed(example: Any, message: str) -> None:
    with (
        stoker.Loader([example] * 4, batch_size=2, workers=0) as train,
        pytest.raises(stoker.OptionError, match=message),
    ):
        train.to_keras({0: 1.0, 1: 2.0})
