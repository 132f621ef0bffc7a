"""What was seen of one property of a line (its reputation, or its service status), and what follows from it.

Each value keeps its observations by their own moments, so neither order nor duplicates matter. Polls carry our clock, reports
the provider's, which may be up to `DRIFT` seconds behind: a worse report therefore holds against the polls that were
issued before it was received. Worse counts at once; better when it was seen, and seen again `span` seconds later, since
the last worse one.

A poll that repeats what is known of a line in good standing writes nothing: the fleet remembers its moment for a while, and the
next poll or report that does write takes these moments in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from linepicker._bytes import number

DRIFT: Final = 300.0
"""How far a provider's clock may be behind ours, in seconds, before its report is out of date."""

UNKNOWN: Final = "UNKNOWN"
"""A reputation nobody has a word for: as bad as AT_RISK, and no evidence for anything better."""

BADNESS: Final[Mapping[str, int]] = {
    "HEALTHY": 0,
    "AT_RISK": 1,
    UNKNOWN: 1,
    "CRITICAL": 2,
    "ACTIVE": 0,
    "FLAGGED": 1,
}

WORST: Final = frozenset({"CRITICAL", "FLAGGED"})
"""Whatever was better before one of these no longer matters."""

Reported = tuple[float, float]
"""When it happened by the reporter's clock, and when we heard of it. It counts for the earlier of the two; the first tells it
from others, so that an event from a fast clock is the same one when it comes again."""


def _pruned(moments: Iterable[float], span: float) -> tuple[float, ...]:
    """The latest, those less than *span* before it, and the latest one before these."""
    ordered = sorted(set(moments))
    if not ordered:
        return ()
    edge = ordered[-1] - span
    first = next((i for i, moment in enumerate(ordered) if moment > edge), len(ordered) - 1)
    return tuple(ordered[max(0, first - 1) :])


