"""What keeps the records true: reports, and the operator's and the importer's verbs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from linepicker import _record as records
from linepicker import _windows as windows
from linepicker._asks import (
    Flow,
    Read,
    Who,
)
from linepicker._contact import Contact
from linepicker._observations import DRIFT, UNKNOWN
from linepicker._polls import open_store, ready
from linepicker._record import EPOCH, Spending, Standing
from linepicker._small import Block
from linepicker._update import absorb, update
from linepicker.errors import SourceError
from linepicker.fleet import Fleet, decode
from linepicker.model import (
    LineAssigned,
    LineChanged,
    LineReleased,
)
from linepicker.stores import Answer

EVENTS_KEPT: Final = 2 * 86400.0
"""How long, in seconds, an event id is remembered. Linq retries for at most about half an hour."""

_KEYWORDS: Final = frozenset({"STOP", "UNSUBSCRIBE", "OPTOUT", "CANCEL", "END", "QUIT"})
_OPT_OUT: Final = re.compile(r"opt[ -]?out", re.IGNORECASE)


def is_opt_out(text: str) -> bool:
    """Whether a whole message is an opt-out keyword as Linq defines them (chat health_status): exact upper case, but "opt
    out" in any case, with or without a space or hyphen."""
    said = text.strip()
    return said in _KEYWORDS or _OPT_OUT.fullmatch(said) is not None


