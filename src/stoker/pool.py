"""Pool, worker processes that several Loaders share; and the options of workers."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from stoker.errors import ClosedError, OptionError, cannot_be_copied
from stoker.protocol.program import takes_nothing
from stoker.runtime.cpus import usable_cpus
from stoker.runtime.interpreter_exit import close_at_exit
from stoker.runtime.memory_budget import MemoryBudget
from stoker.validation import real, whole

if TYPE_CHECKING:
    from stoker.engines.member import Member
    from stoker.engines.worker_pool import WorkerPool


class Pool:
    """Worker processes that several Loaders share, with their memory limit.

        pool = stoker.Pool(workers=8)
        train = stoker.Loader(..., pool=pool)
        validation = stoker.Loader(..., pool=pool)

    Each worker makes examples for all of these Loaders. Those for which your code waits go first, and take turns if it
    waits for several. Order, contents and errors of each Loader are as they are without a pool: a death of a worker
    at an example of one Loader disturbs no other, and a Loader that is closed leaves the workers to the others.

    A Pool starts its workers with its first Loader. They stay while Loaders are closed and created, until the Pool is
    closed or nothing refers to it.

    In a worker, the code of these Loaders finds the same imported modules, and so the same global variables and
    settings in them (`np.seterr`), as it does in this process. `sys.path`, the working directory, and what is defined
    in your script or notebook are those of each Loader. A worker imports a module once: after a change of its file,
    create a new Pool. It ends what it has begun, so an example that takes a minute may delay other Loaders by that
    minute.

    Args:
        workers: number of processes, at least 1; by default one per CPU that this process may use.
        memory_limit: bytes that the batches of all Loaders together may take, of which each takes at most half of what
            is left when its batches are first made. By default each Loader has a limit of its own.
        timeout: as for `Loader`.
        worker_init: as for `Loader`; called in each worker for each Loader, before its code is loaded.
        worker_env: as for `Loader`.
        start: as for `Loader`.

    Raises:
        OptionError: an argument is invalid.

    Example:
        >>> import stoker
        >>> with stoker.Pool(workers=2) as pool:
        ...     ones = stoker.Loader([1, 1], batch_size=2, transform=abs, pool=pool)
        ...     twos = stoker.Loader([2, 2], batch_size=2, transform=abs, pool=pool)
        ...     [(one.tolist(), two.tolist()) for one, two in zip(ones, twos)]
        [([1, 1], [2, 2])]
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        memory_limit: int | None = None,
        timeout: float | None = None,
        worker_init: Callable[[], Any] | None = None,
        worker_env: Mapping[str, str | None] | None = None,
        start: Literal["warm", "fresh"] = "warm",
    ) -> None:
        from stoker.engines.interpreters import Interpreters  # they need what is slow to import
        from stoker.engines.worker_pool import WorkerPool

        self.workers = usable_cpus() if workers is None else whole("workers", workers, least=1)
        self.worker_init, self.worker_env = checked_init(worker_init), checked_environment(worker_env)
        self.start, self.timeout = checked_start(start), checked_timeout(timeout)
        self._seeds_globals: bool | None = None
        limit = None if memory_limit is None else whole("memory_limit", memory_limit, least=1)
        self.memory_budget = None if limit is None else MemoryBudget(limit)
        variables = self.worker_env
        self._workers = WorkerPool(self.workers, lambda: Interpreters(variables), forks=start == "warm", stays=True)
        self._let_go = weakref.finalize(self, self._workers.request_stop)
        self._let_go.atexit = False  # the exit hook of `interpreter_exit` does more: it waits
        close_at_exit(self._workers)

    def agree(self, *, seeds_globals: bool) -> None:
        """Raise `OptionError` unless the Loaders agree in whether they set the random states of a worker."""
        if self._seeds_globals not in (None, seeds_globals):
            raise OptionError(
                f"seed_globals={seeds_globals} was given, but other Loaders of this Pool have "
                f"{self._seeds_globals}, and random states are common to a worker. Use another Pool."
            )
        self._seeds_globals = seeds_globals

    def join(self, member: Member) -> WorkerPool:
        """Serve a Loader too."""
        if not self._workers.join(member):
            raise ClosedError("the Pool of this Loader was closed. Create a new Pool for it.")
        return self._workers

    def close(self) -> None:
        """End the workers, within 2 seconds. The Loaders that use them end with `ClosedError`."""
        self._let_go.detach()
        self._workers.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise cannot_be_copied("a Pool")

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def checked_timeout(seconds: Any) -> float | None:
    """`timeout`. Raises `OptionError` unless it is valid."""
    number = None if seconds is None else real(seconds)
    if seconds is not None and not (number is not None and 0 < number < math.inf):
        raise OptionError(f"timeout must be a positive number of seconds, or None, got {seconds!r}")
    return number


def checked_start(start: Any) -> Literal["warm", "fresh"]:
    """`start`. Raises `OptionError` unless it is valid."""
    if start not in ("warm", "fresh"):
        raise OptionError(f'start must be "warm" or "fresh", got {start!r}')
    return start  # type: ignore[no-any-return]  # one of the two


def checked_init(function: Any) -> Callable[[], Any] | None:
    """`worker_init`. Raises `OptionError` unless it can be called without arguments."""
    if function is not None and not takes_nothing(function):
        raise OptionError(f"worker_init must be a function without parameters, got {function!r}")
    return function  # type: ignore[no-any-return]


def checked_environment(variables: Any) -> dict[str, str | None]:
    """`worker_env` as a dict. Raises `OptionError` unless it maps names to strings or None."""
    if variables is None:
        return {}
    if not isinstance(variables, Mapping):
        raise OptionError(
            f'worker_env must be a dict of environment variables, such as {{"CUDA_VISIBLE_DEVICES": "0"}}, '
            f"got {variables!r}"
        )
    for name, value in variables.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise OptionError(f"worker_env keys must be names of environment variables, got {name!r}")
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise OptionError(f"worker_env[{name!r}] must be a str, or None to remove the variable, got {value!r}")
    return dict(variables)
