"""The fleet in one sentence: who can open conversations, why the others can't, and who is served all the same. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from linepicker import _words as words
from linepicker.model import LineView

__all__ = ["able", "clock_time", "fleet", "served"]

_SERVES: Final = frozenset({"ok", "draining"})
"""The standings in which a line serves the people it knows."""

_NAMES: Final[Mapping[str, str]] = {
    "critical": "CRITICAL",
    "recovering": "recovering from CRITICAL",
    "flagged": "FLAGGED",
    "paused": "paused by the operator",
    "draining": "draining",
    "ineligible": "out since it refused a message",
    "failing": "in a time out since its messages failed",
    "not_in_fleet": "gone from the account",
    "stale": "without fresh health data",
}


def able(view: LineView, now: float) -> bool:
    """Whether a line could open a conversation within five minutes."""
    slot = view.next_slot_at
    return view.standing == "ok" and slot is not None and slot <= now + words.SOON


def served(by_line: Mapping[str, int], views: Sequence[LineView]) -> int:
    """How many of the known recipients can be written to."""
    open_lines = {view.line.number for view in views if view.standing in _SERVES}
    return sum(count for number, count in by_line.items() if number in open_lines)


def fleet(views: Sequence[LineView], by_line: Mapping[str, int], now: float) -> str:
    """All of it, as a sentence."""
    can = sum(able(view, now) for view in views)
    noun = "line" if len(views) == 1 else "lines"
    text = f"{can} of {len(views)} {noun} can take a new conversation"
    groups = _groups([view for view in views if not able(view, now)], now)
    if groups:
        text += f": {', '.join(groups)}"
    known, held = sum(by_line.values()), sum(by_line.values()) - served(by_line, views)
    if known:
        text += f"; {known - held:,} known {_people(known - held)} {'is' if known - held == 1 else 'are'}"
        text += " still served" if len(groups) or held else " served"
        if held:
            text += f", {held:,} held"
    return text + "."


def clock_time(at: float, now: float) -> str:
    """A moment as short as it may be: the time, with the date where it is another day's."""
    moment, today = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC).date()
    return moment.strftime("%H:%M UTC" if moment.date() == today else "%Y-%m-%d %H:%M UTC")


def _groups(views: Sequence[LineView], now: float) -> list[str]:
    """What keeps these lines from it, each reason once, the most frequent first."""
    slots = defaultdict[str, list[float]](list)
    counts = Counter[str]()
    for view in views:
        name = _reason(view)
        counts[name] += 1
        if view.next_slot_at is not None:
            slots[name].append(view.next_slot_at)
    found = []
    for name, count in counts.most_common():
        opens = f" (first slot {clock_time(min(slots[name]), now)})" if slots[name] else ""
        found.append(f"{count} {name}{opens}")
    return found


def _reason(view: LineView) -> str:
    if view.standing in ("paused", "draining"):
        said = next((each for each in view.reasons if '("' in each), "")
        why = said[said.find('("') + 1 : said.rfind(")")] if said else ""
        return f"{_NAMES[view.standing]}{f' ({why})' if why else ''}"
    if view.standing != "ok":
        return _NAMES.get(view.standing, view.standing)
    spent = f"{view.used}/{view.budget}"
    if view.budget is not None and view.used >= view.budget:
        warming = any(each.startswith("Warming up") for each in view.reasons)
        return f"warming {spent}" if warming else f"at {spent} today"
    return "waiting for the next slot"


def _people(count: int) -> str:
    return "recipient" if count == 1 else "recipients"
