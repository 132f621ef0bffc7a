"""The library's codes, moments and numbers, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from linepicker.model import Assignment, Candidate, Decision, LineView, Reputation

__all__ = [
    "CODES",
    "bar",
    "because",
    "chance",
    "duration",
    "moment",
    "ownership",
    "recipients",
    "score",
    "slot",
    "standing",
    "until",
]

CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "not_in_fleet": "is not one of the account's lines",
        "paused": "is paused by the operator",
        "draining": "is draining: it serves the people it knows, and takes no new ones",
        "flagged": "is FLAGGED: the provider says it can't send",
        "ineligible": "refused a message, and is out until it may be tried again",
        "failing": "is in a time out, since its messages failed",
        "critical": "is CRITICAL: nothing goes out until it is HEALTHY",
        "recovering": "was CRITICAL, and is not confirmed HEALTHY yet",
        "line_type": "is not of the type asked for",
        "tag": "lacks a tag that was asked for",
        "excluded": "was excluded by the caller",
        "day_budget": "has used up its new conversations of the rolling day",
        "hour_budget": "has used up its new conversations of the rolling hour",
        "spread": "has used up the share of its day that may open within six hours",
        "messages": "has used up its messages of the rolling day",
        "moves": "has taken over as many people as it may in a day",
        "pair": "may not write to this person again yet",
        "pace": "has no slot soon enough",
        "stale": "is too long unheard of: its health data is missing or too old",
        "quiet": "may not go on with this conversation now",
        "deadline": "has no room for them before the deadline",
        "opted_out": "may not be used: this person opted out",
        "blocked": "may not be used: this person is blocked",
    }
)
"""What each code says of a line, as the rest of a sentence that begins with its number."""

_STANDINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "not_in_fleet": "gone",
        "paused": "paused",
        "draining": "known people only",
        "flagged": "out: FLAGGED",
        "ineligible": "out: refused one",
        "failing": "out: messages failed",
        "critical": "nothing goes out",
        "recovering": "recovering",
    }
)

SOON: Final = 300.0  # seconds; a line whose slot is further off has no room


def because(code: str | None) -> str:
    """What *code* says of a line; a code this version does not know, as it is."""
    return CODES.get(code or "", code or "may be used")


def standing(view: LineView, now: float) -> str:
    """A line's standing in two or three words."""
    if view.standing != "ok":
        return _STANDINGS.get(view.standing, view.standing)
    if view.next_slot_at is None or view.next_slot_at > now + SOON:
        return "full for now"
    return "open" if view.line.reputation is Reputation.HEALTHY else "open, slower"


def slot(view: LineView, now: float) -> str:
    """When a line could open its next conversation."""
    return "-" if view.next_slot_at is None else until(view.next_slot_at - now)


def until(seconds: float) -> str:
    """So many seconds from now: "now", "in 5 min"."""
    return "now" if seconds < 0.5 else f"in {duration(seconds)}"


def duration(seconds: float) -> str:
    """A length of time, to the two largest units that say something: "40 s", "5 min", "2 h 5 min", "3 d"."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def moment(at: float) -> str:
    """An epoch moment as a date and a time."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f}"


def day_and_minute(at: float) -> str:
    """A moment as one plans with it: "Fri 2026-12-04 18:00 UTC"; seconds only where there are any."""
    try:
        when = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f}"
    seconds = f"{when:%S}" != "00"
    return f"{_DAYS[when.weekday()]} {when:%Y-%m-%d %H:%M}{when.strftime(':%S') if seconds else ''} UTC"


def score(candidate: Candidate) -> str:
    """A candidate's score as the product that it is, without the factors of 1."""
    terms = candidate.terms.items()
    product = " × ".join(f"{name} {value:.3g}" for name, value in terms if value != 1.0)
    return f"{candidate.score:.3g} ({product})" if product else f"{candidate.score:.3g}"


def verdict(decision: Decision) -> str:
    """A decision as one sentence."""
    at = until(decision.delay)
    match decision.outcome, decision.kind:
        case "reserved", "moved":
            return f"{decision.to} would move from {decision.moved_from} to {decision.number}, and be written to {at}."
        case "reserved", "known":
            return f"{decision.to} belongs to {decision.number}, and would be written to from there {at}."
        case "reserved", _:
            return f"{decision.to} is new, and would be written to from {decision.number} {at}."
    return f"{decision.to} would be refused: {refusal(decision)}."


def refusal(decision: Decision, *, date: bool = True) -> str:
    """Why a decision is none, and when to ask again; without the *date*, only how long from then."""
    match decision.outcome:
        case "blocked":
            why = "opted out" if decision.reason == "opted_out" else "is blocked"
            return f"this person {why}, and gets nothing from any line until they write again"
        case "stale":
            why = "what is known of the lines' health is missing or too old"
        case "no_line":
            why = "no line may take a new conversation now"
        case _:
            why = f"{decision.number or 'the line'} {because(decision.reason)}"
    if decision.notes:
        why += f" ({'; '.join(decision.notes)})"
    if decision.retry_at is None:
        return why
    soon = until(decision.retry_at - decision.at)
    return f"{why}; ask again {soon}" + (f" ({moment(decision.retry_at)})" if date else "")


def ownership(to: str, owner: Assignment | None) -> list[str]:
    """Whose line somebody has, and had, in sentences. *to*: who it is, masked."""
    if owner is None:
        return [f"{to} has no line yet: the first message is a new conversation."]
    return [
        f"{to} has belonged to {owner.number} since {moment(owner.since)}.",
        *(
            f"Before that to {number}, since {moment(at)}."
            for number, at in reversed(owner.history)
        ),
    ]


def chance(each: Candidate, at: float) -> str:
    """What a choice made *at* that moment says of a line."""
    if each.excluded is None:
        return f"{each.number} could, {until((each.slot or at) - at)}: score {score(each)}"
    opens = "" if each.opens_at is None else f"; may open {until(each.opens_at - at)}"
    return f"{each.number} {because(each.excluded)}{opens}"


def recipients(count: int) -> str:
    """So many of them: "1 recipient", "12,403 recipients"."""
    return f"{count:,} recipient{'' if count == 1 else 's'}"


def bar(used: int, budget: int | None, width: int) -> str:
    """How much of a budget is used, as a bar of *width* characters; empty where there is no limit."""
    full = 0 if not budget else min(width, round(width * used / budget))
    if budget and used and not full:
        full = 1
    return "█" * full + "░" * (width - full)
