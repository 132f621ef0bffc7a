"""How many new conversations a day a line may bear, learned from what it bore. Pure.

Additive increase, multiplicative decrease, with memory: a budget begins at the policy's limit, is cut once each time the line
gets worse, and grows by small steps while the line is HEALTHY and its budget is really used. The load that came before a fall
is remembered as a ceiling, near which growth slows down, and which rises slowly; the longer the line goes without another
fall, the larger the steps become again, since the ceiling may be out of date. Another fall to AT_RISK about there, under a load
that the line has carried before, moves the ceiling half way only, and is cut for half as much: what a line bears differs from
day to day, and some alarms are false. One that never carried as much bears less than its ceiling says. A budget is raised once
per `learn.hold`, so that the verdict on the last raise can have arrived. A line without a fall of its own is bounded by what
others fell at, unless it has carried more: then by half as much again as that. A line that joined later is cut from what its
warm-up granted, and its first falls leave no ceiling: what it bears is still rising.

A fall is written with the observation that shows it; growth, and whatever holds for one sending day, with the reservation that
opens the next one.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from linepicker._learned import Learned
from linepicker._nearness import scored
from linepicker._record import Spending, Standing
from linepicker._windows import DAY, load, normal, opened_in_week
from linepicker.policy import Limits, Policy

NEVER: Final = math.inf
POOR: Final = 0.5
"""From where on the share of unanswered conversations stops growth."""
FAR: Final = 1.25
"""How many times the remembered ceiling a load may be and still tell something of the same ceiling."""
KNOWN: Final = 0.9
"""The share of a load that a line must have carried before, HEALTHY, for a fall under it to be one of its bad days."""
BEYOND: Final = 1.5
"""How many times what it has carried a line may open that did not fall yet, where others fell at less."""
LEAST: Final = 0.97
"""The share of a budget that a fall leaves at most."""
SLOWLY: Final = 0.02
"""The share of its ceiling by which a budget that is near it grows."""
LONG: Final = 5.0
"""The days without a fall after which these steps grow, with the square of the days: the ceiling may be out of date."""
YOUTH: Final = 14
"""The sending days of a line that joined later in which a fall leaves no ceiling: what it bears is still rising."""
CROWDED: Final = 0.7
"""The most of a day that 6 h may take, however crowded the pool's days are."""
LONGEST: Final = 366.0
"""The days that a ceiling rises for at most while its line is not used."""
UNIT: Final = 1024
"""Evidence is added up in whole parts of a doubling, so that the sum does not depend on the order."""


class Evidence:
    """What a fleet's lines fell at: how many it has, how many have a ceiling, and the mean of these ceilings."""

    def __init__(self) -> None:
        self._heard: dict[str, int | None] = {}
        self._fell = self._sum = 0

    def hear(self, number: str, standing: Standing) -> None:
        """Take in a line's standing, instead of the one heard before."""
        was, ceiling = self._heard.get(number), standing.learned.ceiling
        now = round(UNIT * math.log2(ceiling)) if ceiling > 0 else None
        self._heard[number] = now
        self._fell += (now is not None) - (was is not None)
        self._sum += (now or 0) - (was or 0)

    def expected(self, cap: float) -> float:
        """What a line may be expected to bear: the geometric mean of the ceilings, the lines without one standing for *cap*.
        Infinite where none has one."""
        if not self._fell:
            return NEVER
        lines = len(self._heard)
        return float(2.0 ** ((self._sum / UNIT + (lines - self._fell) * math.log2(cap)) / lines))


def shares(standing: Standing, policy: Policy) -> float | None:
    """The share of the day's budget that any 6 h may take; None: no limit."""
    flat, learn = policy.pace.spread, policy.learn
    if flat is None or not (learn.enabled and learn.profile):
        return flat
    return max(flat, standing.learned.spread)


def level(standing: Standing, span: float) -> int:
    """How bad a line is taken to be: 0 good, 1 AT_RISK, 2 CRITICAL or FLAGGED."""
    return max(standing.reputation.level(span), 2 * (standing.status.level(span) > 0))


def allowed(standing: Standing, policy: Policy) -> float:
    """What the line may bear in a day by what was learned; infinite where that is nothing."""
    learned, learn = standing.learned, policy.learn
    if not (learn.enabled and learn.budgets):
        return NEVER
    return min(learned.budget or NEVER, learned.today or NEVER)


def judged(
    before: Standing,
    after: Standing,
    spending: Spending,
    limits: Limits,
    policy: Policy,
    at: float,
    now: float,
) -> Standing:
    """The standing *after* an observation; if it shows that the line got worse at *at*, with the budget cut, and with what was
    foretold of it scored."""
    learn, learned = policy.learn, after.learned
    if not learn.enabled:
        return after
    span = (policy.recovery.confirmations - 1) * policy.health.ttl
    was, now_is = level(before, span), level(after, span)
    if now_is <= was:
        return after
    if learn.nearness:
        learned = scored(learned, min(at, now))
    if learn.budgets:
        learned = _cut(after, learned, spending, limits, policy, now_is, min(at, now), now)
    return after if learned is after.learned else attrs.evolve(after, learned=learned)


