"""Which examples must be inspected before the form of the batches is known."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.structure.collation import Collation

#: Number of examples to inspect if sizes may differ: at least (if there are that many), and at most. For a collate
#: function, its first batches are inspected, whatever their size.
LEAST, MOST = 8, 512


@dataclass(frozen=True)
class LookOptions:
    """The extent of the inspection.

    Attributes:
        one: whether the first example may suffice.
        batches: number of batches.
        least: minimum number of examples.
        most: maximum number of examples that are made in advance.
        collation: how examples are joined.
        run: number of examples that are made together; 1 if each is made by itself.
        skips: whether examples that raise are left out.
        memory: maximum bytes of all of them.
    """

    one: bool
    batches: int
    least: int
    most: int
    collation: Collation
    run: int
    skips: bool
    memory: int
