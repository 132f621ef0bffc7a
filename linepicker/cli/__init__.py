"""The command `linepicker`, for operators: what the lines are doing, and why. Needs `linepicker[cli]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_EXTRA = {"typer", "rich"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with *arguments* (None: the process's own). The exit status: 0 done, 1 an error, told in one sentence on
    stderr, 2 wrong usage, 3 refused (`pick`: no line may take it now), 4 not as recorded (`replay`), 130 interrupted."""
    try:
        from linepicker.cli.run import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print("the linepicker command needs: pip install 'linepicker[cli]'", file=sys.stderr)
        return 1
    return run(sys.argv[1:] if arguments is None else arguments)
