"""The commands and their options; each command's work is in a package of its own."""

from __future__ import annotations

import gc
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

_DEMO_NEEDS = ("tensorflow", "keras", "rich", "matplotlib", "scipy", "sklearn")


@app.callback()
def stoker() -> None:
    """Keeps model.fit() fed, with data code in plain Python."""


@app.command()
def demo(
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each run.")] = 8,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of worker processes.", show_default="one per CPU")
    ] = None,
    out: Annotated[Path, typer.Option(dir_okay=False, help="The picture to write.")] = Path("demo.png"),
) -> None:
    """Trains on handwritten digits, fed by one process and then by many, and compares."""
    missing = [name for name in _DEMO_NEEDS if find_spec(name) is None]
    if missing:
        _stop(f'The demo needs {", ".join(missing)}, not installed here. Run: pip install "stoker[demo]"')
    if not out.absolute().parent.is_dir():
        _stop(f"The picture cannot be written to {out}: no such folder: {out.parent}")
    from .demo.story import run

    try:
        run(epochs=epochs, workers=workers, out=out)
    except KeyboardInterrupt as stopped:
        # The traceback keeps the interrupted iterator alive. If it were left until the interpreter exits, TensorFlow
        # would wait forever for a from_generator thread that can no longer run Python.
        traceback.clear_frames(stopped.__traceback__)
        gc.collect()
        raise


def _stop(why: str) -> None:
    """Ends the command with one line on stderr and exit code 1."""
    typer.echo(why, err=True)
    raise typer.Exit(1)
