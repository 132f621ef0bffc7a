"""What is certain against a line, and all that may speak for it: so much must be known before it may be used again."""

from __future__ import annotations

from typing import Any, Final

import attrs

NEVER: Final = -float("inf")
DRIFT: Final = 300.0
"""How much older than a poll a worse report may be and still count."""
_KEPT: Final = 40


@attrs.define
class Watched:
    """One thing that may be wrong with a line. Only what the store has taken counts against it; whatever reached any process
    may speak for it."""

    polled: float = NEVER
    """The latest poll that showed it."""
    told: float = NEVER
    """The latest report that told of it, and when that was heard."""
    heard: float = NEVER
    since: int = 0
    """By which write it became certain."""
    ats: set[float] = attrs.field(factory=set)
    """The reports that were taken, by the moments they give themselves."""
    polls: list[float] = attrs.field(factory=list)
    reports: list[tuple[float, float]] = attrs.field(factory=list)
    """By the moment each gives itself, and when it counts from at the earliest: a host whose clock is slow takes it for now."""

    def polled_fine(self, at: float) -> None:
        """A list that was asked for then did not show it."""
        self.polls.append(at)
        _shorten(self.polls)

    def told_fine(self, at: float, slowest: float) -> None:
        """A report says that it was not so then. *slowest*: how far the slowest clock is from the right one, below 0."""
        self.reports.append((at, at + slowest))
        _shorten(self.reports)

    def shown(self, at: float, moment: int) -> None:
        """A poll that showed it was written."""
        if at > self.polled:
            self.polled, self.since = at, moment

    def reported(self, at: float, heard: float, moment: int) -> None:
        """A report that told of it was written."""
        self.ats.add(at)
        if min(at, heard) > self.told:
            self.told, self.heard, self.since = min(at, heard), heard, moment

    def brought(self, now: float) -> None:
        """A call wrote what was reported that read the clock then, and was slow: what spoke for the line later may count from
        then on."""
        if any(at > now for at in self.polls):
            self.polls.append(now)

    def certain(self, span: float, slowest: float) -> bool:
        """Whether nothing that is known can have ended it: what spoke for the line must be later, and *span* seconds long.
        *slowest*: how far the slowest clock ever was from the right one, below 0: a poll of another counts from then on it."""
        polled = self.polled + slowest
        after = max(polled, self.told)
        if after == NEVER:
            return False
        since = [pair for pair in self.reports if pair[0] > after]
        ended = min((at for at, _ in self.reports if at > self.told), default=self.told + DRIFT)
        edge = max(polled, min(self.heard, self.told + DRIFT, ended))
        since += [(at, at) for at in self.polls if at > edge]
        return not since or max(at for at, _ in since) - min(at for _, at in since) < span

    def surely_new(self, at: float) -> bool:
        """Whether a report of that moment must be believed: it is later than all that is known."""
        told = (moment for moment, _ in self.reports[-_KEPT:])
        return at > max(self.polled, self.told, *self.polls[-_KEPT:], *told, NEVER)

    def forgiven(self) -> None:
        """The clock stepped back: nothing is certain."""
        self.polled = self.told = self.heard = NEVER


def _shorten(known: list[Any]) -> None:
    if len(known) > 2 * _KEPT:
        del known[1:-_KEPT]
