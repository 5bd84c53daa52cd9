"""A Loader begins its first batches when it is created; nothing but the time tells that from `lazy=True`."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import stoker
from stoker.coordinator.early_start import MOST_UNREAD

SIZE = 40


def noted(file: Path, index: int) -> int:
    """Note in `file` that the example was made."""
    with file.open("a") as notes:
        notes.write(f"{index}\n")
    return index


def made(file: Path) -> Counter[int]:
    return Counter(map(int, file.read_text().split())) if file.exists() else Counter()


def fails(file: Path, index: int) -> int:
    if index < 4:
        raise ValueError(f"example {index} is broken")
    return noted(file, index)


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "stoker.worker" in " ".join(_command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def flat(batches: Iterator[Any]) -> list[int]:
    return [int(index) for batch in batches for index in batch]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "made"


def test_the_first_batches_are_there_before_they_are_pulled_and_are_made_once(file: Path) -> None:
    transform = partial(noted, file)
    with stoker.Loader(range(SIZE), batch_size=4, workers=2, prefetch=3, transform=transform, ahead=False) as loader:
        wait_for(lambda: sum(made(file).values()) == 12)
        state = loader.state_dict()
        assert (state["epoch"], state["batches"]) == (0, 0)
        assert flat(loader) == list(range(SIZE))
    assert made(file) == Counter(range(SIZE))


@pytest.mark.alone
def test_the_first_pull_takes_less_than_20_ms_once_the_batch_is_made(file: Path) -> None:
    taken = []
    for number in range(1, 4):
        transform = partial(noted, file)
        with stoker.Loader(range(SIZE), batch_size=4, workers=2, prefetch=2, transform=transform) as loader:
            wait_for(lambda number=number: sum(made(file).values()) == 8 * number)
            time.sleep(0.05)
            begun = time.perf_counter()
            next(iter(loader))
            taken.append(time.perf_counter() - begun)
            wait_for(lambda number=number: sum(made(file).values()) > 8 * number)
        file.write_text("0\n" * 8 * number)
    assert min(taken) < 0.02, taken


def test_a_lazy_loader_starts_nothing_before_its_first_pull(file: Path) -> None:
    with stoker.Loader(range(SIZE), batch_size=4, workers=1, transform=partial(noted, file), lazy=True) as loader:
        assert not [thread for thread in threading.enumerate() if thread.name == "stoker-supervisor"]
        assert flat(loader) == list(range(SIZE))
    with pytest.raises(stoker.OptionError, match="lazy must be True or False, got 'no'"):
        stoker.Loader(range(SIZE), lazy="no")  # type: ignore[arg-type]


def test_an_error_waits_for_the_first_pull_and_the_code_does_not_run_again_for_it(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = stoker.from_generator(partial(_raising, file), shards=1)
    with stoker.Loader(source, batch_size=4, workers=1) as loader:
        wait_for(lambda: made(file))
        time.sleep(0.1)
        before = made(file)
        with pytest.raises(stoker.WorkerError, match="it is broken"):
            next(iter(loader))
        assert made(file) == before
        with pytest.raises(stoker.WorkerError, match="it is broken"):  # another iteration tries again
            next(iter(loader))
        assert made(file) > before
    assert capfd.readouterr() == ("", "")


def _raising(file: Path, shard: stoker.Shard) -> Iterator[int]:
    noted(file, shard.index)
    raise ValueError("it is broken")
    yield 0


def test_a_program_that_no_worker_can_load_is_an_error_at_the_first_pull() -> None:
    with stoker.Loader([_Unloadable()], workers=1) as loader:
        wait_for(lambda: not [one for one in threading.enumerate() if one.name == "stoker-supervisor"])
        with pytest.raises(stoker.ProgramError, match="not here"):
            next(iter(loader))


class _Unloadable:
    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise RuntimeError("not here")


def test_a_state_that_is_loaded_at_once_replaces_what_was_begun(file: Path) -> None:
    transform = partial(fails, file)  # in epoch 0 the first batch cannot be made
    state = json.loads('{"version": 1, "epoch": 1, "batches": 3, "seed": 0, "stream": null, "fingerprint": {}}')
    for pause in (0.0, 0.6):
        with stoker.Loader(range(SIZE), batch_size=4, workers=2, transform=transform) as loader:
            time.sleep(pause)
            loader.load_state_dict(state | {"fingerprint": loader.state_dict()["fingerprint"]})
            assert flat(loader) == list(range(12, SIZE))


def test_an_order_is_drawn_once_though_what_was_begun_of_its_epoch_is_dropped() -> None:
    drawn: list[int] = []

    def order(epoch: int, rng: object) -> list[int]:
        drawn.append(epoch)
        return [index for index in range(SIZE) if index % 2 == len(drawn) % 2]  # another one each time

    with stoker.Loader(range(SIZE), batch_size=4, workers=1, order=order) as loader:
        loader._producer.form()
        loader.load_state_dict(loader.state_dict() | {"batches": 2})
        assert flat(loader) == list(range(1, SIZE, 2))[8:]
    assert drawn == [0]


def test_shards_that_were_opened_to_find_the_form_are_closed_if_a_state_replaces_them(file: Path) -> None:
    source = stoker.from_generator(partial(_noting_its_end, file), shards=2)
    with stoker.Loader(source, batch_size=4, workers=2, ahead=False) as loader:
        loader.load_state_dict(loader.state_dict() | {"epoch": 3})
        assert len(flat(loader)) == 2 * SIZE
        wait_for(lambda: made(file) == {0: 2, 3: 2})


def _noting_its_end(file: Path, shard: stoker.Shard) -> Iterator[int]:
    epoch = stoker.current().epoch
    try:
        time.sleep(0.2)
        yield from range(SIZE)
    finally:
        noted(file, epoch)


def test_a_state_of_what_is_begun_keeps_it_and_is_the_position(file: Path) -> None:
    transform = partial(noted, file)
    with stoker.Loader(range(SIZE), batch_size=4, workers=1, prefetch=2, transform=transform, ahead=False) as loader:
        wait_for(lambda: sum(made(file).values()) == 8)
        loader.load_state_dict(loader.state_dict())
        assert flat(loader) == list(range(SIZE))
    assert made(file) == Counter(range(SIZE))
    with stoker.Loader(range(SIZE), batch_size=SIZE // 2, workers=1, transform=abs) as loader:
        batches = iter(loader)
        assert len([next(batches), next(batches)]) == 2
        loader.load_state_dict(loader.state_dict() | {"epoch": 1, "batches": 0})
        state = loader.state_dict()
        assert (state["epoch"], state["batches"]) == (1, 0)
        assert flat(loader) == list(range(SIZE))


class Levels:
    level = 0

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> int:
        if not self.level:
            raise ValueError("no level is set")
        return index * self.level


def test_an_update_before_the_first_pull_holds_for_the_first_epoch() -> None:
    for pause in (0.0, 0.6):
        with stoker.Loader(Levels(), batch_size=4, workers=2) as loader:
            time.sleep(pause)
            loader.update(level=3)
            assert flat(loader) == list(range(0, 3 * SIZE, 3))


def test_what_the_trainer_must_take_or_should_be_fresh_is_not_made_early(file: Path) -> None:
    taken = []
    items = stoker.from_iterable(lambda: map(taken.append, range(3)))
    with (
        stoker.Loader(items, batch_size=2, workers=1, transform=lambda item: 0),
        stoker.Loader(range(SIZE), batch_size=4, workers=1, prefetch=1, transform=partial(noted, file)) as fresh,
    ):
        wait_for(lambda: len(workers()) == 2)  # but workers are there
        time.sleep(0.3)
        assert not taken
        assert not made(file)
        assert flat(fresh) == list(range(SIZE))


def test_of_many_loaders_that_are_not_read_only_some_begin() -> None:
    pools = [stoker.Pool(workers=1) for _ in range(MOST_UNREAD + 2)]
    loaders = [stoker.Loader(range(SIZE), batch_size=4, transform=abs, pool=pool) for pool in pools]
    begun = [one for one in threading.enumerate() if one.name == "stoker-supervisor"]
    assert len(begun) == MOST_UNREAD
    assert flat(loaders[-1]) == flat(loaders[0]) == list(range(SIZE))
    for each in [*loaders, *pools]:
        each.close()


def test_a_loader_that_is_never_read_leaves_no_trace() -> None:
    script = "import stoker, time; loader = stoker.Loader(range(100), workers=2, transform=abs); time.sleep({})"
    for seconds in (0, 0.5):
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", script.format(seconds)], capture_output=True, text=True, timeout=20
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert time.monotonic() - begun < 6


def test_a_loader_of_a_module_that_workers_import_starts_no_workers_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "has_a_loader.py").write_text(
        "import stoker\n"
        "class Dataset:\n"
        "    __len__ = lambda self: 8\n"
        "    __getitem__ = lambda self, index: index\n"
        "loader = stoker.Loader(range(8), transform=abs, workers=1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("has_a_loader")
    with module.loader, stoker.Loader(module.Dataset(), batch_size=4, workers=2) as loader:
        assert flat(loader) == flat(module.loader) == list(range(8))
        assert not [child for worker in workers() for child in worker.children()]
    del sys.modules["has_a_loader"]


def test_a_module_may_read_a_loader_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reads_a_loader.py").write_text(
        "import collections, stoker, threading\n"
        "Example = collections.namedtuple('Example', 'number')\n"
        "def example(index): return Example(index)\n"
        "with stoker.Loader(range(8), batch_size=8, transform=example, workers=1) as loader:\n"
        "    assert 'stoker-supervisor' not in [thread.name for thread in threading.enumerate()]\n"
        "    (batch,) = loader\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    # The form of the batches names its class: a thread that learned the form now would wait for the end of the import.
    module = importlib.import_module("reads_a_loader")
    assert module.batch.number.tolist() == list(range(8))
    del sys.modules["reads_a_loader"]


def test_a_loader_closes_at_once_though_a_fork_of_the_trainer_lives() -> None:
    with stoker.Loader(range(SIZE), batch_size=4, workers=1, transform=abs) as loader:
        next(iter(loader))
        child = os.fork()
        if not child:
            time.sleep(5)
            os._exit(0)
        begun = time.monotonic()
    taken = time.monotonic() - begun
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert taken < 0.4
