"""What the terminal shows: progress while it works, then the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from .race import Now, Result


class Lane:
    """One contender's progress: a live bar in a terminal, a line an epoch elsewhere.

    Args:
        console: Where to.
        progress: The bars.
        task: This contender's bar.
        name: The contender's.
        epochs: How many there will be.
        steps: Batches of an epoch.
    """

    def __init__(
        self, console: Console, progress: Progress, task: TaskID, name: str, epochs: int, steps: int
    ) -> None:
        """Draws nothing yet; see the class."""
        self._console = console
        self._progress = progress
        self._task = task
        self._name = name
        self._epochs = epochs
        self._steps = steps

    def __call__(self, now: Now) -> None:
        """Shows how far the contender is."""
        done = (now.epoch - 1) * self._steps + now.step
        text = (
            f"epoch {now.epoch}/{self._epochs}  loss {now.loss:.2f}"
            f"  right {now.accuracy:4.0%}  {now.rate:,.0f}/s"
        )
        self._progress.update(self._task, completed=done, text=text)
        if not self._console.is_terminal and now.step == self._steps:
            self._console.print(f"{self._name:15} {text}", highlight=False)


@contextmanager
def lane(console: Console, name: str, epochs: int, steps: int) -> Iterator[Lane]:
    """Opens a contender's progress display, and leaves its last state on the screen."""
    progress = Progress(
        TextColumn("{task.description:15}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        console=console,
        expand=True,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task(name, total=epochs * steps, text="starting")
        yield Lane(console, progress, task, name, epochs, steps)


def table(results: list[Result]) -> Table:
    """The measurements, a contender a row."""
    grid = Table(title="The same fit(), fed two ways", title_style="bold", title_justify="left")
    grid.add_column("fed by", no_wrap=True)
    for heading in ("time an\nepoch", "examples\n/s", "step spent\nwaiting", "right on\nheld-out"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for place, result in enumerate(results):
        grid.add_row(
            f"{result.name}, {result.how}",
            f"{result.epoch_seconds:.2f} s",
            f"{result.rate:,.0f}",
            f"{result.waiting:.0%}",
            f"{result.accuracy:.1%}",
            style="bold" if place == len(results) - 1 else "",
        )
    return grid
