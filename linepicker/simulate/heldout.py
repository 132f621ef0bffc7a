"""The held-out worlds. Nothing was tuned on them; only the scoring run reads this file.

They were written before any policy was tuned, and disagree with the others, and with each other, about what makes a line
AT_RISK.
"""

from __future__ import annotations

import math
from typing import Final

from linepicker.simulate.provider import World
from linepicker.simulate.scenario import DAY, HOUR, START
from linepicker.simulate.strains import Leak, Recent

__all__ = ["CROWDS", "HELD_OUT", "SCARS", "SILENCE", "Crowds", "Scars", "Silence"]


class Crowds:
    """Assumes: distinct recipients in a short window count. Within any three hours a line bears a quarter of its day, and two
    more; the worst three hours of the last day decide. A day may be a little fuller than the limit (by a twentieth).

    After Linq's line-level inputs: "distinct recipients in a short window" comes first in its list. The verdict is a day late.
    """

    WINDOW: Final = 3 * HOUR
    SHARE: Final = 0.25
    ALWAYS: Final = 2.0
    FULLER: Final = 1.05

    def __init__(self, base: float, reply_rate: float) -> None:
        self._crowd, self._opened = Recent(self.WINDOW), Recent(DAY)
        self._worst: list[tuple[float, int]] = []

    def opened(self, at: float) -> None:
        """Counts for three hours; what they came to, for a day."""
        self._crowd.add(at)
        self._opened.add(at)
        crowd = self._crowd.count(at)
        while self._worst and self._worst[-1][1] <= crowd:
            self._worst.pop()
        self._worst.append((at, crowd))

    def messaged(self, at: float) -> None:
        """Counts nothing."""

    def replied(self, at: float) -> None:
        """Counts nothing."""

    def opted_out(self, at: float) -> None:
        """Counts nothing."""

    def stress(self, at: float, limit: float) -> float:
        """The worst three hours of the last day against what is borne then, or the day, whichever is worse."""
        self._worst = [each for each in self._worst if each[0] > at - DAY]
        worst = self._worst[0][1] if self._worst else 0
        return max(worst / self._bears(limit), self._opened.count(at) / (self.FULLER * limit + 1.0))

    def with_one_more(self, at: float, limit: float) -> float:
        """The same with one more in the present three hours, which a lower limit may be held against for a day."""
        crowd, day = self._crowd.count(at) + 1, self._opened.count(at) + 1
        return max(crowd / self._bears(limit), day / (self.FULLER * limit + 1.0))

    def _bears(self, limit: float) -> float:
        return self.SHARE * limit + self.ALWAYS + 1.0


class Silence:
    """Assumes: nobody minds how many conversations a line opens, but how many of them stay without an answer. Each weighs less
    with every answer; what is still there leaks away over three days. A message into silence weighs a little as well.

    After Linq's driver `overall_conversation_health` ("the larger driver") and its help article on throttling: too few replies
    over a week.
    """

    SPAN: Final = 3 * DAY
    MESSAGE: Final = 0.1
    ANSWER: Final = 1.1
    OPT_OUT: Final = 2.0
    RIPPLE: Final = 1.08
    KEPT: Final = 0.96

    def __init__(self, base: float, reply_rate: float) -> None:
        self._unanswered = max(0.1, 1.15 - 0.9 * reply_rate)  # of a conversation, all told
        self._load = Leak(self.SPAN, 0.6 * self._unanswered * base * self.SPAN / DAY, START)

    def opened(self, at: float) -> None:
        """Nobody has answered yet."""
        self._load.add(1.0, at)

    def messaged(self, at: float) -> None:
        """One more that may stay without an answer."""
        self._load.add(self.MESSAGE, at)

    def replied(self, at: float) -> None:
        """Somebody has."""
        self._load.add(-self.ANSWER / 2, at)

    def opted_out(self, at: float) -> None:
        """The opposite of an answer."""
        self._load.add(self.OPT_OUT, at)

    def stress(self, at: float, limit: float) -> float:
        """The silence, against what the line bears at an average audience."""
        return self._load.value(at) / self._bears(limit)

    def with_one_more(self, at: float, limit: float) -> float:
        """The same with one more, and a little kept for a limit that falls while it leaks: it only leaks from then on, or is
        answered."""
        return (self._load.value(at) + 1.0 + self.MESSAGE) / (self.KEPT * self._bears(limit))

    def _bears(self, limit: float) -> float:
        return self._unanswered * self.RIPPLE * limit * self.SPAN / DAY + 1.0


class Scars:
    """Assumes: a line does not fall for what it does today, but for what was done to it. Opening faster than the limit hurts it
    the more the faster; it heals slowly and evenly; only hurt that has added up shows, and then for long.

    After what carriers and mailbox providers do: a reputation is lost in days and earned back in weeks. Linq names no figure.
    """

    SPAN: Final = DAY
    EDGE: Final = 0.5
    HURT: Final = 1.0
    HEALS: Final = 0.06
    EASY: Final = 0.94

    def __init__(self, base: float, reply_rate: float) -> None:
        self._rate = Leak(self.SPAN, 0.6 * base, START)
        self._scar, self._at = 0.0, START
        self._limit = base or math.inf  # a newcomer's is told with its first verdict

    def opened(self, at: float) -> None:
        """The line is faster for a day."""
        self._heal(at)
        self._rate.add(1.0, at)

    def messaged(self, at: float) -> None:
        """Counts nothing."""

    def replied(self, at: float) -> None:
        """Counts nothing."""

    def opted_out(self, at: float) -> None:
        """Counts nothing."""

    def stress(self, at: float, limit: float) -> float:
        """What has added up."""
        self._heal(at)
        self._limit = limit
        return self._scar / self.EDGE

    def with_one_more(self, at: float, limit: float) -> float:
        """How fast it would be, against what it bears: a fresh line a little beyond its limit, a scarred one so little that it
        heals."""
        self._heal(at)
        scar = self._scar / self.EDGE
        fast = (self._rate.value(at) + 1.0) / (limit * (1.15 - 0.22 * scar) + 1.0)
        return max(scar, fast) if scar >= 0.9 else fast

    def _heal(self, at: float) -> None:
        step = HOUR
        while self._at < at:
            until = min(at, self._at + step)
            share = (until - self._at) / DAY
            over = max(0.0, self._rate.value(until) / self._limit - self.EASY)
            self._scar = max(0.0, self._scar + (self.HURT * over - self.HEALS) * share)
            self._at = until


CROWDS: Final = World(
    name="crowds",
    about="Distinct recipients within three hours; scored every 6 hours, shown a day later.",
    strain=Crowds,
    score_every=6 * HOUR,
    lag=(22 * HOUR, 26 * HOUR),
    critical=1.6,
    patience=3 * DAY,
)
SILENCE: Final = World(
    name="silence",
    about="Conversations without an answer, over days; scored every 2 hours, shown 6 to 18 hours later.",
    strain=Silence,
    score_every=2 * HOUR,
    lag=(6 * HOUR, 18 * HOUR),
    critical=1.4,
    patience=4 * DAY,
    calm=0.9,
)
SCARS: Final = World(
    name="scars",
    about="Hurt adds up while a line is too fast, and heals slowly; scored every 6 hours, shown 3 to 9 hours later.",
    strain=Scars,
    score_every=6 * HOUR,
    lag=(3 * HOUR, 9 * HOUR),
    critical=1.8,
    patience=5 * DAY,
    calm=0.8,
    rest=(DAY, 2 * DAY),
    harm=(0.0, 0.03),
)
HELD_OUT: Final = (CROWDS, SILENCE, SCARS)
