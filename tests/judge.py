"""An independent judge of the router: a slow, plain model of what the design promises, and a world that tries to break it.

    python tests/judge.py --reserves 1000000 --seed 0 --processes 2

Every seed is one story of some hundred steps about one random fleet under one random policy. The judge keeps its own log of
what was charged, observed and said, and checks each answer of the router against it; it shares no code with the router. A seed
replays identically: `--seed S --reserves 1` tells the same story again.

Where the design leaves two readings open, the judge takes either. It therefore knows some things only as sets of
possibilities or as intervals (named `…_lo`, `…_hi`), and complains only of what no reading allows. These are open:

- whether polls between the moment of a late bad report and its arrival count as better news after it;
- whether HEALTHY seen before and after an AT_RISK are two confirmations for a line that comes back from CRITICAL;
- whether a poll of unknown reputation, once over, has to be outlived by confirmed HEALTHY ones;
- whether a list without service status, read after ACTIVE was reported, confirms it;
- which exclusion is named (and decides about a move) where a line has several;
- whether a new conversation that is to leave after a sending day's end belongs to that day or opens the next, whether a sending
  day stays begun when its first conversation is given back, and whether the day that runs at the return from CRITICAL is the
  first one of the ramp;
- which settlements beside SENT of the probe itself end a probation, and how long an unsettled probe holds the line;
- whether a reply that nobody needed to end an opt-out outranks an older opt-out that arrives later;
- whether giving back the only reservation since a move, or since a person wrote first, undoes that assignment too;
- whether the pair's limit follows a recipient to another line, and whether a message given back more than a minute later, or
  when its recipient was forgotten, leaves the count of the day;
- whether somebody who opted out is told so, or StaleHealth, while the health data is stale;
- what conversations cost in pace: an unused slot between now and `send_at` may or may not be lost to others.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import math
import random
import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing import Pool
from typing import Any

import attrs

from linepicker import (
    Blocked,
    Decision,
    Held,
    Line,
    LineAssigned,
    LineChanged,
    LinePickerError,
    LineReleased,
    NoLine,
    NotNow,
    OptedIn,
    OptedOut,
    Outcome,
    Policy,
    Replied,
    Reservation,
    Router,
    SourceError,
    StaleHealth,
)
from linepicker.testing import ManualClock

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
WINDOWS = (("day_budget", DAY), ("hour_budget", HOUR), ("spread", 6 * HOUR))
DRIFT = 300.0  # how far a provider's clock may be behind
BUCKET = 300.0  # how late a message may leave the count of the day
LEASE = 600.0  # how long the library lets an unsettled probe hold a line; the design says only "unsettled"
EPS = 1e-4  # seconds; moments are doubles around 1.7e9
INF = math.inf
BADNESS = {"HEALTHY": 0, "AT_RISK": 1, "UNKNOWN": 1, "CRITICAL": 2, "ACTIVE": 0, "FLAGGED": 1}
ROOM = {"day_budget", "hour_budget", "spread", "messages", "moves", "pair", "pace"}
CODES = ROOM | {
    "not_in_fleet",
    "paused",
    "draining",
    "flagged",
    "ineligible",
    "critical",
    "recovering",
    "line_type",
    "tag",
    "excluded",
    "stale",
    "quiet",
    "opted_out",
    "blocked",
}
BOTH = frozenset({False, True})


class Violation(Exception):
    """The router did what no reading of the design allows."""


def must(holds: object, *what: object) -> None:
    """Complain unless it holds."""
    if not holds:
        raise Violation(" ".join(map(str, what)))


# What was observed of a line


@attrs.define
class Observed:
    """Everything ever seen of one property of a line: polls (when, value), reports (when, received, value)."""

    polls: list[tuple[float, str]] = attrs.field(factory=list)
    reports: list[tuple[float, float, str]] = attrs.field(factory=list)
    stamps: set[tuple[float, str]] = attrs.field(factory=set)
    """The reports taken, by the moment they give themselves, which may be in the future."""
    listings: list[float] = attrs.field(factory=list)
    """Polls that list the line and say nothing of this property."""

    def established(self, good: int, bad: int, span: float, *, strict: bool) -> bool:
        """Whether values up to badness *good* count, since the last one worse than *bad*."""
        polls = self.polls if strict else [(p, v) for p, v in self.polls if v != "UNKNOWN"]
        better = [at for at, _, v in self.reports if BADNESS[v] <= good]
        after_poll = after_report = -INF
        for p, v in polls:
            if BADNESS[v] > bad:
                after_poll, after_report = max(after_poll, p), max(after_report, p)
        for at, received, v in self.reports:
            if BADNESS[v] > bad:
                ended = min((other for other in better if other > at), default=INF)
                after_poll = max(
                    after_poll, received if strict else min(received, at + DRIFT, ended)
                )
                after_report = max(after_report, at)
        if after_report == -INF:
            return True
        seen = [at for at in better if at > after_report]
        seen += [p for p, v in polls if BADNESS[v] <= good and v != "UNKNOWN" and p > after_poll]
        return bool(seen) and max(seen) - min(seen) >= span

    def levels(self, span: float) -> tuple[int, int]:
        """How bad it is at least and at most: 0 to 2."""
        lenient = next(b for b in range(3) if self.established(b, b, span, strict=False))
        if self.polls and self.polls[-1][1] == "UNKNOWN":
            lenient = max(lenient, 1)
        strict = next(b for b in range(3) if self.established(b, b, span, strict=True))
        return min(lenient, strict), max(lenient, strict)

    def recovering(self, span: float) -> frozenset[bool]:
        """Whether it was CRITICAL and has not been HEALTHY since."""
        return frozenset({not self.established(0, 1, span, strict=False), not self._unbroken(span)})

    def _unbroken(self, span: float) -> bool:
        """HEALTHY was confirmed without anything between, since the last CRITICAL."""
        worst = [p for p, v in self.polls if v == "CRITICAL"]
        worst += [received for _, received, v in self.reports if v == "CRITICAL"]
        if not worst:
            return True
        seen = [(p, BADNESS[v]) for p, v in self.polls]
        seen += [(at, BADNESS[v]) for at, _, v in self.reports]
        start: float | None = None
        for at, bad in sorted(seen):
            if at <= max(worst) or bad:
                start = None
            else:
                start = at if start is None else start
                if at - start >= span:
                    return True
        return False

    def silent(self, span: float) -> frozenset[bool]:
        """Whether it is bad, for a property that lists may not show."""
        low, high = self.levels(span)
        found = {low > 0, high > 0}
        if not self.polls and self.reports:
            at, _, value = max(self.reports, key=lambda each: (each[0], BADNESS[each[2]]))
            repeated = Observed([(p, value) for p in self.listings if p > at], self.reports)
            found.add(repeated.levels(span)[0] > 0)
        return frozenset(found)

    def latest(self, value: str) -> float:
        """When it was last seen so."""
        moments = [p for p, v in self.polls if v == value]
        return max([*moments, *(at for at, _, v in self.reports if v == value)], default=-INF)


# What was spent on a line


@attrs.define(eq=False)
class Charge:
    """A reservation as the judge logged it."""

    number: str
    kind: str
    at: float
    made: float
    gap: float  # the smallest that may have been in force, and the most that a burst may have been ahead
    ahead: float
    message_gap: float
    message_ahead: float
    live: bool = True
    counted_lo: bool = True  # as a message of the day
    counted_hi: bool = True
    settled: Outcome | None = None
    new_assignment: bool = False
    person: str = ""
    life: int = 0
    probe: frozenset[bool] = frozenset({False})


@attrs.frozen
class Days:
    """One reading of a line's sending days: how many were begun, when the last one was, and from which the ramp counts.

    `ramp`: None without a ramp, 0 while its first day has not begun.
    """

    count: int = 0
    start: float = -INF
    ramp: int | None = None

    def at(self, now: float) -> tuple[int, int]:
        """The number of the sending day at *now*, and the ramp's exponent."""
        number = self.count if self.runs(now) else self.count + 1
        return number, max(0, number - self.ramp) if self.ramp else 0

    def runs(self, now: float) -> bool:
        """Whether the last one begun has not ended."""
        return self.start + DAY > now


@attrs.define
class Mark:
    """What is known of a GCRA mark."""

    lo: float = 0.0
    hi: float = 0.0


@attrs.define(eq=False)
class Track:
    """All the judge knows of one line."""

    number: str
    line: Line
    warm: bool
    listed: bool = True
    reputation: Observed = attrs.field(factory=Observed)
    status: Observed = attrs.field(factory=Observed)
    operator: str = ""
    released: float = -INF
    out: tuple[float, float] = (0.0, 0.0)
    refused_at: float = -INF
    probation: frozenset[bool] = frozenset({False})
    charges: list[Charge] = attrs.field(factory=list)
    replies: list[float] = attrs.field(factory=list)
    days: set[Days] = attrs.field(factory=lambda: {Days()})
    critical_at: float = -INF
    new_mark: Mark = attrs.field(factory=Mark)
    message_mark: Mark = attrs.field(factory=Mark)
    pace_since: int = 0
    concluded: tuple[tuple[int, int], frozenset[bool], frozenset[bool]] | None = None


