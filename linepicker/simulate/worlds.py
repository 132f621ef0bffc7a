"""The worlds to tune on. They disagree about what makes a line AT_RISK; none is Linq, whose rules are not published."""

from __future__ import annotations

import math
from typing import Final

from linepicker.simulate.provider import World
from linepicker.simulate.scenario import DAY, HOUR, START
from linepicker.simulate.strains import Leak, Recent

__all__ = ["BLEND", "DAILY", "JUMPS", "TUNING", "Blend", "Daily", "Jumps"]


class Daily:
    """Assumes: only the number of new conversations in a rolling day counts, against a limit of the line's own, looked at over
    about half a day, so that one crowded hour is forgiven.

    After Linq's driver `new_conversation_rate`, and its figure of about 50 in a rolling 24 h.
    """

    SPAN: Final = DAY / 2

    def __init__(self, base: float, reply_rate: float) -> None:
        self._opened = Recent(DAY)
        self._looked, self._at = 0.0, START

    def opened(self, at: float) -> None:
        """Counts for a day."""
        self._opened.add(at)

    def messaged(self, at: float) -> None:
        """Counts nothing."""

    def replied(self, at: float) -> None:
        """Counts nothing."""

    def opted_out(self, at: float) -> None:
        """Counts nothing."""

    def stress(self, at: float, limit: float) -> float:
        """The day's new conversations as a share of the limit; the first beyond it is one too many."""
        share = self._opened.count(at) / (limit + 1.0)
        self._looked += (share - self._looked) * (1.0 - math.exp((self._at - at) / self.SPAN))
        self._at = at
        return self._looked

    def with_one_more(self, at: float, limit: float) -> float:
        """The share with one more: it only falls from then on, and what is looked at follows it."""
        return (self._opened.count(at) + 1) / (limit + 1.0)


class Jumps:
    """Assumes: the limit of a rolling day counts, and so does a jump: whatever is beyond 1.8 times the line's own normal,
    which follows its daily volume within about five days, adds to the strain.

    After Linq's drivers `new_conversation_rate` and `volume_spike` ("several times the line's own recent level").
    """

    ALLOWED: Final = 1.8
    WEIGHT: Final = 0.5
    SPAN: Final = 5 * DAY

    def __init__(self, base: float, reply_rate: float) -> None:
        self._opened = Recent(DAY)
        self._normal = Leak(self.SPAN, 0.6 * base * self.SPAN / DAY, START)

    def opened(self, at: float) -> None:
        """Counts for a day, and makes the normal larger."""
        self._opened.add(at)
        self._normal.add(1.0, at)

    def messaged(self, at: float) -> None:
        """Counts nothing."""

    def replied(self, at: float) -> None:
        """Counts nothing."""

    def opted_out(self, at: float) -> None:
        """Counts nothing."""

    def stress(self, at: float, limit: float) -> float:
        """The day's share of the limit, and the jump."""
        return self._strain(self._opened.count(at), at, limit)

    def with_one_more(self, at: float, limit: float) -> float:
        """The same with one more, against the normal that will be left when the day is nearly over."""
        return self._strain(self._opened.count(at) + 1, at + 0.75 * DAY, limit)

    def _strain(self, count: int, at: float, limit: float) -> float:
        normal = max(self._normal.value(at) * DAY / self.SPAN, 0.3 * limit, 3.0)
        return count / (limit + 1.0) + self.WEIGHT * max(0.0, count / normal - self.ALLOWED)


class Blend:
    """Assumes: everything counts a little and nothing is forgotten at once. New conversations, messages and opt-outs add up and
    leak away over a day and a half; a line whose people rarely answer bears less, one whose people do bears more.

    After Linq's two inputs: aggregate conversation patterns, and line-level activity.
    """

    SPAN: Final = 1.5 * DAY
    WEEK: Final = 7 * DAY
    MESSAGE: Final = 0.05
    OPT_OUT: Final = 3.0
    RIPPLE: Final = 1.15
    KEPT: Final = 0.96

    def __init__(self, base: float, reply_rate: float) -> None:
        self._usual = max(0.05, reply_rate)
        self._load = Leak(self.SPAN, 0.6 * base * self.SPAN / DAY, START)
        seen = 0.6 * base * self.WEEK / DAY
        self._opened = Leak(self.WEEK, seen, START)
        self._replied = Leak(self.WEEK, 2 * seen * reply_rate, START)

    def opened(self, at: float) -> None:
        """Adds one, and is a conversation that may be answered."""
        self._load.add(1.0, at)
        self._opened.add(1.0, at)

    def messaged(self, at: float) -> None:
        """Adds a little."""
        self._load.add(self.MESSAGE, at)

    def replied(self, at: float) -> None:
        """Speaks for the line for a week."""
        self._replied.add(1.0, at)

    def opted_out(self, at: float) -> None:
        """Weighs like some conversations."""
        self._load.add(self.OPT_OUT, at)

    def stress(self, at: float, limit: float) -> float:
        """The load, as a share of what the line bears at its engagement."""
        return self._load.value(at) / self._bears(at, limit)

    def with_one_more(self, at: float, limit: float) -> float:
        """The same with one more, and a little kept for messages and a limit that fall due while it leaks."""
        return (self._load.value(at) + 1.0 + self.MESSAGE) / (self.KEPT * self._bears(at, limit))

    def _bears(self, at: float, limit: float) -> float:
        share = (self._replied.value(at) + 8 * self._usual) / (self._opened.value(at) + 4)
        engagement = min(1.2, max(0.7, 0.7 + 0.3 * share / (2 * self._usual)))
        weight = 1.0 + 2.2 * self.MESSAGE + 0.02 * self.OPT_OUT
        return limit * self.SPAN / DAY * weight * self.RIPPLE * engagement + 1.0


DAILY: Final = World(
    name="daily",
    about="New conversations in a rolling day against a hidden limit; shown 2 to 5 hours later.",
    strain=Daily,
)
JUMPS: Final = World(
    name="jumps",
    about="The same, and jumps against the line's own normal; scored every 6 hours, shown 6 to 12 hours later.",
    strain=Jumps,
    score_every=6 * HOUR,
    lag=(6 * HOUR, 12 * HOUR),
    critical=1.6,
)
BLEND: Final = World(
    name="blend",
    about="Conversations, messages, opt-outs and replies, leaking over days; shown 4 to 8 hours later.",
    strain=Blend,
    score_every=3 * HOUR,
    lag=(4 * HOUR, 8 * HOUR),
    critical=1.4,
    patience=4 * DAY,
    calm=0.9,
)
TUNING: Final = (DAILY, JUMPS, BLEND)
