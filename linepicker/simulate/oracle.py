"""The upper bound: a chooser that sees the hidden truth, and obeys the same caps."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from linepicker.model import OptedOut, Report
from linepicker.simulate.choosers import Answer, Gone, Offer, Setting, Wait
from linepicker.simulate.scenario import DAY, HOUR

__all__ = ["Oracle"]

RETRY: Final = 120.0


class Oracle:
    """Gives each new person the line with the most room below the edge of AT_RISK, as the world will score it within a day, and
    nobody a line without; within `limits.new_per_day` and `limits.new_per_hour`, and with no other pace.

    Who is known keeps their line, unless it is flagged.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting, self._provider = setting, setting.provider
        limits = setting.policy.limits
        caps = ((limits.new_per_day, DAY), (limits.new_per_hour, HOUR))
        self._caps = [(cap, window) for cap, window in caps if cap is not None]
        self._opened: dict[str, deque[float]] = {number: deque() for number in self._provider.lines}
        self._mine: dict[str, str] = {}
        self._gone: set[str] = set()

    def choose(self, to: str) -> Answer:
        """The person's line, or the one with the most room."""
        now, provider = self._setting.clock.moment, self._provider
        if to in self._gone:
            return Gone()
        mine = self._mine.get(to)
        if mine is not None and not provider.flagged(mine, now):
            return Offer(mine, now)
        best, least = None, 1.0
        for line in provider.lines.values():
            if line.joined > now or provider.flagged(line.number, now) or line.level == 2:
                continue
            if not self._within_caps(line.number, now):
                continue
            stress = line.strain.with_one_more(now, provider.lowest_limit(line, now))
            if stress < least:
                best, least = line, stress
        return Wait(now + RETRY) if best is None else Offer(best.number, now)

    def confirm(self, to: str, offer: Offer) -> Answer:
        """Its offers are for now."""
        return offer

    def settle(self, to: str, offer: Offer, *, sent: bool) -> None:
        """Remember whose line it is."""
        if sent and self._mine.get(to) != offer.number:
            self._mine[to] = offer.number
            self._opened[offer.number].append(self._setting.clock.moment)

    def report(self, report: Report) -> None:
        """Write no more to whoever opted out; it knows everything else."""
        if isinstance(report, OptedOut):
            self._gone.add(report.to)

    def budgets(self) -> Mapping[str, int | None]:
        """It has none."""
        return {}

    def close(self) -> None:
        """Nothing."""

    def _within_caps(self, number: str, now: float) -> bool:
        opened = self._opened[number]
        while opened and opened[0] <= now - DAY:
            opened.popleft()
        return all(len(opened) < cap or opened[-cap] <= now - window for cap, window in self._caps)
