"""What keeps the records true: reports of lines, and the operator's and the importer's verbs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import attrs

from linepicker import _record as records
from linepicker._asks import (
    Flow,
    Read,
    Scan,
    Swap,
    Who,
)
from linepicker._contact import Contact
from linepicker._decode import decode
from linepicker._learn import judged
from linepicker._line import remembering, timely
from linepicker._links import CHATS_KEPT, link_of, usable
from linepicker._news import line_news
from linepicker._observations import DRIFT, UNKNOWN
from linepicker._polls import open_store, ready
from linepicker._record import EPOCH, Spending, Standing
from linepicker._small import Block
from linepicker._update import absorb, update
from linepicker.fleet import Fleet
from linepicker.model import (
    LineAssigned,
    LineChanged,
    LineReleased,
)
from linepicker.recipients import Recipient
from linepicker.stores import Answer, Record, Write

EVENTS_KEPT: Final = 2 * 86400.0
"""How long, in seconds, an event id is remembered. Linq retries for at most about half an hour."""
_AT_ONCE: Final = 200


def report_line(
    fleet: Fleet, report: LineChanged | LineAssigned | LineReleased, now: float
) -> Flow[bool]:
    """What the provider says of a line. False: a duplicate, out of date, or not a line of the fleet. Of a line that the store
    knows it is written all the same: another process may have read a list that has it, or it may come back."""
    now = yield from ready(fleet, now)
    if isinstance(report, LineAssigned):
        fleet.hurry, fleet.calm_until = True, -float("inf")
        return True
    number = report.number
    key, event = records.standing_key(number), None
    spending_key = records.spending_key(number)
    if isinstance(report, LineReleased) and report.event_id:
        # Nothing else remembers one that a list has overtaken.
        event = records.event_key(report.event_id)

    moved = False

    def change(was: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        nonlocal moved
        moved, known = False, event is not None and was[event] is not None
        listed = is_listed(fleet, number, was[key])
        if known or (not listed and was[key] is None):
            return None
        record = was[fleet.fleet_key]
        polls = record.seen(fleet.members) if record and listed else ()
        before = timely(was[key] or Standing(first_seen=now), now)
        after = _reported(fleet, before, polls, report, now)
        if (
            after is None
        ):  # what a later release has overtaken comes again perhaps when a list has ended that one
            return None if event is None or before.released is None else {event: b"\x01"}
        moved = listed
        limits = fleet.limits(number)
        spending = was[spending_key] or Spending()
        after = judged(before, after, spending, limits, fleet.policy, report.at, now)
        return {key: after} if event is None else {key: after, event: b"\x01"}

    keys = [key, spending_key, fleet.fleet_key, *([event] if event else [])]
    expires = {event: now + EVENTS_KEPT} if event else {}
    written: bool = yield from update(fleet, keys, change, expires=expires, glimpsed=spending_key)
    if written:
        yield from line_news(fleet, number)
    return written and moved


def is_listed(fleet: Fleet, number: str, standing: Standing | None) -> bool:
    """Whether a line is of the fleet; as long as no list was read, whether the store knows it. Raises SourceError where
    neither tells: the report can be made again."""
    if fleet.polled_at is None and standing is None:
        raise fleet.unread()
    return fleet.polled_at is None or fleet.state(number) is not None


def _reported(
    fleet: Fleet,
    standing: Standing,
    polls: Sequence[float],
    report: LineChanged | LineReleased,
    now: float,
) -> Standing | None:
    span = fleet.span
    if isinstance(report, LineReleased):
        at = min(report.at, now)
        outdated = fleet.polled_at is not None and at + DRIFT < min(fleet.polled_at, now)
        if outdated or (standing.released is not None and now >= standing.released >= at):
            return None
        return attrs.evolve(standing, released=now)
    polls = tuple(p for p in polls if p <= now)
    after = standing
    said = UNKNOWN if report.unrecognised is not None else report.reputation
    if said is not None:
        repeated = () if standing.reputation.in_doubt(span) else polls
        seen = standing.reputation.not_after(now).add_report(
            str(said), report.at, now, polls=repeated, span=span
        )
        after = attrs.evolve(after, reputation=seen or standing.reputation)
    if report.status is not None:
        state = fleet.state(report.number)
        shown = state is not None and state.line.status is not None  # else polls say nothing of it
        repeated = polls if shown and not standing.status.in_doubt(span) else ()
        seen = standing.status.not_after(now).add_report(
            str(report.status), report.at, now, polls=repeated, span=span
        )
        after = attrs.evolve(after, status=seen or standing.status)
    return remembering(after, span, now) if after != standing else None


def operate(fleet: Fleet, number: str, state: str, reason: str, now: float) -> Flow[None]:
    """Pause, drain or resume a line."""
    yield from ready(fleet, now)
    key = records.standing_key(number)

    def change(was: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        if not is_listed(fleet, number, was[key]):
            raise ValueError(f"{number} is not a line of this fleet")
        standing = was[key] or Standing(first_seen=now)
        return {key: attrs.evolve(standing, operator=state, reason=reason)}

    yield from update(fleet, [key], change)
    yield from line_news(fleet, number)


def contact_of(fleet: Fleet, who: Who, now: float) -> Flow[Contact | None]:
    """A recipient's contact, read anew."""
    if not fleet.same.version:
        yield from open_store(fleet, write=False)
    answer: Answer = yield Read([who.contact_key, EPOCH])
    absorb(fleet, answer, who)
    contact: Contact | None = decode(who.contact_key, answer.records[who.contact_key])
    return contact


