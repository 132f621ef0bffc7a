"""One run of the command: streams that can print anything, errors as one sentence or one JSON document, the exit status."""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Final

import typer

from linepicker.cli.app import app
from linepicker.cli.settings import CommandError
from linepicker.cli.show import document
from linepicker.errors import LinePickerError
from linepicker.recipients import mask

__all__ = ["run"]

INTERRUPTED: Final = 130

_PLAIN: Final = str.maketrans("•…×→█░–·", "*.x>#.--")
_SHOWN: Final = {"refused", "standing"}
"""Events in the log that the commands show by themselves."""
_HANDLE: Final = re.compile(r"\+[0-9]{7,15}|[^\s()'\"]+@[^\s()'\"]+")


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit status. Raises nothing but SystemExit."""
    _print_anything()
    as_json = "--json" in arguments
    with _warnings() as warnings:
        try:
            command = typer.main.get_command(app)
            status = command.main(list(arguments), "linepicker", standalone_mode=False)
        except (KeyboardInterrupt, typer.Abort):
            return INTERRUPTED
        except BrokenPipeError:
            # Whoever read us has gone; what is left in the buffer must not be written at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:  # noqa: BLE001  # nobody wants a traceback of a command
            return _tell(error, as_json=as_json)
        for warning in warnings:
            print(f"linepicker: warning: {warning}", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _tell(error: Exception, *, as_json: bool) -> int:
    # typer's usage errors are click's, or its own copies of them: known by what they can do.
    told = getattr(error, "format_message", None)
    if callable(told):
        message, status = _HANDLE.sub(lambda match: mask(match[0]), told()), 2
    elif isinstance(error, LinePickerError | ValueError | CommandError | OSError):
        message, status = str(error), 1
    else:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        message, status = f"a mistake of linepicker's own: {type(error).__name__} in {where}", 1
    if as_json:
        document({"error": {"type": type(error).__name__, "message": message}})
    else:
        print(f"linepicker: {message}", file=sys.stderr)
    return status


def _print_anything() -> None:
    """Let both streams print what their encoding has no character for as a plainer one."""
    codecs.register_error("linepicker", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="linepicker")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "replace").decode("ascii"), error.end


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the library warns of meanwhile, instead of on stderr at once: an error says it better."""
    log, kept = logging.getLogger("linepicker"), list[str]()

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text, facts = record.getMessage(), getattr(record, "linepicker", {})
            if text not in kept and facts.get("event") not in _SHOWN:
                kept.append(text)

    keeper = Keeper(logging.WARNING)
    log.addHandler(keeper)
    try:
        yield kept
    finally:
        log.removeHandler(keeper)
