"""What the provider tells of messages and conversations, written: receipts, failures, and its view of a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from linepicker import _record as records
from linepicker._asks import Flow, Say, Who
from linepicker._contact import Contact
from linepicker._failing import after_delivery, after_failure, weighed
from linepicker._line import timely
from linepicker._links import (
    CHATS_KEPT,
    MESSAGES_KEPT,
    Finder,
    line_of,
    link_of,
    owner,
    usable,
)
from linepicker._news import line_news
from linepicker._polls import ready
from linepicker._record import Spending, Standing
from linepicker._replies import turned
from linepicker._small import Block, Link
from linepicker._tally import Tally, failed
from linepicker._update import update
from linepicker._upkeep import EVENTS_KEPT, is_listed
from linepicker._windows import SKEW
from linepicker.fleet import Fleet
from linepicker.model import ChatHealth, ChatHealthChanged, Delivered, Failed, MessageRead

Receipt = Delivered | MessageRead | Failed


def report_receipt(fleet: Fleet, report: Receipt, finder: Finder, now: float) -> Flow[bool]:
    """What became of a message. False: known, or of no line of this fleet."""
    now = yield from ready(fleet, now)
    who, number = yield from owner(fleet, report, finder, report.message_id)
    number = report.number or number
    if number is None and who is not None:
        number = yield from line_of(fleet, who)
    if number is None:
        return False
    receipt = _Receipt(fleet, report, who, number, now)
    written: bool = yield from update(
        fleet, receipt.keys(), receipt.change, who=who, expires=receipt.expires()
    )
    if written and receipt.tripped:
        told = f"messages of {number} fail ({receipt.tripped}): {fleet.policy.failures.mode}"
        yield Say(told, 30, "failing")
        yield from line_news(fleet, number)
    return written


@attrs.define
class _Receipt:
    """One receipt, and what it changes."""

    fleet: Fleet
    report: Receipt
    who: Who | None
    number: str
    now: float
    tripped: str | None = None

    @property
    def at(self) -> float:
        return min(self.report.at, self.now)

    @property
    def message(self) -> str | None:
        found = self.report.message_id
        return records.message_key(found) if found and usable(found) else None

    @property
    def event(self) -> str | None:
        """Where the message has no id, the event must tell duplicates."""
        if self.message is not None or not self.report.event_id:
            return None
        return records.event_key(self.report.event_id)

    def keys(self) -> list[str]:
        number = self.number
        keys = [records.standing_key(number), records.tally_key(number)]
        keys.append(records.spending_key(number))
        keys += [each for each in (self.message, self.event) if each is not None]
        if self.report.chat_health is not None and self.who is not None:
            keys += chat_keys(self.who, self.report.chat_id)
        return keys

    def expires(self) -> Mapping[str, float]:
        found = chat_expiry(self.report.chat_id, self.now)
        if self.message is not None:
            found[self.message] = self.now + MESSAGES_KEPT
        if self.event is not None:
            found[self.event] = self.now + EVENTS_KEPT
        return found

    def change(self, was: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        """The records after it, *now*; None: nothing new."""
        self.now = now
        report, number, self.tripped = self.report, self.number, None
        after = dict(was)
        if is_listed(self.fleet, number, was[records.standing_key(number)]):
            self._happened(after)
        if report.chat_health is not None and self.who is not None:
            at = self.at if report.chat_health_at is None else min(report.chat_health_at, self.now)
            feel(after, self.who, number, report.chat_id, report.chat_health, at, self.now)
        return None if after == was else after

    def _happened(self, after: dict[str, Any]) -> None:
        """Count it, unless it was: what the message went through tells, and where it has no id, the event."""
        report, link = self.report, Link("", "", self.number, self.at)
        if self.message is not None:
            link = after[self.message] or link
        elif self.event is not None:
            if after[self.event] is not None:
                return
            after[self.event] = b"\x01"
        if isinstance(report, Failed):
            self._failed(report, link, after)
        else:
            self._arrived(report, link, after)

    def _failed(self, report: Failed, link: Link, after: dict[str, Any]) -> None:
        if link.delivered or link.failed_at is not None:
            return
        blamed, unreceipted = not report.recipient_fault, report.unreceipted or self._in_group(link)
        if self.message is not None:
            after[self.message] = attrs.evolve(
                link, failed_at=self.at, code=report.code, blamed=blamed, unreceipted=unreceipted
            )
        if not blamed:
            return
        before = after[records.tally_key(self.number)] or Tally()
        self._add(after, failed(report.code), self.at, outcome=not unreceipted)
        if not unreceipted:
            self._judge(link.at, before, after)
        self._weigh(after)

    def _judge(self, sent_at: float, before: Tally, after: dict[str, Any]) -> None:
        """What follows for the line from a failure that has been counted."""
        key, spending_key = records.standing_key(self.number), records.spending_key(self.number)
        standing: Standing = timely(after[key] or Standing(first_seen=self.now), self.now)
        tally = after[records.tally_key(self.number)]
        after[key], self.tripped = after_failure(
            standing, before, tally, self.fleet.policy, self.number, sent_at, self.now
        )
        if after[key].failing_until != standing.failing_until:
            _end_probe(after, spending_key)

    def _arrived(self, report: Delivered | MessageRead, link: Link, after: dict[str, Any]) -> None:
        read = link.read or isinstance(report, MessageRead)
        told = attrs.evolve(link, delivered=True, read=read, failed_at=None)
        if told == link:
            return
        if self.message is not None:
            after[self.message] = told
        if link.failed_at is not None and link.blamed:  # it came after all
            name, outcome = failed(link.code), not link.unreceipted
            self._add(after, name, link.failed_at, -1, outcome=outcome)
        if not link.delivered and (self.message is not None or isinstance(report, Delivered)):
            self._delivered(after, link)
        if read and not link.read:
            self._add(after, "read", self.at)
        self._weigh(after)

    def _in_group(self, link: Link) -> bool:
        """Whether it went to a group, which owes no receipts."""
        return "," in link.to or (self.who is not None and self.who.is_group)

    def _delivered(self, after: dict[str, Any], link: Link) -> None:
        self._add(after, "delivered", self.at, outcome=not self._in_group(link))
        key, spending_key = records.standing_key(self.number), records.spending_key(self.number)
        standing: Standing | None = after[key]
        if standing is None:
            return
        after[key] = after_delivery(timely(standing, self.now), link.at)
        if after[key].failing_until != standing.failing_until:
            _end_probe(after, spending_key)

    def _add(
        self, after: dict[str, Any], name: str, at: float, count: int = 1, *, outcome: bool = True
    ) -> None:
        key = records.tally_key(self.number)
        after[key] = (after[key] or Tally()).add(name, at, self.now, count, outcome=outcome)

    def _weigh(self, after: dict[str, Any]) -> None:
        standing = after[records.standing_key(self.number)]
        if standing is not None:
            after[records.standing_key(self.number)] = weighed(
                standing,
                after[records.tally_key(self.number)] or Tally(),
                after[records.spending_key(self.number)] or Spending(),
                self.fleet.limits(self.number),
                self.fleet.policy,
                self.now,
                heard=self.fleet.record.heard,
            )


def _end_probe(after: dict[str, Any], spending_key: str) -> None:
    """What the line's probe was for is known."""
    if after[spending_key] is not None and after[spending_key].probe:
        freed: Spending = after[spending_key].copy()
        freed.probe = 0
        after[spending_key] = freed


