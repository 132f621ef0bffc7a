"""What the ledger knows of one line: what it was charged, at what pace, and what it may bear."""

from __future__ import annotations

import math
from typing import Final

import attrs

from benchmarks.faults.observed import NEVER, Watched
from linepicker import Policy
from linepicker._record import Spending, Standing
from linepicker._windows import SKEW
from linepicker.policy import Limits

HOUR: Final = 3600.0
DAY: Final = 86400.0
EPS: Final = 1e-3
"""Seconds; moments are doubles around 1.8e9."""
CROWDED: Final = 0.7
"""The most of a day that 6 h may ever take."""


@attrs.define
class Charge:
    """A new conversation: when its message leaves, and whether it is a move."""

    at: float
    moved: bool


@attrs.define
class Book:
    """One line's."""

    number: str
    critical: Watched = attrs.field(factory=Watched)
    at_risk: Watched = attrs.field(factory=Watched)
    flagged: Watched = attrs.field(factory=Watched)
    operator: str = ""
    operated: int = 0
    released: float = NEVER
    listed: float = NEVER
    missed: float = NEVER
    """The latest list that it was on, and that it was not on."""
    standing: Standing = attrs.field(factory=Standing)
    refused_until: float = NEVER
    probation: bool = False
    probe: tuple[int, float] | None = None
    spending: Spending = attrs.field(factory=Spending)
    charges: dict[int, Charge] = attrs.field(factory=dict)
    messages: dict[int | str, float] = attrs.field(factory=dict)
    new_mark: float = NEVER
    message_mark: float = NEVER
    days: int = 0
    day_start: float = NEVER
    days_at_fall: int | None = None
    """How many sending days there had been when it fell CRITICAL."""

    def within(self, window: float, now: float, latest: float) -> int:
        """Its new conversations of so many seconds. What was a day old at the *latest* moment there was may be forgotten."""
        edge, gone = now - window, latest - DAY
        return sum(each.at > edge + EPS and each.at > gone for each in self.charges.values())

    def sent(self, now: float, latest: float) -> int:
        """Its messages of the day."""
        edge = max(now, latest) - DAY + EPS
        if len(self.messages) > 200:
            old = [key for key, at in self.messages.items() if at <= edge]
            for key in old:
                del self.messages[key]
        return sum(at > edge for at in self.messages.values())

    def moves(self, now: float, latest: float) -> int:
        """The moves of the day."""
        edge = max(now, latest) - DAY + EPS
        return sum(each.moved and each.at > edge for each in self.charges.values())

    def open_day(self, at: float, host: float) -> None:
        """A conversation opens at that moment, as its call sees it, who may not know yet that the clock stepped back: perhaps a
        sending day begins, when it is *host*."""
        if self.day_start + DAY <= at:
            self.days, self.day_start = self.days + 1, host

    def bearable(
        self, policy: Policy, limits: Limits, slowest: float
    ) -> list[tuple[str, int, float]]:
        """What it may bear at most, by all that is certain: (name, new conversations, in so many seconds)."""
        at_risk = self.at_risk.certain(span_of(policy), slowest)
        scale = policy.at_risk.budget if at_risk else 1.0
        factor, cap = policy.warmup.factor, math.inf
        if self.standing.first_seen and not self.standing.warm:  # else no list was written yet
            cap = policy.warmup.start * factor ** min(max(self.days, 1) - 1, 64)
        if self.days_at_fall is not None:
            further = max(0, self.days - self.days_at_fall)
            scale *= min(1.0, policy.recovery.share * factor ** min(further, 64))

        def scaled(limit: int | None, *, bounded: bool) -> int | None:
            most = min(cap, math.inf if limit is None else limit)
            if most == math.inf or (limit is None and not bounded):
                return None
            return max(1, math.floor(most * scale + 1e-9))

        day = scaled(limits.new_per_day, bounded=True)
        hour = scaled(limits.new_per_hour, bounded=False)
        found = [("a day", day, DAY), ("an hour", hour, HOUR)]
        if policy.pace.spread is not None and policy.pace.new_gap and day is not None:
            share = policy.pace.spread
            if policy.learn.enabled and policy.learn.profile:  # a pool's own day may be crowded
                share = max(share, min(self.standing.learned.spread, CROWDED))
            found.append(("6 h", math.ceil(share * day - 1e-9), 6 * HOUR))
        return [(name, most, window) for name, most, window in found if most is not None]

    def paced(
        self, policy: Policy, at: float, send_at: float, *, opens: bool, message: bool
    ) -> bool:
        """Take a slot; whether it was not too early, for a line at full pace."""
        pace, fine = policy.pace, True
        if opens:
            mark = _trusted(self.new_mark, at, pace.new_gap, pace.new_burst, policy)
            fine = send_at >= mark - pace.new_gap * (pace.new_burst - 1) - EPS or not pace.new_gap
            self.new_mark = max(mark, send_at) + pace.new_gap
        if message:
            mark = _trusted(self.message_mark, at, pace.message_gap, pace.message_burst, policy)
            slot = mark - pace.message_gap * (pace.message_burst - 1)
            fine = fine and (send_at >= slot - EPS or not pace.message_gap)
            self.message_mark = max(mark, at) + pace.message_gap
        return fine

    def stepped(self, now: float, edge: float) -> None:
        """The clock stepped back: moments that it alone can explain count from now on."""
        for each in self.charges.values():
            each.at = now if each.at > edge else each.at
        self.messages = {key: min(at, now) for key, at in self.messages.items()}
        self.day_start = min(self.day_start, now)
        self.new_mark = self.message_mark = NEVER
        self.released = self.refused_until = NEVER
        self.probe = None
        self.forgiven()

    def forgiven(self) -> None:
        """Nothing is certain against it."""
        for each in (self.critical, self.at_risk, self.flagged):
            each.forgiven()


def _trusted(mark: float, at: float, gap: float, burst: int, policy: Policy) -> float:
    edge = at + gap / policy.at_risk.pace * burst + policy.pace.max_delay + SKEW
    return min(mark, at + gap * burst) if mark > edge else mark


def span_of(policy: Policy) -> float:
    """How long good news must have been there before it counts."""
    return (policy.recovery.confirmations - 1) * policy.health.ttl