def _cut(
    standing: Standing,
    learned: Learned,
    spending: Spending,
    limits: Limits,
    policy: Policy,
    bad: int,
    at: float,
    now: float,
) -> Learned:
    learn = policy.learn
    cap = limits.new_per_day or NEVER
    floor = min(float(learn.floor), cap)
    warms = NEVER if standing.warm else warm_up(policy, max(spending.day, 1))
    budget = min(learned.budget or NEVER, learned.today or NEVER, cap, warms)
    young = not standing.warm and spending.day <= YOUTH
    bore = load(spending, at - learn.lag, now)
    if young:
        bore = min(max(bore, load(spending, now, now)), budget)
    elif budget < NEVER and opened_in_week(spending, now) < learn.reply_sample:
        bore = budget  # so few tell nothing of what the line bears
    share = learn.cut_at_risk if bad == 1 else learn.cut_critical
    ceiling = bore
    known = learned.proven >= KNOWN * bore
    if bad == 1 and known and 0.0 < bore <= FAR * learned.ceiling:
        share, ceiling = (1.0 + share) / 2.0, math.sqrt(bore * learned.ceiling)
    ceiling = max(floor, min(ceiling, cap))
    least = bore if budget == NEVER else min(LEAST * budget, math.floor(budget) - 0.5)
    return attrs.evolve(
        learned,
        budget=max(floor, min(least, share * ceiling)),
        today=0.0,
        ceiling=learned.ceiling if young else ceiling,
        relaxed_at=now,
        proven=min(learned.proven, share * ceiling),
        carried=0.0,
        changed_at=now,
        cut_at=now,
        bounded="",
    )


def warm_up(policy: Policy, day: int) -> float:
    """What the warm-up grants a line that joined later in one of its sending days, the first being 1."""
    return float(policy.warmup.start * policy.warmup.factor ** min(day - 1, 64))


def opened(
    standing: Standing,
    spending: Spending,
    limits: Limits,
    policy: Policy,
    number: int,
    evidence: Evidence,
    now: float,
    busiest: float = 0.0,
) -> Standing:
    """The standing with which the sending day of that *number* begins at *now*: the same object where nothing was learned.
    *busiest*: the share of a day that the pool opens in its busiest 6 h, 0 where that is not known."""
    learn, was = policy.learn, standing.learned
    if not (learn.enabled and learn.budgets) or number <= was.day:
        return standing
    cap = limits.new_per_day or NEVER
    ceiling, budget, changed_at = was.ceiling, was.budget, was.changed_at
    if ceiling:
        days = min(max(0.0, now - was.relaxed_at) / DAY, LONGEST)
        ceiling = min(cap, ceiling * (1.0 + learn.relax) ** days)
    carried, proven = 0.0, was.proven
    if spending.day or budget:
        bore = load(spending, min(now, spending.day_start + DAY), now) if spending.day else 0.0
        since = _healthy_since(standing, policy)
        if since <= spending.day_start:
            carried, proven = bore, max(proven, min(bore, was.carried))
        used = bore >= learn.used * min(budget, was.today or NEVER)
        if budget and used and now - since >= learn.hold and not is_poor(was):
            calm = (now - was.cut_at) / DAY if was.cut_at else 0.0
            budget, changed_at = min(cap, budget + _step(budget, ceiling, cap, policy, calm)), now
    most, today, bounded = min(budget or NEVER, cap), _smooth(spending, policy, now), "jump"
    if learn.fleet and not ceiling and cap < NEVER:
        today, bounded = min(
            (today, bounded), (max(evidence.expected(cap), BEYOND * proven), "fleet")
        )
    if today < most:
        today = max(min(float(learn.floor), most), today)
    else:
        today, bounded = 0.0, ""
    relaxed_at = now if ceiling else 0.0
    spread = min(busiest, CROWDED) if learn.profile else 0.0
    spread = spread if spread > (policy.pace.spread or 1.0) else 0.0
    known = was.budget, was.today, was.ceiling, was.relaxed_at, was.proven, was.carried
    if known == (budget, today, ceiling, relaxed_at, proven, carried) and (
        (was.changed_at, was.bounded, was.spread) == (changed_at, bounded, spread)
    ):
        return standing
    learned = attrs.evolve(
        was,
        budget=budget,
        today=today,
        ceiling=ceiling,
        relaxed_at=relaxed_at,
        proven=proven,
        carried=carried,
        changed_at=changed_at,
        bounded=bounded,
        day=number,
        spread=spread,
    )
    return attrs.evolve(standing, learned=learned)


def _healthy_since(standing: Standing, policy: Policy) -> float:
    """Since when the line has been HEALTHY with the budget it has; infinite where it is not."""
    span = (policy.recovery.confirmations - 1) * policy.health.ttl
    if level(standing, span) or standing.reputation.recovering(span):
        return NEVER
    good = (standing.reputation.good_since(), standing.status.good_since())
    return max(*good, standing.learned.changed_at)


def is_poor(learned: Learned) -> bool:
    """Whether too few people answer for the line to be given more."""
    return learned.drivers.get("overall_conversation_health", 0.0) >= POOR


def _step(budget: float, ceiling: float, cap: float, policy: Policy, calm: float) -> float:
    """By how much a budget is raised, so many days after its last fall."""
    learn = policy.learn
    step = max(1.0, learn.growth * (cap if cap < NEVER else budget))
    if ceiling and budget + step > learn.near * ceiling:
        slow = SLOWLY * ceiling * max(1.0, calm / LONG) ** 2
        return max(learn.near * ceiling - budget, min(step, slow))
    return step


def _smooth(spending: Spending, policy: Policy, now: float) -> float:
    """At most so many times the line's own normal, once it has one."""
    learn = policy.learn
    if learn.jump is None or opened_in_week(spending, now) < learn.reply_sample:
        return NEVER
    return learn.jump * normal(spending, now)
