"""What a source of lines is, and what it may answer."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from linepicker.errors import SourceError
from linepicker.model import Line


def checked(lines: object) -> list[Line]:
    """A source's answer, if it is one. Raises SourceError."""
    if not isinstance(lines, Iterable):
        raise SourceError(f"fetch() must give lines, got {type(lines).__name__}")
    found = list(lines)
    numbers = set()
    for line in found:
        if not isinstance(line, Line):
            raise SourceError(f"fetch() must give Line objects, got {type(line).__name__}")
        if line.number in numbers:
            raise SourceError(f"fetch() gave {line.number} twice")
        numbers.add(line.number)
    return found


def takes_limits(source: Any) -> bool:
    """Whether its fetch() may be told how long, and how often, to try."""
    try:
        names = inspect.signature(source.fetch).parameters
    except (TypeError, ValueError):
        return False
    return "timeout" in names and "attempts" in names
