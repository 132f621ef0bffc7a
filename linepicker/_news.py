"""How the lines came to stand, told when it changes: by this process's own records, whoever wrote them."""

from __future__ import annotations

from typing import Final

import attrs

from linepicker._asks import Flow, Now, Tell
from linepicker._line import LineState, new_exclusion
from linepicker.fleet import Fleet
from linepicker.model import Reputation, StandingChanged

LOOK_EVERY: Final = 1.0
"""Seconds within which the lines are looked through once, where nothing was reported."""
_LEVELS: Final = tuple(Reputation)


@attrs.frozen
class Stood:
    """How a line stood when it was last looked at: by which record, and until when time alone changes nothing."""

    version: int
    until: float
    standing: str
    reputation: Reputation


def news(fleet: Fleet, now: float, *, at_once: bool = False) -> Flow[bool]:
    """Tell which lines came to stand otherwise. What a line is first seen as is no news; that it has gone is. Answers whether
    anybody was told, and may have taken their time."""
    if fleet.polled_at is None or (not at_once and 0.0 <= now - fleet.told_at < LOOK_EVERY):
        return False
    fleet.told_at = now
    changes = []
    for number in fleet.told.keys() - {number for number, _ in fleet.states()}:
        was = fleet.told[number]
        if was.standing != "not_in_fleet":
            gone = attrs.evolve(was, standing="not_in_fleet", version=0)
            fleet.told[number] = gone
            changes.append(_change(number, was, gone, now, ""))
    for number, state in fleet.states():
        change = _look(fleet, number, state, now)
        if change is not None:
            changes.append(change)
    for change in changes:
        yield Tell(change)
    return bool(changes)


def line_news(fleet: Fleet, number: str) -> Flow[None]:
    """Tell at once whether one line came to stand otherwise."""
    state = fleet.state(number)
    if fleet.polled_at is None or state is None:
        return
    change = _look(fleet, number, state, fleet.at((yield Now())))
    if change is not None:
        yield Tell(change)


def _look(fleet: Fleet, number: str, state: LineState, now: float) -> StandingChanged | None:
    known = fleet.told.get(number)
    if known and known.version == state.standing_version and now < known.until:
        return None
    stands = _stands(state, fleet.span, now)
    fleet.told[number] = stands
    if known is None:
        return None
    if (known.standing, known.reputation) == (stands.standing, stands.reputation):
        return None
    return _change(number, known, stands, now, state.standing.reason)


def _stands(state: LineState, span: float, now: float) -> Stood:
    code, ends = new_exclusion(state, now, mine=state.spending.probe)
    until = ends if code is not None and ends > now else float("inf")
    level = state.standing.reputation.level(span)
    return Stood(state.standing_version, until, code or "ok", _LEVELS[level])


def _change(number: str, was: Stood, stands: Stood, now: float, reason: str) -> StandingChanged:
    return StandingChanged(
        number,
        stands.standing,
        was.standing,
        stands.reputation,
        was.reputation,
        at=now,
        reason=reason,
    )
