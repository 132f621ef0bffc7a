"""A line and what it may bear at a moment: its standing, its budgets and pace, and how a new conversation finds it. Pure."""

from __future__ import annotations

import math
from typing import Final

import attrs

from linepicker import _windows as windows
from linepicker._learn import allowed, shares, warm_up
from linepicker._nearness import calm, fades
from linepicker._ranking import Key
from linepicker._record import Spending, Standing
from linepicker._windows import DAY, HOUR, SKEW, SPREAD, WEEK
from linepicker.model import Line
from linepicker.policy import Limits, Policy
from linepicker.stores import Write

NEVER: Final = math.inf
PROBE_LEASE: Final = 600.0
"""How long an unsettled reservation keeps a line on probation to itself, in seconds after it was to leave."""
PAST_AT_MOST: Final = 40
"""How many changes of a line's reputation and status are remembered; none older than a week but the last."""
BUDGETS: Final = frozenset({"day_budget", "hour_budget", "spread", "messages"})
"""The codes that mean: the line may be used, but has no room."""


@attrs.frozen
class Conclusion:
    """What a standing comes to; only records and polls change it.

    `first` and `second` are exclusion codes, before and after "ineligible" in the order of the gates; `draining` keeps only
    new conversations off. `ramp_for`: when the line was last seen CRITICAL, if it has come back. `failing_until`: when a time
    out ends, 0 if there is none or none is enforced.
    """

    first: str | None
    draining: bool
    second: str | None
    at_risk: bool
    ramp_for: float
    failing_until: float = 0.0


@attrs.define
class Budget:
    """What a line may bear now. `day`: new conversations a rolling day, None: no limit. `day_number` is the sending day a
    new conversation would fall in.

    `windows`: (code, new conversations at most, in so many seconds) for each limit that is set. All of it without what is kept
    for urgent messages; `kept`: how much of the day's that is.
    """

    day: int | None
    windows: tuple[tuple[str, int, float], ...]
    day_number: int
    new_gap: float
    new_burst: int
    message_gap: float
    message_burst: int
    at_risk: bool
    kept: int = 0


@attrs.define
class LineState:
    """A line of the fleet with the records held of it, their versions, and what was last worked out from them.

    `same` demands that the standing has not moved. `clear`: nothing but budgets and pace can keep a message off. `budget`
    holds while both records do and until `budget_until`, for one value of `budget_slow`. `on_time`: both were looked
    through for moments that only a clock that stepped back can explain.
    """

    line: Line
    limits: Limits
    area: str | None
    standing: Standing
    standing_key: str
    standing_version: int
    spending: Spending
    spending_key: str
    spending_version: int
    conclusion: Conclusion
    same: Write
    clear: bool = False
    budget: Budget | None = None
    budget_until: float = 0.0
    budget_slow: bool = False
    on_time: bool = False


@attrs.define
class Rank:
    """A line as a new conversation finds it. `until`: when time alone may change this."""

    excluded: str | None
    opens_at: float
    until: float
    tier: int
    slot: float
    key: Key
    terms: tuple[float, float, float, float]
    budget: Budget


def conclude(standing: Standing, policy: Policy) -> Conclusion:
    """What is to be thought of a line."""
    span = (policy.recovery.confirmations - 1) * policy.health.ttl
    level = standing.reputation.level(span)
    recovering = standing.reputation.recovering(span)
    flagged = standing.status.level(span) > 0
    first = "flagged" if flagged else None
    if standing.released is not None:
        first = "not_in_fleet"
    elif standing.operator == "paused":
        first = "paused"
    second = "critical" if level == 2 else "recovering" if recovering else None
    critical_at = standing.reputation.last("CRITICAL")
    return Conclusion(
        first,
        standing.operator == "draining",
        second,
        at_risk=level > 0,
        ramp_for=critical_at if critical_at is not None and second is None else 0.0,
        failing_until=standing.failing_until if policy.failures.mode == "enforce" else 0.0,
    )


def called(standing: Standing, span: float) -> str:
    """What a line's reputation and status come to: FLAGGED, CRITICAL, AT_RISK or HEALTHY."""
    if standing.status.level(span) > 0:
        return "FLAGGED"
    return ("HEALTHY", "AT_RISK", "CRITICAL")[standing.reputation.level(span)]


