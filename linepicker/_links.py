"""Whose a message or a conversation was, by the provider's ids: receipts name no line, and those of groups nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import attrs

from linepicker import _record as records
from linepicker._asks import Flow, Read, Who
from linepicker._contact import Contact
from linepicker._decode import decode
from linepicker._record import EPOCH
from linepicker._small import Link
from linepicker._update import absorb
from linepicker._windows import DAY
from linepicker.fleet import Fleet
from linepicker.stores import Answer

MESSAGES_KEPT: Final = 3 * DAY
"""How long, in seconds, it is remembered whose a message was. Linq tries a webhook for about half an hour."""
CHATS_KEPT: Final = 180 * DAY
"""How long, in seconds, it is remembered whose a conversation is, after it was last written down."""
_ID_AT_MOST: Final = 255

Finder = Callable[[str | Iterable[str]], Who]
"""Makes a recipient of a handle, or of a group's handles. Raises InvalidRecipient."""


class OfChat(Protocol):
    """A report of a conversation."""

    @property
    def to(self) -> str | Iterable[str] | None:
        """Whose, if the report says so."""
        ...

    @property
    def chat_id(self) -> str | None:
        """The provider's id of the conversation."""
        ...


def usable(provider_id: str | None) -> bool:
    """Whether an id can be remembered."""
    return isinstance(provider_id, str) and 0 < len(provider_id) <= _ID_AT_MOST


def link_of(known: Link | None, who: Who, number: str, now: float) -> Link:
    """A link to a recipient on a line; the one that is *known*, if it says the same and is not half gone."""
    key = who.recipient.key
    if known is not None and (known.to, known.number) == (key, number):
        if now < known.at + CHATS_KEPT / 2:
            return known
        return attrs.evolve(known, at=now)
    return Link(pool_of(who), key, number, now)


def claimed(known: Link | None, link: Link) -> Link:
    """The *link* of a message that was settled; what receipts that came before have told of it stays."""
    if known is None:
        return link
    return known if known.to else attrs.evolve(known, pool=link.pool, to=link.to, at=link.at)


def owner(
    fleet: Fleet, report: OfChat, finder: Finder, message_id: str | None = None
) -> Flow[tuple[Who | None, str | None]]:
    """Whose conversation a report is about, and on which line: as the report says, else as the ids tell. The recipient is that
    of the pool which sent there."""
    who = finder(report.to) if report.to is not None else None
    keys = [records.message_key(message_id)] if message_id and usable(message_id) else []
    keys += [records.chat_key(report.chat_id)] if report.chat_id and usable(report.chat_id) else []
    if not keys:
        return who, None
    answer: Answer = yield Read([*keys, EPOCH])
    absorb(fleet, answer)
    links: list[Link | None] = [decode(key, answer.records[key]) for key in keys]
    known = [each for each in links if each is not None]
    link = next((each for each in known if each.to), None)
    if link is None:
        return who, known[0].number if known else None
    found = finder(link.to.split(","))
    if who is not None and who.recipient != found.recipient:
        return who, None
    return of_pool(found, link.pool), link.number


def pool_of(who: Who) -> str:
    """The pool that knows them so."""
    return who.contact_key.split("/", 2)[1]


def of_pool(who: Who, pool: str) -> Who:
    """The recipient as another pool knows them."""
    key = records.contact_key(pool, who.recipient.key)
    return (
        who
        if key == who.contact_key
        else Who(who.recipient, key, who.block_key, who.salt, who.area)
    )


def line_of(fleet: Fleet, who: Who) -> Flow[str | None]:
    """The line a recipient belongs to, read anew."""
    answer: Answer = yield Read([who.contact_key, EPOCH])
    absorb(fleet, answer)
    contact: Contact | None = decode(who.contact_key, answer.records[who.contact_key])
    return None if contact is None else contact.number