def report_line(
    fleet: Fleet, report: LineChanged | LineAssigned | LineReleased, now: float
) -> Flow[bool]:
    """What the provider says of a line. False: a duplicate, out of date, or not a line of the fleet."""
    now = yield from ready(fleet, now)
    if isinstance(report, LineAssigned):
        fleet.hurry, fleet.calm_until = True, -float("inf")
        return True
    number = report.number
    key = records.standing_key(number)

    def change(was: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not _listed(fleet, number, was[key]):
            return None
        record = was[fleet.fleet_key]
        polls = record.polls if record else ()
        after = _reported(fleet, was[key] or Standing(first_seen=now), polls, report, now)
        return None if after is None else {key: after}

    written: bool = yield from update(fleet, [key, fleet.fleet_key], change)
    return written


def _listed(fleet: Fleet, number: str, standing: Standing | None) -> bool:
    """Whether a line is of the fleet; as long as no list was read, whether the store knows it. Raises SourceError where
    neither tells: the report can be made again."""
    if fleet.polled_at is None and standing is None:
        raise fleet.last_error or SourceError("no list of lines has been read yet")
    return fleet.polled_at is None or fleet.state(number) is not None


def _reported(
    fleet: Fleet,
    standing: Standing,
    polls: Sequence[float],
    report: LineChanged | LineReleased,
    now: float,
) -> Standing | None:
    span = fleet.span
    at = min(report.at, now)
    if isinstance(report, LineReleased):
        outdated = fleet.polled_at is not None and at + DRIFT < min(fleet.polled_at, now)
        if outdated or (standing.released is not None and now >= standing.released >= at):
            return None
        return attrs.evolve(standing, released=now)
    polls = tuple(p for p in polls if p <= now)
    after = standing
    said = UNKNOWN if report.unrecognised is not None else report.reputation
    if said is not None:
        seen = standing.reputation.not_after(now).add_report(
            str(said), at, now, polls=polls, span=span
        )
        after = attrs.evolve(after, reputation=seen or standing.reputation)
    if report.status is not None:
        state = fleet.state(report.number)
        shown = state is not None and state.line.status is not None  # else polls say nothing of it
        seen = standing.status.not_after(now).add_report(
            str(report.status), at, now, polls=polls if shown else (), span=span
        )
        after = attrs.evolve(after, status=seen or standing.status)
    return after if after != standing else None


def report_person(fleet: Fleet, who: Who, now: float, *, at: float, back: bool) -> Flow[bool]:
    """An opt-out (or, with *back*, a return) of one handle."""
    now = yield from ready(fleet, now)
    key = who.block_key
    if key is None:
        return False  # groups are never blocked
    moment = min(at, now)
    written: bool = yield from update(
        fleet,
        [key],
        lambda was: {key: _turned(was[key] or Block(), moment, back=back)},
        who=who,
    )
    return written


def _turned(block: Block, at: float, *, back: bool) -> Block:
    """After an opt-out or a return; the same, where something later is known."""
    never = -float("inf")
    barred = max(block.out or never, block.refused or never)
    if back:
        return attrs.evolve(block, back=max(at, block.back or at)) if at > barred else block
    return (
        attrs.evolve(block, out=max(at, block.out or at)) if at >= (block.back or never) else block
    )


def report_reply(
    fleet: Fleet,
    who: Who,
    now: float,
    *,
    number: str,
    text: str | None,
    at: float,
    event_id: str | None,
) -> Flow[bool]:
    """A person wrote: a message on that line, an assignment if they have none, and a return unless it is an opt-out."""
    now = yield from ready(fleet, now)
    moment = min(at, now)
    standing_key = records.standing_key(number)
    spending_key = records.spending_key(number)
    event = records.event_key(event_id) if event_id else None

    def change(was: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if event is not None and was[event] is not None:
            return None
        after = dict(was)
        out = text is not None and is_opt_out(text)
        unsure = fleet.polled_at is None and was[standing_key] is None
        if not (out and unsure) and _listed(fleet, number, was[standing_key]):
            spending = (was[spending_key] or Spending()).copy()
            windows.add_message(spending, moment, now)
            after[spending_key] = spending
            if was[who.contact_key] is None:
                after[who.contact_key] = Contact(number, moment)
        if who.block_key is not None:  # an opt-out holds on every line, whichever it was written to
            block = was[who.block_key] or Block()
            if out or block.code:
                after[who.block_key] = _turned(block, moment, back=not out)
        if after == was:
            return None
        if event is not None:
            after[event] = b"\x01"
        return after

    keys = [who.contact_key, who.block_key, spending_key, standing_key, event]
    expires = {} if event is None else {event: now + EVENTS_KEPT}
    written: bool = yield from update(
        fleet, [key for key in keys if key], change, who=who, expires=expires
    )
    return written


def operate(fleet: Fleet, number: str, state: str, reason: str, now: float) -> Flow[None]:
    """Pause, drain or resume a line."""
    yield from ready(fleet, now)
    key = records.standing_key(number)

    def change(was: Mapping[str, Any]) -> Mapping[str, Any]:
        if not _listed(fleet, number, was[key]):
            raise ValueError(f"{number} is not a line of this fleet")
        standing = was[key] or Standing(first_seen=now)
        return {key: attrs.evolve(standing, operator=state, reason=reason)}

    yield from update(fleet, [key], change)


def contact_of(fleet: Fleet, who: Who, now: float) -> Flow[Contact | None]:
    """A recipient's contact, read anew."""
    if not fleet.same.version:
        yield from open_store(fleet, write=False)
    answer: Answer = yield Read([who.contact_key, EPOCH])
    absorb(fleet, answer, who)
    contact: Contact | None = decode(who.contact_key, answer.records[who.contact_key])
    return contact


@attrs.frozen
class Belongs:
    """That a recipient belongs to a line."""

    who: Who
    number: str
    since: float | None = None
    chat_id: str | None = None


def assign(fleet: Fleet, wanted: Iterable[Belongs], now: float, *, keep: bool) -> Flow[int]:
    """Assign recipients in one swap; how many had no line before. Raises ValueError where one has another line, unless
    *keep* leaves those as they are."""
    if not fleet.same.version:
        yield from open_store(fleet, write=True)
    mine = {each.who.contact_key: each for each in wanted}
    if not mine:
        return 0
    new = 0

    def change(was: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal new
        after = {key: _belonging(each, was[key], now, keep=keep) for key, each in mine.items()}
        new = sum(contact is None for contact in was.values())
        return after

    written: bool = yield from update(fleet, list(mine), change)
    return new if written else 0


def _belonging(wanted: Belongs, contact: Contact | None, now: float, *, keep: bool) -> Contact:
    chats = {wanted.number: wanted.chat_id} if wanted.chat_id else {}
    if contact is None:
        return Contact(wanted.number, now if wanted.since is None else wanted.since, chats=chats)
    if contact.number != wanted.number:
        if not keep:
            raise ValueError(
                f"{wanted.who.masked} already belongs to {contact.number}: move() changes that"
            )
        return contact
    if chats.items() <= contact.chats.items():
        return contact
    return attrs.evolve(contact, chats={**contact.chats, **chats})


def forget(fleet: Fleet, who: Who) -> Flow[None]:
    """Erase a recipient's record in this pool. The opt-out stays."""
    if not fleet.same.version:
        yield from open_store(fleet, write=True)
    yield from update(fleet, [who.contact_key], lambda _: {who.contact_key: None}, who=who)