def remembering(standing: Standing, span: float, now: float) -> Standing:
    """The standing, and in its past that it has come to something else, if it has at *now*."""
    name, past = called(standing, span), standing.past
    if past and past[-1][1] == name:
        return standing
    edge = now - WEEK
    start = next((i for i, (at, _) in enumerate(past) if at > edge), len(past))
    kept = past[max(0, start - 1) :]
    return attrs.evolve(standing, past=(*kept, (now, name))[-PAST_AT_MOST:])


def timely(standing: Standing, now: float) -> Standing:
    """The standing, or where it holds moments more than `SKEW` after *now*, which only a clock that stepped back can explain,
    one in which these are now: what began then is over."""
    edge = now + SKEW
    refused, tripped = standing.refused_at > edge, standing.tripped_at > edge
    moments = (standing.first_seen, standing.released or 0.0, standing.probed_at)
    if not (refused or tripped or max(moments) > edge or standing.weighed_at > edge):
        return standing
    released = standing.released
    return attrs.evolve(
        standing,
        first_seen=min(standing.first_seen, now),
        released=None if released is None else min(released, now),
        out_until=min(standing.out_until, now) if refused else standing.out_until,
        refused_at=min(standing.refused_at, now),
        failing_until=min(standing.failing_until, now) if tripped else standing.failing_until,
        probed_at=min(standing.probed_at, now),
        tripped_at=min(standing.tripped_at, now),
        weighed_at=min(standing.weighed_at, now),
    )


def is_clear(standing: Standing, conclusion: Conclusion) -> bool:
    """Whether no code of standing, operator or refusal can apply until the standing changes."""
    barred = conclusion.first or conclusion.second or conclusion.draining
    return not (barred or standing.out_until or standing.probation or conclusion.failing_until)


def take(state: LineState, spending: Spending, version: int, *, mine: bool) -> bool:
    """Take in the spending as it was written; whether the line may rank otherwise now. *mine*: one charge more is all that
    changed."""
    was, budget = state.spending, state.budget
    state.spending, state.spending_version = spending, version
    state.on_time = state.on_time and mine
    if spending.day != was.day or spending.day_start != was.day_start:
        if mine and budget is not None and budget.day_number == spending.day != was.day:
            ends = spending.day_start + DAY  # the budget was for the day that now begins
            state.budget_until = min(state.budget_until, ends)
        else:
            state.budget = None
        return True
    if budget is None or budget.windows or budget.new_gap or budget.message_gap:
        return True
    return not (mine and state.clear and state.limits.messages_per_day is None)


def healthy_since(standing: Standing, now: float, span: float) -> float | None:
    """Since when nothing at all speaks against a line; None: something does at *now*."""
    reputation, status = standing.reputation, standing.status
    if reputation.level(span) or reputation.recovering(span) or status.level(span):
        return None
    if standing.released is not None or standing.operator or standing.probation:
        return None
    if standing.failing_until or standing.out_until > now:
        return None
    good = (reputation.good_since(), status.good_since())
    return max(standing.first_seen, standing.out_until, standing.tripped_at, *good)


def exclusion(state: LineState, now: float, *, mine: int = 0) -> tuple[str | None, float]:
    """The code that keeps every message off a line, and when it ends if time ends it. *mine*: a probe that is allowed."""
    conclusion, standing, spending = state.conclusion, state.standing, state.spending
    if conclusion.first:
        return conclusion.first, NEVER
    beyond = NEVER if conclusion.second else 0.0  # which outlasts a refusal
    if standing.out_until > now:
        return "ineligible", max(standing.out_until, beyond)
    if conclusion.second is None and conclusion.failing_until > now:
        return "failing", conclusion.failing_until
    probing = standing.probation or conclusion.failing_until
    if probing and spending.probe and spending.probe != mine:
        ends = spending.probe_at + PROBE_LEASE
        if ends > now:
            return "ineligible" if standing.probation else "failing", max(ends, beyond)
    return conclusion.second, NEVER


def new_exclusion(state: LineState, now: float, *, mine: int = 0) -> tuple[str | None, float]:
    """As `exclusion`, for a new conversation."""
    if state.conclusion.draining and state.conclusion.first in (None, "flagged"):
        return "draining", NEVER
    return exclusion(state, now, mine=mine)


