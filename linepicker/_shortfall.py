"""A plan in words and numbers: who was placed, who was not and why, and what would help. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from linepicker._asks import Flow, Who
from linepicker._candidates import Request
from linepicker._plan import Rehearsal, twin_of
from linepicker._views import day_and_minute
from linepicker._windows import DAY, HOUR
from linepicker.fleet import Fleet
from linepicker.model import Line, Plan

FURTHER: Final = 60 * DAY
"""How far beyond the deadline it is looked for room, in seconds."""
LINES_AT_MOST: Final = 1000
TOO_LATE: Final = "deadline"
"""The code of those for whom there is no room before the deadline."""


def plan(
    fleet: Fleet, people: Sequence[Who], request: Request, now: float, deadline: float
) -> Flow[Plan]:
    """A line and a moment for each before the deadline, and what there is to say of the others."""
    played = Rehearsal(twin_of(fleet, now), request, people, now)
    yield from played.run(deadline)
    slots = tuple((people[i].recipient.to, number, at) for i, number, at in played.slots)
    placed = {place for place, _, _ in played.slots}
    left = [place for place in range(len(people)) if place not in placed]
    codes = [played.never.get(place, TOO_LATE) for place in left]
    unplaced = tuple(people[place].recipient.to for place in left)
    if not left:
        return Plan(slots)
    text = f"{len(slots):,} of {len(people):,} fit before {day_and_minute(deadline)}"
    late = [people[place] for place, code in zip(left, codes, strict=True) if code == TOO_LATE]
    if late:
        yield from played.run(max(now, deadline) + FURTHER)
        help_ = yield from _helps(fleet, people, late, request, now, deadline)
        more = _more_time(played, len(slots), len(late), deadline)
        text += (
            f"; {help_ + ' or ' if help_ and more else help_}{more} would do"
            if help_ or more
            else ""
        )
        if not more:
            text += f"; more than {FURTHER / DAY:.0f} more days are needed"
    never = Counter(code for code in codes if code != TOO_LATE)
    if never:
        told = ", ".join(f"{count:,} {code}" for code, count in sorted(never.items()))
        text += f"; {never.total():,} can't be written to ({told})"
    return Plan(slots, unplaced, text, tuple(codes))


def _more_time(played: Rehearsal, before: int, late: int, deadline: float) -> str:
    """How much later the deadline would have to be; empty if that is not to be seen."""
    after = played.slots[before:]
    if len(after) < late:
        return ""
    beyond = max(0.0, after[-1][2] - deadline)
    unit, name = (HOUR, "hour") if beyond < 2 * DAY else (DAY, "day")
    return _count(math.floor(beyond / unit) + 1, name)


def _helps(
    fleet: Fleet,
    people: Sequence[Who],
    late: Sequence[Who],
    request: Request,
    now: float,
    deadline: float,
) -> Flow[str]:
    """How many more lines would be enough, if they joined now; empty if it is not lines that are missing."""
    if any(who.contact is not None for who in late):
        return ""
    count, left = 0, len(late)
    alone = 0
    while left and count < LINES_AT_MOST:
        if not count:
            one = Rehearsal(twin_of(fleet, now, _newcomers(1), alone=True), request, late, now)
            yield from one.run(deadline)
            alone = len(one.slots)
            if not alone:
                return ""
        count += math.ceil(left / alone)
        tried = Rehearsal(twin_of(fleet, now, _newcomers(count)), request, people, now)
        yield from tried.run(deadline)
        left = sum(1 for _ in people) - len(tried.slots) - len(tried.never)
    return "" if left else _count(count, "more line", plain=True)


def _newcomers(count: int) -> list[Line]:
    return [Line(f"+{10**14 + number}") for number in range(count)]


def _count(count: int, noun: str, *, plain: bool = False) -> str:
    return f"{count:,} {'' if plain else 'more '}{noun}{'' if count == 1 else 's'}"