def report_chat(fleet: Fleet, report: ChatHealthChanged, finder: Finder, now: float) -> Flow[bool]:
    """The provider's view of one conversation. False: known, out of date, or of nobody assigned to that line."""
    now = yield from ready(fleet, now)
    who, number = yield from owner(fleet, report, finder)
    if who is None:
        return False
    whose = who

    def change(was: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        after = dict(was)
        line, seen_at = report.number or number, min(report.at, now)
        feel(after, whose, line, report.chat_id, report.health, seen_at, now)
        return None if after == was else after

    written: bool = yield from update(
        fleet,
        chat_keys(who, report.chat_id),
        change,
        who=who,
        expires=chat_expiry(report.chat_id, now),
    )
    return written


def chat_keys(who: Who, chat_id: str | None) -> list[str]:
    """The keys that a view of a conversation may change."""
    keys = [who.contact_key, *([who.block_key] if who.block_key else [])]
    return keys + ([records.chat_key(chat_id)] if chat_id and usable(chat_id) else [])


def chat_expiry(chat_id: str | None, now: float) -> dict[str, float]:
    """When a conversation's link ends."""
    return {records.chat_key(chat_id): now + CHATS_KEPT} if chat_id else {}


def feel(
    after: dict[str, Any],
    who: Who,
    number: str | None,
    chat_id: str | None,
    health: ChatHealth,
    at: float,
    now: float,
) -> None:
    """Put a view of a conversation into the records *after*: an opt-out bars the person everywhere, the rest only if they
    belong to that line still."""
    if health is ChatHealth.OPTED_OUT and who.block_key is not None:
        after[who.block_key] = turned(after[who.block_key] or Block(), at, now, back=False)
    contact: Contact | None = after[who.contact_key]
    if contact is None or number not in (None, contact.number):
        return
    if number is None and chat_id and contact.chats.get(contact.number, chat_id) != chat_id:
        return  # another conversation of theirs
    if chat_id is not None and usable(chat_id):
        key = records.chat_key(chat_id)
        contact = contact.in_chat(chat_id)
        after[key] = link_of(after[key], who, contact.number, now)
    after[who.contact_key] = contact.felt(str(health), at, now + SKEW) or contact
