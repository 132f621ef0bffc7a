"""What else is done: rules for new people, and what becomes of those they know. None of them learns from `linepicker`.

All see what an application sees: the list of lines, webhooks, and refusals (a line that refused is left alone for a day, or
until a webhook says it is back).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, Protocol

import attrs

from linepicker.errors import SourceError
from linepicker.model import LineChanged, OptedOut, Report, Reputation, ServiceStatus
from linepicker.simulate.choosers import Answer, Gone, Make, Offer, Setting, Wait
from linepicker.simulate.scenario import DAY

__all__ = ["RIVALS", "Rival", "Rule", "Seen"]

HEALTHY, AT_RISK, CRITICAL = Reputation
RETRY: Final = 300.0


@attrs.define
class Seen:
    """A line as an application sees it. `opened`: when it opened conversations within a day; `used`: its last message."""

    number: str
    reputation: Reputation = HEALTHY
    out_until: float = 0.0
    used: float = 0.0
    opened: deque[float] = attrs.Factory(deque)

    def within_a_day(self, now: float) -> int:
        """New conversations in the last 24 hours."""
        while self.opened and self.opened[0] <= now - DAY:
            self.opened.popleft()
        return len(self.opened)


class Rule(Protocol):
    """Which line a new person gets."""

    def pick(self, to: str, lines: Sequence[Seen], now: float) -> Seen | None:
        """One of *lines*, which are those that can send as far as is known; None: none of them now."""
        ...


class Rival:
    """A chooser around a rule. *sticky*: people keep their line as long as it can send, else the rule picks for each message.
    *holds*: whoever's line is CRITICAL waits."""

    def __init__(
        self, setting: Setting, rule: Rule, *, sticky: bool = True, holds: bool = False
    ) -> None:
        self._setting, self._rule = setting, rule
        self._sticky, self._holds = sticky, holds
        self._polled = 0.0
        self._lines: dict[str, Seen] = {}
        self._mine: dict[str, str] = {}
        self._gone: set[str] = set()

    def choose(self, to: str) -> Answer:
        """The person's line, or the rule's."""
        now = self._setting.clock.moment
        self._look(now)
        if to in self._gone:
            return Gone()
        mine = self._lines.get(self._mine.get(to, "")) if self._sticky else None
        if mine is not None and mine.out_until <= now:
            if self._holds and mine.reputation is CRITICAL:
                return Wait(now + RETRY, mine.number)
            return Offer(mine.number, now)
        can_send = [line for line in self._lines.values() if line.out_until <= now]
        line = self._rule.pick(to, can_send, now)
        return Wait(now + RETRY) if line is None else Offer(line.number, now)

    def confirm(self, to: str, offer: Offer) -> Answer:
        """Its offers are for now."""
        return offer

    def settle(self, to: str, offer: Offer, *, sent: bool) -> None:
        """Remember whose line it is; or leave the line alone for a day."""
        now, line = self._setting.clock.moment, self._lines[offer.number]
        if not sent:
            line.out_until = now + DAY
            return
        line.used = now
        if self._mine.get(to) != line.number:
            line.opened.append(now)
            self._mine[to] = line.number

    def report(self, report: Report) -> None:
        """Believe what is said of lines, and write no more to whoever opted out."""
        if isinstance(report, OptedOut):
            self._gone.add(report.to)
        elif isinstance(report, LineChanged) and report.number in self._lines:
            line = self._lines[report.number]
            line.reputation = report.reputation or line.reputation
            line.out_until = report.at + DAY if report.status is ServiceStatus.FLAGGED else 0.0

    def budgets(self) -> Mapping[str, int | None]:
        """Those of its rule, if it has any."""
        budgets = getattr(self._rule, "budgets", None)
        return budgets() if callable(budgets) else {}

    def close(self) -> None:
        """Nothing."""

    def _look(self, now: float) -> None:
        if now - self._polled < self._setting.policy.health.ttl:
            return
        try:
            listed = self._setting.source.fetch()
        except SourceError:
            return
        self._polled = now
        for line in listed:
            seen = self._lines.setdefault(line.number, Seen(line.number))
            seen.reputation = line.reputation


def _healthiest(lines: Sequence[Seen]) -> list[Seen]:
    for level in (HEALTHY, AT_RISK):
        found = [line for line in lines if line.reputation is level]
        if found:
            return found
    return list(lines)


