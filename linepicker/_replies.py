"""What people tell us: replies, opt-outs and returns, written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from linepicker import _record as records
from linepicker import _windows as windows
from linepicker._asks import Flow, Who
from linepicker._contact import Contact
from linepicker._failing import weighed
from linepicker._links import CHATS_KEPT, Finder, link_of, of_pool, owner, pool_of, usable
from linepicker._observations import DRIFT
from linepicker._polls import ready
from linepicker._record import Spending, Standing
from linepicker._small import Block, FleetRecord, Link
from linepicker._tally import Tally
from linepicker._update import update
from linepicker._upkeep import EVENTS_KEPT, is_listed
from linepicker.fleet import Fleet
from linepicker.model import ChatHealth, OptedIn, OptedOut, Replied

_KEYWORDS: Final = frozenset({"STOP", "UNSUBSCRIBE", "OPTOUT", "CANCEL", "END", "QUIT"})
_OPT_OUT: Final = re.compile(r"opt[ -]?out", re.IGNORECASE)


def is_opt_out(text: str) -> bool:
    """Whether a whole message is an opt-out keyword as Linq defines them (chat health_status): exact upper case, but "opt
    out" in any case, with or without a space or hyphen."""
    said = text.strip()
    return said in _KEYWORDS or _OPT_OUT.fullmatch(said) is not None


def report_person(
    fleet: Fleet, report: OptedOut | OptedIn, finder: Finder, now: float
) -> Flow[bool]:
    """An opt-out or a return of one handle."""
    yield from ready(fleet, now)
    who = finder(report.to)
    key = who.block_key
    if key is None:
        return False  # groups are never blocked
    back = isinstance(report, OptedIn)
    written: bool = yield from update(
        fleet,
        [key],
        lambda was, now: {key: turned(was[key] or Block(), min(report.at, now), now, back=back)},
        who=who,
    )
    return written


def turned(block: Block, at: float, now: float, *, back: bool) -> Block:
    """After an opt-out or a return at *at*, heard of *now*; the same, where something later is known."""
    never = -float("inf")
    block = block if back else block.until(at, now + windows.SKEW)
    barred = max(block.out or never, block.refused or never)
    if back:
        return attrs.evolve(block, back=max(at, block.back or at)) if at > barred else block
    return (
        attrs.evolve(block, out=max(at, block.out or at)) if at >= (block.back or never) else block
    )


def report_reply(fleet: Fleet, report: Replied, finder: Finder, now: float) -> Flow[bool]:
    """A person wrote: a message on that line, an assignment if they have none, and a return unless it is an opt-out."""
    now = yield from ready(fleet, now)
    if report.to is None:
        who, _ = yield from owner(fleet, report, finder)
    else:
        who = finder(report.to)
    for _ in range(2):
        reply = _Reply(fleet, report, who, now)
        written: bool = yield from update(
            fleet, reply.keys(), reply.change, who=who, expires=reply.expires
        )
        if who is None or reply.pool is None:
            break
        who = of_pool(who, reply.pool)
    return written