def budget_of(state: LineState, policy: Policy, now: float, *, slow: bool) -> Budget:
    """Limits and pace of a line now. *slow*: stale health."""
    budget = state.budget
    if budget is None or now >= state.budget_until or slow != state.budget_slow:
        budget = whole_budget(state, policy, now, slow=slow)
        if policy.priority.urgent_share:
            budget = _ordinary(budget, policy.priority.urgent_share)
        state.budget = budget
        running = budget.day_number == state.spending.day
        ends = state.spending.day_start + DAY if running else NEVER
        state.budget_until = min(ends, fades(state.standing.learned, policy.learn, now))
        state.budget_slow = slow
    return budget


def whole_budget(state: LineState, policy: Policy, now: float, *, slow: bool) -> Budget:
    """The policy's limits, what was learned, warm-up, AT_RISK and what is near it, and the ramp after CRITICAL."""
    spending, limits, pace = state.spending, state.limits, policy.pace
    running = spending.day > 0 and spending.day_start + DAY > now
    number = spending.day if running else spending.day + 1
    at_risk = state.conclusion.at_risk or slow
    cap = allowed(state.standing, policy)
    if not state.standing.warm:
        cap = min(cap, warm_up(policy, number))
    scale = policy.at_risk.budget if at_risk else 1.0
    ramp_for = state.conclusion.ramp_for
    if ramp_for:
        further = number - spending.ramp_day if spending.ramp_for == ramp_for else 0
        scale *= min(1.0, policy.recovery.share * policy.warmup.factor ** min(further, 64))
    day = _scaled(min(cap, limits.new_per_day or NEVER), scale)
    hour = limits.new_per_hour and _scaled(min(cap, limits.new_per_hour), scale)
    limited = [("day_budget", day, DAY), ("hour_budget", hour, HOUR)]
    spread = shares(state.standing, policy) if pace.new_gap and day is not None else None
    if spread is not None and day is not None:
        limited.append(("spread", math.ceil(spread * day - 1e-9), SPREAD))
    slower = policy.at_risk.pace
    if not at_risk:
        slower = max(slower, calm(state.standing.learned, policy.learn, now))
    return Budget(
        day,
        tuple((code, limit, window) for code, limit, window in limited if limit is not None),
        number,
        pace.new_gap / slower,
        max(1, int(pace.new_burst * slower + 1e-9)),
        pace.message_gap / slower,
        max(1, int(pace.message_burst * slower + 1e-9)),
        at_risk,
    )


def _ordinary(whole: Budget, share: float) -> Budget:
    """A budget without the *share* that is kept. A pace is split only where both parts get a burst."""
    day = None if whole.day is None else without(whole.day, share)
    new, message = without(whole.new_burst, share), without(whole.message_burst, share)
    return attrs.evolve(
        whole,
        day=day,
        windows=tuple((code, without(limit, share), span) for code, limit, span in whole.windows),
        new_gap=whole.new_gap / (1.0 - share if new < whole.new_burst else 1.0),
        new_burst=new,
        message_gap=whole.message_gap / (1.0 - share if message < whole.message_burst else 1.0),
        message_burst=message,
        kept=0 if day is None or whole.day is None else whole.day - day,
    )


def without(limit: int, share: float) -> int:
    """What is left of a limit where a *share* is kept: at least 1."""
    return max(1, limit - math.ceil(share * limit - 1e-9))


def ordinary_limits(policy: Policy, line: Line) -> Limits:
    """The limits of a line, without those messages of a day that are kept for urgent ones."""
    limits, share = policy.limits_for(line), policy.priority.urgent_share
    if not share or limits.messages_per_day is None:
        return limits
    return attrs.evolve(limits, messages_per_day=without(limits.messages_per_day, share))


def _scaled(limit: float, scale: float) -> int | None:
    return None if limit == NEVER else max(1, math.floor(limit * scale + 1e-9))


def message_slot(spending: Spending, budget: Budget, policy: Policy, now: float) -> float:
    """The earliest moment from *now* at which one more message may leave the line."""
    if spending.message_mark <= now:
        return now
    mark = message_mark(spending, budget, policy, now)
    return windows.slot(mark, now, budget.message_gap, budget.message_burst)


def new_slot(spending: Spending, budget: Budget, policy: Policy, now: float) -> float:
    """The earliest moment from *now* at which one more conversation may open on the line."""
    if spending.new_mark <= now:
        return now
    mark = new_mark(spending, budget, policy, now)
    return windows.slot(mark, now, budget.new_gap, budget.new_burst)