class Belongs(NamedTuple):
    """That the recipient whose contact is at `key` belongs to a line. `who` is only needed beside a `chat_id`."""

    key: str
    recipient: Recipient
    number: str
    since: float | None = None
    chat_id: str | None = None
    who: Who | None = None


def assign(
    fleet: Fleet, wanted: Iterable[Belongs], now: float, *, keep: bool, strangers: bool
) -> Flow[int]:
    """Assign recipients in one swap; how many had no line before. Raises ValueError where one has another line, unless
    *keep* leaves those as they are. *strangers*: probably nobody has, so this is tried before anybody is read."""
    if not fleet.same.version:
        yield from open_store(fleet, write=True)
    mine = {each.key: each for each in wanted}
    if not mine:
        return 0
    chats = {
        records.chat_key(each.chat_id): each
        for each in mine.values()
        if each.chat_id is not None and usable(each.chat_id)
    }
    if strangers and not chats and (yield from _met(fleet, mine, now)):
        return len(mine)
    new = 0

    def change(was: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        nonlocal new
        after: dict[str, Any] = {
            key: _belonging(each, was[key], now, keep=keep) for key, each in mine.items()
        }
        for key, each in chats.items():
            assert each.who is not None
            link = link_of(was[key], each.who, each.number, now)
            after[key] = link if after[each.key].number == each.number else was[key]
        new = sum(was[key] is None for key in mine)
        return after

    expires = dict.fromkeys(chats, now + CHATS_KEPT)
    written: bool = yield from update(fleet, [*mine, *chats], change, expires=expires)
    return new if written else 0


def _met(fleet: Fleet, mine: Mapping[str, Belongs], now: float) -> Flow[bool]:
    """Write all of them as new; False: one of them is not, and nothing was written."""
    alike: dict[tuple[str, float | None], bytes] = {}  # nothing in a record tells whose it is
    writes = []
    for key, each in mine.items():
        line = (each.number, each.since)
        raw = alike.get(line)
        if raw is None:
            raw = alike[line] = _belonging(each, None, now, keep=False).encode()
        writes.append(Write(key, 0, raw))
    answer: Answer = yield Swap([*writes, fleet.same], {})
    if not answer.applied:
        absorb(fleet, answer, refused=writes)
    return answer.applied


def _belonging(wanted: Belongs, contact: Contact | None, now: float, *, keep: bool) -> Contact:
    chats = {wanted.number: wanted.chat_id} if wanted.chat_id else {}
    if contact is None:
        contact = Contact(wanted.number, now if wanted.since is None else wanted.since)
    if contact.number != wanted.number:
        if not keep:
            raise ValueError(
                f"{wanted.recipient.masked} already belongs to {contact.number}: move() changes that"
            )
        return contact
    if chats.items() <= contact.chats.items():
        return contact
    return contact.having(chats={**contact.chats, **chats})


def forget(fleet: Fleet, who: Who) -> Flow[None]:
    """Erase a recipient in all pools, and what tells their messages and conversations. An opt-out or block that holds stays,
    and for 24 hours what their keys stand for, or a repeated key would send twice."""
    if not fleet.same.version:
        yield from open_store(fleet, write=True)
    mine = {who.contact_key}
    people: Sequence[tuple[str, Record]] = yield Scan("to/")
    mine.update(key for key, _ in people if key.split("/", 2)[2] == who.recipient.key)
    for prefix in ("chat/", "message/"):
        found: Sequence[tuple[str, Record]] = yield Scan(prefix)
        mine.update(key for key, each in found if decode(key, each).to == who.recipient.key)
    keys = [*mine, *([who.block_key] if who.block_key else [])]
    for start in range(0, len(keys), _AT_ONCE):
        yield from update(fleet, keys[start : start + _AT_ONCE], _forgotten, who=who)


def _forgotten(was: Mapping[str, Any], _: float) -> Mapping[str, Any]:
    return {
        key: each if isinstance(each, Block) and each.code is not None else None
        for key, each in was.items()
    }
