"""The copy of the program whose user code runs, and the facts that follow from it."""

from __future__ import annotations

from stoker.protocol.program import Program
from stoker.sources.arrays import rows_of
from stoker.worker.batching.keeping import Keeper


class ProgramInUse:
    """Holds the copy of the program for the current epoch.

    Only the objects of the user differ between copies: source, transform and collate function. The options are equal.

    Args:
        program: the first copy.

    Attributes:
        program: the copy in use.
        keep: makes an example of this copy safe to store: see `stoker.worker.batching.keeping`.
        arrays: the arrays whose rows are the examples, where no user code runs for them; else None.
    """

    def __init__(self, program: Program) -> None:
        self.use(program)

    def use(self, program: Program) -> None:
        """Use this copy from now on."""
        self.program = program
        self.keep = Keeper((program.source, program.transform)).keep
        self.arrays = rows_of(program.source) if program.transform is None else None
