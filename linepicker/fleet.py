"""The fleet as one process holds it: lines, the records last seen of them, how fresh they are, and their ranking.

What is kept is a guess until a swap confirms it. Nothing here does I/O; the flows bring records in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, Final, Literal

import attrs

from linepicker import _record as records
from linepicker._company import Flight, Onlooker
from linepicker._decode import decode
from linepicker._kept import Held, Kept
from linepicker._learn import Evidence
from linepicker._line import (
    LineState,
    Rank,
    assess,
    conclude,
    is_clear,
    ordinary_limits,
    take,
)
from linepicker._ranking import Ranking
from linepicker._record import Spending, Standing
from linepicker._seen import NOTHING, SEEN_AT_MOST, Company, Seen
from linepicker._small import FleetRecord
from linepicker.errors import SourceError
from linepicker.model import Line
from linepicker.policy import Limits, Policy
from linepicker.recipients import area_code
from linepicker.stores import SAME, Record, Write

LATE_AT_MOST: Final = 1000
OWED_AT_MOST: Final = 16
OVERTAKEN: Final = 1.0
"""By how many seconds a call's moment may lie before one that was decided at: it read the clock, and another was quicker. What
lies further back is a clock that was turned back."""


class Fleet:
    """Owned by one router and changed only under its lock."""

    def __init__(self, policy: Policy, pool: str, *, static: bool) -> None:
        self.policy = policy
        self.pool = pool
        self.static = static
        self.slow, self.stale, self.terse = False, True, False
        self.shows_seen, self.packs = True, False
        """Whether the store is told what was seen, and whether it takes a spending as it is and packs that when it is read."""
        self.company = Company()
        self.guard: AbstractContextManager[object] = nullcontext()
        """What keeps other threads' flows from changing the fleet meanwhile."""
        self.calm_until = -float("inf")
        """Until then, if the clock goes forward, nothing is due: no poll, no change of freshness, nothing to write."""
        self.epoch = ""
        self.same = Write(records.EPOCH, 0, SAME)
        """The demand that the store's epoch has not moved."""
        self.polled_at: float | None = None
        self.tried_at = self.next_try = -float("inf")
        self.attempts = 0
        self.hurry = False
        self.failures = 0
        self.last_error: SourceError | None = None
        self.suspect: frozenset[str] | None = None
        self.flight: Flight | None = None
        self.onlooker: Onlooker | None = None
        self.returned: frozenset[str] = frozenset()
        """Lines that came back to the list in a poll that is still owed."""
        self.owed: deque[tuple[list[Line], float]] = deque(maxlen=OWED_AT_MOST)
        """Polls that a preview saw and that are yet to be written."""
        self.record = FleetRecord()
        self.record_version = 0
        self.digest = self.members = ""
        """Of the list that is in force here, and of which lines it has."""
        self.late: deque[Any] = deque(maxlen=LATE_AT_MOST)
        self.lost = 0
        self.debts: deque[Any] = deque()
        """What went out while the store was away, and is yet to be charged."""
        self.out_since: float | None = None
        """Since when the store fails."""
        self.moment = -float("inf")  # of the latest decision
        self.told: dict[str, Any] = {}
        """How the lines stood when they were last looked through for news, and when that was."""
        self.told_at = -float("inf")
        self.fleet_key = records.fleet_key(pool)
        self.kept = Kept()
        self._states: dict[str, LineState] = {}
        self._ranks: dict[str, Rank] = {}
        self._dirty: set[str] = set()
        self._ranking = self._empty_ranking()
        self.evidence = Evidence()
        self.profile = -1, 0.0
        """A part of a day, and the share that the busiest 6 h take of a day, as it was in that part."""

    def opened(self, epoch: str, version: int) -> None:
        """Which store this is."""
        self.epoch, self.same = epoch, Write(records.EPOCH, version, SAME)

    def lives_in(self, store: object) -> None:
        """How that store likes to be written to."""
        self.shows_seen = getattr(store, "wants_seen", True)
        self.packs = getattr(store, "packs", False)

    # What a decision sees

    def state(self, number: str) -> LineState | None:
        """A line of the fleet."""
        return self._states.get(number)

    def limits(self, number: str) -> Limits:
        """A line's limits; the policy's where it is not of the fleet."""
        state = self._states.get(number)
        return self.policy.limits if state is None else state.limits

    def states(self) -> Iterator[tuple[str, LineState]]:
        """All lines of the fleet, as it was when the first was asked for."""
        yield from self._states.items()

    def __len__(self) -> int:
        return len(self._states)

    def rank(self, number: str) -> Rank:
        """A line as it was last ranked."""
        return self._ranks[number]

    def ranking(self, now: float) -> Ranking:
        """The ranking, brought up to *now*."""
        try:
            if self._ranking.next_due <= now:
                for number in self._ranking.due(now):
                    self._rank(number, now)
            if self._dirty:
                dirty, self._dirty = self._dirty, set()
                for number in dirty:
                    self._rank(number, now)
        except BaseException:  # a signal's handler raised, and this is half done
            self._rank_all()
            raise
        return self._ranking

    def again(self, number: str, now: float) -> Rank:
        """A line, ranked anew."""
        self._dirty.add(number)
        self.ranking(now)
        return self._ranks[number]

    def _rank(self, number: str, now: float) -> None:
        state = self._states[number]
        self._dirty.discard(number)
        rank = self._ranks[number] = assess(state, self.policy, now, slow=self.slow)
        if rank.excluded is None:
            self._ranking.put(number, rank.tier, rank.key, state.area, rank.until)
        else:
            self._ranking.exclude(number, rank.until)

    def freshness(self, now: float) -> Literal["fresh", "slow", "stale"]:
        """How far the health data may be trusted."""
        if self.static and self.polled_at is not None:
            return "fresh"
        if self.polled_at is None:
            return "stale"
        age, health = now - self.polled_at, self.policy.health
        if age > health.max_age_hard or (age > health.max_age and health.on_stale == "refuse"):
            return "stale"
        return "slow" if age > health.max_age else "fresh"

    def calm(self, now: float) -> float | None:
        """The moment to decide at, by a call that read the clock at *now*, if nothing has to be looked after; else None."""
        if now < self.moment <= now + OVERTAKEN:
            now = self.moment
        if self.moment <= now < self.calm_until:
            self.moment = now
            return now
        return None

    def at(self, now: float) -> float:
        """Bring what depends on the moment alone up to *now*, when a call read the clock. Answers the moment to decide at:
        never a little before that of another decision, as lines are ranked as they are then. To be asked after each wait."""
        if now < self.moment <= now + OVERTAKEN:
            now = self.moment
        freshness, health = self.freshness(now), self.policy.health
        self.under(now, slow=freshness == "slow", stale=freshness == "stale")
        self.calm_until = now
        if self.same.version and not (
            self.late or self.owed or self.debts or self.hurry or self.stale
        ):
            self.calm_until = float("inf")
            if not self.static and self.polled_at is not None:
                due = max(max(self.polled_at, self.tried_at) + health.ttl, self.next_try)
                turns = (self.polled_at + health.max_age, self.polled_at + health.max_age_hard)
                self.calm_until = min(due, *(moment for moment in turns if moment >= now), due)
        return now

    def under(self, now: float, *, slow: bool, stale: bool) -> None:
        """Decide at *now* under these conditions."""
        self.stale = stale
        if slow != self.slow or now < self.moment:  # everything was ranked under other conditions
            self.slow = slow
            self._rank_all()
        self.moment = now

    # Polls

    def poll_due(self, now: float) -> bool:
        """Whether the snapshot is older than the policy's ttl (or from the future) and may be fetched again: not before
        `next_try`, but where only a clock that stepped back can explain that."""
        if self.static and self.polled_at is not None:
            return False
        if now < self.next_try <= now + self.policy.health.max_age_hard:
            return False
        if self.polled_at is None or self.hurry:
            return True
        latest = max(self.polled_at, self.tried_at)
        return now - latest > self.policy.health.ttl or latest - now > 1.0

    def poll_failed(self, error: SourceError, now: float, dice: float) -> None:
        """Keep the last good snapshot, and wait before asking again: longer each time, as long as the provider says."""
        health = self.policy.health
        self.failures += 1
        self.last_error = error
        backoff = min(health.ttl, 2.0 ** min(self.failures, 16)) * (0.5 + dice / 2)
        if self.polled_at is None:
            backoff = 0.0
        if error.fatal:
            backoff = health.ttl
        self.next_try = now + max(backoff, min(error.retry_after or 0.0, health.max_age))

    def unread(self) -> SourceError:
        """What to raise where no list was ever read: what kept it from being read, without where that was raised before, or it
        would grow with each time it is raised again."""
        if self.last_error is None:
            return SourceError("no list of lines has been read yet")
        return self.last_error.with_traceback(None)

    def believable(self, lines: list[Line]) -> bool:
        """Whether a list counts: one that is empty, or lost more than half of the lines, must come twice."""
        if self.static:  # it can't be read twice
            return True
        numbers = frozenset(line.number for line in lines)
        kept = sum(number in numbers for number in self._states)
        if numbers and 2 * kept >= len(self._states):
            self.suspect = None
            return True
        if self.suspect == numbers:
            self.suspect = None
            return True
        self.suspect = numbers
        return False

    def is_back(self, number: str) -> bool:
        """Whether a line of a list is one that had gone."""
        return self.polled_at is not None and number not in self._states

    def owe(self, lines: list[Line], issued: float) -> None:
        """A poll that was seen and is yet to be written, before its lines are installed."""
        self.returned |= {line.number for line in lines if self.is_back(line.number)}
        self.owed.append((lines, issued))

    def repeated(
        self, issued: float, now: float, digest: str, members: str, *, first: bool
    ) -> FleetRecord:
        """The fleet's record after a poll, answered *now*, that brought a list with that digest, of those lines."""
        if self.static:
            return attrs.evolve(self.record, first=self.record.first if not first else issued)
        return self.record.after_poll(issued, now, digest, members, first=first)

    def install(self, lines: Iterable[Line], held: Mapping[str, Held], issued: float) -> None:
        """Make *lines* the fleet, with their records."""
        before, states = self._states, dict[str, LineState]()
        self.evidence = Evidence()
        for line in lines:
            mine, number = held[line.number], line.number
            old = before.get(number)
            if old is not None:  # it may have been put right since it was read, or written
                if old.spending_version >= mine.spending_version:
                    mine.spending, mine.spending_version = old.spending, old.spending_version
                if old.standing_version > mine.standing_version:
                    mine.standing, mine.standing_version = old.standing, old.standing_version
            states[number] = state = LineState(
                line,
                ordinary_limits(self.policy, line),
                area_code(number),
                mine.standing,
                records.standing_key(number),
                mine.standing_version,
                mine.spending,
                records.spending_key(number),
                mine.spending_version,
                conclude(mine.standing, self.policy),
                Write(records.standing_key(number), mine.standing_version, SAME),
            )
            state.clear = is_clear(state.standing, state.conclusion)
            self.evidence.hear(number, state.standing)
        self._states = states
        self.polled(issued)
        self._rank_all()

    def polled(self, issued: float) -> None:
        """The list in force is that of a poll issued then."""
        self.polled_at, self.failures, self.last_error, self.hurry = issued, 0, None, False
        self.next_try = self.calm_until = -float("inf")

    def apply(self, policy: Policy) -> None:
        """Another policy from now on."""
        self.policy = policy
        self.calm_until = -float("inf")
        for state in self._states.values():
            state.limits = ordinary_limits(policy, state.line)
            state.conclusion = conclude(state.standing, self.policy)
            state.clear = is_clear(state.standing, state.conclusion)
        self._rank_all()

    # Records

    def keys(self) -> list[str]:
        """The keys of all lines' records."""
        states = self._states.values()
        return [key for each in states for key in (each.standing_key, each.spending_key)]

    def seen(self) -> Mapping[str, int]:
        """The versions held of all lines; none where the store does not ask for them, none while nobody else writes, as sending
        them is half of what a swap costs, and none of a long fleet."""
        if len(self._states) > SEEN_AT_MOST or not self.shows_seen or not self.company.near():
            return NOTHING
        return Seen(self.guard, self._versions)

    def _versions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for state in self._states.values():
            found[state.standing_key] = state.standing_version
            found[state.spending_key] = state.spending_version
        return found

    def next_part(self) -> list[str]:
        """What a refusal gives reason to read again of a long fleet: the spending of some lines, the next time that of the
        next. Of equally good lines, on which others spend all the time, most are then known as they are; or seven of eight
        choices of one of eight processes would be refused."""
        if len(self._states) <= SEEN_AT_MOST:
            return []
        part = islice(self._states.values(), *self.company.part(len(self._states)))
        return [each.spending_key for each in part]

    def spent(self, number: str, version: int, spending: Spending, *, mine: bool = False) -> None:
        """A line's spending, as it was written; nothing, if a later one is held. *mine*: this fleet's, with a charge more."""
        state = self._states.get(number)
        if state is None or 0 < version < state.spending_version:
            return
        if take(state, spending, version, mine=mine):
            self._dirty.add(number)

    def stands(self, number: str, version: int, standing: Standing) -> None:
        """A line's standing, as it was written; nothing, if a later one is held."""
        state = self._states.get(number)
        if state is None or 0 < version < state.standing_version:
            return
        state.standing, state.standing_version, state.budget = standing, version, None
        state.on_time = False
        state.same = Write(state.standing_key, version, SAME)
        self.evidence.hear(number, standing)
        state.conclusion = conclude(standing, self.policy)
        state.clear = is_clear(standing, state.conclusion)
        self._dirty.add(number)

    def recorded(self, version: int, record: FleetRecord | None) -> None:
        """The fleet's record, as it is now."""
        self.record, self.record_version = record or FleetRecord(), version

    def wrote(self, key: str, version: int, record: Any, *, lost: bool = False) -> None:
        """A record this process has just written, or that a store went back to. Those of recipients are not the fleet's."""
        if key == self.fleet_key:
            self.recorded(version, record)
        elif key[:5] == "line/":
            number, what = key[5:].rsplit("/", 1)
            state = self._states.get(number)
            if what == "spending":
                if lost and state is not None:
                    state.spending_version = 0
                self.spent(number, version, record or Spending())
            elif what == "standing":
                if lost and state is not None:
                    state.standing_version = 0
                self.stands(number, version, record or Standing())

    def learn(self, found: Mapping[str, Record], sent: Mapping[str, int] = {}) -> None:
        """Take in records as a store returned them; what is older than the one held is left, unless the store refused the very
        versions that are held, as they were *sent*: then it has lost what it once acknowledged, and this is what there is."""
        for key, record in found.items():
            version = record.version
            if key == self.fleet_key:
                held = self.record_version
            elif key[:5] == "line/":
                number, what = key[5:].rsplit("/", 1)
                state = self._states.get(number)
                if state is None or what == "tally":
                    continue
                held = state.spending_version if what == "spending" else state.standing_version
            else:
                continue
            lost = version < held == sent.get(key)
            if held != version and (not version or version > held or lost):
                self.wrote(key, version, decode(key, record), lost=lost)

    @property
    def span(self) -> float:
        """How long a better value must have been seen before it counts, in seconds."""
        return (self.policy.recovery.confirmations - 1) * self.policy.health.ttl

    def _empty_ranking(self) -> Ranking:
        tiers = 2 if self.policy.prefer == "healthiest" else 1
        return Ranking(tiers, areas=self.policy.affinity.area_code < 1.0)

    def _rank_all(self) -> None:
        for state in self._states.values():
            state.budget, state.on_time = None, False
        self._ranking, self._ranks = self._empty_ranking(), {}
        self.company.met()
        self._dirty = set(self._states)