@attrs.define
class Person:
    """All the judge knows of one recipient."""

    key: str
    group: bool
    number: str | None = None
    made: int = 0
    life: int = 0  # how often their record began anew
    opener: Charge | None = None
    charges: list[Charge] = attrs.field(factory=list)
    waits: dict[str, float] = attrs.field(factory=dict)
    shuts: list[float] = attrs.field(factory=list)
    opens_all: list[float] = attrs.field(factory=list)
    opens_needed: list[float] = attrs.field(factory=list)

    def blocked(self) -> frozenset[bool]:
        """Whether they opted out or are blocked. On a tie, yes."""
        if self.group or not self.shuts:
            return frozenset({False})
        last = max(self.shuts)
        return frozenset(
            last >= max(opens, default=-INF) for opens in (self.opens_all, self.opens_needed)
        )


@attrs.frozen
class Caps:
    """One reading of what a line may open now. None: no limit."""

    day: float
    hour: float
    spread: float
    risk: bool

    def of(self, code: str) -> float:
        """The limit behind a code."""
        return {"day_budget": self.day, "hour_budget": self.hour, "spread": self.spread}[code]


@attrs.define
class Look:
    """A line as one request may find it. `bars` and `known_bars` hold the codes it may be excluded by, "" if it may not be."""

    track: Track
    bars: frozenset[str]
    known_bars: frozenset[str]
    caps: list[Caps]
    used: dict[str, int]
    messages: tuple[int, int]
    room_codes: frozenset[str]
    slot_lo: float
    slot_hi: float
    message_lo: float
    message_hi: float
    score_lo: float
    score_hi: float

    @property
    def risks(self) -> frozenset[bool]:
        """Whether it counts as AT_RISK."""
        return frozenset(each.risk for each in self.caps)

    def __str__(self) -> str:
        shown = ("bars", "caps", "used", "messages", "slot_lo", "slot_hi", "score_lo", "score_hi")
        facts = ", ".join(f"{name}={getattr(self, name)}" for name in shown)
        return f"{self.track.number}: {facts}"


@attrs.frozen
class Ask:
    """The arguments of one reserve."""

    person: str
    to: str | tuple[str, ...]
    line_type: str | None = None
    tags: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    line: str | None = None
    max_delay: float | None = None
    inbound: bool = False
    key: str | None = None
    override_optout: bool = False

    def arguments(self) -> dict[str, Any]:
        """As `reserve` takes them."""
        return {
            name: value
            for name in attrs.fields_dict(Ask)
            if name not in ("person", "to") and (value := getattr(self, name)) is not None
        }


