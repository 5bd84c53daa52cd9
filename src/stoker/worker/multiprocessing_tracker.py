"""Shares the trainer's multiprocessing resource tracker and authentication key with a worker.

A fresh interpreter starts its own tracker. On exit, that tracker destroys everything registered with it, including
shared memory that the worker only attached to. Here a worker registers what it creates with the trainer's tracker, and
does not register what it only attaches to.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from stoker.worker.user_code.libraries import Importing

_SEGMENT = "shared_memory"


class TrainersMultiprocessing(Importing):
    """Patches the multiprocessing modules as soon as they are imported."""

    def __init__(self) -> None:
        self._tracker: int | None = None
        self._key: bytes | None = None
        self._attaching = threading.local()
        self._made: set[str] = set()
        self._to: dict[str, Callable[[Any], None]] = {
            "multiprocessing.process": self._process,
            "multiprocessing.resource_tracker": self._resource_tracker,
            "multiprocessing.shared_memory": self._shared_memory,
        }
        super().__init__(self._to)

    def use(self, key: bytes | None, tracker: int | None) -> None:
        """Adopt what the trainer has now.

        Args:
            key: authentication key of its processes, or None.
            tracker: file descriptor of its resource tracker, which this object owns from now on, or None.
        """
        self._key = key or self._key
        if "multiprocessing.process" in sys.modules:
            self._process(sys.modules["multiprocessing.process"])
        if self._tracker is not None and tracker is not None:
            os.close(tracker)  # it is the same one
        elif tracker is not None:
            self._tracker = tracker
            self._adopt_tracker()

    def _adopt_tracker(self) -> None:
        module: Any = sys.modules.get("multiprocessing.resource_tracker")
        if module is not None and self._tracker is not None and module._resource_tracker._fd is None:
            module._resource_tracker._fd = self._tracker

    def imported(self, module: ModuleType) -> None:
        """Patch a module that has just been imported."""
        self._to[module.__name__](module)

    def _process(self, module: Any) -> None:
        if self._key is not None:
            module.current_process().authkey = self._key

    def _resource_tracker(self, module: Any) -> None:
        register, unregister = module.register, module.unregister
        self._adopt_tracker()

        def registered(name: str, kind: str) -> None:
            if kind != _SEGMENT or not getattr(self._attaching, "now", False):
                register(name, kind)
                self._made.add(name)

        def unregistered(name: str, kind: str) -> None:
            if kind == _SEGMENT and name not in self._made:
                if self._tracker is None:
                    return
                register(name, kind)  # the tracker complains about unknown names
            unregister(name, kind)
            self._made.discard(name)

        module.register, module.unregister = registered, unregistered

    def _shared_memory(self, module: Any) -> None:
        make = module.SharedMemory.__init__

        @functools.wraps(make)
        def init(segment: Any, name: str | None = None, create: bool = False, *more: Any, **options: Any) -> None:
            self._attaching.now = not create
            try:
                make(segment, name, create, *more, **options)
            finally:
                self._attaching.now = False

        module.SharedMemory.__init__ = init
