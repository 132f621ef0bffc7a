"""The answer to Linq's `GET /v3/phone_numbers`, made lines: all of it, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeVar

import attrs

from linepicker.errors import SourceError
from linepicker.model import Line, Reputation, ServiceStatus

__all__ = ["parse_lines", "unusable"]

_LONGEST_WORD: Final = 64
_SEVERITY: Final = {Reputation.HEALTHY: 0, Reputation.AT_RISK: 1, Reputation.CRITICAL: 2}

_Enum = TypeVar("_Enum", bound=StrEnum)


def parse_lines(body: bytes, warn: Callable[[str], object] | None = None) -> list[Line]:
    """The lines in *body*, the answer to `GET /v3/phone_numbers` in its present or any earlier shape.

    `reputation` counts, and in its absence `health_status`; each is an object with a `status`, or a string, in any case.
    Without either the line was never scored: HEALTHY. An unknown value becomes `unrecognised`, at AT_RISK. Of one number
    listed twice the worse is kept. An entry whose number is not E.164 is left out. *warn* is called with a sentence about
    each oddity.

    Raises `SourceError` if the answer as a whole can't be trusted: not JSON, a duplicate key, NaN, another structure.
    """
    warn = warn or _pass_over
    lines: dict[str, Line] = {}
    for entry in _entries(body):
        try:
            line = _line(entry)
        except ValueError:
            number = _shown(entry.get("phone_number"))
            warn(f"Linq lists {number!r}, which is not an E.164 number: left out")
            continue
        if line.unrecognised is not None:
            warn(
                f"Linq's line list has the unknown reputation {line.unrecognised!r}: "
                "such lines count as AT_RISK at best"
            )
        known = lines.get(line.number, line)
        if known != line:
            warn(f"Linq lists {line.number} twice, and differently: the worse is kept")
        lines[line.number] = _worse(known, line)
    return list(lines.values())


def unusable(why: str) -> SourceError:
    """The error for an answer that came, and can't be trusted."""
    return SourceError(f"Linq's line list can't be used: {why}", status=200)


def _pass_over(message: str) -> None:
    pass


def _entries(body: bytes) -> list[dict[str, Any]]:
    try:
        answer = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        what = "HTML" if body.lstrip()[:1] == b"<" else "not valid JSON"
        raise unusable(f"it is {what} ({type(error).__name__})") from None
    entries = answer.get("phone_numbers") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise unusable('it is no object with a list of "phone_numbers"')
    if not all(isinstance(entry, dict) for entry in entries):
        raise unusable('one of its "phone_numbers" is not an object')
    return entries


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    together = dict(pairs)
    if len(together) != len(pairs):
        raise ValueError("an object has a key twice")
    return together


def _line(entry: Mapping[str, Any]) -> Line:
    health = entry.get("reputation")
    if _word(health) is None:
        health = entry.get("health_status")
    word = _word(health)
    reputation = Reputation.HEALTHY if word is None else _member(Reputation, word)
    doc_url = health.get("doc_url") if isinstance(health, dict) else None
    status = _word(entry.get("status"))
    return Line(
        entry.get("phone_number"),  # type: ignore[arg-type]  # Line refuses whatever is no number
        reputation=reputation or Reputation.AT_RISK,
        status=None if status is None else _member(ServiceStatus, status),
        line_type=_text(entry.get("line_type")),
        id=_text(entry.get("id")),
        unrecognised=None if reputation else word,
        doc_url=_text(doc_url),
    )


def _word(value: Any) -> str | None:
    """The value of a status, which is a string or an object that holds one; None if it is missing or null."""
    if isinstance(value, dict):
        value = value.get("status")
    return None if value is None else _shown(value)


def _shown(value: Any) -> str:
    return (value.strip()[:_LONGEST_WORD] if isinstance(value, str) else "") or (
        f"({type(value).__name__})"
    )


def _member(enum: type[_Enum], word: str) -> _Enum | None:
    return enum.__members__.get(word.upper())


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _worse(one: Line, other: Line) -> Line:
    worse = max(one, other, key=lambda line: (_SEVERITY[line.reputation], bool(line.unrecognised)))
    flagged = ServiceStatus.FLAGGED in {one.status, other.status}
    return attrs.evolve(worse, status=ServiceStatus.FLAGGED) if flagged else worse