class Judge:
    """The log and the checks."""

    def __init__(self, policy: Policy, *, static: bool, exact: bool) -> None:
        self.policy = policy
        self.static = static
        self.slack = 0.0 if exact else EPS
        self.tracks: dict[str, Track] = {}
        self.people: dict[str, Person] = {}
        self.keys: dict[str, tuple[Ask, float, Reservation, Charge]] = {}
        self.polled_at: float | None = None
        self.suspect: frozenset[str] | None = None
        self.last_try_good = False

    # What it is told

    def poll(self, issued: float, lines: list[Line] | None) -> None:
        """The source was read. A list that is empty or lost more than half counts when a second one says the same."""
        self.last_try_good = False
        if lines is None:
            return
        numbers = frozenset(line.number for line in lines)
        fleet = self.fleet()
        shrunk = not numbers or 2 * len(numbers & fleet.keys()) < len(fleet)
        if shrunk and self.suspect != numbers:
            self.suspect = numbers
            return
        self.suspect = None
        first = not self.tracks
        for track in self.tracks.values():
            track.listed = track.number in numbers
        for line in lines:
            if line.number not in self.tracks:
                warm = first and self.policy.warmup.trust_first_snapshot
                self.tracks[line.number] = Track(line.number, line, warm)
            track = self.tracks[line.number]
            track.line, track.listed, track.concluded = line, True, None
            value = "UNKNOWN" if line.unrecognised is not None else str(line.reputation)
            track.reputation.polls.append((issued, value))
            if value == "CRITICAL":
                self._critical(track, issued)
            if line.status is None:
                track.status.listings.append(issued)
            else:
                track.status.polls.append((issued, str(line.status)))
            if issued > track.released:
                track.released = -INF
        self.polled_at, self.last_try_good = issued, True

    def _critical(self, track: Track, at: float) -> None:
        if at > track.critical_at:
            track.critical_at = at
            track.days = {attrs.evolve(each, ramp=0) for each in track.days}

    def report_line(self, report: LineChanged, now: float, answer: bool) -> None:
        """A line's reputation or status was reported, and the router answered so."""
        track = self.fleet().get(report.number)
        if track is None:
            must(not answer, "a report about a line not in the fleet was taken:", report)
            return
        value = str(report.reputation or report.status)
        log = track.reputation if report.reputation else track.status
        at = min(report.at, now)
        span, bad = self.span, BADNESS[value]
        polls = log.polls
        duplicate = (report.at, value) in log.stamps
        outdated = any(BADNESS[v] < bad and p > at + DRIFT for p, v in polls)
        later = any(p >= at for p, v in polls if BADNESS[v] >= bad) or any(
            other >= at for other, _, v in log.reports if BADNESS[v] >= bad
        )
        silent = any(p > at + DRIFT for p in log.listings)
        worse = bad > log.levels(span)[1] and not (duplicate or outdated or later or silent)
        moments = [p for p, _ in polls] + [other for other, _, _ in log.reports]
        newest = not duplicate and at > max([*moments, *log.listings], default=-INF)
        if answer:
            plainly = outdated and BADNESS[polls[-1][1]] < bad  # the last word has to be kept
            must(not plainly, "a report that is out of date was taken:", report, "at", now)
            must(not duplicate or later, "a duplicate was taken:", report)
        else:
            must(not worse, "a worse report was not taken:", report, "at", now)
            must(not newest, "the newest report was not taken:", report, "at", now)
            return
        if not duplicate:
            log.reports.append((at, now, value))
            log.stamps.add((report.at, value))
        track.concluded = None
        if value == "CRITICAL":
            self._critical(track, at)

    def fleet(self) -> dict[str, Track]:
        """The lines last listed."""
        return {number: track for number, track in self.tracks.items() if track.listed}

    @property
    def span(self) -> float:
        """How long a better value must have been seen."""
        return (self.policy.recovery.confirmations - 1) * self.policy.health.ttl

    def freshness(self, now: float) -> str:
        """How far the list may be trusted: fresh, slow or stale."""
        if self.polled_at is None:
            return "stale"
        if self.static:
            return "fresh"
        age, health = now - self.polled_at, self.policy.health
        if age > health.max_age_hard or (age > health.max_age and health.on_stale == "refuse"):
            return "stale"
        return "slow" if age > health.max_age else "fresh"

    def reload(self, policy: Policy, now: float) -> None:
        """Another policy is in force. Marks too far ahead for it may look as if a clock had stepped back."""
        self.policy, pace = policy, policy.pace
        for track in self.tracks.values():
            for mark, gap, burst in (
                (track.new_mark, pace.new_gap, pace.new_burst),
                (track.message_mark, pace.message_gap, pace.message_burst),
            ):
                if mark.hi > now + gap * burst + pace.max_delay:
                    mark.lo = min(mark.lo, now + gap * burst)
            track.pace_since = len(track.charges)
            track.concluded = None

    # What follows for a line

    def concluded(self, track: Track) -> tuple[tuple[int, int], frozenset[bool], frozenset[bool]]:
        """How bad its reputation is, whether it is recovering, whether it is flagged."""
        if track.concluded is None:
            track.concluded = (
                track.reputation.levels(self.span),
                track.reputation.recovering(self.span),
                track.status.silent(self.span),
            )
        return track.concluded

    def bars(self, track: Track, now: float, *, new: bool) -> frozenset[str]:
        """The codes a line may be excluded by; "" among them if it may be open."""
        (low, high), recovering, flagged = self.concluded(track)
        codes: set[str] = set()
        sure = False
        if track.released > -INF or not track.listed:
            codes.add("not_in_fleet")
            sure = True
        if track.operator == "paused" or (track.operator == "draining" and new):
            codes.add(track.operator)
            sure = True
        for possible, code in ((flagged, "flagged"), (self.ineligible(track, now), "ineligible")):
            if True in possible:
                codes.add(code)
                sure = sure or False not in possible
        if high == 2 or True in recovering:
            codes |= {"critical", "recovering"}
            sure = sure or low == 2 or False not in recovering
        return frozenset(codes if sure else codes | {""})

    def ineligible(self, track: Track, now: float) -> frozenset[bool]:
        """Whether it is out for having refused, or holds its one probe."""
        if track.out[0] > now:
            return frozenset({True})
        found = {False, track.out[1] > now}
        if True in track.probation:
            probes = [c for c in track.charges if True in c.probe and c.settled is None]
            held = any(c.at + LEASE > now and False not in c.probe for c in probes)
            if held and False not in track.probation:
                return frozenset({True})
            if probes:
                found = {False, True}
        return frozenset(found)

    def limits(self, line: Line) -> dict[str, float]:
        """The line's own, else the smallest of its tags', else the policy's."""
        found = {}
        for name in attrs.fields_dict(type(self.policy.limits)):
            values = [getattr(self.policy.limits, name)]
            tagged = [
                self.policy.tag[tag].limits[name]
                for tag in line.tags
                if tag in self.policy.tag and name in self.policy.tag[tag].limits
            ]
            if tagged:
                values = tagged
            own = self.policy.line.get(line.number)
            if own is not None and name in own.limits:
                values = [own.limits[name]]
            found[name] = min(INF if value is None else value for value in values)
        return found

    def caps(self, track: Track, now: float, *, slow: bool) -> list[Caps]:
        """Every reading of the limits for new conversations at *now*."""
        policy, limits = self.policy, self.limits(track.line)
        low, high = self.concluded(track)[0]
        found: set[Caps] = set()
        for days, risk in itertools.product(track.days, {slow or low > 0, slow or high > 0}):
            number, exponent = days.at(now)
            warm = policy.warmup.start * policy.warmup.factor ** min(number - 1, 60)
            cap = INF if track.warm else warm
            scale = policy.at_risk.budget if risk else 1.0
            if days.ramp is not None:
                scale *= min(1.0, policy.recovery.share * policy.warmup.factor ** min(exponent, 60))
            for nudge in (-1e-9, 1e-9):
                day, hour = (
                    INF if limit == INF else max(1, math.floor(limit * scale + nudge))
                    for limit in (
                        min(cap, limits["new_per_day"]),
                        INF if limits["new_per_hour"] == INF else min(cap, limits["new_per_hour"]),
                    )
                )
                spread = INF
                if policy.pace.spread is not None and policy.pace.new_gap and day != INF:
                    spread = math.ceil(policy.pace.spread * day - nudge)
                found.add(Caps(day, hour, spread, risk))
        return list(found)

    def slots(
        self, mark: Mark, now: float, gap: float, burst: int, risks: Iterable[bool], reach: float
    ) -> tuple[float, float]:
        """The earliest and the latest moment that the next slot may be."""
        lo, hi = INF, now
        for wide, many in (self.paces(gap, burst, risk) for risk in risks):
            low = mark.lo
            if mark.hi > now + wide * many + reach:
                low = min(low, now + wide * many)
            lo = min(lo, max(now, low - wide * (many - 1)))
            hi = max(hi, mark.hi - wide * (many - 1) if wide else now)
        return (now if gap == 0 else lo), hi

    def paces(self, gap: float, burst: int, risk: bool) -> tuple[float, int]:
        """Gap and burst, AT_RISK or not."""
        share = self.policy.at_risk.pace if risk else 1.0
        return gap / share, max(1, math.floor(burst * share + 1e-9))

    def look(self, track: Track, now: float, area: str | None = None) -> Look:
        """Everything at once."""
        policy = self.policy
        slow = self.freshness(now) == "slow"
        caps = self.caps(track, now, slow=slow)
        risks = {each.risk for each in caps}
        used = {
            code: sum(c.live and c.kind != "known" and c.at + window > now for c in track.charges)
            for code, window in WINDOWS
        }
        messages = self.messages(track, now)
        limit = self.limits(track.line)["messages_per_day"]
        room = {code for code, _ in WINDOWS for each in caps if used[code] >= each.of(code)}
        if messages[1] >= limit:
            room.add("messages")
        pace, reach = policy.pace, policy.pace.max_delay
        new = self.slots(track.new_mark, now, pace.new_gap, pace.new_burst, risks, reach)
        message = self.slots(
            track.message_mark, now, pace.message_gap, pace.message_burst, risks, reach
        )
        likeness = 1.0
        if area is not None and track.line.number[2:5] != area:
            likeness = policy.affinity.area_code
        scores = []
        for each in caps:
            shares = [
                (each.of(code) - used[code]) / each.of(code)
                for code, _ in WINDOWS
                if each.of(code) != INF
            ]
            tier = policy.at_risk.weight if each.risk else 1.0
            scores.append(track.line.weight * tier * likeness * min(shares, default=1.0))
        return Look(
            track,
            self.bars(track, now, new=True),
            self.bars(track, now, new=False),
            caps,
            used,
            messages,
            frozenset(room),
            max(new[0], message[0]),
            max(new[1], message[1]),
            message[0],
            message[1],
            min(scores),
            max(scores),
        )

    def messages(self, track: Track, now: float) -> tuple[int, int]:
        """The messages of the day, at least and at most."""
        replies_lo = sum(at + DAY > now for at in track.replies)
        replies_hi = sum(at + DAY + BUCKET > now for at in track.replies)
        return (
            replies_lo + sum(c.counted_lo and c.at + DAY > now for c in track.charges),
            replies_hi + sum(c.counted_hi and c.at + DAY + BUCKET > now for c in track.charges),
        )

    # Judging one reserve

    def person(self, key: str, *, group: bool) -> Person:
        """A recipient, met or not."""
        return self.people.setdefault(key, Person(key, group))

    def refusal(self, ask: Ask, error: LinePickerError, now: float) -> None:
        """It was refused: was there a reason?"""
        decision: Decision = error.decision  # type: ignore[attr-defined]  # every refusal has one
        person = self.person(ask.person, group=isinstance(ask.to, tuple))
        outcome = {
            Blocked: "blocked",
            StaleHealth: "stale",
            Held: "held",
            NotNow: "not_now",
            NoLine: "no_line",
        }[type(error)]
        must(decision.outcome == outcome, "the decision says", decision.outcome, "of", outcome)
        for handle in (ask.to,) if isinstance(ask.to, str) else ask.to:
            must(handle not in str(error), "the refusal shows the handle")
        kept = None if ask.key is None else self._kept(ask, now)
        if kept is not None:
            self._key_refused(ask, person, kept[3].number, error, now)
            return
        blocked = person.blocked() if not ask.override_optout else frozenset({False})
        if isinstance(error, Blocked):
            must(True in blocked, "Blocked without an opt-out")
            must(decision.reason in ("opted_out", "blocked"), "Blocked for", decision.reason)
            return
        retry_at: float = error.retry_at  # type: ignore[attr-defined]  # all others have one
        must(retry_at > now, "retry_at is not later than now:", retry_at - now, error)
        stale = self.freshness(now) == "stale"
        if isinstance(error, StaleHealth):
            must(stale, "StaleHealth, but the list is", now - (self.polled_at or 0), "s old")
            return
        must(False in blocked, "an opt-out was not what it was refused for:", error)
        must(not stale, "stale health was not what it was refused for:", error)
        must(decision.reason in CODES, "unknown reason", decision.reason)
        self._all_told(decision)
        delay = self.policy.pace.max_delay if ask.max_delay is None else ask.max_delay
        if person.number is not None:
            self._known_refused(ask, person, error, now, delay)
        elif ask.inbound:
            must(ask.line is not None, "refused what has to be a ValueError")
            self._first_refused(ask, person, error, now, delay)
        elif ask.line is not None:
            self._pinned_refused(ask, person, error, now, delay)
        else:
            must(isinstance(error, NoLine), "a new recipient was refused by", type(error).__name__)
            self._nobody(ask, person, now, delay, error)

    def _key_refused(
        self, ask: Ask, person: Person, number: str, error: LinePickerError, now: float
    ) -> None:
        """Only a gate that forbids the send may come between a key and its reservation."""
        track = self.fleet().get(number)
        must(
            person.number != number
            or ask.line not in (None, number)
            or number in ask.exclude
            or track is None
            or self.bars(track, now, new=False) != {""}
            or self.freshness(now) == "stale"
            or True in person.blocked(),
            "a key's reservation was not given again:",
            error,
        )

    def _all_told(self, decision: Decision) -> None:
        numbers = [each.number for each in decision.candidates]
        must(len(set(numbers)) == len(numbers), "a candidate is told twice")
        must(set(numbers) == self.fleet().keys(), "not every line is a candidate, or one too many")
        for each in decision.candidates:
            must(each.excluded is None or each.excluded in CODES, "unknown code", each.excluded)
            if decision.outcome == "no_line":
                must(each.excluded is not None, "NoLine, but a candidate could be chosen")

    def _known_refused(
        self, ask: Ask, person: Person, error: LinePickerError, now: float, delay: float
    ) -> None:
        number = person.number
        assert number is not None
        reason = error.decision.reason  # type: ignore[attr-defined]
        must(isinstance(error, Held | NotNow), "a known recipient was refused by", error)
        if ask.line not in (None, number) or number in ask.exclude:
            must(isinstance(error, Held), "another line than theirs is to be Held, not", error)
            return
        track = self.tracks.get(number)
        bars = frozenset({"not_in_fleet"})
        if track is not None and track.listed:
            bars = self.bars(track, now, new=False)
        if isinstance(error, NotNow):
            must("" in bars, "NotNow on a line that is excluded:", bars)
            assert track is not None
            self._message_refused(track, person, reason, now, delay)
            return
        must(bars != {""}, "Held, but the line is open:", error)
        must(reason in bars, "Held for", reason, "where it may be", set(bars))
        if ask.line is None and self._mode(reason) == "move":
            self._nobody(ask, person, now, delay, error, leaving=number)

    def _first_refused(
        self, ask: Ask, person: Person, error: LinePickerError, now: float, delay: float
    ) -> None:
        assert ask.line is not None
        track = self.fleet().get(ask.line)
        if track is None or ask.line in ask.exclude:
            must(isinstance(error, Held), "is to be Held, not", error)
            return
        bars = self.bars(track, now, new=False) | self.bars(track, now, new=True)
        if isinstance(error, Held):
            must(bars != {""}, "Held, but the line is open:", error)
        else:
            must(isinstance(error, NotNow) and "" in bars, "wrongly refused:", error, bars)
            self._message_refused(track, person, error.decision.reason, now, delay)  # type: ignore[attr-defined]

    def _message_refused(
        self, track: Track, person: Person, reason: str, now: float, delay: float
    ) -> None:
        limits = self.limits(track.line)
        if reason == "messages":
            count = self.messages(track, now)[1]
            must(count >= limits["messages_per_day"], "refused for messages, but only", count)
        elif reason == "pair":
            count = self.pair(person, track.number, now)[1]
            waits = max(person.waits.values(), default=0.0)
            must(
                count >= limits["pair_per_minute"] or waits > now,
                f"refused for the pair, but only {count} in the minute and no wait",
            )
        else:
            must(reason == "pace", "NotNow for", reason)
            hi = self.look(track, now).message_hi
            must(hi > now + delay - EPS, "refused for pace, but a slot is", hi - now, "s away")

    def _pinned_refused(
        self, ask: Ask, person: Person, error: LinePickerError, now: float, delay: float
    ) -> None:
        assert ask.line is not None
        track = self.fleet().get(ask.line)
        reason = error.decision.reason  # type: ignore[attr-defined]
        if track is None:
            must(isinstance(error, Held) and reason == "not_in_fleet", "is to be Held, not", error)
            return
        look = self.look(track, now)
        if isinstance(error, Held):
            must(look.bars != {""} or self._ruled_out(ask, track), "Held, but it is open:", error)
            return
        must(isinstance(error, NotNow), "a pinned recipient was refused by", type(error).__name__)
        must("" in look.bars and not self._ruled_out(ask, track), "is to be Held, not", error)
        must(
            look.room_codes or look.slot_hi > now + delay - EPS,
            "refused for",
            reason,
            "but there is room:",
            look,
        )

    def _nobody(
        self,
        ask: Ask,
        person: Person,
        now: float,
        delay: float,
        error: LinePickerError,
        leaving: str | None = None,
    ) -> None:
        for look in self._open(ask, now, delay, leaving):
            must(False, "refused, but there is a line:", error, look)

    def _open(self, ask: Ask, now: float, delay: float, leaving: str | None) -> Iterator[Look]:
        """The lines that are open to this request in every reading."""
        area = self._area(ask)
        for track in self.fleet().values():
            if track.number == leaving or self._ruled_out(ask, track):
                continue
            if (
                leaving is not None
                and self._moves(track, now) >= self.limits(track.line)["moves_per_day"]
            ):
                continue
            look = self.look(track, now, area)
            late = look.slot_hi > now + delay - self.slack
            if self.slack == 0.0:
                late = look.slot_hi - delay > now
            if look.bars == {""} and not look.room_codes and not late:
                yield look

    def _area(self, ask: Ask) -> str | None:
        if isinstance(ask.to, str) and ask.to.startswith("+1") and len(ask.to) == 12:
            return ask.to[2:5]
        return None

    def _mode(self, code: str) -> str:
        how = self.policy.stickiness
        return {
            "critical": how.on_critical,
            "recovering": how.on_critical,
            "flagged": how.on_flagged,
            "ineligible": how.on_flagged,
            "not_in_fleet": how.on_released,
        }.get(code, "hold")

    def _ruled_out(self, ask: Ask, track: Track) -> bool:
        kind = (track.line.line_type or "iMessage").lower()
        return (
            (ask.line_type is not None and ask.line_type.lower() != kind)
            or not ask.tags <= track.line.tags
            or track.number in ask.exclude
        )

    def _moves(self, track: Track, now: float) -> int:
        return sum(c.live and c.kind == "moved" and c.at + DAY > now for c in track.charges)

    def pair(self, person: Person, number: str, now: float) -> tuple[int, int]:
        """The pair's messages of the minute, at least and at most."""
        recent = [c for c in person.charges if c.at + MINUTE > now]
        return (
            sum(c.live and c.number == number for c in recent),
            sum(c.counted_hi for c in recent),
        )

    def _kept(self, ask: Ask, now: float) -> tuple[Ask, float, Reservation, Charge] | None:
        """What a key stands for."""
        assert ask.key is not None
        kept = self.keys.get(ask.key)
        if kept is None or now >= kept[1] + DAY:
            return None
        gone = (Outcome.NOT_SENT, Outcome.LINE_REFUSED, Outcome.RECIPIENT_REFUSED)
        return None if kept[3].settled in gone else kept

    def granted(self, ask: Ask, made: Reservation, now: float) -> Charge:
        """It was granted: might it be, and was it the best?"""
        if ask.key is not None and (kept := self._kept(ask, now)) is not None:
            must(kept[0].person == ask.person, "a key served two recipients")
            same = made.id == kept[2].id and made.number == kept[2].number
            must(same, "the key's second reservation is another one")
            return kept[3]
        person = self.person(ask.person, group=isinstance(ask.to, tuple))
        must(ask.override_optout or False in person.blocked(), "granted to somebody who opted out")
        must(self.freshness(now) != "stale", "granted on stale health")
        delay = self.policy.pace.max_delay if ask.max_delay is None else ask.max_delay
        must(made.number == made.line.number == made.decision.number, "two numbers in one answer")
        must(
            made.decision.outcome == "reserved" and made.outcome is None, "not a fresh reservation"
        )
        must(made.send_at >= now, "send_at has passed", made.send_at - now)
        must(abs(made.delay - (made.send_at - now)) < 1e-6, "delay is not send_at - now")
        must(made.send_at - delay <= now + self.slack, "later than max_delay:", made.delay, delay)
        track = self.fleet().get(made.number)
        must(track is not None, "granted on a line not in the fleet")
        assert track is not None
        look = self.look(track, now, self._area(ask))
        was = person.number
        if made.kind == "new":
            must(was is None and not ask.inbound, "a known recipient was taken for new")
            must(ask.line in (None, made.number), "the pinned line was not taken")
            self._may_open(ask, look, made, now, delay, None)
        elif made.kind == "moved":
            self._may_move(ask, person, look, made, now, delay)
        else:
            must(made.kind == "known", "kind is", made.kind)
            must(was is not None or ask.inbound, "a new recipient was taken for known")
            number = was or ask.line
            must(made.number == number, "not their line:", made.number, "is not", number)
            must(ask.line in (None, number) and number not in ask.exclude, "is to be Held")
            self._may_send(person, look, made, now)
        if made.kind != "moved":
            must(made.moved_from is None, "moved_from on a", made.kind)
        must(made.decision.candidates, "no candidate told")
        must(made.decision.candidates[0].number == made.number, "the first candidate is another")
        return self._charge(ask, person, look, made, now)

    def _may_send(self, person: Person, look: Look, made: Reservation, now: float) -> None:
        must("" in look.known_bars, "granted on a line that is", set(look.known_bars))
        limits = self.limits(look.track.line)
        must(look.messages[0] < limits["messages_per_day"], "too many messages", look.messages)
        pair = self.pair(person, made.number, now)
        must(pair[0] < limits["pair_per_minute"], "too many messages of the pair:", pair[0] + 1)
        waits = person.waits.get(made.number, 0.0)
        must(waits <= now, "the pair had to wait another", waits - now, "s")
        must(made.send_at >= look.message_lo - EPS, "sooner than the pace of messages allows")
        must(made.send_at <= look.message_hi + EPS, "later than the pace of messages asks for")

    def _may_move(
        self, ask: Ask, person: Person, look: Look, made: Reservation, now: float, delay: float
    ) -> None:
        was = person.number
        must(was is not None and made.moved_from == was, "moved_from is not their line")
        assert was is not None
        must(ask.line is None and was not in ask.exclude, "moved, but is to be Held")
        track = self.tracks.get(was)
        bars = frozenset({"not_in_fleet"})
        if track is not None and track.listed:
            bars = self.bars(track, now, new=False)
        must(any(self._mode(code) == "move" for code in bars if code), "moved silently:", set(bars))
        must(made.number != was, "moved to the same line")
        limit = self.limits(look.track.line)["moves_per_day"]
        must(self._moves(look.track, now) < limit, "too many moves to one line")
        self._may_open(ask, look, made, now, delay, was)

    def _may_open(
        self,
        ask: Ask,
        look: Look,
        made: Reservation,
        now: float,
        delay: float,
        leaving: str | None,
    ) -> None:
        """A new conversation (or a move) on this line: allowed, in the budgets, paced, and the best choice?"""
        track = look.track
        must("" in look.bars, "opened on a line that is", set(look.bars))
        must(not self._ruled_out(ask, track), "opened on a line the call ruled out")
        caps = look.caps + self.caps(track, made.send_at, slow=any(c.risk for c in look.caps))
        must(
            any(all(look.used[code] < each.of(code) for code, _ in WINDOWS) for each in caps),
            f"overspent: {look.used} were used of {caps}",
        )
        limit = self.limits(track.line)["messages_per_day"]
        must(look.messages[0] < limit, "too many messages:", look.messages[0] + 1)
        must(made.send_at >= look.slot_lo - EPS, "sooner than the pace allows")
        must(made.send_at <= look.slot_hi + EPS, "later than the pace asks for", look, made.send_at)
        if ask.line is not None:
            return
        free = made.send_at <= now
        for other in self._open(ask, now, delay, leaving):
            if other.track is track:
                continue
            if self.policy.prefer == "healthiest" and other.risks != look.risks:
                must(
                    False in look.risks or True in other.risks,
                    f"AT_RISK {track.number}, but {other.track.number} is HEALTHY and has room",
                )
                continue
            if self.policy.prefer == "healthiest" and len(look.risks) == 2:
                continue
            other_free = other.slot_hi <= now - self.slack
            if self.slack and other.slot_hi == now:
                other_free = False  # rounding may have made it later
            if not free:
                must(not other_free, "a line that is free now was passed over for a later one")
                must(made.send_at < other.slot_hi + 1 + EPS, "an earlier slot was passed over")
            elif other_free and not self.policy.learn.enabled:
                must(
                    look.score_hi >= other.score_lo * (1 - 1e-9),
                    f"{track.number} scores {look.score_hi}, but {other.track.number} scores {other.score_lo}",
                )

    def _charge(
        self, ask: Ask, person: Person, look: Look, made: Reservation, now: float
    ) -> Charge:
        track, pace = look.track, self.policy.pace
        new = [self.paces(pace.new_gap, pace.new_burst, risk) for risk in look.risks]
        texts = [self.paces(pace.message_gap, pace.message_burst, risk) for risk in look.risks]
        charge = Charge(
            made.number,
            made.kind,
            made.send_at,
            now,
            min(gap for gap, _ in new),
            max(gap * (burst - 1) for gap, burst in new),
            min(gap for gap, _ in texts),
            max(gap * (burst - 1) for gap, burst in texts),
            person=person.key,
            life=person.life,
            probe=track.probation,
        )
        track.charges.append(charge)
        person.charges.append(charge)
        for mark, gaps, least, counts in (
            (track.new_mark, new, pace.new_gap, made.kind != "known"),
            (track.message_mark, texts, pace.message_gap, True),
        ):
            if counts:
                mark.lo = max(mark.lo, now) + least
                mark.hi = max(mark.hi, made.send_at) + max(gap for gap, _ in gaps)
        if made.kind != "known":
            caps = look.caps + self.caps(track, made.send_at, slow=any(look.risks))
            self._windows_hold(track, charge, caps)
            opened = [c for c in track.charges[track.pace_since :] if c.kind != "known"]
            self._pace_holds(opened, charge, "gap", "ahead")
            self._begin_days(track, charge)
        else:
            sent = [c for c in track.charges[track.pace_since :] if c.kind == "known"]
            self._pace_holds(sent, charge, "message_gap", "message_ahead")
        if made.kind != "known" or person.number is None:
            charge.new_assignment = True
            person.number, person.made, person.opener = made.number, 1, charge
        else:
            person.made += 1
        if ask.key is not None:
            self.keys[ask.key] = (ask, now, made, charge)
        if len(track.charges) > 400:
            del track.charges[:100]
            track.pace_since = max(0, track.pace_since - 100)
        return charge

    def _windows_hold(self, track: Track, charge: Charge, caps: list[Caps]) -> None:
        """No window that holds this charge holds more than a limit."""
        times = sorted(c.at for c in track.charges if c.live and c.kind != "known")
        for code, window in WINDOWS:
            limit = max(each.of(code) for each in caps)
            for end in times:
                if charge.at <= end < charge.at + window:
                    count = sum(at <= end < at + window for at in times)
                    must(count <= limit, f"{count} in one window of {window} s, {code} is {limit}")

    def _pace_holds(self, charges: list[Charge], last: Charge, gap: str, ahead: str) -> None:
        """In every interval at most a burst and what the gaps allow."""
        paced = sorted((c for c in charges[-60:] if getattr(c, gap) > 0), key=lambda c: c.at)
        if last not in paced:
            return
        place = paced.index(last)
        for first in range(place, -1, -1):
            for end in range(place, len(paced)):
                span = paced[first : end + 1]
                gaps, most = (
                    min(getattr(c, gap) for c in span),
                    max(getattr(c, ahead) for c in span),
                )
                length = span[-1].at - span[0].at
                allowed = 1 + math.floor((length + most) / gaps + 1e-6)
                must(
                    len(span) <= allowed,
                    f"{len(span)} {last.kind} leave within {length} s, the pace allows {allowed}",
                )

    def _begin_days(self, track: Track, charge: Charge) -> None:
        found = set()
        for days in track.days:
            for moment in {charge.made, charge.at}:
                if days.runs(moment):
                    found.add(days)
                    continue
                count = days.count + 1
                ramps = {days.ramp}
                if days.ramp == 0:
                    ramps = {count}
                    if days.start + DAY > track.critical_at and days.count:
                        ramps.add(count - 1)
                found |= {Days(count, charge.at, ramp) for ramp in ramps}
        track.days = found

    # What becomes of a reservation

    def settled(
        self, charge: Charge, outcome: Outcome, retry_after: float | None, now: float
    ) -> bool:
        """It was settled. True: whether the recipient is still assigned is open."""
        charge.settled = outcome
        track, person = self.tracks[charge.number], self.people[charge.person]
        if outcome is Outcome.RATE_LIMITED:
            wait = now + (MINUTE if retry_after is None else retry_after)
            if retry_after is not None and person.number == charge.number:
                person.waits[charge.number] = max(person.waits.get(charge.number, 0.0), wait)
            elif retry_after is not None:
                person.waits["?"] = max(person.waits.get("?", 0.0), wait)
            return False
        if outcome in (Outcome.SENT, Outcome.UNKNOWN):
            if True in track.probation:
                if outcome is Outcome.SENT and False not in charge.probe:
                    probes = [c for c in track.charges if True in c.probe]
                    sure = probes[-1] is charge and charge.at + LEASE > now
                    sure = sure and charge.made > track.refused_at
                    track.probation = frozenset({False}) if sure else track.probation | {False}
                    track.out = (min(track.out[0], now), track.out[1])
                else:
                    track.probation = track.probation | {False}
                    track.out = (min(track.out[0], now), track.out[1])
            return False
        open_question = self._given_back(charge, track, person, now)
        if outcome is Outcome.LINE_REFUSED:
            pause = self.policy.recovery.ineligible if retry_after is None else retry_after
            track.out = (now + pause, max(track.out[1], now + pause))
            track.refused_at = now
            if retry_after is None:
                for each in track.charges:
                    each.probe = (each.probe & {True in track.probation}) | {False}
                track.probation = frozenset({True})
        if outcome is Outcome.RECIPIENT_REFUSED and not person.group:
            person.shuts.append(now)
        return open_question

    def _given_back(self, charge: Charge, track: Track, person: Person, now: float) -> bool:
        charge.live = charge.counted_lo = False
        only = person.opener is charge and person.made == 1
        if now < charge.at + MINUTE and charge.life == person.life:
            charge.counted_hi = False
        if charge.kind != "known":
            for days in [each for each in track.days if each.start == charge.at and each.count]:
                ramps = {days.ramp} if days.ramp != days.count else {0}
                if days.ramp == days.count - 1:
                    ramps.add(0)
                track.days |= {Days(days.count - 1, -INF, ramp) for ramp in ramps}
        if not only:
            return False
        if charge.kind == "new":
            self.forget(person)
            return False
        return True

    def forget(self, person: Person) -> None:
        """Nothing is known of their line any more."""
        person.number, person.made, person.opener = None, 0, None
        person.life += 1
        late = max(
            person.waits.values(), default=0.0
        )  # a settlement that was kept may still bring it
        person.waits = {"?": late} if late else {}
        person.charges.clear()

    def replied(self, person: Person, number: str, at: float, now: float, *, stop: bool) -> None:
        """They wrote to a line of the fleet."""
        track = self.tracks[number]
        track.replies.append(min(at, now))
        if person.number is None:
            person.number, person.made, person.opener = number, 0, None
        if stop:
            person.shuts.append(min(at, now))
        else:
            if True in person.blocked():
                person.opens_needed.append(min(at, now))
            person.opens_all.append(min(at, now))