def message_mark(spending: Spending, budget: Budget, policy: Policy, now: float) -> float:
    """The mark of the line's messages, unless it comes from a clock that stepped back."""
    pace, mark, gap = policy.pace, spending.message_mark, budget.message_gap
    reach = max(pace.max_delay, spending.reach)
    slowest = pace.message_gap / policy.at_risk.pace
    return windows.trusted(mark, now, gap, pace.message_burst, reach, slowest)


def new_mark(spending: Spending, budget: Budget, policy: Policy, now: float) -> float:
    """The mark of the line's new conversations, unless it comes from a clock that stepped back."""
    pace, mark, gap = policy.pace, spending.new_mark, budget.new_gap
    reach = max(pace.max_delay, spending.reach)
    slowest = pace.new_gap / policy.at_risk.pace
    return windows.trusted(mark, now, gap, pace.new_burst, reach, slowest)


def _with_marks_trusted(state: LineState, budget: Budget, policy: Policy, now: float) -> Spending:
    """The line's spending, from now on without marks that only a clock that stepped back can explain: what a line is ranked
    by must not depend on when that was."""
    spending = state.spending
    new = new_mark(spending, budget, policy, now)
    message = message_mark(spending, budget, policy, now)
    if (new, message) != (spending.new_mark, spending.message_mark):
        state.spending = spending = spending.copy()
        spending.new_mark, spending.message_mark = new, message
    return spending


def catch_up(state: LineState, policy: Policy, now: float) -> None:
    """Put right what a clock that stepped back left in the line's records."""
    if state.on_time:
        return
    standing = timely(state.standing, now)
    if standing is not state.standing:
        state.standing, state.budget = standing, None
        state.conclusion = conclude(standing, policy)
        state.clear = is_clear(standing, state.conclusion)
    spending = windows.on_time(state.spending, now, policy.pace.max_delay)
    if spending is not state.spending:
        state.spending, state.budget = spending, None
    state.on_time = True


def assess(state: LineState, policy: Policy, now: float, *, slow: bool) -> Rank:
    """How a new conversation finds this line at *now*."""
    catch_up(state, policy, now)
    spending, times = state.spending, state.spending.times
    budget = budget_of(state, policy, now, slow=slow)
    code, opens_at = (None, NEVER) if state.clear else new_exclusion(state, now)
    until, headroom, room = opens_at, 1.0, -NEVER
    counts = code is None or opens_at != NEVER  # what has no end of its own outlasts any budget
    for reason, limit, window in budget.windows if times else ():
        start = windows.first_within(times, now, window)
        left = limit - len(times) + start
        if left == limit:
            continue
        share = left / limit
        if share <= headroom:  # only the scarcest budget's next charge to leave changes anything
            leaves = times[start] + window
            until = min(until, leaves) if share == headroom else leaves
            headroom = share
        if left <= 0 and counts:
            code, room = code or reason, max(room, times[-limit] + window)
    most = state.limits.messages_per_day
    if most is not None and counts and windows.messages_reach(spending, now, most):
        code, ends = code or "messages", windows.room_for_messages_at(spending, now, most)
        room = max(room, ends)
    if room > now:
        opens_at = until = room if opens_at == NEVER else max(opens_at, room)
    if budget.day_number == spending.day and (not state.standing.warm or state.conclusion.ramp_for):
        until = min(until, spending.day_start + DAY)
    if state.standing.learned.nearness:
        until = min(until, fades(state.standing.learned, policy.learn, now))
    slot = now
    if spending.new_mark > now or spending.message_mark > now:
        if max(spending.new_mark, spending.message_mark) > now + policy.pace.max_delay:
            spending = _with_marks_trusted(state, budget, policy, now)
        slot = max(
            new_slot(spending, budget, policy, now), message_slot(spending, budget, policy, now)
        )
    if slot > now:
        until = min(until, slot)
    tier_factor = policy.at_risk.weight if budget.at_risk else 1.0
    weight, vitality = state.line.weight, state.standing.vitality
    if vitality < 1.0:
        forgotten = state.standing.weighed_at + WEEK
        if now >= forgotten:
            vitality = 1.0  # what spoke against it has left the week
        else:
            until = min(until, forgotten)
    tier = int(budget.at_risk) if policy.prefer == "healthiest" else 0
    key = (0.0 if slot <= now else -math.ceil(slot), weight * tier_factor * headroom * vitality)
    return Rank(
        code,
        opens_at,
        until if code is None or code in BUDGETS else min(until, opens_at),
        tier,
        slot,
        key,
        (weight, tier_factor, max(headroom, 0.0), vitality),
        budget,
    )
