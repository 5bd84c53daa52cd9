"""What a worker starts with: its environment, and `worker_init`. What a Loader says to who copies it."""

from __future__ import annotations

import copy
import os
import pickle
import random
import warnings
from typing import Any

import numpy as np
import pytest

import stoker

NAMES = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "JAX_PLATFORMS", "OF_OURS"


def variables(_: Any) -> list[np.str_]:
    return np.array([os.environ.get(name, "(none)") for name in NAMES])


def seen(**options: Any) -> list[str]:
    with stoker.Loader([0], transform=variables, workers=1, **options) as loader:
        ((row,),) = list(loader)
    return [value.decode() for value in row]


def test_workers_see_no_gpu_unless_worker_env_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("OF_OURS", "kept")
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("ROCR_VISIBLE_DEVICES", raising=False)
    before = dict(os.environ)
    assert seen() == ["-1", "-1", "-1", "cpu", "kept"]
    assert seen(worker_env={"OF_OURS": None}) == ["-1", "-1", "-1", "cpu", "(none)"]
    assert seen(worker_env={"CUDA_VISIBLE_DEVICES": "1"}) == ["1", "(none)", "(none)", "cuda", "kept"]
    assert seen(worker_env={"CUDA_VISIBLE_DEVICES": None}) == ["(none)", "(none)", "(none)", "cuda", "kept"]
    assert dict(os.environ) == before


def wants_a_gpu(_: Any) -> int:
    raise RuntimeError("No CUDA GPUs are available")


def test_an_error_for_want_of_a_gpu_names_worker_env() -> None:
    with (
        stoker.Loader([0], transform=wants_a_gpu, workers=1) as loader,
        pytest.raises(stoker.WorkerError, match=r'(?s)No CUDA GPUs.*worker_env=\{"CUDA_VISIBLE_DEVICES": "0"\}'),
    ):
        list(loader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"worker_env": "CUDA_VISIBLE_DEVICES=0"}, "worker_env must be a dict of environment variables"),
        ({"worker_env": {"CUDA_VISIBLE_DEVICES": 0}}, r"worker_env\['CUDA_VISIBLE_DEVICES'\] must be a str.* got 0"),
        ({"worker_env": {"A=B": "1"}}, "names of environment variables, got 'A=B'"),
        ({"worker_init": 5}, "worker_init must be a function without parameters, got 5"),
        ({"worker_init": lambda worker: None}, "worker_init must be a function without parameters"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(stoker.OptionError, match=message):
        stoker.Loader([1], workers=0, **options)


# ── worker_init ──────────────────────────────────────────────────────────────────────────────
drawn: tuple[float, ...] = ()
client = None


def set_up() -> None:
    """Sets a global variable that the transform reads, and settings of the process."""
    global drawn, client
    drawn = random.random(), float(np.random.random())
    client = stoker.current().worker
    warnings.simplefilter("error")
    np.seterr(all="raise")


class Loaded:
    """Notes what is set when it is unpickled."""

    def __init__(self) -> None:
        self.divides = "warn"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.divides = np.geterr()["divide"]

    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        assert client == stoker.current().worker
        return self.divides, np.geterr()["divide"], *drawn, random.random()


def test_worker_init_comes_before_the_source_and_draws_alike_in_each_worker(tmp_path: Any) -> None:
    made = []
    for workers in (1, 2, 2):
        with stoker.Loader(Loaded(), batch_size=4, workers=workers, worker_init=set_up, seed=3) as loader:
            made.append([[leaf.tolist() for leaf in batch] for batch in loader])
        divides = {(one, other) for batch in made[-1] for one, other in zip(*batch[:2], strict=True)}
        assert divides == {(b"raise", b"raise")}
        assert len({value for batch in made[-1] for value in batch[2]}) == 1
    assert made[0] == made[1] == made[2]


def test_without_workers_worker_init_is_called_once_and_leaves_random_states_alone() -> None:
    calls: list[stoker.worker.user_code.current.Current] = []

    def note() -> None:
        random.random()
        calls.append(stoker.current())

    random.seed(5)
    expected = random.random()
    random.seed(5)
    with stoker.Loader([1, 2], batch_size=1, workers=0, worker_init=note) as loader:
        assert not calls
        assert [batch.tolist() for batch in loader] + [batch.tolist() for batch in loader] == [[1], [2]] * 2
    assert [(call.worker, call.example) for call in calls] == [(None, None)]
    assert random.random() == expected


def fails() -> None:
    raise KeyError("no such device")


def leaves() -> None:
    os._exit(7)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_worker_init_is_told_and_ends_the_run(workers: int) -> None:
    with stoker.Loader([1, 2], workers=workers, worker_init=fails) as loader:
        for _ in range(2):
            with pytest.raises(stoker.WorkerError, match=r"(?s)^worker_init.* raised KeyError.*in fails") as caught:
                list(loader)
        assert isinstance(caught.value.__cause__, KeyError)


def test_a_worker_init_that_ends_the_process_ends_the_run() -> None:
    with (
        stoker.Loader([1, 2], workers=1, worker_init=leaves) as loader,
        pytest.raises(stoker.WorkerDied, match="exited with code 7 before it was ready"),
    ):
        list(loader)


# ── copies ───────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("copies", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_loader_and_its_iterator_say_what_to_send_instead(copies: Any) -> None:
    with stoker.Loader([1, 2], workers=0) as loader:
        for value in (loader, iter(loader)):
            with pytest.raises(
                stoker.ProgramError, match=r"cannot be pickled or copied.* Send its source and its options instead"
            ):
                copies(value)
            with pytest.raises(stoker.ProgramError, match=r"source\.handle \(.*create the Loader there\. `workers=0`"):
                stoker.Loader(Holder(value), workers=1)


class Holder(list[int]):
    def __init__(self, handle: Any) -> None:
        super().__init__([1, 2])
        self.handle = handle
