"""The command line tool `stoker`.

The files:

    app           the commands and their options
    demo          `stoker demo`: a small training run, fed two ways
"""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; the console entry point `stoker`.

    The commands are imported here, not at the top of the module: a worker that unpickles code of this package must
    not pay for typer, and without typer the user should see one line, not a traceback.
    """
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit('The command needs typer, which is not installed. Run: pip install "stoker[demo]"')
    app()
