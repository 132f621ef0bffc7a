"""What a reservation that opens a line's sending day does to the line's standing."""

from __future__ import annotations

from typing import Final

from linepicker import _record as records
from linepicker._core import Grant
from linepicker._learn import opened
from linepicker._line import LineState
from linepicker._windows import busiest
from linepicker.fleet import Fleet
from linepicker.stores import Answer, Write

KNOWN: Final = 100
"""New conversations of the pool in 7 days from which on the profile of its days counts."""


def begins(fleet: Fleet, state: LineState, grant: Grant, now: float) -> Write:
    """Take what the last sending day taught into the line's standing; where it taught nothing, demand that the standing stays
    as it is."""
    standing = opened(
        state.standing,
        state.spending,
        state.limits,
        fleet.policy,
        grant.budget.day_number,
        fleet.evidence,
        now,
        _busiest(fleet, now),
    )
    if standing is state.standing:
        return state.same
    grant.opened = standing
    return Write(state.standing_key, state.standing_version, standing.encode())


def _busiest(fleet: Fleet, now: float) -> float:
    learn = fleet.policy.learn
    if not (learn.enabled and learn.profile) or fleet.policy.pace.spread is None:
        return 0.0
    return busiest((state.spending for _, state in fleet.states()), now, KNOWN)


def began(fleet: Fleet, grant: Grant | None, answer: Answer) -> None:
    """Hold the standing that was written with a reservation, if one was."""
    if grant is not None and grant.opened is not None:
        key = records.standing_key(grant.number)
        fleet.wrote(key, answer.records[key].version, grant.opened)
