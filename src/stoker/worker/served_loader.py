"""One of the Loaders that a worker serves: its socket, its program, and the messages that wait."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial

from stoker.memory import long_message
from stoker.memory.memfd import Memfd
from stoker.memory.progress_page import PHASE, Phase, ProgressPage
from stoker.memory.slot import Inbox, Slot
from stoker.memory.wait_page import WaitPage
from stoker.protocol.failures import failure
from stoker.protocol.invitations import Invitation
from stoker.protocol.messages import MAX_BYTES, Message, decode, encode, unbundled
from stoker.protocol.program import LoadedProgram, Program, load_again
from stoker.protocol.random_objects import came_with_program
from stoker.protocol.replies import FailureKind, FailureReply, ReadyReply
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest
from stoker.protocol.surroundings import Surroundings
from stoker.worker.batching.fork_guard import ForkGuard
from stoker.worker.context import TaskContext
from stoker.worker.failpoints import Failpoint, reach
from stoker.worker.multiprocessing_tracker import TrainersMultiprocessing
from stoker.worker.runner import Runner
from stoker.worker.user_code.current import tells_in_process
from stoker.worker.user_code.epoch_hooks import EpochHooks
from stoker.worker.user_code.libraries import SeededLibraries
from stoker.worker.user_code.seeding import LazyRandom, Seeder
from stoker.worker.user_code.worker_init import initialise


@dataclass
class SharedProcess:
    """What the Loaders that a worker serves have in common.

    Attributes:
        number: number of the worker.
        lazy: the generator behind the module `random`.
        multiprocessing: multiprocessing as in the trainer.
        fork: detects copies of this process.
        libraries: the libraries that are seeded.
        heard: buffer for messages.
    """

    number: int
    lazy: LazyRandom
    multiprocessing: TrainersMultiprocessing
    fork: ForkGuard = field(default_factory=ForkGuard)
    libraries: SeededLibraries = field(default_factory=SeededLibraries)
    heard: memoryview = field(default_factory=lambda: memoryview(bytearray(MAX_BYTES)))


class ServedLoader:
    """Does the requests of one Loader, one at a time.

    Args:
        invitation: the descriptors, which this object owns from now on.
        process: what this Loader shares with others.

    Attributes:
        channel: its socket.
        seconds: the time that its requests have taken, by which Loaders take turns.
        is_over: True once the Loader was closed, or cannot be served.
    """

    def __init__(self, invitation: Invitation, process: SharedProcess) -> None:
        self._process = process
        self.channel = socket.socket(fileno=invitation.channel)
        self._page, self._program = ProgressPage(invitation.page), Memfd(invitation.program)
        self._words, self._wait_page = self._page.words(), WaitPage(invitation.wait_page)
        self._slots = [Slot(fd) for fd in invitation.slots]
        self._inboxes = [Inbox(fd) for fd in invitation.inboxes]
        self._tracker = invitation.tracker
        self._messages = deque[Message]()
        self._surroundings: Surroundings | None = None
        self._runner: Runner | None = None
        self._seeder: Seeder | None = None
        self.seconds, self.is_over = 0.0, False

    def load(self) -> None:
        """Load the program, and tell the trainer."""
        if self._is_closed():
            self.is_over = True
            if self._tracker is not None:
                os.close(self._tracker)
            return
        self._words[PHASE] = Phase.LOADING
        program = self._loaded()
        if isinstance(program, FailureReply):
            self._send(program)
            self.is_over = True
            return
        self._runner = self._made_runner(program)
        self._words[PHASE] = Phase.IDLE
        self._runner.ready()
        self._send(ReadyReply())

    def enter(self) -> None:
        """Make this the Loader whose code runs."""
        if self._surroundings is not None and self._runner is not None:
            self._surroundings.enter()
            self._process.libraries.entered = self._seeder.found if self._seeder is not None else None
            tells_in_process(self._runner.current)

    def leave(self) -> None:
        """Let another Loader's code run."""
        tells_in_process(None)
        if self._surroundings is not None:
            self._surroundings.leave()

    @property
    def is_ready(self) -> bool:
        """True if messages wait."""
        return bool(self._messages)

    @property
    def is_waited_for(self) -> bool:
        """True if the trainer waits for a batch of this Loader."""
        return self._wait_page.is_waited_for()

    @property
    def exhausted(self) -> bool:
        """True if file descriptors or memory have run out: another process must take over."""
        return self._runner is not None and self._runner.exhausted

    def receive(self) -> None:
        """Receive messages, which the socket has."""
        data = long_message.receive(self.channel, self._process.heard)
        if data:
            self._messages += map(decode, unbundled(data))
        else:  # what was asked for before is not needed any more
            self._messages.clear()
            self.is_over = True

    def serve(self) -> None:
        """Take in messages, up to and including the first request."""
        assert self._runner is not None
        while self._messages:
            message = self._messages.popleft()
            if isinstance(message, Request):
                started = time.perf_counter()
                reply = self._runner.reply_to(message)
                reach(Failpoint.REPORT)
                self._send(reply)
                reach(Failpoint.REPORTED)
                self.seconds += time.perf_counter() - started
                return
            self._words[PHASE] = Phase.PULLING  # closing a generator runs the user's code
            _heed(self._runner, message)
            self._words[PHASE] = Phase.IDLE

    def close(self) -> None:
        """Release everything. The trainer learns of it when the socket closes, last."""
        self._words[PHASE] = Phase.PULLING
        if self._runner is not None:
            self._runner.leave_all()
        self._words[PHASE] = Phase.IDLE
        if self._seeder is not None:
            self._process.libraries.forget(self._seeder.found)
        self.leave()
        if self._surroundings is not None:
            self._surroundings.close()
        self._runner = self._surroundings = self._seeder = None
        for memory in (self._page, self._wait_page, self._program, *self._slots, *self._inboxes):
            memory.close()
        self.channel.close()

    def _is_closed(self) -> bool:
        """True if the Loader was closed before this worker came to it."""
        try:
            return not self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def _send(self, message: Message) -> None:
        try:
            long_message.send(self.channel, encode(message), MAX_BYTES)
        except (BrokenPipeError, ConnectionResetError):  # the Loader was closed
            self.is_over = True

    def _loaded(self) -> Program | FailureReply:
        """The program, after the call of `worker_init`; the reply if one of them raises."""
        kind, process = FailureKind.PROGRAM, self._process
        try:
            arrived = LoadedProgram(self._program.fd)
            self._surroundings = arrived.surroundings
            process.multiprocessing.use(arrived.key, self._tracker)
            if (init := arrived.worker_init()) is not None:
                kind = FailureKind.INIT
                initialise(init, arrived.seed, process.number)
                kind = FailureKind.PROGRAM
            return arrived.program()
        except BaseException as error:
            return failure(None, kind, error)

    def _made_runner(self, program: Program) -> Runner:
        """The runner, whose state `stoker.current()` reports."""
        process = self._process
        seeds = program.seeds_globals
        seeder = self._seeder = Seeder(program.seed, process.lazy, seeds_globals=seeds, held=came_with_program)
        if seeds:
            process.libraries.entered = seeder.found
            process.libraries.tell(seeder.found)
        hooks = EpochHooks(program, list(came_with_program), partial(load_again, self._program.fd), seeder)
        context = TaskContext.of(
            program, seeder, self._words, slots=self._slots, inboxes=self._inboxes, fork=process.fork
        )
        runner = Runner(context, hooks, process.number)
        tells_in_process(runner.current)
        return runner


def _heed(runner: Runner, message: Message) -> None:
    """Take in a message that is no request and has no reply."""
    match message:
        case FormRequest():
            runner.learn(message)
        case LeaveEpochRequest():
            runner.leave(message)
        case UpdateRequest():
            runner.note_update(message)
        case _:
            raise AssertionError(f"the trainer sent {message}")
