"""Polls: opening the store, reading the list of lines when it is due, and writing what it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import attrs

from linepicker import _record as records
from linepicker._asks import (
    ATTEMPTS,
    Dice,
    Fetch,
    Fetched,
    Flow,
    Lead,
    NewId,
    Now,
    Read,
    Say,
    Sleep,
    Swap,
)
from linepicker._decode import decode
from linepicker._kept import Held
from linepicker._learn import judged
from linepicker._listed import observed
from linepicker._news import news
from linepicker._outage import pay
from linepicker._record import EPOCH, Spending, Standing
from linepicker._settle import flush
from linepicker._tally import Tally
from linepicker._update import MOVED, absorb, busy, encoded, moved_away
from linepicker.errors import SourceError, StoreError
from linepicker.fleet import Fleet
from linepicker.model import (
    Line,
)
from linepicker.stores import Answer, Write

LEASE: Final = 5.0
"""For how long, in seconds, one process may be the only one that reads the list; one attempt takes at most 2."""


def ready(fleet: Fleet, now: float, *, write: bool = True) -> Flow[float]:
    """Open the store, write what was left behind, and refresh a stale snapshot. Answers the moment it is then."""
    if not fleet.same.version:
        yield from open_store(fleet, write=write)
    if write and fleet.debts:
        yield from pay(fleet)
    if write and fleet.late:
        yield from flush(fleet, now)
    while write and fleet.owed:
        lines, issued = fleet.owed[0]
        yield from _absorb_poll(fleet, lines, issued, write=True)
        if fleet.owed and fleet.owed[0][1] == issued:
            fleet.owed.popleft()
        if not fleet.owed:
            fleet.returned = frozenset()
    if fleet.poll_due(now):
        try:
            yield from refresh(fleet, now, patient=False, write=write)
        except SourceError:
            if fleet.polled_at is None and fleet.last_error is None:
                raise
    now = fleet.at((yield Now()))
    if (yield from news(fleet, now)):
        now = fleet.at((yield Now()))
    return now


def read_all(fleet: Fleet, now: float) -> Flow[float]:
    """Read the records of all lines anew. Answers the moment it is then. Raises SourceError where no list was ever read."""
    yield from ready(fleet, now)
    if fleet.polled_at is None:
        raise fleet.unread()
    answer: Answer = yield Read([EPOCH, *fleet.keys()])
    absorb(fleet, answer)
    return fleet.at((yield Now()))


def tallies(fleet: Fleet) -> Flow[Mapping[str, Tally | None]]:
    """The tallies of all lines by their numbers, None for a line that has none."""
    keys = {number: records.tally_key(number) for number, _ in fleet.states()}
    answer: Answer = yield Read(list(keys.values()))
    return {number: decode(key, answer.records[key]) for number, key in keys.items()}


def open_store(fleet: Fleet, *, write: bool) -> Flow[None]:
    """Learn which store this is; mark an empty one."""
    answer: Answer = yield Read([EPOCH])
    if fleet.same.version:
        return  # another call has been quicker; each swap demands the epoch anyhow
    record = answer.records[EPOCH]
    if record.value is None and not fleet.epoch:
        if not write:
            return
        made: str = yield NewId()
        answer = yield Swap([Write(EPOCH, 0, made.encode())], {})
        if answer.applied:
            fleet.opened(made, answer.records[EPOCH].version)
            yield Say(
                f"the store is new: it knows no line or recipient (epoch {made})", 20, "store"
            )
            return
        record = answer.records[EPOCH]
    if (record.value or b"").startswith(MOVED):
        raise moved_away(record.value or b"")
    found = (record.value or b"").decode(errors="replace")
    if fleet.epoch and fleet.epoch != found:
        raise StoreError(
            f"this is not the store that was asked for: its epoch is {found or 'unset'}, not {fleet.epoch}. "
            "Name the right store, or leave ?epoch= out to begin with this one",
            answered=True,
        )
    fleet.opened(found, record.version)


def left_over(fleet: Fleet, now: float) -> Flow[None]:
    """Write what a store outage left behind."""
    yield from flush(fleet, now)


def refresh_now(fleet: Fleet, now: float) -> Flow[None]:
    """Fetch the lines because somebody asked. Raises SourceError."""
    if not fleet.same.version:
        yield from open_store(fleet, write=True)
    if fleet.static and fleet.polled_at is not None:
        return  # such a list is read once
    yield from refresh(fleet, now, patient=True)
    yield from news(fleet, (yield Now()), at_once=True)


def refresh(fleet: Fleet, now: float, *, patient: bool, write: bool = True) -> Flow[None]:
    """Fetch the lines, unless another call just has. Raises SourceError."""
    attempts = fleet.attempts
    leads: bool = yield Lead(patient or fleet.polled_at is None)
    if not leads:
        return
    flight = fleet.flight
    assert flight is not None
    try:
        if not patient and (fleet.attempts != attempts or not fleet.poll_due(now)):
            return  # another call has just been there
        if not patient and write and (yield from _left_to_another(fleet, now)):
            return
        fetched: Fetched = yield Fetch(patient)
        fleet.attempts += 1
        fleet.tried_at = fetched.issued
        if not fleet.believable(fetched.lines):
            fleet.next_try = fetched.issued + fleet.policy.health.ttl
            what = "is empty"
            if len(fleet):
                what = f"shrank from {len(fleet)} to {len(fetched.lines)}"
            error = SourceError(
                f"the list of lines {what}: it counts when a second one says the same"
            )
            if fleet.polled_at is None:
                fleet.next_try = fetched.issued
            fleet.last_error = error
            yield Say(str(error), 30, "list")
            return
        yield from _absorb_poll(fleet, fetched.lines, fetched.issued, write=write)
    except SourceError as error:
        fleet.attempts += 1
        dice: float = yield Dice()
        now = yield Now()
        fleet.poll_failed(error, now, dice)
        yield Say(f"the list of lines could not be read: {error}", 30, "list")
        raise
    except StoreError:
        fleet.next_try = (
            now + 1.0
        )  # the provider need not be asked again for each call that the store fails
        raise
    finally:
        flight.release()


def _left_to_another(fleet: Fleet, now: float) -> Flow[bool]:
    """Whether another process has read the same list within the ttl, or is reading it: one poll serves a whole deployment. Else
    this one takes the lease, which ends by itself should it die."""
    if not fleet.shows_seen or fleet.hurry or fleet.polled_at is None:
        return False
    answer: Answer = yield Read([fleet.fleet_key, EPOCH, *fleet.keys()])
    absorb(fleet, answer)
    latest = max((at for at in fleet.record.polls if at <= now + 1.0), default=-float("inf"))
    if fleet.record.digest == fleet.digest and now - latest <= fleet.policy.health.ttl:
        fleet.polled(latest)
        return True
    if now < fleet.record.lease_until <= now + LEASE:
        fleet.next_try = now + 1.0
        return True
    leased = attrs.evolve(fleet.record, lease_until=now + LEASE)
    writes = [Write(fleet.fleet_key, fleet.record_version, encoded(leased)), fleet.same]
    answer = yield Swap(writes, {})
    if not answer.applied:
        absorb(fleet, answer)
        fleet.next_try = now + 1.0
        return True
    fleet.recorded(answer.records[fleet.fleet_key].version, leased)
    return False


def digest_of(lines: Sequence[Line]) -> str:
    """A list of lines in short: equal for equal lines in any order."""
    return _short(repr(attrs.evolve(line, tags=())) + repr(sorted(line.tags)) for line in lines)


def members_of(lines: Iterable[Line]) -> str:
    """Which lines a list has, in short."""
    return _short(line.number for line in lines)


def _short(told: Iterable[str]) -> str:
    return blake2b("\n".join(sorted(told)).encode(), digest_size=12).hexdigest()


def _absorb_poll(fleet: Fleet, lines: Sequence[Line], issued: float, *, write: bool) -> Flow[None]:
    """Write what a list of lines changes, and make it the fleet. The first one is written in one swap with the fleet's
    record, so that no second process takes its lines for newcomers."""
    keys, digest, members = [fleet.fleet_key, EPOCH], digest_of(lines), members_of(lines)
    for line in lines:
        keys += (records.standing_key(line.number), records.spending_key(line.number))
    for attempt in range(ATTEMPTS):
        if attempt > 1:
            dice: float = yield Dice()
            yield Sleep(0.05 * dice)
        answer: Answer = yield Read(keys)
        now: float = yield Now()
        absorb(fleet, answer)
        found = answer.records[fleet.fleet_key]
        fleet.recorded(found.version, decode(fleet.fleet_key, found))
        first = fleet.record.first is None and bool(lines)
        polls = fleet.record.seen(members)
        held, changed = _compare(fleet, lines, issued, now, polls, answer, first=first, write=write)
        record = fleet.repeated(issued, now, digest, members, first=first)
        if not write:
            fleet.owe(list(lines), issued)
            fleet.install(lines, held, issued)
            fleet.record, fleet.digest, fleet.members = record, digest, members
            return
        writes = [
            Write(records.standing_key(number), held[number].standing_version, standing.encode())
            for number, standing in changed.items()
        ]
        told = record != fleet.record  # who waits meanwhile may bring another
        if told:
            writes.append(Write(fleet.fleet_key, fleet.record_version, encoded(record)))
        if writes:
            writes.append(fleet.same)
            answer = yield Swap(writes, {})
            if not answer.applied:
                continue
            for number, standing in changed.items():
                key = records.standing_key(number)
                held[number].standing = standing
                held[number].standing_version = answer.records[key].version
            if told:
                fleet.recorded(answer.records[fleet.fleet_key].version, record)
        fleet.install(lines, held, issued)
        fleet.digest, fleet.members = digest, members
        return
    raise busy()


def _compare(
    fleet: Fleet,
    lines: Sequence[Line],
    issued: float,
    now: float,
    polls: Sequence[float],
    answer: Answer,
    *,
    first: bool,
    write: bool,
) -> tuple[dict[str, Held], dict[str, Standing]]:
    """The lines' records as read, and the standings the poll changes."""
    held, changed = {}, {}
    for line in lines:
        standing_key = records.standing_key(line.number)
        spending_key = records.spending_key(line.number)
        was, spent = answer.records[standing_key], answer.records[spending_key]
        standing: Standing | None = decode(standing_key, was)
        state = fleet.state(line.number)
        if not write and state is not None and state.standing_version == was.version:
            standing = state.standing  # which may hold what earlier previews saw
        spending: Spending = decode(spending_key, spent) or Spending()
        after = observed(fleet, line, standing, issued, now, polls, first=first)
        if after is not None and standing is not None:
            limits = fleet.policy.limits_for(line)
            after = judged(standing, after, spending, limits, fleet.policy, issued, now)
        if after is not None:
            changed[line.number] = after
        held[line.number] = Held(
            after or standing or Standing(), was.version, spending, spent.version
        )
    return held, changed
