"""Entry point of the zygote: the interpreter that workers are forked from. Arguments: PARENT SOCKET PROGRAM.

It imports the worker's modules and those that the program names, once. It runs no other user code: each worker
unpickles the program itself, so that files, connections and locks that this opens are its own. It forks only while it
has a single thread and importing has opened nothing that processes must not share.

    trainer → zygote   the number of a worker, with the descriptors of its control socket and its process page
    zygote → trainer   READY, then FORKED for each worker, whose process page names its process; or the reason why it
                       cannot fork. Then it becomes the first worker that it is asked for, so that what it has imported
                       is of use.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from stoker.protocol.program import enter
from stoker.worker.__main__ import WorkerArguments, die_with, leave_at_once, run_worker
from stoker.worker.clone import CannotClone, Cloner, rename
from stoker.worker.failpoints import Failpoint, reach
from stoker.worker.unseeded import UnseededGenerators
from stoker.worker.user_code.seeding import install_lazy_random

#: The messages that workers can be forked, and that one was.
READY, FORKED = b"ready", b"forked"
#: The most descriptors that come with a request.
_DESCRIPTORS = 2
#: What every worker imports sooner or later, and most of the time that it takes to start.
_FIRST = "numpy.random", "numpy.ctypeslib", "cloudpickle"
#: What a variable of the environment is while the program's modules are imported, unless the user has set it. pyarrow's
#: jemalloc would start a thread, with which this process could not fork; without it, each thread that uses the
#: allocator returns unused memory itself.
_WHILE_IMPORTING = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
#: Devices that importing a library may leave open, and that processes may share.
_HARMLESS = "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"


def run(given: Sequence[str]) -> None:
    """Prepare, then fork a worker for each request, until the trainer closes the socket. Returns in each worker too."""
    del sys.argv[1:]  # user modules must not see our arguments
    parent, channel_fd, program = map(int, given)
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer handles Ctrl-C
    for fd in (channel_fd, program):
        os.set_inheritable(fd, False)  # programs started by user code must not inherit them
    channel = socket.socket(fileno=channel_fd)
    lazy, unseeded, before = install_lazy_random(), UnseededGenerators(), _descriptors()
    imports = enter(program)
    os.close(program)
    _import([*_FIRST, *imports])
    unseeded.found()
    request = _forked(channel, unseeded) if _may_fork(channel, before) else _received(channel)
    if request is None:
        leave_at_once(0)  # what the modules do at exit is for the workers to do
    channel.close()
    rename(b"stoker.zygote", b"stoker.worker")
    number, (control, page) = request
    run_worker(WorkerArguments(number, parent, control, page), lazy)


def _may_fork(channel: socket.socket, before: dict[int, str]) -> bool:
    """Tell the trainer whether this process can fork workers."""
    try:
        _check_alone(before)
        Cloner()
    except CannotClone as reason:
        channel.send(str(reason).encode())
        return False
    gc.collect()
    gc.freeze()  # a collection in a worker would otherwise copy the pages that all share
    channel.send(READY)
    return True


def _forked(channel: socket.socket, unseeded: UnseededGenerators) -> tuple[int, list[int]] | None:
    """Fork a worker for each request. Returns the request in the worker, and None here once the trainer is done."""
    cloner = Cloner()
    while (request := _received(channel)) is not None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError):  # user code may have closed or replaced them
                stream.flush()
        reach(Failpoint.FORK)
        _, fds = request
        try:
            process = cloner.clone(fds[1])
        except OSError as error:
            channel.send(str(error).encode())
            return None
        if not process:
            os.setsid()
            unseeded.seed()
            return request
        for fd in fds:
            os.close(fd)
        reach(Failpoint.FORKED)
        channel.send(FORKED)
    return None


def _received(channel: socket.socket) -> tuple[int, list[int]] | None:
    """The next request: the worker's number and its descriptors. None at the end of the stream."""
    data, fds, _, _ = socket.recv_fds(channel, 64, _DESCRIPTORS)
    if not data:
        return None
    for fd in fds:
        os.set_inheritable(fd, False)
    return int(data), fds


def _import(names: Sequence[str]) -> None:
    """Import modules. Where one fails, it is left to the worker to fail, with the user's traceback."""
    ours = {name: value for name, value in _WHILE_IMPORTING.items() if name not in os.environ}
    os.environ.update(ours)
    for name in names:
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    for name, value in ours.items():
        if os.environ.get(name) == value:
            del os.environ[name]


def _descriptors() -> dict[int, str]:
    """This process's open descriptors, and what they are."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            found[int(entry.name)] = str(entry.readlink())
    return found


def _check_alone(before: dict[int, str]) -> None:
    """Raise `CannotClone` if importing has started threads, or opened what processes must not share."""
    threads = len(list(Path("/proc/self/task").iterdir())) - 1
    if threads:
        raise CannotClone(f"importing the program's modules started {threads} thread{'s' * (threads > 1)}")
    for fd, what in _descriptors().items():
        if before.get(fd) != what and what not in _HARMLESS:
            raise CannotClone(f"importing the program's modules opened {what}")
