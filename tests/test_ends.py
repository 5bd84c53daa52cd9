"""However a Loader ends, its workers end within 2 seconds, nothing is left, and nothing is printed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import stoker
from stoker.engines.trainers_tracker import resource_tracker
from tests.examples import Squares
from tests.soak.tools import poll

ROOT = Path(__file__).parents[1]


class Slow(Squares):
    def __getitem__(self, index: int) -> Any:
        if index:
            time.sleep(30)  # busy when the end comes
        return super().__getitem__(index)


def workers_of(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if "stoker.worker" in child.cmdline()]


def is_alive(pid: int) -> bool:
    """A process whose parent is gone may wait for somebody to take note of its end."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("source", [Squares(5000), Slow()])
@pytest.mark.parametrize("end", ["close", "collect", "abandon"])
def test_workers_end_with_their_loader(source: Any, end: str, capfd: pytest.CaptureFixture[str]) -> None:
    loader = stoker.Loader(source, batch_size=1, workers=2)
    batches = iter(loader)
    next(batches)
    workers = workers_of(os.getpid())
    assert len(workers) == 2
    begun = time.monotonic()
    if end == "close":
        loader.close()
    elif end == "collect":
        del loader, batches
        gc.collect()
    else:
        del loader
        for _ in range(3):
            del batches
            batches = iter(stoker.Loader(source, batch_size=1, workers=1))
        del batches
    _, alive = psutil.wait_procs(workers, timeout=2)
    assert not alive
    assert time.monotonic() - begun < 2
    assert capfd.readouterr() == ("", "")


def run(script: str, **options: Any) -> subprocess.Popen[str]:
    """A trainer in an interpreter of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(["src", "."])},
        **options,
    )


START = """
import sys, time, os, stoker
from tests.examples import Squares
loader = stoker.Loader(Squares(100_000), batch_size=4, workers=2, transform=lambda e: (e[0], e[1] % 2))
def report():
    import psutil
    print(*[child.pid for child in psutil.Process().children() if "stoker.worker" in child.cmdline()], flush=True)
    sys.stdout.flush()
"""
TF = START + "import tensorflow as tf\n"
FIT = (
    TF
    + """
import keras
model = keras.Sequential([keras.layers.Dense(2)])
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 20:
            report()
            STOP
"""
)
EXITS = {
    "a live iterator": START + "batches = iter(loader); next(batches); report()",
    "a live iterator of tf.data": TF + "batches = iter(loader.to_tf()); next(batches); report()",
    "in mid-epoch, inside a function": TF + "def f():\n for b in loader.to_tf():\n  report(); sys.exit()\nf()",
    "a dataset whose iterator a traceback holds": TF
    + "try:\n for b in loader.to_tf(): 1/0\nexcept ZeroDivisionError as error: kept = error\nreport()",
    "before the first pull": START + "batches = iter(loader); report()",
    "inside fit": FIT.replace("STOP", "sys.exit()") + "model.fit(loader.to_tf(), callbacks=[Stop()], verbose=0)",
}


#: Those that are run with the other tests; each starts TensorFlow anew.
QUICK = ("a live iterator", "before the first pull", "inside fit")


def seconds_to_exit(where: str, most: float = 2.5) -> float:
    """Run a trainer that leaves there, and see that it does so in time, says nothing and leaves nothing.

    `most`: 2 seconds, and what TensorFlow takes to exit: about one second, more on a busy machine.
    """
    trainer = run(EXITS[where])
    assert trainer.stdout is not None
    pids = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(pids) == (0 if where == "before the first pull" else 2)
    begun = time.monotonic()
    out, err = trainer.communicate(timeout=20)
    taken = time.monotonic() - begun
    theirs = (
        "absl::InitializeLog",
        "oneDNN",
        "data_adapter",
        "shuffle=True",
    )  # Keras warns of shuffle=True for every dataset
    noise = [line for line in err.splitlines() if not any(word in line for word in theirs)]
    assert (trainer.returncode, out, noise) == (0, "", [])
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert taken < most
    return taken


@pytest.mark.alone
@pytest.mark.parametrize(
    "where", [pytest.param(one, marks=[] if one in QUICK else pytest.mark.stress) for one in EXITS]
)
def test_the_interpreter_exits_at_once_and_silently(where: str) -> None:
    seconds_to_exit(where)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_workers_die_with_a_killed_trainer(name: str) -> None:
    trainer = run(START + "batches = iter(loader); next(batches); report(); time.sleep(60)")
    assert trainer.stdout is not None
    workers = [psutil.Process(int(pid)) for pid in trainer.stdout.readline().split()]
    for worker in workers:
        assert "/dev/shm" not in Path(f"/proc/{worker.pid}/maps").read_text()
    trainer.send_signal(signal.Signals[name])
    _, alive = psutil.wait_procs(workers, timeout=2)
    assert not alive
    _, err = trainer.communicate(timeout=5)
    assert err.count("Traceback") == (name == "SIGINT"), "Ctrl-C shows the user's traceback and no other"


def test_ctrl_c_ends_fit_and_leaves_the_loader_usable() -> None:
    body = """
try:
    model.fit(loader.to_tf(), callbacks=[Stop()], verbose=0)
except KeyboardInterrupt:
    print(len(list(zip(range(9), loader))))
"""
    trainer = run(FIT.replace("STOP", "import signal; os.kill(os.getpid(), signal.SIGINT)") + body)
    out, err = trainer.communicate(timeout=60)
    assert out.splitlines()[1:] == ["9"], err


def test_no_worker_is_left_when_close_returns() -> None:
    for _ in range(20):
        with stoker.Loader(Squares(40), batch_size=8, workers=2) as loader:
            next(iter(loader))
        assert not workers_of(os.getpid())


def test_only_the_intended_descriptors_reach_a_worker() -> None:
    kept = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(kept, True)

    def descriptors(_: int) -> int:
        links = [
            str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink() and int(path.name) > 2
        ]
        return sum("socket" not in link and "stoker" not in link for link in links)

    try:
        with stoker.Loader([0], batch_size=1, transform=descriptors, workers=1) as loader:
            others = int(resource_tracker() is not None)  # multiprocessing's, once something here has started it
            assert [batch.tolist() for batch in loader] == [[others]]
    finally:
        os.close(kept)


def test_a_forked_copy_of_the_trainer_can_neither_feed_nor_close() -> None:
    with stoker.Loader(Squares(40), batch_size=8, workers=1) as loader:
        batches = iter(loader)
        next(batches)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                next(batches)
            except stoker.ClosedError:
                loader.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert len(list(batches)) == 4


def test_a_process_that_user_code_forked_ends_with_its_worker(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def forks(example: Any) -> Any:
        if not note.exists():
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
            note.write_text(str(pid))
        return example

    with stoker.Loader(Squares(8), batch_size=8, transform=forks, workers=1) as loader:
        list(loader)
        pid = int(note.read_text())
        assert psutil.pid_exists(pid)
    assert poll(lambda: not is_alive(pid), 2)