# The world: one story


AREAS = ("212", "415", "646")


class Source:
    """A provider's list that the story changes; every reading is logged."""

    def __init__(self, clock: ManualClock, dice: random.Random) -> None:
        self.lines: list[Line] = []
        self.failing: Exception | None = None
        self.log: list[tuple[float, list[Line] | None]] = []
        self._clock, self._dice = clock, dice

    def fetch(self) -> list[Line]:
        """The list, in any order."""
        if self.failing is not None:
            self.log.append((self._clock.now(), None))
            raise self.failing
        lines = list(self.lines)
        self._dice.shuffle(lines)
        self.log.append((self._clock.now(), lines))
        return lines


class World:
    """One seed: a fleet, a policy, people, and what happens to them."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.exact = dice.random() < 0.7
        self.static = dice.random() < 0.1
        self.calm = dice.random() < 0.3
        self.may = {
            what: not self.calm and dice.random() < 0.5
            for what in ("report", "source", "error", "operate", "people", "refuse", "reload")
        }
        self.says_status = dice.random() < 0.3
        self.lists_for_good = dice.random() < 0.5
        self.policy = Policy.from_dict(self._tables())
        start = 1_700_000_000 + dice.randrange(10**6)
        self.clock = ManualClock(float(start) if self.exact else start + dice.random())
        self.source = Source(self.clock, random.Random(seed))
        self.spare = [self._line(i) for i in range(dice.randint(1, 12))]
        self.source.lines = self.spare[: dice.randint(1, len(self.spare))]
        if self.calm:
            self.source.lines = [attrs.evolve(x, reputation="HEALTHY") for x in self.source.lines]
        self.seed = f"ties {seed}"
        given: object = list(self.source.lines) if self.static else self.source
        self.router = Router(given, policy=self.policy, clock=self.clock, seed=self.seed)
        self.router._dice.seed(seed)  # chance only spreads retries, but a seed is to replay exactly
        self.judge = Judge(self.policy, static=self.static, exact=self.exact)
        self.crowd = [self._someone(i) for i in range(dice.choice((3, 10, 40)))]
        self.newcomers = dice.choice((0.2, 0.6, 0.95))
        self.made: list[tuple[Reservation, Charge]] = []
        self.refused: tuple[Ask, LinePickerError] | None = None
        self.reports: list[LineChanged] = []
        self.reserves = self.steps = 0
        self.reloaded_at = -INF
        if self.static:
            self.router.refresh()
            self.judge.poll(self.clock.now(), list(self.source.lines))

    def _tables(self) -> dict[str, Any]:
        pick = self.dice.choice
        ttl = pick((10.0, 60.0, 60.0, 600.0, 900.0))
        max_age = ttl * pick((1, 5, 15))
        limits = {
            "new_per_day": pick((1, 2, 3, 5, 8, 20, 50, "off")),
            "new_per_hour": pick((1, 2, 3, 5, 15, "off", "off")),
            "messages_per_day": pick((3, 10, 50, 7000, 7000, "off")),
            "pair_per_minute": pick((1, 2, 5, 30, "off")),
            "moves_per_day": pick((1, 1, 2, 20, "off")),
        }
        tables: dict[str, Any] = {
            "prefer": pick(("healthiest", "healthiest", "weighted")),
            "limits": limits,
            "pace": {
                "new_gap": pick((0, 0, 1, 20, 100, 600)),
                "new_burst": pick((1, 2, 5)),
                "message_gap": pick((0, 1, 1, 10)),
                "message_burst": pick((1, 3, 20)),
                "max_delay": pick((0, 30, 300, 3600)),
                "spread": pick((0.35, 0.5, 0.1, "off", "off")),
            },
            "at_risk": {
                "weight": pick((0.25, 1, 0.1)),
                "budget": pick((0.25, 0.5, 1)),
                "pace": pick((0.5, 1, 0.25)),
            },
            "warmup": {
                "start": pick((1, 2, 10)),
                "factor": pick((1, 1.5, 2, 3)),
                "trust_first_snapshot": pick((True, True, False)),
            },
            "health": {
                "ttl": ttl,
                "max_age": max_age,
                "on_stale": pick(("slow", "slow", "refuse")),
                "max_age_hard": max_age * pick((1, 4, 100)),
            },
            "recovery": {
                "confirmations": pick((1, 2, 2, 3)),
                "share": pick((0.25, 0.5, 1, 0.1)),
                "ineligible": pick((60.0, 3600.0, 86400.0)),
            },
            "stickiness": {
                name: pick(("hold", "move", "move"))
                for name in ("on_critical", "on_flagged", "on_released")
            },
            "learn": {  # what a line bears is not for a judge to say: it would have to learn it as well
                "enabled": self.dice.random() < 0.1,
                **dict.fromkeys(("budgets", "profile", "nearness"), False),
                "jump": "off",
                "reply_rate": 0.0,
            },
            "affinity": {"area_code": pick((1, 1, 0.5))},
        }
        if self.dice.random() < 0.2:
            tables["tag"] = {
                "vip": {
                    "limits": {
                        pick(("new_per_day", "new_per_hour", "pair_per_minute")): pick(
                            (1, 3, "off")
                        )
                    }
                }
            }
        return tables

    def _line(self, i: int) -> Line:
        pick = self.dice.choice
        return Line(
            f"+1{pick(AREAS)}55512{i:02d}",
            reputation=pick(("HEALTHY", "HEALTHY", "HEALTHY", "AT_RISK", "CRITICAL")),
            status=pick(("ACTIVE", "ACTIVE", "FLAGGED")) if self.says_status else None,
            line_type=pick((None, "iMessage", "RCS")),
            tags=pick(((), (), ("vip",), ("vip", "east"))),
            weight=pick((1.0, 1.0, 1.0, 0.5, 2.0, 0.001)),
        )

    def _someone(self, i: int) -> str | tuple[str, ...]:
        kind = self.dice.random()
        if kind < 0.8:
            return f"+1{self.dice.choice(AREAS)}777{i:04d}"
        if kind < 0.9:
            return f"person{i}@example.com"
        return (f"+4477009{i:05d}", f"+4477008{i:05d}")

    # Telling the story

    def run(self, steps: int) -> None:
        """So many steps."""
        for self.steps in range(1, steps + 1):
            self.step()

    def step(self) -> None:
        """Something happens."""
        what, may = self.dice.random(), self.may
        if what < 0.55:
            self.reserve(self.ask())
        elif what < 0.67:
            self.settle()
        elif what < 0.82:
            self.wait()
        elif what < 0.88:
            self.report_line() if may["report"] else self.reserve(self.ask())
        elif what < 0.92:
            self.change_source() if may["source"] else self.reserve(self.ask())
        elif what < 0.95:
            self.hear_from_person() if may["people"] else self.reserve(self.ask())
        elif what < 0.965:
            self.operate() if may["operate"] else self.audit()
        elif what < 0.975:
            self.reload() if may["reload"] else self.twin()
        elif what < 0.98:
            self.refresh()
        elif what < 0.985:
            self.check()
        elif what < 0.99:
            self.assign_or_forget()
        else:
            self.audit()

    def ask(self) -> Ask:
        """What the next reserve asks for."""
        dice = self.dice
        newcomer = dice.random() < self.newcomers
        to = self._someone(10_000 + self.steps) if newcomer else dice.choice(self.crowd)
        person = to if isinstance(to, str) else ",".join(sorted(to))
        if isinstance(to, tuple) and dice.random() < 0.5:
            to = to[::-1]
        if dice.random() < 0.6:
            return Ask(person, to)
        numbers = [line.number for line in self.spare]
        more: dict[str, Any] = {}
        if dice.random() < 0.2:
            more["line_type"] = dice.choice(("imessage", "RCS", "SMS"))
        if dice.random() < 0.2:
            more["tags"] = frozenset(dice.choice((("vip",), ("vip", "east"), ("west",))))
        if dice.random() < 0.3:
            more["exclude"] = frozenset(dice.sample(numbers, dice.randint(1, len(numbers))))
        if dice.random() < 0.25:
            more["line"] = dice.choice(numbers)
            more["inbound"] = dice.random() < 0.3
        if dice.random() < 0.5:
            more["max_delay"] = dice.choice((0.0, 0.0, 10.0, 1000.0))
        if dice.random() < 0.1:
            more["key"] = f"key {dice.randrange(30)}"
        if dice.random() < 0.1:
            more["override_optout"] = True
        return Ask(person, to, **more)

    def reserve(self, ask: Ask) -> Reservation | None:
        """One reserve, judged; sometimes after a preview, which must say the same."""
        self.reserves += 1
        self.refused = None
        expected = self._try_preview(ask) if self.dice.random() < 0.2 and not ask.key else None
        fetches = len(self.source.log)
        age = INF if self.judge.polled_at is None else self.clock.now() - self.judge.polled_at
        good = self.judge.last_try_good
        made, error = self._try(ask)
        if good and age > self.judge.policy.health.ttl and not self.static:
            must(
                len(self.source.log) > fetches or expected,
                "a list older than ttl was not read anew",
            )
        if len(self.source.log) > fetches:
            expected = None  # reserve has read what preview had not: a list that counts when it comes twice, say
        self.hear_fetches()
        now = self.clock.now()
        if error is not None:
            if isinstance(error, ValueError):
                self._may_raise(ask, now)
                return None
            self.judge.refusal(ask, error, now)
            self._same(expected, error.decision)  # type: ignore[attr-defined]  # a refusal
            self.refused = (ask, error)
            if self.dice.random() < 0.5:
                self.try_again(ask, error)
            return None
        assert made is not None
        charge = self.judge.granted(ask, made, now)
        self._same(expected, made.decision)
        self.made.append((made, charge))
        return made

    def _try(self, ask: Ask) -> tuple[Reservation | None, LinePickerError | ValueError | None]:
        try:
            return self.router.reserve(ask.to, **ask.arguments()), None
        except (NoLine, Held, NotNow, Blocked, StaleHealth, ValueError) as error:
            return None, error

    def _try_preview(self, ask: Ask) -> Decision | None:
        try:
            return self.router.preview(ask.to, **ask.arguments())
        except ValueError:
            self._may_raise(ask, self.clock.now())
            return None
        finally:
            self.hear_fetches()

    def _may_raise(self, ask: Ask, now: float) -> None:
        person = self.judge.people.get(ask.person)
        lost = ask.inbound and ask.line is None and (person is None or person.number is None)
        kept = self.judge.keys.get(ask.key or "")
        taken = kept is not None and now < kept[1] + DAY and kept[0].person != ask.person
        must(lost or taken, "a ValueError for nothing", ask)

    def _same(self, expected: Decision | None, real: Decision) -> None:
        for name in ("outcome", "number", "kind", "reason", "retry_at", "delay", "moved_from"):
            if expected is not None:
                one, other = getattr(expected, name), getattr(real, name)
                must(one == other, f"preview said {name} {one!r}, reserve did {other!r}")

    def try_again(self, ask: Ask, error: LinePickerError) -> None:
        """At `retry_at`, nothing else having happened, it has to succeed, where budget or pace was the reason."""
        if not isinstance(error, NoLine | NotNow) or error.decision.reason not in ROOM:
            return
        if self.source.failing or not self._as_polled() or not self.judge.last_try_good:
            return
        if self.clock.now() < self.reloaded_at + 2 * HOUR:
            return  # marks of another pace may still look like those of a clock that stepped back
        opening = (each.opens_at for each in error.decision.candidates)
        if error.decision.number is None and error.retry_at not in opening:
            return  # nobody opens: it is only when to ask again
        self.clock.set(error.retry_at)
        self.reserves += 1
        made, again = self._try(attrs.evolve(ask, key=None))
        self.hear_fetches()
        if again is not None:
            raise Violation(
                f"refused at retry_at too: first {error} ({error.decision.retry_at}), then {again}"
            )
        assert made is not None
        charge = self.judge.granted(attrs.evolve(ask, key=None), made, self.clock.now())
        self.made.append((made, charge))

    def _as_polled(self) -> bool:
        """Whether the source shows what was last read."""
        shown = {line.number: line for line in self.source.lines}
        known = {number: track.line for number, track in self.judge.fleet().items()}
        for track in self.judge.fleet().values():
            (level, _), _, flagged = self.judge.concluded(track)
            for log, bad in ((track.reputation, level), (track.status, int(False not in flagged))):
                if track.released > -INF or (log.polls and BADNESS[log.polls[-1][1]] > bad):
                    return False  # the next reading will say something new all the same
        return shown == known and self.judge.suspect is None

    def hear_fetches(self) -> None:
        """Tell the judge what the router read."""
        for issued, lines in self.source.log:
            self.judge.poll(issued, lines)
        self.source.log.clear()

    def settle(self) -> None:
        """A reservation is settled, perhaps not for the first time."""
        dice = self.dice
        if not self.made:
            return
        place = len(self.made) - 1 - min(int(dice.expovariate(0.3)), len(self.made) - 1)
        made, charge = self.made[place]
        outcomes = ["SENT"] * 4 + ["NOT_SENT", "NOT_SENT", "UNKNOWN", "RATE_LIMITED"]
        if self.may["refuse"]:
            outcomes += ["LINE_REFUSED", "RECIPIENT_REFUSED"]
        outcome = Outcome(dice.choice(outcomes))
        retry_after = None
        if outcome is Outcome.RATE_LIMITED or dice.random() < 0.5:
            retry_after = dice.choice((1.0, 30.0, 600.0, 7200.0))
        first, before = charge.settled is None, charge.settled
        if outcome is Outcome.NOT_SENT and dice.random() < 0.5:
            made.release()
        else:
            made.settle(outcome, retry_after=retry_after)
        must(first or charge.settled == before, "settled twice")
        if first:
            self._settled(made, charge, outcome, retry_after)

    def _settled(
        self, made: Reservation, charge: Charge, outcome: Outcome, retry_after: float | None
    ) -> None:
        must(made.outcome == outcome, "the outcome is not what it was settled with")
        open_question = self.judge.settled(charge, outcome, retry_after, self.clock.now())
        person = self.judge.people[charge.person]
        if open_question:
            self._adopt(person, charge, made)
        elif self.dice.random() < 0.3:
            self._assigned(person)

    def _adopt(self, person: Person, charge: Charge, made: Reservation) -> None:
        """Giving back a move, or a first message in answer, may undo the assignment or not."""
        found = self.router.assignment(self._to(person))
        number = None if found is None else found.number
        may = {charge.number, made.moved_from}
        must(number in may, "after giving back they are on", number, "not on one of", may)
        if number != charge.number:
            self.judge.forget(person)
            if number is not None:
                person.number, person.made, person.opener = number, 1, None

    def _assigned(self, person: Person) -> None:
        found = self.router.assignment(self._to(person))
        number = None if found is None else found.number
        must(number == person.number, "assigned to", number, "but it has to be", person.number)

    def _to(self, person: Person) -> str | list[str]:
        return person.key.split(",") if person.group else person.key

    def wait(self) -> None:
        """Time passes: somewhat, or to exactly the moment when something ends."""
        dice, now = self.dice, self.clock.now()
        tracks = list(self.judge.tracks.values())
        pace, health = self.judge.policy.pace, self.judge.policy.health
        if dice.random() < 0.4 and tracks:
            track = dice.choice(tracks)
            ends = [c.at + w for c in track.charges[-10:] for w in (MINUTE, HOUR, 6 * HOUR, DAY)]
            ends += [c.at for c in track.charges[-5:]]
            ends += [track.out[1], track.new_mark.lo, track.message_mark.lo]
            ends += [days.start + DAY for days in track.days]
            if self.refused and hasattr(self.refused[1], "retry_at"):
                ends += [self.refused[1].retry_at]
            if self.judge.polled_at is not None:
                ends += [self.judge.polled_at + age for age in (health.ttl, health.max_age)]
            ends = [end for end in ends if now < end < now + 2 * DAY]
            if ends:
                self.clock.set(dice.choice(ends))
                if dice.random() < 0.2:
                    self.clock.advance(dice.choice((-1.0, 1.0)))
                    self.clock.set(max(now, self.clock.now()))
                return
        far = dice.choice(
            (
                0.0,
                1.0,
                1.0,
                5.0,
                pace.new_gap,
                30.0,
                health.ttl,
                health.ttl + 1.0,
                300.0,
                HOUR,
                6 * HOUR,
                DAY,
            )
        )
        self.clock.advance(far if self.exact else far * dice.random())

    def report_line(self) -> None:
        """The provider reports on a line, in order, late, twice, or from the future."""
        dice, now = self.dice, self.clock.now()
        if self.reports and dice.random() < 0.15:
            report = dice.choice(self.reports)
        else:
            number = dice.choice(self.spare).number
            at = now - dice.choice((0.0, 0.0, 0.0, 1.0, 30.0, 299.0, 300.0, 301.0, 1000.0, -50.0))
            if dice.random() < 0.1:
                self._told_of_list(number, at)
                return
            if dice.random() < 0.7:
                value = dice.choice(("HEALTHY", "HEALTHY", "AT_RISK", "CRITICAL"))
                report = LineChanged(number, reputation=value, at=at)
            else:
                report = LineChanged(number, status=dice.choice(("ACTIVE", "FLAGGED")), at=at)
            self.reports.append(report)
        answer = self._report(report)
        if answer is None:
            return
        track = self.judge.tracks.get(report.number)
        if track is not None and track.released > -INF and not answer:
            return
        self.judge.report_line(report, now, answer)

    def _report(self, report: Any) -> bool | None:
        """The router's answer; None: it raised SourceError, as it may while no list was ever read."""
        try:
            return self.router.report(report)
        except SourceError:
            self.hear_fetches()
            must(self.judge.polled_at is None, "a report raised though a list was read")
            return None
        finally:
            self.hear_fetches()

    def _told_of_list(self, number: str, at: float) -> None:
        now = self.clock.now()
        if self.dice.random() < 0.5:
            self._report(LineAssigned(number, at=now))
            return
        answer = self._report(LineReleased(number, at=now))
        track = self.judge.fleet().get(number)
        if answer is None or track is None or track.released == now:
            return
        must(answer, "a line's release was not taken")
        track.released = now

    def change_source(self) -> None:
        """The provider's list changes, shrinks, grows, fails or works again."""
        dice, source = self.dice, self.source
        what = dice.random()
        if what < 0.6 and source.lines:
            i = dice.randrange(len(source.lines))
            line = source.lines[i]
            health = dice.choice(("HEALTHY", "HEALTHY", "HEALTHY", "AT_RISK", "CRITICAL"))
            unknown = "PURPLE" if dice.random() < 0.05 else None
            line = attrs.evolve(line, reputation=health, unrecognised=unknown)
            if self.says_status:
                line = attrs.evolve(line, status=dice.choice(("ACTIVE", "ACTIVE", "FLAGGED")))
            source.lines[i : i + 1] = [line]
        elif what < 0.75:
            missing = {line.number for line in self.spare} - {line.number for line in source.lines}
            source.lines = [*source.lines, *(x for x in self.spare if x.number in missing)][
                : len(source.lines) + dice.randint(0, len(missing))
            ]
        elif what < 0.85 and not self.lists_for_good:
            keep = dice.randint(0, len(source.lines))
            source.lines = dice.sample(source.lines, keep)
        elif self.may["error"]:
            source.failing = dice.choice(
                (
                    None,
                    SourceError("down"),
                    SourceError("slow down", retry_after=90.0),
                    OSError("gone"),
                )
            )
        if what >= 0.6:
            return
        if dice.random() < 0.5:
            source.failing = None

    def hear_from_person(self) -> None:
        """Somebody replies, opts out or in."""
        dice, now = self.dice, self.clock.now()
        to = dice.choice(self.crowd)
        key = to if isinstance(to, str) else ",".join(sorted(to))
        person = self.judge.person(key, group=isinstance(to, tuple))
        at = now - dice.choice((0.0, 0.0, 0.0, 1.0, 60.0, 3600.0))
        what = dice.random()
        if what < 0.5:
            number = dice.choice(self.spare).number
            stop = dice.random() < 0.2
            answer = self._report(Replied(number, to, text="STOP" if stop else "hi", at=at))
            if answer is None:
                return
            if number in self.judge.fleet():
                must(answer, "a reply on a line of the fleet was not taken")
                self.judge.replied(person, number, at, now, stop=stop)
            elif stop:  # an opt-out, or its end, may be heard wherever it was said
                person.shuts.append(min(at, now))
            elif answer:
                must(True in person.blocked(), "a reply on a line not in the fleet was taken")
                person.opens_all.append(min(at, now))
                person.opens_needed.append(min(at, now))
        elif not person.group:
            out = what < 0.75
            if self._report((OptedOut if out else OptedIn)(key, at=at)) is None:
                return
            moment = min(at, now)
            if out:
                person.shuts.append(moment)
            else:
                person.opens_all.append(moment)
                person.opens_needed.append(moment)

    def operate(self) -> None:
        """The operator pauses, drains or resumes."""
        number = self.dice.choice(self.spare).number
        verb = self.dice.choice(("pause", "drain", "resume", "resume"))
        try:
            getattr(self.router, verb)(number)
        except SourceError:
            self.hear_fetches()
            must(self.judge.polled_at is None, verb, "raised though a list was read")
            return
        except ValueError:
            self.hear_fetches()
            must(number not in self.judge.fleet(), verb, "of a line of the fleet raised")
            return
        self.hear_fetches()
        track = self.judge.fleet().get(number)
        must(track is not None, verb, "of a line not in the fleet")
        assert track is not None
        track.operator = {"pause": "paused", "drain": "draining", "resume": ""}[verb]

    def reload(self) -> None:
        """Another policy; what concerns observations and first sights stays as it is."""
        tables = self._tables()
        tables["health"] = self.policy.to_dict()["health"]
        tables["recovery"]["confirmations"] = self.policy.recovery.confirmations
        tables["warmup"]["trust_first_snapshot"] = self.policy.warmup.trust_first_snapshot
        self.policy = Policy.from_dict(tables)
        self.router.reload(self.policy)
        self.judge.reload(self.policy, self.clock.now())
        self.reloaded_at = self.clock.now()

    def refresh(self) -> None:
        """The application reads the list."""
        try:
            self.router.refresh()
        except SourceError:
            must(self.source.failing is not None, "refresh failed, but the source did not")
        self.hear_fetches()

    def check(self) -> None:
        """A reservation is checked again before it is used."""
        loose = [(made, charge) for made, charge in self.made[-5:] if charge.settled is None]
        if not loose:
            return
        made, charge = self.dice.choice(loose)
        person, now = self.judge.people[charge.person], self.clock.now()
        track = self.judge.tracks[charge.number]
        bars = self.judge.bars(track, now, new=charge.kind != "known")
        if "ineligible" in bars:
            return
        ok = person.number == charge.number and bars == {""} and person.blocked() == {False}
        try:
            made.check()
        except (Held, Blocked) as error:
            must(not ok, "checked and refused for nothing:", error)
            must(made.outcome == "NOT_SENT", "refused by check, but not released")
            self._settled(made, charge, Outcome.NOT_SENT, None)
            return
        must("" in bars, "checked and let go on a line that is", set(bars))

    def assign_or_forget(self) -> None:
        """An importer's verbs."""
        to = self.dice.choice(self.crowd)
        key = to if isinstance(to, str) else ",".join(sorted(to))
        person = self.judge.person(key, group=isinstance(to, tuple))
        if self.dice.random() < 0.5:
            self.router.forget(to)
            self.judge.forget(person)
            if (
                True not in person.blocked()
            ):  # forgotten with all the rest: an older opt-out may yet come
                person.shuts.clear()
                person.opens_needed.clear()
            return
        number = self.dice.choice(self.spare).number
        try:
            self.router.assign(to, number)
        except ValueError:
            must(person.number not in (None, number), "assign raised for nothing")
            return
        must(person.number in (None, number), "assign moved somebody")
        if person.number is None:
            person.number, person.made, person.opener = number, 0, None

    def audit(self) -> None:
        """What `lines()` shows, and what it promises of the next slot."""
        if self.judge.polled_at is None:
            return
        views = self.router.lines()
        self.hear_fetches()
        now, judge = self.clock.now(), self.judge
        must({view.line.number for view in views} == judge.fleet().keys(), "lines() shows others")
        for view in views:
            track = judge.tracks[view.line.number]
            look = judge.look(track, now)
            must(view.used == look.used["day_budget"], "used is", view.used, "of", look.used)
            budgets = {each.day for each in look.caps}
            budget = INF if view.budget is None else view.budget
            if not look.bars & {"critical", "recovering"} and not judge.policy.learn.enabled:
                must(budget in budgets, "budget", budget, "of", budgets)
            if view.budget is not None:
                must(view.remaining == max(0, view.budget - view.used), "remaining is wrong")
            standing = "" if view.standing == "ok" else view.standing
            if standing == "stale":
                must(judge.freshness(now) == "stale", "standing stale, but the list is not")
                continue
            must(standing in look.bars, "standing", view.standing, "of", set(look.bars))
        if not views or judge.freshness(now) == "stale":
            return
        view = self.dice.choice(views)
        decision = self.router.preview("+12125550000", line=view.line.number, max_delay=0)
        open_now = view.next_slot_at is not None and view.next_slot_at <= now
        if judge.look(judge.tracks[view.line.number], now).messages[1] < 3:
            must(
                open_now == (decision.outcome == "reserved"),
                f"next_slot_at is {view.next_slot_at} at {now}, but a preview says {decision}",
            )

    def twin(self) -> None:
        """A second router over the same store, its list in another order, makes the same choices."""
        if (
            not self.calm
            or self.judge.freshness(self.clock.now()) != "fresh"
            or not self._as_polled()
        ):
            return
        ask = Ask("+12125550001", f"+1212666{self.steps:04d}")
        mine = self.router.preview(ask.to)
        self.hear_fetches()
        if self.source.failing or self.judge.freshness(self.clock.now()) != "fresh":
            return
        lines = sorted(self.source.lines, key=lambda line: line.number, reverse=True)
        store = self.router._store
        twin = Router(lines, policy=self.policy, store=store, clock=self.clock, seed=self.seed)
        self._same(mine, twin.preview(ask.to))