@attrs.frozen
class Observations:
    """All that need be kept of one property."""

    polls: Mapping[str, tuple[float, ...]] = attrs.field(factory=dict)
    reports: Mapping[str, tuple[Reported, ...]] = attrs.field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"polls": self.polls, "reports": self.reports}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Observations:
        """The inverse of `to_json`. Raises ValueError, TypeError, KeyError or AttributeError on anything else."""
        return cls(
            {str(name): tuple(map(number, ms)) for name, ms in value["polls"].items()},
            {
                str(name): tuple((number(at), number(received)) for at, received in pairs)
                for name, pairs in value["reports"].items()
            },
        )

    @property
    def polled(self) -> tuple[str, float] | None:
        """The value the latest recorded poll saw, and when."""
        latest = [(ms[-1], name) for name, ms in self.polls.items() if ms]
        if not latest:
            return None
        moment, name = max(latest, key=lambda each: (each[0], BADNESS.get(each[1], 0)))
        return name, moment

    @property
    def told(self) -> Mapping[str, tuple[Reported, ...]]:
        """The reports, each with the moment it counts for and when it was heard."""
        return {
            name: tuple((min(at, heard), heard) for at, heard in pairs)
            for name, pairs in self.reports.items()
        }

    def not_after(self, now: float) -> Observations:
        """With moments that only a clock that stepped back can explain, those after *now*, brought to *now*."""
        late = any(ms and ms[-1] > now for ms in self.polls.values())
        if not late and all(heard <= now for pairs in self.reports.values() for _, heard in pairs):
            return self
        return Observations(
            {name: tuple(sorted({min(m, now) for m in ms})) for name, ms in self.polls.items()},
            {
                name: tuple((at, min(heard, now)) for at, heard in pairs)
                for name, pairs in self.reports.items()
            },
        )

    def with_repeats(self, polls: Sequence[float]) -> Mapping[str, tuple[float, ...]]:
        """The polled moments, with those of *polls* that came later and repeated the latest value."""
        last = self.polled
        if last is None or not polls or polls[-1] <= last[1]:
            return self.polls
        name, moment = last
        return {**self.polls, name: (*self.polls[name], *(p for p in polls if p > moment))}

    def add_poll(
        self, value: str, moment: float, *, polls: Sequence[float], span: float, now: float
    ) -> Observations:
        """With *value* as a poll issued at *moment* saw it; *polls*: the other ones that wrote nothing. Moments that only
        a clock that stepped back can explain are brought to *now*, which may be long after a slow poll was issued."""
        known = {
            name: tuple(now if m > now + DRIFT else m for m in moments)
            for name, moments in self.with_repeats(polls).items()
        }
        known[value] = (*known.get(value, ()), moment)
        return Observations(
            {name: _pruned(moments, span) for name, moments in known.items()},
            {
                name: tuple((at, now if heard > now + DRIFT else heard) for at, heard in pairs)
                for name, pairs in self.reports.items()
            },
        )

    def add_report(
        self, value: str, at: float, received: float, *, polls: Sequence[float], span: float
    ) -> Observations | None:
        """With *value* as reported for the moment *at*; None: a duplicate, or out of date."""
        bad, moment = BADNESS[value], min(at, received)
        polled = self.with_repeats(polls)
        for name, moments in polled.items():
            better = BADNESS.get(name, 0) < bad
            if moments and better and moments[-1] > moment + DRIFT:
                return None
            if moments and name in WORST and name != value and moments[-1] >= moment:
                return None
        for name, pairs in self.told.items():
            if name in WORST and name != value and any(other >= moment for other, _ in pairs):
                return None
        known = dict(self.reports.get(value, ()))
        if at in known:
            return None
        known[at] = received
        recent = _pruned(map(min, known.items()), span)
        kept = tuple(sorted(each for each in known.items() if min(each) in recent))
        if kept == self.reports.get(value):
            return None
        pruned = {name: _pruned(moments, span) for name, moments in polled.items()}
        return Observations(pruned, {**self.reports, value: kept})

    def level(self, span: float) -> int:
        """How bad the line is taken to be: 0 good, larger worse."""
        told = self.told
        return next(bad for bad in range(3) if self._established(bad, bad, span, told))

    def recovering(self, span: float) -> bool:
        """Whether it was as bad as can be (2) and has not been good (0) since."""
        return not self._established(0, 1, span, self.told)

    def in_doubt(self, span: float) -> bool:
        """Whether it is worse than good, or was as bad as can be and has not been good since: then each poll that lists the
        line is written, and the fleet's polls say nothing of it."""
        return self.level(span) > 0 or self.recovering(span)

    @property
    def reported(self) -> tuple[str, float] | None:
        """The value the latest report gave, and when that was heard."""
        told = ((at, name, heard) for name, pairs in self.told.items() for at, heard in pairs)
        latest = max(told, default=None)
        return None if latest is None else latest[1:]

    def last(self, value: str) -> float | None:
        """The latest moment *value* was seen, if ever."""
        moments = [*self.polls.get(value, ()), *(at for at, _ in self.told.get(value, ()))]
        return max(moments, default=None)

    def good_since(self) -> float:
        """Since when nothing bad was seen: the first good moment kept after the last bad one; 0 where there is none."""
        bad = [name for name in {*self.polls, *self.reports} if BADNESS.get(name, 0)]
        last = max((self.last(name) or 0.0 for name in bad), default=0.0)
        moments = [m for name, ms in self.polls.items() if name not in bad for m in ms]
        moments += [m for name, ps in self.told.items() if name not in bad for m, _ in ps]
        return min((m for m in moments if m > last), default=last) if bad else 0.0

    def _established(
        self, good: int, bad: int, span: float, told: Mapping[str, tuple[Reported, ...]]
    ) -> bool:
        """Whether values up to badness *good* count, given all that is worse than *bad*."""
        better = [
            at
            for name, pairs in told.items()
            if BADNESS.get(name, 0) <= good and name != UNKNOWN
            for at, _ in pairs
        ]
        after_poll = after_report = float("-inf")
        for name, moments in self.polls.items():
            if BADNESS.get(name, 0) > bad and moments:
                after_poll = max(after_poll, moments[-1])
                after_report = max(after_report, moments[-1])
                if name in WORST:  # a report before it is out of date, should it come only now
                    better = [at for at in better if at > moments[-1]]
        for name, pairs in told.items():
            if BADNESS.get(name, 0) > bad:
                for at, received in pairs:
                    ended = min((other for other in better if other > at), default=at + DRIFT)
                    after_poll = max(after_poll, min(received, at + DRIFT, ended))
                    after_report = max(after_report, at)
        if after_report == float("-inf"):
            return True
        since = [at for at in better if at > after_report]
        for name, moments in self.polls.items():
            if BADNESS.get(name, 0) <= good and name != UNKNOWN:
                since.extend(moment for moment in moments if moment > after_poll)
        return bool(since) and max(since) - min(since) >= span
