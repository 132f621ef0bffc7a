"""A simulated provider: lines with hidden limits, verdicts that lag, false alarms, flags, a list that can be out of reach.

What a verdict comes from is the world's (`World.strain`); how it is scored, published, forgotten and held against a line is
the same in all of them, with the world's figures.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from linepicker.errors import SourceError
from linepicker.model import Line, LineChanged, Reputation, ServiceStatus
from linepicker.simulate.clock import SimulatedClock
from linepicker.simulate.scenario import DAY, HOUR, START, Scenario

__all__ = ["LANDS", "REPLIES", "HiddenLine", "Provider", "Strain", "World"]

LANDS: Final = (1.0, 0.95, 0.35)
"""How likely a message lands on a line that is in truth HEALTHY, AT_RISK, CRITICAL: "messages aren't landing"."""
REPLIES: Final = (1.0, 0.85, 0.3)
"""What is left of the wish to answer, likewise."""
_LEVELS: Final = (Reputation.HEALTHY, Reputation.AT_RISK, Reputation.CRITICAL)
_FLAG: Final = (24 * HOUR, 72 * HOUR)
_ALARM: Final = 12 * HOUR
_YOUTH: Final = 14.0
"""Days until a line that joined unused bears what it will."""


class Strain(Protocol):
    """What a line's verdict comes from: told what happens on it, it says how strained the line is. 1.0 is the edge of AT_RISK.

    Moments are epoch seconds UTC and never go back. *limit* is the line's hidden limit then, in new conversations a day.
    """

    def opened(self, at: float) -> None:
        """A new conversation was opened."""

    def messaged(self, at: float) -> None:
        """A message left, the first one of a conversation included."""

    def replied(self, at: float) -> None:
        """Somebody answered."""

    def opted_out(self, at: float) -> None:
        """Somebody wants no more messages."""

    def stress(self, at: float, limit: float) -> float:
        """How strained the line is."""
        ...

    def with_one_more(self, at: float, limit: float) -> float:
        """How strained it will at most be if one more conversation is opened now, and none after."""
        ...


@attrs.frozen(kw_only=True)
class World:
    """A model of the provider.

    Attributes:
        name: what a scenario calls it.
        about: its assumptions, in a sentence.
        strain: makes what a line's verdict comes from, given its hidden limit, new conversations a day, and the share of people
            who answer. It begins as if the line had been in use.
        score_every: seconds between two scorings of all lines.
        lag: the least and the most seconds from a scoring to the list that shows it.
        critical: the stress from which on a line is CRITICAL at once.
        patience: seconds without interruption at a stress of 1 or more that make it CRITICAL as well.
        calm: the stress under which a line gets better, one level at a time.
        rest: seconds that a line is AT_RISK, and CRITICAL, at least.
        harm: share of its limit that a line loses in a day of AT_RISK, of CRITICAL; at most six tenths altogether.
        healing: share of its limit that it gets back in a HEALTHY day.
        hazard: how likely a message on a line that is in truth CRITICAL gets it flagged.
    """

    name: str
    about: str
    strain: Callable[[float, float], Strain]
    score_every: float = HOUR
    lag: tuple[float, float] = (2 * HOUR, 5 * HOUR)
    critical: float = 1.5
    patience: float = 3 * DAY
    calm: float = 0.85
    rest: tuple[float, float] = (12 * HOUR, 36 * HOUR)
    harm: tuple[float, float] = (0.015, 0.06)
    healing: float = 0.015
    hazard: float = 0.02


@attrs.define
class HiddenLine:
    """A line as it is in truth. `factors`: what its limit is multiplied by at the beginning of each day. `level`: the verdict
    (0 HEALTHY, 1 AT_RISK, 2 CRITICAL), `shown` what the list shows of it, with or without a false alarm (`alarms`, from each
    for half a day)."""

    number: str
    base: float
    joined: float
    strain: Strain
    dice: random.Random
    fate: random.Random
    factors: list[float]
    alarms: list[float]
    level: int = 0
    changed: float = START
    over_since: float | None = None
    damage: float = 0.0
    shown: int = 0
    latest: float = START
    flagged_until: float = 0.0


class Provider:
    """The simulated provider of one run. A router's source: `fetch()`. Everything that chance decides and no chooser can change
    is drawn beforehand, so that all choosers face the same."""

    def __init__(self, world: World, scenario: Scenario, clock: SimulatedClock, seed: int) -> None:
        self.world, self.scenario, self._clock = world, scenario, clock
        self.lines: dict[str, HiddenLine] = {}
        dice = random.Random(f"lines {seed}")
        bases = _stratified(scenario.limits, scenario.lines, dice)
        bases += _stratified(scenario.limits, scenario.newcomers, dice)
        for i, base in enumerate(bases):
            joined = START if i < scenario.lines else START + scenario.days * DAY / 3
            line = self._line(f"+1202555{1000 + i:04d}", base, joined, seed)
            self.lines[line.number] = line
        self.outages = _outages(scenario, random.Random(f"outages {seed}"))
        self._listed: dict[tuple[str, int], Line] = {}

    def _line(self, number: str, base: float, joined: float, seed: int) -> HiddenLine:
        dice, scenario = random.Random(f"{number} {seed}"), self.scenario
        walk, factors = 0.0, []
        for _ in range(scenario.days + 3):
            factors.append(math.exp(walk + dice.gauss(0.0, scenario.noise)))
            walk = 0.97 * walk + dice.gauss(0.0, scenario.drift)
        alarms = [
            START + (day + dice.random()) * DAY
            for day in range(scenario.days)
            if dice.random() < scenario.false_alarms
        ]
        fate = random.Random(f"fate {number} {seed}")
        strain = self.world.strain(base if joined == START else 0.0, scenario.reply_rate)
        return HiddenLine(number, base, joined, strain, dice, fate, factors, alarms, changed=joined)

    # What everybody may see

    def fetch(self) -> list[Line]:
        """The list of lines, as the provider shows it now. Raises SourceError during an outage."""
        now = self._clock.moment
        if any(begin <= now < end for begin, end in self.outages):
            raise SourceError("the provider is out of reach")
        return [self._shown(line, now) for line in self.lines.values() if line.joined <= now]

    def _shown(self, line: HiddenLine, now: float) -> Line:
        level = self.shown(line.number, now)
        key = (line.number, level)
        if key not in self._listed:
            self._listed[key] = Line(line.number, reputation=_LEVELS[level])
        return self._listed[key]

    def shown(self, number: str, now: float) -> int:
        """The reputation that is shown of a line: 0 HEALTHY, 1 AT_RISK, 2 CRITICAL."""
        line = self.lines[number]
        alarmed = any(at <= now < at + _ALARM for at in line.alarms)
        return max(line.shown, int(alarmed))

    def flagged(self, number: str, now: float) -> bool:
        """Whether a line refuses to send."""
        return now < self.lines[number].flagged_until

    def news(self, number: str, now: float, event_id: str) -> LineChanged:
        """The webhook about a line: both its values, as they are now."""
        status = ServiceStatus.FLAGGED if self.flagged(number, now) else ServiceStatus.ACTIVE
        reputation = _LEVELS[self.shown(number, now)]
        return LineChanged(number, reputation=reputation, status=status, at=now, event_id=event_id)

    # What nobody but an oracle sees

    def limit(self, line: HiddenLine, at: float) -> float:
        """New conversations a day that a line bears at a moment."""
        day, part = divmod((at - START) / DAY, 1.0)
        index = min(int(day), len(line.factors) - 2)
        factor = line.factors[index] * (1 - part) + line.factors[index + 1] * part
        youth = 1.0
        if line.joined > START:
            youth = min(1.0, 0.3 + 0.7 * (at - line.joined) / DAY / _YOUTH)
        return max(1.0, line.base * factor * youth * (1.0 - line.damage))

    def lowest_limit(self, line: HiddenLine, at: float) -> float:
        """The least that a line will bear within the next day, if nothing harms it. Limits turn at midnight alone."""
        midnight = START + ((at - START) // DAY + 1) * DAY
        return min(self.limit(line, at), self.limit(line, midnight), self.limit(line, at + DAY))

    def bears(self, at: float) -> float:
        """New conversations a day that the lines present at a moment bear together, on an average day."""
        return sum(line.base for line in self.lines.values() if line.joined <= at)

    # What happens

    def messaged(self, number: str, at: float, *, opened: bool) -> tuple[int, bool]:
        """A message leaves. The line's true level, and whether this got it flagged."""
        line = self.lines[number]
        if opened:
            line.strain.opened(at)
        line.strain.messaged(at)
        flags = line.level == 2 and line.fate.random() < self.world.hazard
        if flags:
            line.flagged_until = at + line.fate.uniform(*_FLAG)
            line.changed = line.flagged_until  # it rests from then on
        return line.level, flags

    def score(self, line: HiddenLine, now: float) -> float | None:
        """Pass a new verdict on a line: when it will be shown, None if it stays the same."""
        world, dice = self.world, line.dice
        days = world.score_every / DAY
        stress = line.strain.stress(now, self.limit(line, now))
        lag = dice.uniform(
            *world.lag
        )  # drawn in any case: what follows must not depend on the verdict
        strained = stress >= 1.0
        line.over_since = (line.over_since or now) if strained else None
        level = line.level
        worn = line.over_since is not None and now - line.over_since >= world.patience
        if stress >= world.critical or worn:
            level = 2
        elif strained:
            level = max(level, 1)
        elif level and stress < world.calm and now - line.changed >= world.rest[level - 1]:
            level -= 1
        if level:
            line.damage = min(0.6, line.damage + world.harm[level - 1] * days)
        else:
            line.damage = max(0.0, line.damage - world.healing * days)
        if level == line.level:
            return None
        line.level, line.changed = level, max(now, line.changed)
        line.latest = max(line.latest, now + lag)
        return line.latest


def _stratified(limits: tuple[float, float], count: int, dice: random.Random) -> list[float]:
    """*count* limits, spread evenly between the two on a logarithmic scale, in any order."""
    low, high = map(math.log, limits)
    bases = [math.exp(low + (high - low) * (i + dice.random()) / count) for i in range(count)]
    dice.shuffle(bases)
    return bases


def _outages(scenario: Scenario, dice: random.Random) -> list[tuple[float, float]]:
    """From when until when the list of lines is out of reach; never at the very start."""
    found = []
    for day in range(1, scenario.days):
        if dice.random() < scenario.outages / 7:
            begin = START + (day + dice.random()) * DAY
            found.append((begin, begin + dice.expovariate(1 / (scenario.outage_hours * HOUR))))
    return found
