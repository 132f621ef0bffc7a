"""What the commands print: one JSON document, or text that fits the terminal."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from linepicker import _words as words
from linepicker._tally import week
from linepicker.model import Assignment, Candidate, Decision, LineView
from linepicker.recipients import mask, mask_all

__all__ = [
    "COLOURS",
    "assignments",
    "candidates",
    "console",
    "decision",
    "document",
    "line",
    "line_json",
    "lines",
    "say",
]

COLOURS: Final = {"HEALTHY": "green", "AT_RISK": "yellow", "CRITICAL": "red", "FLAGGED": "red"}

_TABLE: Final = 72  # columns; on less, a line takes several rows
_ANYWHERE: Final = 160  # columns, where nobody knows how many there are


def console() -> Console:
    """A console on stdout, as wide as COLUMNS or the terminal says."""
    size = shutil.get_terminal_size((_ANYWHERE, 24))
    return Console(
        width=max(20, size.columns),
        height=max(5, size.lines),
        highlight=False,
        markup=False,
        emoji=False,
    )


def say(text: str, *, head: str = "", indent: int = 0, style: str = "") -> None:
    """One paragraph, wrapped between words. *head* stands before its first row, *indent* blanks before the others."""
    out = console()
    indent = indent or len(head)
    rows = textwrap.wrap(
        text,
        max(out.width, indent + 16),
        initial_indent=head or " " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,  # an address must stay whole
        break_on_hyphens=False,
    )
    for row in rows:
        out.print(Text(row, style), soft_wrap=True)


def document(value: Any) -> None:
    """One JSON document."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(value, ensure_ascii=not unicode))


# Lines


def lines(views: Sequence[LineView], now: float) -> None:
    """Every line with its budget, and under the table what there is to say of some."""
    if not views:
        say("The account has no lines.")
        return
    out = console()
    if out.width < _TABLE:
        for view in views:
            line(view, now)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("line", "type", "reputation", "standing"):
        table.add_column(title, no_wrap=True)
    for title in ("used", "left", "next slot"):
        table.add_column(title, no_wrap=True, justify="right")
    for view in views:
        table.add_row(
            view.line.number,
            view.line.line_type or "-",
            _reputation(view),
            words.standing(view, now),
            _used(view),
            "-" if view.remaining is None else str(view.remaining),
            words.slot(view, now),
        )
    out.print(table)
    told = [view for view in views if view.reasons]
    if told:
        print()
    for view in told:
        say(f"{view.line.number}: {' '.join(view.reasons)}")


def line(view: LineView, now: float) -> None:
    """One line in a few rows, for any width."""
    kind = f"{view.line.line_type}, " if view.line.line_type else ""
    out = console()
    out.print(
        Text(view.line.number, "bold").append(" ", "not bold").append_text(_reputation(view)),
        soft_wrap=True,
    )
    left = "" if view.remaining is None else f", {view.remaining} left"
    say(f"{kind}{words.standing(view, now)}", indent=2)
    opens = "" if view.next_slot_at is None else f"; next slot {words.slot(view, now)}"
    say(f"{_used(view)} new today{left}{opens}", indent=2)
    for reason in view.reasons:
        say(reason, indent=2)
    told = week(view.outcomes, sample=1)
    if told:
        say(told, indent=2)


def line_json(view: LineView) -> dict[str, Any]:
    """A line as JSON; moments are epoch seconds."""
    return {
        "number": view.line.number,
        "line_type": view.line.line_type,
        "reputation": str(view.line.reputation),
        "standing": view.standing,
        "budget": view.budget,
        "used": view.used,
        "remaining": view.remaining,
        "next_slot_at": view.next_slot_at,
        "reasons": list(view.reasons),
        "outcomes": dict(view.outcomes),
        "as_of": view.as_of,
        "terms": [attrs.asdict(term) for term in view.terms],
    }


def _reputation(view: LineView) -> Text:
    name = "FLAGGED" if view.standing == "flagged" else str(view.line.reputation)
    return Text(name, COLOURS.get(name, ""))


def _used(view: LineView) -> str:
    return f"{view.used}/{'no limit' if view.budget is None else view.budget}"


# Choices


def decision(made: Decision) -> None:
    """A choice, in one sentence."""
    say(words.verdict(made), style="bold")
    if made.outcome == "reserved":
        for note in made.notes:
            say(f"{note}.", indent=2)


def candidates(made: Decision) -> None:
    """Every line as the choice saw it, the best first."""
    for each in _ranked(made):
        end = "" if each.excluded is None else "."
        say(f"{words.chance(each, made.at)}{end}", indent=2)


def _ranked(made: Decision) -> list[Candidate]:
    return sorted(made.candidates, key=lambda each: each.number != made.number)


# Assignments


def assignments(found: Iterable[Assignment], *, full_handles: bool) -> None:
    """Recipients and their lines."""
    for each in found:
        to = handles(each, full_handles=full_handles)
        name = to if isinstance(to, str) else ", ".join(to)
        past = "".join(f", before on {number}" for number, _ in reversed(each.history[-1:]))
        say(f"{name} -> {each.number} since {words.moment(each.since)}{past}")


def handles(found: Assignment, *, full_handles: bool) -> str | list[str]:
    """Whom an assignment is of, masked unless told otherwise."""
    if full_handles:
        return found.to if isinstance(found.to, str) else list(found.to)
    return mask(found.to) if isinstance(found.to, str) else mask_all(found.to).split(", ")


def assignment_json(found: Assignment, *, full_handles: bool = False) -> dict[str, Any]:
    """An assignment as JSON; moments are epoch seconds."""
    return {
        "to": handles(found, full_handles=full_handles),
        "number": found.number,
        "since": found.since,
        "history": [{"number": number, "since": since} for number, since in found.history],
    }
