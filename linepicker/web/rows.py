"""What the page says of the fleet, line by line and altogether, before it is HTML. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from linepicker import _words as words
from linepicker._overview import LineDetail, Overview
from linepicker.model import Assignment, Decision, LineView
from linepicker.web import strip

__all__ = ["Found", "Freshness", "Hour", "Row", "Summary", "clock", "found", "freshness", "hours"]

_TOLD_ELSEWHERE: Final = ("Paced: ", "AT_RISK: ", "See ")
_CANDIDATES: Final = 8
_FULL: Final = 10
"""So many new conversations in a day, or its budget, or the most of the week, fill a drawing's height."""
_MARKS: Final = {"HEALTHY": "h", "AT_RISK": "a", "CRITICAL": "c", "FLAGGED": "c", "": "u"}
"""The class by which the style knows what a line was called."""


@attrs.frozen
class Row:
    """A line as its row shows it; a number or "no limit" is text. `mark`: the style's class for what it is called."""

    number: str
    called: str
    mark: str
    standing: str
    reasons: tuple[str, ...]
    used: str
    left: str
    next: str
    pace: str
    replies: str
    week: str
    bars: str
    band: tuple[tuple[str, str], ...]


def row(line: LineDetail, now: float) -> Row:
    """A line at *now*."""
    view = line.view
    days = strip.days(line.week)
    full = max(_FULL, view.budget or 0, *days)
    counts = view.outcomes
    opened, answered = counts.get("opened", 0), counts.get("answered", 0)
    week = [f"{name} {words.duration(s)}" for name, s in strip.past(line.past, now).items()]
    return Row(
        view.line.number,
        line.called,
        _MARKS.get(line.called, "u"),
        _standing(line, now),
        tuple(each for each in view.reasons if not each.startswith(_TOLD_ELSEWHERE)),
        f"{view.used} of {'no limit' if view.budget is None else view.budget}",
        "no limit" if view.remaining is None else str(view.remaining),
        _next(view, now),
        f"1 in {words.duration(line.new_gap)}" if line.new_gap else "no limit",
        f"{answered} of {opened}" if opened else "-",
        ", ".join(week),
        strip.bars(days, full),
        tuple(
            (_MARKS.get(name, "u"), path) for name, path in strip.band(line.past, line.week_from)
        ),
    )


def _standing(line: LineDetail, now: float) -> str:
    said = words.standing(line.view, now)
    return "open, slower" if said == "open" and line.called != "HEALTHY" else said


def _next(view: LineView, now: float) -> str:
    """When its next conversation may open, in words that change only when that does."""
    at = view.next_slot_at
    if at is None:
        return "not known"
    return "now" if at < now + 1.0 else clock(at, now)


def clock(at: float, now: float) -> str:
    """A moment as a time of day, with the day where it is not today's."""
    try:
        then, today = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC)
    except (OverflowError, ValueError, OSError):
        return words.moment(at)
    same = then.date() == today.date()
    return then.strftime("%H:%M:%S" if same else "%b %d, %H:%M")


# All of them


@attrs.frozen
class Summary:
    """How the fleet stands. `counts`: how many lines stand how, the most frequent first; `trouble`: how many are FLAGGED,
    CRITICAL or AT_RISK, and where the provider explains that, empty where it does not say."""

    sentence: str
    counts: tuple[tuple[str, int], ...]
    trouble: tuple[tuple[str, int, str], ...]
    total: int
    opens: int


def summary(lines: Sequence[LineDetail], rows: Sequence[Row], now: float) -> Summary:
    """All lines at *now*."""
    total, opens = len(rows), sum(each.standing.startswith("open") for each in rows)
    if not total:
        sentence = "The account has no lines."
    else:
        of = "line" if total == 1 else "lines"
        sentence = f"{opens:,} of {total:,} {of} can take a new conversation now."
    moments = (each.view.next_slot_at for each in lines)
    first = min((at for at in moments if at is not None), default=None)
    if total and not opens and first is not None:
        sentence += f" The first one can at {clock(first, now)}."
    called = Counter(each.called for each in rows)
    links = {each.called: each.view.line.doc_url or "" for each in lines}
    return Summary(
        sentence,
        tuple(Counter(each.standing for each in rows).most_common()),
        tuple(
            (name, called[name], link if (link := links[name]).startswith("https://") else "")
            for name in ("FLAGGED", "CRITICAL", "AT_RISK")
            if called[name]
        ),
        total,
        opens,
    )


@attrs.frozen
class Freshness:
    """How old what is shown is, in sentences; `good`: whether all of it may be trusted."""

    sentences: tuple[str, ...]
    good: bool


def freshness(
    seen: Overview, ttl: float, hook: Mapping[str, int] | None, hook_at: float | None
) -> Freshness:
    """How fresh the list is, and when the provider last told something. *hook*: what the webhooks taken here came to, None
    if they are not, the last verified one at *hook_at*."""
    told = []
    if seen.static:
        told.append("The list of lines was given at the start, and is not read again.")
    else:
        told.append(
            f"List of lines: read at {clock(seen.polled_at, seen.now)}, again every {words.duration(ttl)}."
        )
    if seen.failing:
        told.append("Since then it could not be read: the log says why.")
    if seen.freshness == "slow":
        told.append("It is old: HEALTHY counts as AT_RISK until it is read again.")
    elif seen.freshness == "stale":
        told.append("It is too old to trust: everything is refused until it is read again.")
    heard = seen.heard_at
    told.append(
        "Reports of the provider: none on record."
        if heard is None
        else f"Reports of the provider: the last one at {clock(heard, seen.now)}."
    )
    if hook is not None:
        last = "none yet" if hook_at is None else f"the last one at {clock(hook_at, seen.now)}"
        counts = "".join(f", {count:,} {name}" for name, count in hook.items())
        told.append(f"Webhooks taken here: {last}{counts}.")
    return Freshness(tuple(told), good=seen.freshness == "fresh" and not seen.failing)


@attrs.frozen
class Hour:
    """One of the next hours: when it begins, how many new conversations fit into it, as short text too, and how high its bar is
    (0 to 40)."""

    name: str
    count: int
    shown: str
    high: int


def hours(counts: Sequence[int], now: float) -> list[Hour]:
    """The next hours, the first from *now* on."""
    most = max(counts, default=0)
    return [
        Hour(
            datetime.fromtimestamp(now + 3600.0 * place, UTC).strftime("%H:%M"),
            count,
            f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k",
            -(-40 * count // most) if most else 0,
        )
        for place, count in enumerate(counts)
    ]


# One recipient


@attrs.frozen
class Found:
    """What is known of a recipient, who is masked, in sentences; and what each line says to them."""

    sentences: tuple[str, ...]
    lines: tuple[str, ...]


def found(owner: Assignment | None, made: Decision) -> Found:
    """Whose line they have, and what a message to them would meet."""
    told = [words.verdict(made), *words.ownership(made.to, owner)]
    told += [f"{note}." for note in made.notes]
    ranked = sorted(
        made.candidates, key=lambda each: (each.number != made.number, each.excluded is not None)
    )
    lines = [words.chance(each, made.at) for each in ranked[:_CANDIDATES]]
    if len(ranked) > _CANDIDATES:
        lines.append(f"and {len(ranked) - _CANDIDATES:,} more lines")
    return Found(tuple(told), tuple(lines))