@attrs.frozen
class Verdict:
    """What a seed came to."""

    seed: int
    reserves: int
    step: int
    violation: str = ""


def tell(seed: int, steps: int = 400) -> Verdict:
    """The story of one seed."""
    world = World(seed)
    violation = ""
    try:
        world.run(steps)
    except Violation as error:
        violation = str(error)
    except Exception as error:  # an error the design does not know is a violation too
        violation = f"{type(error).__name__}: {error}"
        if "--trace" in sys.argv:
            raise
    finally:
        with contextlib.suppress(Exception):
            world.router.close()
    return Verdict(seed, world.reserves, world.steps, violation)


def judge(
    reserves: int, seed: int, processes: int, most: int = 20
) -> tuple[int, int, list[Verdict]]:
    """Seeds from *seed* on, until so many reserves were judged or *most* seeds failed: reserves, seeds, failures."""
    done, seeds, failures = 0, 0, []
    with contextlib.ExitStack() as stack:
        told: Iterator[Verdict]
        if processes > 1:
            told = stack.enter_context(Pool(processes)).imap(
                tell, itertools.count(seed), chunksize=4
            )
        else:
            told = map(tell, itertools.count(seed))
        for verdict in told:
            done, seeds = done + verdict.reserves, seeds + 1
            if verdict.violation:
                failures.append(verdict)
            if done >= reserves or len(failures) >= most:
                break
    return done, seeds, failures


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Judge the router against the design.")
    parser.add_argument("--reserves", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--most", type=int, default=20, help="stop after so many failing seeds")
    parser.add_argument("--trace", action="store_true", help="let unexpected errors through")
    given = parser.parse_args()
    began = time.monotonic()
    logging.disable()
    done, seeds, failures = judge(given.reserves, given.seed, given.processes, given.most)
    for each in failures:
        print(f"seed {each.seed} step {each.step}: {each.violation}")  # noqa: T201  a command prints
    print(  # noqa: T201
        f"{done} reserves in {seeds} seeds from {given.seed} on, {len(failures)} violations, "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
