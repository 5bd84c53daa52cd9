"""Where the system gives no memory, one error says what was wanted and which limit is in the way."""

from __future__ import annotations

import pytest

from tests.test_ends import run

HEAD = """
import errno, os, resource, numpy as np, stoker
def make():
    return stoker.Loader(range(64), batch_size=8, workers=1, transform=lambda _: np.zeros(2_000_000, np.uint8))
def read(loader=None):
    try:
        with loader or make() as loader:
            for _ in loader: pass
    except stoker.StokerError as error:
        print(error)
"""
REFUSED = {
    "memfd_create is not allowed here": """
def refuse(*_): raise OSError(errno.EPERM, "Operation not permitted")
os.memfd_create = refuse
read()
""",
    "16,000,000 bytes) could not be allocated: Cannot allocate memory. RLIMIT_AS": """
size = int(open("/proc/self/statm").read().split()[0]) * 4096
loader = make()
iter(loader)
resource.setrlimit(resource.RLIMIT_AS, (size + 100_000_000,) * 2)
kept = []
try:
    for batch in loader: kept.append(batch)
except stoker.StokerError as error:
    print(error)
loader.close()
""",
    "16,000,000 bytes) could not be allocated: File too large. RLIMIT_FSIZE": """
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20,) * 2)
read()
""",
    "could not be allocated: Too many open files. RLIMIT_NOFILE": """
loader = stoker.Loader(range(64), batch_size=8, workers=2)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 2,) * 2)
read(loader)
""",
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_the_system_refuses_is_told(says: str) -> None:
    out, err = run(HEAD + REFUSED[says]).communicate(timeout=30)
    assert says in out, (out, err)
    assert err == ""