class Lots:
    """Any line, by lot."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(f"lots {seed}")

    def pick(self, to: str, lines: Sequence[Seen], now: float) -> Seen | None:
        """By lot."""
        return self._dice.choice(lines) if lines else None


class RoundRobin:
    """One after the other; `healthy`: only those that are HEALTHY."""

    def __init__(self, *, healthy: bool = False) -> None:
        self._next, self._healthy = 0, healthy

    def pick(self, to: str, lines: Sequence[Seen], now: float) -> Seen | None:
        """The next one."""
        if self._healthy:
            lines = [line for line in lines if line.reputation is HEALTHY]
        self._next += 1
        return lines[self._next % len(lines)] if lines else None


class LeastRecentlyUsed:
    """The one among the healthiest whose last message is longest ago: what Linq documents for `available_number`."""

    def pick(self, to: str, lines: Sequence[Seen], now: float) -> Seen | None:
        """The longest unused among the healthiest."""
        return min(_healthiest(lines), key=lambda line: line.used, default=None)


class PlainSwitch:
    """One line until it is AT_RISK, then the next one that is HEALTHY; where none is, one that is AT_RISK; never a CRITICAL
    one: the `switch` of Linq's phone health guide."""

    def __init__(self) -> None:
        self._current = ""

    def pick(self, to: str, lines: Sequence[Seen], now: float) -> Seen | None:
        """The same as before, if it is as healthy as any."""
        fit = [line for line in _healthiest(lines) if line.reputation is not CRITICAL]
        chosen = next((line for line in fit if line.number == self._current), None)
        if chosen is None and fit:
            later = [line for line in fit if line.number > self._current]
            chosen = (later or fit)[0]
        self._current = chosen.number if chosen else self._current
        return chosen


class FixedCap:
    """So many new conversations a day and line, the emptiest first, whatever its reputation."""

    def __init__(self, cap: int) -> None:
        self._cap = cap

    def pick(self, to: str, lines: Sequence[Seen], now: float) -> Seen | None:
        """The emptiest that has room."""
        line = min(lines, key=lambda line: line.within_a_day(now), default=None)
        return line if line is not None and line.within_a_day(now) < self._cap else None


class ConsistentHash:
    """The line whose hash with the person is the highest (rendezvous hashing)."""

    def pick(self, to: str, lines: Sequence[Seen], now: float) -> Seen | None:
        """By hash."""

        def weight(line: Seen) -> bytes:
            return blake2b(f"{line.number} {to}".encode(), digest_size=8).digest()

        return max(lines, key=weight, default=None)


class Additive:
    """A budget per line: two more after each HEALTHY day on which half of it was used, half of it when the line gets worse. It
    begins at the cap; nothing while it is CRITICAL. The emptiest first."""

    def __init__(self, cap: int) -> None:
        self._cap = float(cap)
        self._budgets: dict[str, float] = {}
        self._known: dict[str, Reputation] = {}
        self._raised: dict[str, float] = {}

    def pick(self, to: str, lines: Sequence[Seen], now: float) -> Seen | None:
        """The emptiest that has room."""
        for line in lines:
            self._learn(line, now)
        fit = [line for line in lines if line.reputation is not CRITICAL]
        best = min(fit, key=lambda each: self._used(each, now), default=None)
        return best if best is not None and self._used(best, now) < 1.0 else None

    def _used(self, line: Seen, now: float) -> float:
        return line.within_a_day(now) / max(1, int(self._budgets[line.number]))

    def _learn(self, line: Seen, now: float) -> None:
        number, order = line.number, list(Reputation)
        budget = self._budgets.setdefault(number, self._cap)
        before = self._known.get(number, HEALTHY)
        self._known[number] = line.reputation
        raised = self._raised.setdefault(number, now)
        if order.index(line.reputation) > order.index(before):
            self._budgets[number], self._raised[number] = max(1.0, budget / 2), now
        elif line.reputation is not HEALTHY:
            self._raised[number] = now
        elif now - raised >= DAY:
            if line.within_a_day(now) >= budget / 2:
                self._budgets[number] = min(self._cap, budget + 2.0)
            self._raised[number] = now

    def budgets(self) -> Mapping[str, int | None]:
        """What each line has a day."""
        return {number: int(budget) for number, budget in self._budgets.items()}


def _cap(setting: Setting) -> int:
    return setting.policy.limits.new_per_day or 1_000_000


RIVALS: Final[Mapping[str, Make]] = {
    "random": lambda given: Rival(given, Lots(given.seed), sticky=False),
    "round robin": lambda given: Rival(given, RoundRobin(), sticky=False),
    "least recently used": lambda given: Rival(given, LeastRecentlyUsed()),
    "plain switch": lambda given: Rival(given, PlainSwitch(), holds=True),
    "fixed cap of 50": lambda given: Rival(given, FixedCap(50)),
    "consistent hashing": lambda given: Rival(given, ConsistentHash()),
    "skip unhealthy": lambda given: Rival(given, RoundRobin(healthy=True), holds=True),
    "additive-multiplicative": lambda given: Rival(given, Additive(_cap(given)), holds=True),
}
"""Each makes a chooser."""
