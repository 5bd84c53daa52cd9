"""The terminal output: progress during training, then the table."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from .race import RaceProgress, Result


class Screen:
    """The progress of all contenders: live bars in a terminal, one line per epoch elsewhere.

    Args:
        console: The console to write to.
        epochs: Epochs per contender.
        steps: Batches per epoch.
    """

    def __init__(self, console: Console, epochs: int, steps: int) -> None:
        self._console = console
        self._epochs = epochs
        self._steps = steps
        self._progress = Progress(
            TextColumn("{task.description:15}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[text]}"),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def add_bar(self, name: str) -> Callable[[RaceProgress], None]:
        """Adds a bar for a contender, and returns a function to call with its progress."""
        task = self._progress.add_task(name, total=self._epochs * self._steps, text="")

        def show(progress: RaceProgress) -> None:
            text = (
                f"epoch {progress.epoch}/{self._epochs}  loss {progress.loss:.2f}  accuracy {progress.accuracy:4.0%}"
                f"  {progress.rate:4,.0f}/s  {progress.seconds:4.1f} s"
            )
            self._progress.update(task, completed=(progress.epoch - 1) * self._steps + progress.step, text=text)
            if not self._console.is_terminal and progress.step == self._steps:
                self._console.print(f"{name:15} {text}", highlight=False)

        return show


def table(results: list[Result]) -> Table:
    """The measurements, one row per contender."""
    grid = Table(title="The same fit(), fed two ways", title_style="bold", title_justify="left")
    grid.add_column("fed by", no_wrap=True)
    for heading in ("time an\nepoch", "examples\n/s", "step spent\nwaiting", "test\naccuracy"):
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