@attrs.define
class _Reply:
    """One reply, and what it changes. *who*: nobody we know, as in a group this deployment never wrote to. `pool`: another
    pool, whose conversation it turned out to be: nothing changed."""

    fleet: Fleet
    report: Replied
    who: Who | None
    now: float
    expires: dict[str, float] = attrs.field(factory=dict)
    pool: str | None = None

    @property
    def at(self) -> float:
        return min(self.report.at, self.now)

    @property
    def chat_id(self) -> str | None:
        return self.report.chat_id if usable(self.report.chat_id) else None

    def keys(self) -> list[str]:
        number, who = self.report.number, self.who
        keys = [
            records.spending_key(number),
            records.standing_key(number),
            records.tally_key(number),
        ]
        if who is not None:
            keys += [who.contact_key, *([who.block_key] if who.block_key else [])]
            keys += [records.chat_key(self.chat_id)] if self.chat_id else []
        keys += [] if self.fleet.record.heard else [self.fleet.fleet_key]
        return keys + ([records.event_key(self.report.event_id)] if self.report.event_id else [])

    def change(self, was: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        """The records after it, *now*; None: a duplicate, or nothing of ours."""
        self.now = now
        report, who, number, self.pool = self.report, self.who, self.report.number, None
        event = records.event_key(report.event_id) if report.event_id else None
        if event is not None and was[event] is not None:
            return None
        link: Link | None = was[records.chat_key(self.chat_id)] if self.chat_id and who else None
        if link is not None and who is not None and link.to == who.recipient.key:
            self.pool = link.pool if link.pool != pool_of(who) else None
            if self.pool is not None:
                return None
        after = dict(was)
        direct = who is not None and who.block_key is not None
        marked = report.chat_health is ChatHealth.OPTED_OUT  # all there is of a text kept back
        out = direct and (marked if report.text is None else is_opt_out(report.text))
        standing_key = records.standing_key(number)
        unsure = self.fleet.polled_at is None and was[standing_key] is None
        mine = not (out and unsure) and is_listed(self.fleet, number, was[standing_key])
        if mine:
            spending = (was[records.spending_key(number)] or Spending()).copy()
            windows.add_message(spending, self.at, self.now)
            after[records.spending_key(number)] = spending
            if who is not None:
                self._contact(who, after)
        if who is not None and who.block_key is not None:
            self._turn(who.block_key, after, out=out, mine=mine)
        if after == was:
            return None
        if mine and was[standing_key] is not None:
            self._weigh(after)
        if mine and self.fleet.fleet_key in was:
            record = was[self.fleet.fleet_key] or FleetRecord()
            after[self.fleet.fleet_key] = attrs.evolve(record, heard=True)
        if event is not None:
            after[event], self.expires[event] = b"\x01", self.now + EVENTS_KEPT
        return after

    def _turn(self, key: str, after: dict[str, Any], *, out: bool, mine: bool) -> None:
        """Opted out, or back: on every line, whichever it was written to. Who never left is remembered as back as well, for a
        while: an opt-out that they wrote before may still be on its way."""
        block = after[key] or Block()
        if out and mine and not block.code:
            self._count(after, "opted_out", self.at)
        if out or mine or block.code:
            block = after[key] = turned(block, self.at, self.now, back=not out)
        self.expires.pop(key, None)
        if block.out is block.refused is None:
            self.expires[key] = self.now + EVENTS_KEPT

    def _contact(self, who: Who, after: dict[str, Any]) -> None:
        number, chat_id = self.report.number, self.chat_id
        contact: Contact | None = after[who.contact_key]
        if contact is None:
            contact = Contact(number, self.at, replied_at=self.at)
        elif contact.number == number:
            at = self.at
            if contact.since - DRIFT <= at < contact.since:  # at once, and Linq's clock is behind
                at = contact.since
            first = contact.opened and contact.replied_at < contact.since <= at
            contact = contact.replied(at, self.now + windows.SKEW)
            if first:
                self._count(after, "answered", contact.since)
        if contact.number == number:
            if chat_id is not None:
                contact = contact.in_chat(chat_id)
                key = records.chat_key(chat_id)
                self.expires[key] = self.now + CHATS_KEPT
                after[key] = link_of(after[key], who, number, self.now)
            if self.report.chat_health is not None:
                seen_at = min(self.report.chat_health_at or self.report.at, self.now)
                latest = self.now + windows.SKEW
                contact = contact.felt(str(self.report.chat_health), seen_at, latest) or contact
        after[who.contact_key] = contact

    def _count(self, after: dict[str, Any], name: str, at: float) -> None:
        key = records.tally_key(self.report.number)
        after[key] = (after[key] or Tally()).add(name, at, self.now)

    def _weigh(self, after: dict[str, Any]) -> None:
        number = self.report.number
        standing: Standing = after[records.standing_key(number)]
        after[records.standing_key(number)] = weighed(
            standing,
            after[records.tally_key(number)] or Tally(),
            after[records.spending_key(number)] or Spending(),
            self.fleet.limits(number),
            self.fleet.policy,
            self.now,
            heard=True,
        )
