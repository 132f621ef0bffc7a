"""What a reservation puts on the records, and how it is taken back. Pure."""

from __future__ import annotations

import attrs

from linepicker import _windows as windows
from linepicker._contact import Contact
from linepicker._core import Grant
from linepicker._line import LineState
from linepicker._priority import into_own_lane
from linepicker._record import Spending
from linepicker._windows import DAY
from linepicker.model import Kind
from linepicker.policy import Policy


def charge(
    state: LineState,
    grant: Grant,
    policy: Policy,
    now: float,
    ident: int,
    max_delay: float,
    *,
    message: bool = True,
) -> Spending:
    """The line's spending with this reservation on it.

    A new conversation takes its slot of the line's pace; its message is counted in the pace of messages as if it left now, or
    one that opens later would keep known recipients waiting until then.
    """
    was, budget, pace = state.spending, grant.budget, policy.pace
    reach, limits, send_at = max(pace.max_delay, was.reach), state.limits, grant.send_at
    spending = was.copy()
    if grant.kind != "known":
        if budget.day_number != was.day:
            spending.day, spending.day_start = budget.day_number, send_at
            ramp_for = state.conclusion.ramp_for
            if ramp_for and was.ramp_for != ramp_for:
                spending.ramp_for, spending.ramp_day = ramp_for, spending.day
        windows.add_charge(
            spending,
            send_at,
            now,
            ident=ident,
            moved=grant.kind == "moved",
            keep=max(
                windows.CHARGES_KEPT,
                limits.new_per_day or 0,
                limits.new_per_hour or 0,
                limits.moves_per_day or 0,
            ),
        )
        mark = was.new_mark
        if mark > now:
            slowest = pace.new_gap / policy.at_risk.pace
            mark = windows.trusted(mark, now, budget.new_gap, pace.new_burst, reach, slowest)
        spending.new_mark = max(mark, send_at) + budget.new_gap
    if message:
        mark = was.message_mark
        if mark > now:
            slowest = pace.message_gap / policy.at_risk.pace
            mark = windows.trusted(
                mark, now, budget.message_gap, pace.message_burst, reach, slowest
            )
        spending.message_mark = (max(now, mark)) + budget.message_gap
        windows.add_message(spending, send_at, now)
        opened = int(grant.kind != "known")
        windows.count_week(spending, send_at, messages=1, opened=opened, shadow=grant.shadowed)
        if state.standing.probation or state.conclusion.failing_until:
            spending.probe, spending.probe_at = ident, send_at
    if grant.urgent:
        new, slow = grant.kind != "known", budget.at_risk and not state.conclusion.at_risk
        into_own_lane(spending, state, policy, now, send_at, new=new, slow=slow)
    if send_at > now:
        spending.reach = max(max_delay, was.reach)
    elif was.reach and max(spending.new_mark, spending.message_mark) <= now:
        spending.reach = 0.0
    return spending


def give_back(
    spending: Spending,
    contact: Contact | None,
    kind: Kind,
    ident: int,
    now: float,
    *,
    shadow: bool = False,
    first: bool = False,
) -> tuple[Spending, Contact | None]:
    """Both records without this reservation; unchanged (the same objects) where it is not there any more. *first*: it was the
    first one after an operator's move; the next one is that then.

    The assignment goes with it while no other reservation was made on it: a new one altogether, a moved one back to the
    line it came from. Pace is not given back.
    """
    mine = spending.copy()
    opened_at = windows.remove_charge(mine, ident) if kind != "known" else None
    changed = opened_at is not None
    if opened_at is not None:
        windows.count_week(mine, opened_at, messages=0, opened=-1)
    if opened_at is not None and mine.day and mine.day_start + DAY > now:
        left = [moment for moment in mine.times if moment >= mine.day_start]
        mine.day_start = left[0] if left else now - 2 * DAY
        if not left:  # the sending day did not happen
            mine.day -= 1
            if mine.ramp_day > mine.day:
                mine.ramp_for, mine.ramp_day = 0.0, 0
    rest = contact and contact.unmessaged(ident)
    if contact is not None and rest is not None:
        at = contact.times[contact.ids.index(ident)]
        windows.add_message(mine, at, now, -1)
        windows.count_week(mine, at, messages=-1, shadow=-1 if shadow else 0)
        changed = True
        if contact.opened == ident and contact.made == 1:
            rest = rest.back() if kind == "moved" and rest.history else None
        elif first and contact.made == 1:
            rest = attrs.evolve(rest, made=0)
        contact = rest
    if mine.probe == ident:
        mine.probe, changed = 0, True
    return (mine if changed else spending), contact
