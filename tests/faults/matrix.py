"""The table of faults: where × how → outcome, and the seconds that it may take.

A cell happens once, in one worker, or always: in each worker that comes to the example.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: Where a worker fails. FAILPOINTS are those of the package, see `stoker.worker.failpoints`.
PLACES = ("loading the program", "opening", "reading", "transform", "collate")
FAILPOINTS = ("spawn", "claim", "copy", "report", "reported", "turn", "shutdown")
#: Where a worker has nothing to do; it is hit from outside.
OUTSIDE = ("idle", "between epochs")

DEATHS = ("SIGKILL", "SIGTERM", "SIGABRT", "null read", "os._exit(0)", "os._exit(3)")
STOPS = ("SIGSTOP", "loop", "loop in C")
ERRORS = (
    "error",
    "unpicklable error",
    "wordless error",
    "long error",
    "error of two causes",
    "sys exit",
    "interrupt",
    "no descriptors",
)
HARMLESS = ("closed streams", "flood of stderr")

#: Kinds of source, for the faults that all of them must bear.
SOURCES = ("map-style", "padded", "arrays", "generator", "iterable")


class Outcome(enum.Enum):
    """What the user sees."""

    NOTHING = "every batch, bit for bit, in order"
    ERROR = "an error with the user's words, in its batch's turn; or the example is left out"
    DEATH = "WorkerDied, which names the example and the signal; or the example is left out"
    WHOLE_BATCH = "WorkerDied, which names the batch"
    NO_START = "one error: no worker comes up, or the source cannot be loaded"


@dataclass(frozen=True)
class Cell:
    """One cell; `seconds` is the most that it may take."""

    where: str
    how: str
    always: bool
    outcome: Outcome
    seconds: float = 5.0
    source: str = "map-style"

    def __str__(self) -> str:
        return f"{self.source}-{self.where}-{self.how}-{'always' if self.always else 'once'}"


def cells() -> list[Cell]:
    """All of them."""
    found = []
    for where in PLACES:
        for how in DEATHS + STOPS:
            seconds = 12.0 if how in STOPS else 5.0
            if where != "loading the program" or how not in STOPS:
                found.append(Cell(where, how, False, Outcome.NOTHING, seconds))
            found.append(Cell(where, how, True, _of_deaths(where), 40.0 if how in STOPS else 5.0))
        found += [Cell(where, how, True, Outcome.NO_START if where == PLACES[0] else Outcome.ERROR) for how in ERRORS]
        found += [Cell(where, how, False, Outcome.NOTHING) for how in HARMLESS]
        found.append(Cell(where, "error", False, Outcome.NO_START if where == PLACES[0] else Outcome.ERROR))
    found.append(Cell("reading", "no descriptors", False, Outcome.ERROR))
    for where in FAILPOINTS:
        hows = ("SIGKILL", "SIGTERM", "SIGSEGV", "SIGABRT", "exit0", "exit3")
        found += [Cell(where, how, False, Outcome.NOTHING) for how in hows]
        if where not in ("spawn", "shutdown"):
            found.append(Cell(where, "SIGSTOP", False, Outcome.NOTHING, 12.0))
        users = where in ("claim", "copy", "turn")  # what is raised there is told as if the user's code had raised it
        found.append(Cell(where, "raise", False, Outcome.ERROR if users else Outcome.NOTHING))
    for where in OUTSIDE:
        hows = ("SIGKILL", "SIGTERM", "SIGSEGV", "SIGABRT")
        found += [Cell(where, how, False, Outcome.NOTHING) for how in hows]
        found.append(Cell(where, "SIGSTOP", False, Outcome.NOTHING, 12.0))
    for source in SOURCES[1:]:
        where = "transform" if source in ("arrays", "iterable") else "reading"
        for how in ("SIGKILL", "os._exit(0)"):
            found.append(Cell(where, how, False, Outcome.NOTHING, source=source))
            found.append(Cell(where, how, True, Outcome.DEATH, source=source))
        found.append(Cell(where, "error", True, Outcome.ERROR, source=source))
    for how in ("SIGKILL", "os._exit(0)"):
        found.append(Cell("opening", how, False, Outcome.NOTHING, source="generator"))
        found.append(Cell("opening", how, True, Outcome.DEATH, source="generator"))
    found.append(Cell("opening", "error", True, Outcome.ERROR, source="generator"))
    return [cell for cell in found if cell.how != "no descriptors" or cell.where == "reading"]


def _of_deaths(where: str) -> Outcome:
    if where == PLACES[0]:
        return Outcome.NO_START
    return Outcome.WHOLE_BATCH if where == "collate" else Outcome.DEATH


def deaths(cell: Cell) -> int:
    """How many workers die where a fault happens once."""
    return int(cell.how not in HARMLESS and cell.where != "shutdown" and cell.outcome is Outcome.NOTHING)


def is_quick(cell: Cell) -> bool:
    """Whether it is run with the other tests: the deaths that differ most in where and how they come."""
    if cell.source != "map-style":
        return cell.how == "SIGKILL" and not cell.always
    if cell.where in FAILPOINTS + OUTSIDE:
        return cell.how == "SIGKILL" and cell.where in ("spawn", "copy", "report", "idle")
    if cell.where == "reading":
        often = ("SIGKILL", "unpicklable error", "wordless error", "long error", "sys exit")
        return cell.how in (often if cell.always else ("null read", "os._exit(0)", "SIGSTOP", "loop in C", *HARMLESS))
    return cell.how == "SIGKILL" and cell.always and cell.where in ("loading the program", "collate")
