"""What a source of lines is, and what it may answer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from typing import Any, Final

from linepicker.errors import SourceError
from linepicker.model import Line

SHORT_FETCH: Final = 2.0
"""How long, in seconds, a call that has a snapshot waits for a newer one."""


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


def fetch(source: Any, *, patient: bool, limited: bool) -> list[Line]:
    """The lines that a source lists. *patient*: as long as it takes; else in one short attempt, if it may be told (*limited*).
    Raises SourceError."""
    try:
        if limited and not patient:
            return checked(source.fetch(timeout=SHORT_FETCH, attempts=1))
        return checked(source.fetch())
    except SourceError:
        raise
    except Exception as error:
        raise failed(error) from error


async def afetch(source: Any, *, patient: bool, limited: bool) -> list[Line]:
    """As `fetch`, awaited; a source that can't be told is cut off."""
    try:
        if patient:
            return checked(await source.fetch())
        if limited:
            return checked(await source.fetch(timeout=SHORT_FETCH, attempts=1))
        async with asyncio.timeout(SHORT_FETCH):  # wait_for may swallow a cancellation
            return checked(await source.fetch())
    except SourceError:
        raise
    except Exception as error:
        raise failed(error) from error


def failed(error: Exception) -> SourceError:
    """What a source's own error becomes."""
    return SourceError(f"the source failed: {type(error).__name__}")
