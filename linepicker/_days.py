"""What the opening of a line's sending day does to the line's standing."""

from __future__ import annotations

from typing import Final

from linepicker._learn import opened
from linepicker._line import LineState
from linepicker._record import Spending, Standing
from linepicker._windows import SPREAD, busiest
from linepicker.fleet import Fleet

KNOWN: Final = 100
"""New conversations of the pool in 7 days from which on the profile of its days counts."""


def begins(fleet: Fleet, state: LineState, spending: Spending, now: float) -> Standing | None:
    """The standing with which the line's sending day begins, with what the last one taught, where *spending*, which is yet to
    be written, begins one; None: it begins none, or the last one taught nothing."""
    if spending.day == state.spending.day:
        return None
    standing = opened(
        state.standing,
        state.spending,
        state.limits,
        fleet.policy,
        spending.day,
        fleet.evidence,
        now,
        _busiest(fleet, now),
    )
    return None if standing is state.standing else standing


def _busiest(fleet: Fleet, now: float) -> float:
    """Looked up at all lines once in 6 h: a fleet may open thousands of sending days in that time."""
    learn = fleet.policy.learn
    if not (learn.enabled and learn.profile) or fleet.policy.pace.spread is None:
        return 0.0
    part = int(now // SPREAD)
    if fleet.profile[0] != part:
        spendings = (state.spending for _, state in fleet.states())
        fleet.profile = part, busiest(spendings, now, KNOWN)
    return fleet.profile[1]
