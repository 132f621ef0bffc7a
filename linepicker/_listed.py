"""What a poll's list says of a line, put on the line's standing."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from linepicker._line import remembering, timely
from linepicker._observations import BADNESS, UNKNOWN
from linepicker._record import Standing
from linepicker.fleet import Fleet
from linepicker.model import Line, ServiceStatus


def observed(
    fleet: Fleet,
    line: Line,
    standing: Standing | None,
    issued: float,
    now: float,
    polls: Sequence[float],
    *,
    first: bool,
) -> Standing | None:
    """The standing after a poll that lists *line*, answered *now*; None: the poll brings nothing new. *polls*: those
    before that found the same lines."""
    value = UNKNOWN if line.unrecognised is not None else str(line.reputation)
    span = fleet.span
    new = standing is None
    after = standing or Standing(
        first_seen=issued, warm=first and fleet.policy.warmup.trust_first_snapshot
    )
    after = timely(after, now)
    if fleet.static and not new and not _worse(fleet, after, line):
        return None
    back = line.number in fleet.returned or fleet.is_back(line.number)
    seen, status = after.reputation, after.status
    last = seen.polled
    level = seen.level(span)
    bad = seen.in_doubt(span)  # then every poll that lists it is written
    if new or back or bad or BADNESS[value] > level or last is None or last[0] != value:
        repeated = () if back or bad else polls
        seen = seen.add_poll(value, issued, polls=repeated, span=span, now=now)
    said = line.status
    if said is None and status.level(span) > 0:
        word, heard = status.reported or ("", issued)
        if word == "ACTIVE" and issued > heard:
            said = ServiceStatus.ACTIVE  # it is listed, and nothing contradicts the last word
    if said is not None:
        known, bad = status.polled, status.level(span) > 0
        if known is None or known[0] != said or BADNESS[said] > 0 or bad:
            repeated = () if back or bad or line.status is None else polls
            status = status.add_poll(str(said), issued, polls=repeated, span=span, now=now)
    released, since = after.released, after.first_seen
    if released is not None and issued > released:
        released = None
    if back or released != after.released:
        since = issued
    after = attrs.evolve(after, first_seen=since, reputation=seen, status=status, released=released)
    return remembering(after, span, now) if new or after != standing else None


def _worse(fleet: Fleet, standing: Standing, line: Line) -> bool:
    """Whether a list that is read once knows something worse of a line than its record does."""
    span = fleet.span
    level = {"HEALTHY": 0, "AT_RISK": 1, "CRITICAL": 2}[line.reputation]
    flagged = line.status == "FLAGGED" and standing.status.level(span) == 0
    return level > standing.reputation.level(span) or flagged
