"""What a reservation puts on the records, and how it is taken back. Pure."""

from __future__ import annotations

import attrs

from linepicker import _windows as windows
from linepicker._contact import Contact
from linepicker._core import Grant
from linepicker._line import Budget, LineState, message_mark, new_mark
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
    was, budget, send_at = state.spending, grant.budget, grant.send_at
    spending, new = was.copy(), grant.kind != "known"
    if new:
        open_one(spending, state, budget, policy, now, send_at, ident, moved=grant.kind == "moved")
    if message:
        leave(spending, budget, policy, now, send_at, opened=new, shadow=grant.shadowed)
        if state.standing.probation or state.conclusion.failing_until:
            spending.probe, spending.probe_at = ident, send_at
    if grant.urgent:
        slow = budget.at_risk and not state.conclusion.at_risk
        into_own_lane(spending, state, policy, now, send_at, new=new, slow=slow)
    reach_to(spending, send_at, now, max_delay)
    return spending


def open_one(
    spending: Spending,
    state: LineState,
    budget: Budget,
    policy: Policy,
    now: float,
    send_at: float,
    ident: int,
    *,
    moved: bool,
) -> None:
    """Put a new conversation on a copy of the line's spending: its time, its sending day, its slot."""
    limits = state.limits
    if budget.day_number != spending.day:
        spending.day, spending.day_start = budget.day_number, send_at
        ramp_for = state.conclusion.ramp_for
        if ramp_for and spending.ramp_for != ramp_for:
            spending.ramp_for, spending.ramp_day = ramp_for, spending.day
    windows.add_charge(
        spending,
        send_at,
        now,
        ident=ident,
        moved=moved,
        keep=max(
            windows.CHARGES_KEPT,
            limits.new_per_day or 0,
            limits.new_per_hour or 0,
            limits.moves_per_day or 0,
        ),
    )
    mark = spending.new_mark
    if mark > now:
        mark = new_mark(spending, budget, policy, now)
    spending.new_mark = max(send_at, mark) + budget.new_gap


def leave(
    spending: Spending,
    budget: Budget,
    policy: Policy,
    now: float,
    send_at: float,
    *,
    opened: bool,
    shadow: bool,
) -> None:
    """Put a message on a copy of the line's spending: in its counts, and in the pace as if it left now."""
    mark = spending.message_mark
    if mark > now:
        mark = message_mark(spending, budget, policy, now)
    spending.message_mark = max(now, mark) + budget.message_gap
    windows.count_leaving(spending, send_at, now, opened=opened, shadow=shadow)


def reach_to(spending: Spending, send_at: float, now: float, max_delay: float) -> None:
    """Remember, on a copy of the line's spending, how far ahead of the clock it was let go; forget it when nothing is."""
    if send_at > now:
        spending.reach = max(max_delay, spending.reach)
    elif spending.reach and max(spending.new_mark, spending.message_mark) <= now:
        buckets = spending.buckets
        if not buckets or buckets[-2] * windows.BUCKET <= now:
            spending.reach = 0.0


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
    # Also of a known one: it may have gone in as new, unseen.
    opened_at = windows.remove_charge(mine, ident)
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
        elif first and contact.made == 1 and not contact.opened:
            rest = attrs.evolve(rest, made=0)
        contact = rest
    if mine.probe == ident:
        mine.probe, changed = 0, True
    return (mine if changed else spending), contact
