"""How near a line is to AT_RISK by the causes its provider publishes, as far as they can be estimated from here. Pure.

Each driver is a number from 0 to 1, under the name that the provider has for it, and the nearness is the largest of them.
From `learn.warn` on it is a warning; what the provider says of the line later tells how good the warnings are. Nothing is
estimated before `learn.reply_sample` conversations in 7 days.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import attrs

from linepicker._learned import LEADS_KEPT, Learned
from linepicker._record import Spending
from linepicker._windows import DAY, SPREAD, WEEK, load, messages_within, normal, opened_in_week
from linepicker.policy import Learn, Limits

OPT_OUTS: Final = 0.06
"""The share of a week's conversations that opted out from which on that driver is 1. Ours; none is published."""
ALIKE: Final = 0.5
"""What the share of openings that are alike weighs: alone it is no warning."""
STEP: Final = 0.1
"""By how much a nearness must move before the line's standing is rewritten: all who reserve on the line read it anew."""


def drivers(
    learned: Learned,
    seen: Mapping[str, int],
    spending: Spending,
    alike: float | None,
    limits: Limits,
    learn: Learn,
    now: float,
    *,
    heard: bool,
) -> dict[str, float]:
    """Each driver by name, those that say nothing left out. *seen*: the counts of 7 days by name; *alike*: the share of its
    latest openings that are near-duplicates; *heard*: whether replies are reported at all."""
    opened = opened_in_week(spending, now)
    if opened < learn.reply_sample:
        return {}
    today, before = load(spending, now, now), usual(spending, now)
    bears = learned.ceiling or limits.new_per_day
    found = {"new_conversation_rate": today / bears if bears else 0.0}
    spike = today / (learn.jump * before) if learn.jump and before >= 1.0 else 0.0
    most = limits.messages_per_day
    found["volume_spike"] = max(spike, messages_within(spending, now) / most if most else 0.0)
    if heard and learn.reply_rate:
        rate = seen.get("answered", 0) / opened
        found["overall_conversation_health"] = 1.0 - rate / (2.0 * learn.reply_rate)
    found["opt_out_handling"] = seen.get("opted_out", 0) / opened / OPT_OUTS
    found["similar_openings"] = ALIKE * (alike or 0.0)
    found = {name: round(min(1.0, value), 3) for name, value in found.items()}
    return {name: value for name, value in found.items() if value > 0.0}


def usual(spending: Spending, now: float) -> float:
    """The busiest day of the week, in conversations, of those that had ended when the last one began."""
    return normal(spending, now - DAY - SPREAD)


def nearness(found: Mapping[str, float]) -> float:
    """How near the nearest cause is."""
    return max(found.values(), default=0.0)


def looked(learned: Learned, found: Mapping[str, float], learn: Learn, now: float) -> Learned:
    """What is known after another look: the same object where it moved too little. A warning that ends without a fall was a
    false alarm; so is one of a week's age, after which the next begins."""
    near = nearness(found)
    warns, warned = near >= learn.warn, learned.warned_at > 0.0
    stale = warned and now - learned.warned_at >= WEEK
    if warns == warned and not stale and abs(near - learned.nearness) < STEP:
        return learned
    return attrs.evolve(
        learned,
        nearness=near,
        near_at=now,
        drivers=found,
        warned_at=(learned.warned_at if warned and not stale else now) if warns else 0.0,
        alarms=learned.alarms + int(warned and (stale or not warns)),
    )


def scored(learned: Learned, at: float) -> Learned:
    """After a fall at *at*: whether it was warned of, and how early. Nothing, where nothing could be estimated."""
    if not learned.near_at:
        return learned
    if not learned.warned_at:
        return attrs.evolve(learned, misses=learned.misses + 1)
    early = max(0.0, at - learned.warned_at)
    leads = (*learned.leads, early)[-LEADS_KEPT:]
    return attrs.evolve(learned, hits=learned.hits + 1, leads=leads, warned_at=0.0)


def calm(learned: Learned, learn: Learn, now: float) -> float:
    """What nearness leaves of a line's vitality and pace: 1 where it is far from any cause, one half at the edge. A look that
    is a week old counts no more."""
    if not (learn.enabled and learn.nearness) or now >= learned.near_at + WEEK:
        return 1.0
    return 1.0 - learned.nearness / 2.0


def fades(learned: Learned, learn: Learn, now: float) -> float:
    """Until when a nearness slows its line, if nothing is looked at again; infinite where it does not."""
    return learned.near_at + WEEK if calm(learned, learn, now) < 1.0 else math.inf
