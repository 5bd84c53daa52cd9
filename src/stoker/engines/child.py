"""One worker process: starts it, exchanges messages with it, ends it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import stoker
from stoker.engines.engine import StuckWorker
from stoker.memory import long_message
from stoker.memory.memfd import above_standard
from stoker.memory.progress_page import STACK_SIGNAL, ProgressPage
from stoker.protocol.messages import MAX_BYTES, bundled, decode, encode
from stoker.protocol.replies import Reply
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest

log = logging.getLogger("stoker")

#: Starts a worker. While the worker's own modules are imported, nothing may shadow the standard library: no file beside
#: them, and none in the current directory (the "" that -c prepends). The trainer's `sys.path` comes with the program.
_START = """\
import os, sys
del sys.path[:sys.path[:1] == [""]]
sys.path[:] = os.environ.pop("STOKER_PATH").split("\\n")
from stoker.worker.__main__ import run
run(sys.argv[2:])
"""
_LAST = len(_START.splitlines())
#: The prefixes of frames that are not the user's.
_OURS = str(Path(stoker.__file__).parent) + os.sep, f'<string>", line {_LAST} in <module>'

#: Native libraries use one thread per worker unless the user says otherwise: the workers are the parallelism.
_ONE_THREAD = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
#: Make glibc keep freed memory instead of returning it to the kernel. User code allocates and frees an image per
#: example, and faulting its pages in again costs more than decoding it. 32 MiB is the largest threshold of glibc.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20)}
#: The accelerators belong to the trainer: a worker that saw them would allocate memory there. CUDA, ROCm,
#: TensorFlow, PyTorch and JAX all read "-1" as no device.
_NO_GPU = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "HIP_VISIBLE_DEVICES": "-1",
    "ROCR_VISIBLE_DEVICES": "-1",
    "JAX_PLATFORMS": "cpu",  # otherwise JAX takes a TPU, and complains about the hidden GPU
}


class WorkerProcess:
    """A worker process, its socket, and a descriptor (pidfd) that becomes readable when it exits.

    Args:
        number: the worker's number.
        program: the descriptor of the program's bundle.
        memory: the descriptors of the slots, each followed by the descriptor of its inbox.
        environment: variables that the user sets in workers; None removes one.

    The calling thread must outlive the worker: the kernel kills the worker when that thread ends.
    """

    def __init__(self, number: int, program: int, memory: Sequence[int], environment: Mapping[str, str | None]) -> None:
        self.number = number
        self.has_form = False  # True once the form of the batches was sent
        self.renewed = False  # True once the values of `Loader.update` were sent
        self.ended = False
        self._posted: list[bytes] = []
        self._posted_bytes = 0
        #: A reusable receive buffer: `recv` would map and unmap that much per message (glibc, with TensorFlow loaded).
        self._heard = memoryview(bytearray(MAX_BYTES))
        self.requests, self.replies = 1, 0  # how many; initially the worker owes a `ReadyReply`
        self.stuck: StuckWorker | None = None  # why it is killed
        self.page = ProgressPage.fresh()
        self.channel, theirs = pair(socket.SOCK_SEQPACKET)
        with theirs:
            tracker = resource_tracker()
            inherited = [theirs.fileno(), self.page.fd, program, tracker, *memory]
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _START, "stoker.worker", *map(str, [number, os.getpid(), *inherited])],
                    pass_fds=[fd for fd in inherited if fd >= 0],
                    stdin=subprocess.DEVNULL,
                    env=_environment(environment),
                    start_new_session=True,  # only the trainer handles Ctrl-C in its terminal
                )
            except BaseException:
                self.channel.close()
                self.page.close()
                raise
        self.channel.setblocking(False)
        try:
            self.pidfd = above_standard(os.pidfd_open(self.process.pid))
        except OSError:  # no descriptor is left
            self.process.kill()
            self.process.wait()
            self.channel.close()
            self.page.close()
            raise
        log.debug("worker %d started, pid %d", number, self.process.pid)

    def post(self, message: Request | FormRequest | LeaveEpochRequest | UpdateRequest) -> None:
        """Queue a message for the next `flush`."""
        data = encode(message)
        if self._posted and self._posted_bytes + len(data) > MAX_BYTES // 2:
            self.flush()
        self._posted.append(data)
        self._posted_bytes += len(data)

    def flush(self) -> None:
        """Send without waiting. If the worker is gone, nothing is sent; its death is reported elsewhere."""
        posted, self._posted, self._posted_bytes = self._posted, [], 0
        try:
            long_message.send(self.channel, bundled(posted), MAX_BYTES)
        except BlockingIOError:  # more than `MAX_BYTES` allows for: raise, or the worker would wait forever
            raise
        except OSError:  # it is gone, or this engine is being closed
            log.debug("worker %d was gone before %d messages were sent", self.number, len(posted))

    def receive(self) -> list[Reply] | None:
        """The replies that have arrived, or None at the end of the stream."""
        replies: list[Reply] = []
        while True:
            try:
                message = long_message.receive(self.channel, self._heard)
            except BlockingIOError:
                return replies
            except OSError:  # it ended without reading all messages, or this engine is being closed
                message = b""
            if not message:
                return replies or None
            try:
                reply = decode(message)
            except ValueError as error:  # user code wrote to a descriptor that is not its own
                log.warning("worker %d is killed because it sent invalid data: %s", self.number, str(error))
                self.signal(signal.SIGKILL)
                return replies or None
            assert isinstance(reply, Reply), reply
            replies.append(reply)

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        log.debug("worker %d is sent signal %d", self.number, number)
        self.process.send_signal(number)

    def owes(self) -> bool:
        """True if the worker is busy starting or with a task."""
        return self.requests > self.replies

    def stack(self, seconds: float) -> str:
        """The worker's Python stacks if it writes them within `seconds`, else the reason why there are none."""
        if _state(self.process.pid) in ("T", "t"):
            return "(no stack: the process is stopped)"
        begin, deadline = self.page.stack_end(), time.monotonic() + seconds
        self.signal(STACK_SIGNAL)
        while time.monotonic() < deadline:
            time.sleep(0.01)
            if (end := self.page.stack_end()) > begin:
                time.sleep(0.02)  # it writes line by line
                if self.page.stack_end() == end:
                    break
        if stack := self.page.stack(begin):
            return _theirs(stack)
        return "(no stack: the process did not write one)"

    def code(self) -> int:
        """The exit code of the process, which must have ended."""
        return self.process.wait()

    def reap(self) -> None:
        """Reap the ended process and close the descriptors."""
        log.debug("worker %d exited with code %d", self.number, self.code())
        os.close(self.pidfd)
        self.channel.close()
        self.page.close()


