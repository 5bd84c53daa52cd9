"""No worker: the thread that pulls runs the user's code, so that a breakpoint in it works."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence

from stoker.engines import Answer, Listener
from stoker.interrupts import interruptible
from stoker.locks import Lock
from stoker.memory import Inbox, Slot
from stoker.memory.board import unseen
from stoker.worker.current import telling
from stoker.worker.initial import initialise
from stoker.worker.messages import FormKnown, Hello, Leave, Question
from stoker.worker.program import Program, held_by
from stoker.worker.report import failure
from stoker.worker.runner import Runner
from stoker.worker.seeding import KeptState, Seeder
from stoker.worker.writer import Fork


class InlineEngine:
    """Makes each batch when it is pulled, in the pulling thread, by the code that workers run.

    The user's objects are used as they are: nothing is pickled. Ctrl-C passes through; the task
    that it interrupted is done again at the next pull.
    """

    def __init__(self, program: Program, slots: Sequence[Slot], inboxes: Sequence[Inbox]) -> None:
        self._held = held_by(program) if program.seeds_globals else []
        seeder = Seeder(program.seed, None, seeds_globals=program.seeds_globals, held=self._held)
        self._kept = KeptState(self._held, seeder) if program.seeds_globals else contextlib.nullcontext()
        self._runner = Runner(program, slots, inboxes, seeder, unseen(), fork=Fork(), passes=(KeyboardInterrupt,))
        self._init, self._seed = program.worker_init, program.seed if program.seeds_globals else None
        self._pending: deque[Hello | Question | Leave] = deque([Hello()])
        self._running = threading.Lock()

    def start(self, listener: Listener) -> None:
        self._listener = listener

    def submit(self, worker: int, message: Question) -> None:
        self._pending.append(message)

    def flush(self) -> None:
        """Nothing is sent."""

    def tell(self, known: FormKnown) -> None:
        self._runner.learn(known)

    def leave(self, leave: Leave) -> None:
        self._pending.append(leave)

    def respawn(self, worker: int) -> None:
        raise AssertionError("the inline engine has no worker that could die")

    def idle(self, changed: Lock) -> None:
        if not self._pending:  # another thread runs the task that this one waits for
            changed.wait(0.1)
            return
        changed.without(self._run_next)

    def _run_next(self) -> None:
        with self._running:
            if self._pending:
                self._run()

    def _run(self) -> None:
        task = self._pending[0]
        if self._init is not None and not self._initialised():
            return
        answer = interruptible(self._answer, task)
        self._pending.popleft()
        if answer is not None:
            self._listener.heard(0, [answer])

    def _initialised(self) -> bool:
        """Whether `worker_init` has been called and has not raised."""
        init, self._init = self._init, None
        try:
            with self._kept:
                interruptible(initialise, init, self._seed, None)
        except KeyboardInterrupt:
            self._init = init
            raise
        except BaseException as error:
            self._pending.popleft()
            self._listener.heard(0, [failure(-1, "init", error)])
            return False
        return True

    def _answer(self, task: Hello | Question | Leave) -> Answer | None:
        with self._kept, telling(self._runner.current):
            if isinstance(task, Leave):
                self._runner.leave(task)
                return None
            return task if isinstance(task, Hello) else self._runner.answer(task)

    def nudge(self) -> None:
        """Threads that wait here wait for `changed` alone."""

    def request_stop(self) -> None:
        """There is nothing to stop."""

    def stop(self) -> None:
        """There is nothing to stop."""
