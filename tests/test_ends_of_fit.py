"""However `fit` ends, it ends within 2 seconds, with the user's traceback and no other, and nothing is left."""

from __future__ import annotations

import time

import pytest

from tests.test_ends import FIT, is_alive, poll, run

pytestmark = pytest.mark.alone

#: What happens at the 20th batch, and what is told then: how many tracebacks, and the last line.
ENDS = {
    "Ctrl-C": ("import signal; os.kill(os.getpid(), signal.SIGINT)", 1, "KeyboardInterrupt"),
    "Ctrl-C twice": (
        "import signal; os.kill(os.getpid(), signal.SIGINT)\n            os.kill(os.getpid(), signal.SIGINT)",
        1,
        "KeyboardInterrupt",
    ),
    "an error in a callback": ("raise ValueError('mine')", 1, "ValueError: mine"),
    "sys.exit": ("sys.exit(3)", 0, ""),
    "SIGTERM": ("import signal; os.kill(os.getpid(), signal.SIGTERM)", 0, ""),
    "SIGKILL": ("import signal; os.kill(os.getpid(), signal.SIGKILL)", 0, ""),
    "sys.exit in a thread": (
        "import threading; thread = threading.Thread(target=sys.exit); thread.start(); thread.join(); "
        "self.model.stop_training = True",
        0,
        "",
    ),
}


@pytest.mark.stress
@pytest.mark.parametrize("end", ENDS)
def test_fit_ends_at_once_with_the_users_traceback_alone(end: str) -> None:
    what, tracebacks, last = ENDS[end]
    trainer = run(FIT.replace("STOP", what) + "model.fit(loader.to_tf(), callbacks=[Stop()], verbose=0)")
    assert trainer.stdout is not None
    pids = [int(pid) for pid in trainer.stdout.readline().split()]
    begun = time.monotonic()
    _, err = trainer.communicate(timeout=20)
    assert time.monotonic() - begun < 2.5, "2 s, and the teardown of TensorFlow"
    assert err.count("Traceback") == tracebacks, err
    assert not last or err.rstrip().splitlines()[-1].startswith(last), err
    assert poll(lambda: not any(map(is_alive, pids)), 1)
