"""What the outcomes of a line's messages come to: how lively it is, when it takes a time out, and when that ends. Pure."""

from __future__ import annotations

from typing import Final

import attrs

from linepicker import _windows as windows
from linepicker._nearness import calm, drivers, looked
from linepicker._record import Spending, Standing
from linepicker._sketch import alike
from linepicker._tally import Tally, counts, time_out, tripped, vitality
from linepicker._windows import DAY, WEEK
from linepicker.policy import Failures, Limits, Policy

SHIFT: Final = 0.099
"""How far a vitality below 1 must move before the standing is rewritten: all who reserve on the line read it anew."""


def seen_in_week(tally: Tally, spending: Spending, now: float) -> dict[str, int]:
    """What a line did in 7 days, and what became of it, by name."""
    seen = {**windows.week_counts(spending, now), **counts(tally, now)}
    return {name: count for name, count in seen.items() if count}


def weighed(
    standing: Standing,
    tally: Tally,
    spending: Spending,
    limits: Limits,
    policy: Policy,
    now: float,
    *,
    heard: bool,
) -> Standing:
    """The standing with the vitality that the line's outcomes and its nearness to AT_RISK come to. *heard*: whether replies
    are reported at all."""
    learn = policy.learn
    value = 1.0
    if learn.enabled:
        seen = seen_in_week(tally, spending, now)
        if learn.nearness:
            same = alike(spending.rest, learn.reply_sample)
            found = drivers(standing.learned, seen, spending, same, limits, learn, now, heard=heard)
            learned = looked(standing.learned, found, learn, now)
            if learned is not standing.learned:
                standing = attrs.evolve(standing, learned=learned)
        rate = learn.reply_rate if heard else 0.0
        value = vitality(
            seen,
            reply_rate=rate,
            sample=learn.reply_sample,
            calm=calm(standing.learned, learn, now),
        )
    still = value == standing.vitality or (abs(value - standing.vitality) < SHIFT and value < 1.0)
    if still and (value == 1.0 or now < standing.weighed_at + DAY):
        return standing
    return attrs.evolve(standing, vitality=value, weighed_at=now)


def after_failure(
    standing: Standing,
    before: Tally,
    tally: Tally,
    policy: Policy,
    number: str,
    sent_at: float,
    now: float,
) -> tuple[Standing, str | None]:
    """The standing after a failure of what left at *sent_at*, and for what it takes a time out ("streak", "share" or "probe"),
    if it does. While it is out, only what left after it came back counts again. *before*: the tally without this failure, so
    that in shadow mode each time out that would have begun is told once.
    """
    rules = policy.failures
    if rules.mode == "off":
        return standing, None
    if standing.failing_until:
        why = "probe" if sent_at >= standing.failing_until <= now else None
    else:
        why = _too_many(tally, standing, rules, now)
    if why is not None and rules.mode == "shadow":
        return standing, why if _too_many(before, standing, rules, now) is None else None
    if why is None:
        return standing, None
    again = (
        standing.trips and standing.tripped_at + WEEK > now
    )  # after a week the next is as short as the first
    trips = standing.trips + 1 if again else 1
    pause = time_out(
        trips, first=rules.time_out, growth=rules.growth, longest=rules.longest, salt=number
    )
    after = attrs.evolve(
        standing,
        failing_until=now + pause,
        probed_at=0.0,
        trips=trips,
        tripped_at=now,
        tripped_for=why,
    )
    return after, why


def _too_many(tally: Tally, standing: Standing, rules: Failures, now: float) -> str | None:
    return tripped(
        tally,
        now,
        streak=rules.streak,
        share=rules.share,
        sample=rules.sample,
        window=rules.window,
        since=standing.tripped_at,
    )


def after_delivery(standing: Standing, sent_at: float) -> Standing:
    """The standing after a delivery of what left at *sent_at*: one that left after the time out ends it."""
    if standing.failing_until and sent_at >= standing.failing_until:
        return attrs.evolve(standing, failing_until=0.0, probed_at=0.0)
    return standing


def after_probe(standing: Standing, sent_at: float, lease: float) -> Standing:
    """The standing after the message of a line on trial, which left at *sent_at*, was accepted. Where no receipts are owed
    (SMS, groups), a second one that is accepted when the first has not failed within *lease* seconds ends the trial."""
    if not standing.failing_until:
        return standing
    if not standing.probed_at:
        return attrs.evolve(standing, probed_at=sent_at)
    if sent_at - standing.probed_at >= lease:
        return attrs.evolve(standing, failing_until=0.0, probed_at=0.0)
    return standing
