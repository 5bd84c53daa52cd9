"""Figures of many rounds as one: medians, and ratios taken within a round, with their spread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, the least and the most."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """The spread of the values, or None if there are none."""
        found = list(values)
        return cls(median(found), min(found), max(found)) if found else None


def chosen(records: Iterable[Record], case: str, contender: str) -> list[Record]:
    """The records of a case and contender that have figures."""
    return [r for r in records if r["case"] == case and r["contender"] == contender and r["ok"]]


def spread(records: Iterable[Record], value: Callable[[Record], float | None]) -> Spread | None:
    """The spread of a figure, leaving out the records that lack it."""
    return Spread.of(found for record in records if (found := value(record)) is not None)


def ratio(records: list[Record], case: str, contender: str, to: str, key: str) -> Spread | None:
    """The spread of contender ÷ ``to``, each ratio taken within one round."""
    other = {r["round"]: r[key] for r in chosen(records, case, to) if key in r}
    mine = {r["round"]: r[key] for r in chosen(records, case, contender) if key in r}
    return Spread.of(mine[turn] / other[turn] for turn in sorted(mine.keys() & other.keys()))


def field(key: str) -> Callable[[Record], float | None]:
    """Reads a figure as it was told."""
    return lambda record: record.get(key)


def extra(phase: str) -> Callable[[Record], float | None]:
    """Reads the memory that the loader added in a phase: the tree's peak less the trainer's own before it, in bytes."""

    def value(record: Record) -> float | None:
        peak = record.get(f"peak_{phase}_bytes")
        return None if peak is None else peak - record["baseline_bytes"]

    return value


def peak(phase: str) -> Callable[[Record], float | None]:
    """Reads the peak of the tree's PSS in a phase, in bytes."""
    return field(f"peak_{phase}_bytes")


def right(records: Iterable[Record]) -> str:
    """Whether what came was right: yes only if it was in every round."""
    answers = [record["right"] for record in records]
    if not answers or all(answer is None for answer in answers):
        return "–"
    if any(answer is False for answer in answers):
        return "no"
    return "yes" if all(answers) else "in part"
