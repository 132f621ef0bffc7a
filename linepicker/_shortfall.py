"""A plan in words and numbers: who was placed, who was not and why, and what would help. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from linepicker._asks import Flow, Made, Who
from linepicker._candidates import Request
from linepicker._plan import Rehearsal, twin_of
from linepicker._windows import DAY, HOUR
from linepicker._words import day_and_minute
from linepicker.fleet import Fleet
from linepicker.model import (
    Line,
)
from linepicker.plans import Plan

FURTHER: Final = 60 * DAY
"""How far beyond the deadline it is looked for room, in seconds."""
TRIES: Final = 4
TOO_LATE: Final = "deadline"
"""The code of those for whom there is no room before the deadline."""
THEIR_OWN: Final = frozenset({"opted_out", "blocked", "quiet", "stale"})
"""The codes of what no line more would help against."""


def plan(
    fleet: Fleet,
    people: Sequence[Who],
    request: Request,
    now: float,
    deadline: float,
    held: Sequence[Made] = (),
) -> Flow[Plan]:
    """A line and a moment for each before the deadline, and what there is to say of the others; *held* have theirs."""
    total, ids = len(people), {id(made.who) for made in held}
    people = [who for who in people if id(who) not in ids]
    played = Rehearsal(twin_of(fleet, now), request, people, now)
    yield from played.run(deadline)
    taken = [(made.to, made.number, made.send_at) for made in held]
    before = len(played.slots)
    taken += [(people[i].recipient.to, number, at) for i, number, at in played.slots]
    slots = tuple(sorted(taken, key=lambda slot: slot[2])) if held else tuple(taken)
    placed = {place for place, _, _ in played.slots}
    left = [place for place in range(len(people)) if place not in placed]
    codes = [played.never.get(place, TOO_LATE) for place in left]
    unplaced = tuple(people[place].recipient.to for place in left)
    if not left:
        return Plan(slots, held=tuple(held))
    text = f"{len(slots):,} of {total:,} fit before {day_and_minute(deadline)}"
    late = [
        people[place]
        for place, code in zip(left, codes, strict=True)
        if code == TOO_LATE or (people[place].contact is None and code not in THEIR_OWN)
    ]
    if late:
        yield from played.run(max(now, deadline) + FURTHER)
        lines = yield from _more_lines(fleet, people, late, request, now, deadline)
        helps = [each for each in (lines, _more_time(played, before, len(late), deadline)) if each]
        far = f"more than {FURTHER / DAY:.0f} more days are needed"
        text += f"; {' or '.join(helps)} would do" if helps else f"; {far}"
    never = Counter(code for code in codes if code != TOO_LATE)
    if never:
        told = ", ".join(f"{count:,} {code}" for code, count in sorted(never.items()))
        text += f"; {never.total():,} can't be written to ({told})"
    return Plan(slots, unplaced, text, tuple(codes), tuple(held))


def _more_time(played: Rehearsal, before: int, late: int, deadline: float) -> str:
    """How much later the deadline would have to be; empty if that is not to be seen."""
    after = played.slots[before:]
    if len(after) < late:
        return ""
    beyond = max(0.0, after[-1][2] - deadline)
    unit, name = (HOUR, "hour") if beyond < 2 * DAY else (DAY, "day")
    return _count(math.floor(beyond / unit) + 1, name)


def _more_lines(
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
    hours = {who.rest: who for who in late}
    alone = Rehearsal(
        twin_of(fleet, now, _newcomers(len(hours)), alone=True), request, [*hours.values()], now
    )
    yield from alone.run(deadline)
    if len(alone.slots) < len(hours):
        return ""  # some sleep until it is too late
    alone = Rehearsal(twin_of(fleet, now, _newcomers(1), alone=True), request, late, now)
    yield from alone.run(deadline)
    count = math.ceil(len(late) / len(alone.slots))
    for _ in range(TRIES):
        tried = Rehearsal(twin_of(fleet, now, _newcomers(count)), request, people, now)
        yield from tried.run(deadline)
        done = {place for place, _, _ in tried.slots} | tried.never.keys()
        if len(done) == len(people):
            return _count(count, "more line", plain=True)
        count += math.ceil((len(people) - len(done)) / len(alone.slots))
    return ""


def _newcomers(count: int) -> list[Line]:
    return [Line(f"+{10**14 + number}") for number in range(count)]


def _count(count: int, noun: str, *, plain: bool = False) -> str:
    return f"{count:,} {'' if plain else 'more '}{noun}{'' if count == 1 else 's'}"