def end(children: Sequence[WorkerProcess], grace: float = 0.5) -> None:
    """End all workers: ask, wait, terminate, wait, kill."""
    for child in children:
        child.channel.close()  # a worker that waits for a task reads the end of the stream and exits
    left = _wait(children, grace)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in left:
            child.signal(number)
        left = _wait(left, grace)
    for child in children:
        child.reap()


def _wait(children: Sequence[WorkerProcess], seconds: float) -> list[WorkerProcess]:
    """Wait up to `seconds` for all to exit. Returns those that have not."""
    deadline = time.monotonic() + seconds
    left = list(children)
    while left and (remaining := deadline - time.monotonic()) > 0:
        try:
            left[0].process.wait(remaining)
        except subprocess.TimeoutExpired:
            break
        left.pop(0)
    return [child for child in left if child.process.poll() is None]


def pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, which block regardless of `socket.setdefaulttimeout`."""
    found = tuple(socket.socket(fileno=above_standard(end.detach())) for end in socket.socketpair(socket.AF_UNIX, kind))
    for end in found:
        end.setblocking(True)
    return found  # type: ignore[return-value]  # two


def _theirs(stack: str) -> str:
    """The stack without the frames of Stoker and of the interpreter that called it."""
    return "\n".join(line for line in stack.splitlines() if not any(f'File "{ours}' in line for ours in _OURS))


def _state(pid: int) -> str:
    """The state of a process, as its letter in `/proc`; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it is gone
        return ""


def resource_tracker() -> int:
    """The descriptor of this process's multiprocessing resource tracker, or -1 if there is none."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    if module is None:
        return -1
    if "multiprocessing.shared_memory" in sys.modules:  # workers may create segments, which outlive them
        fd: int | None = module.getfd()
    else:
        fd = getattr(getattr(module, "_resource_tracker", None), "_fd", None)
    return -1 if fd is None else fd


def _environment(variables: Mapping[str, str | None]) -> dict[str, str]:
    """The trainer's environment plus the user's variables and the path of the worker's own modules: see `_START`."""
    home, standard = str(Path(stoker.__file__).parents[1]), str(Path(os.__file__).parent)
    paths = [standard, str(Path(standard, "lib-dynload")), home, *sys.path]
    path = "\n".join(path for path in paths if path and isinstance(path, str))
    no_gpu = {} if variables.keys() & _NO_GPU.keys() else _NO_GPU
    wanted = {**_ONE_THREAD, **_KEEP_MEMORY, **os.environ, **no_gpu, **variables, "STOKER_PATH": path}
    return {name: value for name, value in wanted.items() if value is not None}
