"""What became of a reservation, written: outcomes, give-backs, and what a store outage left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from linepicker import _record as records
from linepicker._asks import Flow, Made, Say, Swap
from linepicker._charge import give_back
from linepicker._contact import Contact
from linepicker._failing import after_probe
from linepicker._line import PROBE_LEASE, timely
from linepicker._links import CHATS_KEPT, MESSAGES_KEPT, claimed, link_of, usable
from linepicker._news import line_news
from linepicker._small import Block, Link, Ticket, encode_small
from linepicker._update import update
from linepicker._windows import DAY, SKEW
from linepicker.errors import StoreError
from linepicker.fleet import Fleet
from linepicker.model import Outcome, Verdict
from linepicker.stores import Answer, Write

PAIR_WAIT: Final = 60.0
"""How long a pair waits after a rate limit that names no time: Linq counts per 60 s."""


def settle(
    fleet: Fleet,
    made: Made,
    verdict: Verdict,
    now: float,
) -> Flow[None]:
    """Write what became of a reservation, as far as anything has to be written."""
    outcome, number = verdict.outcome, made.number
    spending_key, standing_key = records.spending_key(number), records.standing_key(number)
    undone = outcome in (Outcome.NOT_SENT, Outcome.LINE_REFUSED, Outcome.RECIPIENT_REFUSED)
    learned = outcome is Outcome.SENT and verdict.chat_id not in (None, made.chat_id)
    learned = learned or (outcome is Outcome.SENT and verdict.number not in (None, number))
    limited = outcome is Outcome.RATE_LIMITED
    links = _links(made, verdict, now)
    if not (undone or learned or limited or made.on_probation or made.key):
        yield from _linked(fleet, links)
        return
    ticket_key = records.ticket_key(fleet.pool, made.key) if made.key else None
    keys = [made.who.contact_key, made.who.block_key, ticket_key, spending_key, standing_key]
    expires = {key: at for key, (_, at) in links.items()}

    def change(was: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        ticket: Ticket | None = was[ticket_key] if ticket_key is not None else None
        if ticket_key is not None and ticket is not None:
            expires[ticket_key] = max(now, ticket.made_at) + DAY  # the clock may have stepped back
            made.resumed = made.resumed or (ticket.again and ticket.id == made.id)
        after = _settled(fleet, made, verdict, now, was)
        for key, (link, _) in links.items():
            if after[made.who.contact_key] is not None:  # else they were forgotten meanwhile
                after[key] = claimed(after[key], link)
        return after

    yield from update(
        fleet,
        [*(key for key in keys if key is not None), *links],
        change,
        who=made.who,
        expires=expires,
    )


def _links(made: Made, verdict: Verdict, now: float) -> dict[str, tuple[Link, float]]:
    """What tells later whose a message and its conversation are, and until when; nothing where nothing went out."""
    if verdict.outcome not in (Outcome.SENT, Outcome.UNKNOWN):
        return {}
    link, found = link_of(None, made.who, verdict.number or made.number, now), {}
    if usable(verdict.message_id):
        left = attrs.evolve(link, at=min(made.send_at, now))
        found[records.message_key(verdict.message_id or "")] = (left, now + MESSAGES_KEPT)
    if verdict.chat_id != made.chat_id and usable(verdict.chat_id):
        found[records.chat_key(verdict.chat_id or "")] = (link, now + CHATS_KEPT)
    return found


def _linked(fleet: Fleet, links: Mapping[str, tuple[Link, float]]) -> Flow[None]:
    """Write links; where some are there already, because receipts came first, what these told stays."""
    if links:
        writes = [Write(key, 0, encode_small(link), until) for key, (link, until) in links.items()]
        answer: Answer = yield Swap([*writes, fleet.same], {})
        if not answer.applied:
            yield from update(
                fleet,
                list(links),
                lambda was, _: {key: claimed(was[key], link) for key, (link, _) in links.items()},
                expires={key: until for key, (_, until) in links.items()},
            )


def _settled(
    fleet: Fleet, made: Made, verdict: Verdict, now: float, was: Mapping[str, Any]
) -> dict[str, Any]:
    """The records concerned, as they are after a verdict."""
    outcome, number, who = verdict.outcome, made.number, made.who
    spending_key, standing_key = records.spending_key(number), records.standing_key(number)
    after = dict(was)
    contact: Contact | None = after[who.contact_key]
    spending = after[spending_key] or records.Spending()
    standing = timely(after[standing_key] or records.Standing(first_seen=now), now)
    undone = outcome in (Outcome.NOT_SENT, Outcome.LINE_REFUSED, Outcome.RECIPIENT_REFUSED)
    if undone and made.resumed:
        pass  # an earlier attempt may have gone out: its charge stands, whatever this one met
    elif undone:
        after[spending_key], after[who.contact_key] = give_back(
            spending,
            contact,
            made.kind,
            made.ident,
            now,
            shadow=made.shadowed,
            first=made.kind == "known" and made.moved_from is not None,
        )
        if after[spending_key] is spending:
            after[spending_key] = was[spending_key]
    elif contact is not None:
        after[who.contact_key] = _taught(contact, made, verdict, now)
    if outcome is Outcome.LINE_REFUSED:
        known = verdict.retry_after is not None
        pause = verdict.retry_after if known else fleet.policy.recovery.ineligible
        after[standing_key] = attrs.evolve(
            standing,
            out_until=max(standing.out_until, now + max(0.0, pause or 0.0)),
            refused_at=now,
            probation=standing.probation or not known,
        )
    elif outcome is Outcome.SENT and spending.probe == made.ident:
        if standing.probation:
            standing = attrs.evolve(
                standing, probation=False, out_until=min(standing.out_until, now)
            )
        after[standing_key] = standing = after_probe(standing, spending.probe_at, PROBE_LEASE)
    accepted = outcome in (Outcome.SENT, Outcome.UNKNOWN)
    awaited = accepted and standing.failing_until > 0.0  # its receipt, or the end of its lease
    if spending.probe == made.ident and after[spending_key] is not None and not awaited:
        cleared = after[spending_key].copy()
        cleared.probe = 0
        after[spending_key] = cleared
    if outcome is Outcome.RECIPIENT_REFUSED and who.block_key is not None:
        block = (after[who.block_key] or Block()).until(now, now)
        after[who.block_key] = attrs.evolve(block, refused=max(now, block.refused or now))
    if made.key is not None:
        ticket_key = records.ticket_key(fleet.pool, made.key)
        ticket: Ticket | None = after[ticket_key]
        open_still = ticket is not None and ticket.id == made.id and ticket.outcome != "SENT"
        if ticket is not None and open_still and not (undone and made.resumed):
            after[ticket_key] = attrs.evolve(ticket, outcome=str(outcome))
    return after


def _taught(contact: Contact, made: Made, verdict: Verdict, now: float) -> Contact:
    """The contact with what a message that went out (or may have) taught."""
    left_from = verdict.number or made.number
    if verdict.outcome is Outcome.RATE_LIMITED:
        pause = PAIR_WAIT if verdict.retry_after is None else max(0.0, verdict.retry_after)
        return contact.limited(now, pause, now + SKEW)
    if verdict.outcome is Outcome.SENT and contact.number == made.number != left_from:
        contact = contact.moved(left_from, now, opened=0, made=contact.made, home=contact.home)
    if verdict.chat_id is not None and contact.chats.get(left_from) != verdict.chat_id:
        contact = contact.having(chats={**contact.chats, left_from: verdict.chat_id})
    return contact


def undo(fleet: Fleet, made: Made, now: float) -> Flow[None]:
    """Take back a reservation of which it is not known whether it was written: what is not there is left alone."""
    if made.outcome is None and not made.resumed:
        yield from settle_once(fleet, made, Verdict(Outcome.NOT_SENT), now)


def flush(fleet: Fleet, now: float) -> Flow[None]:
    """Write the settlements that a store outage left behind; those that fail again stay behind."""
    for _ in range(len(fleet.late)):
        if not fleet.late:
            return  # another call has taken them
        made, verdict = fleet.late.popleft()
        try:
            yield from settle(fleet, made, verdict, now)
        except StoreError:
            fleet.late.appendleft((made, verdict))
            return
        except BaseException:  # torn away: the next call writes it
            fleet.late.appendleft((made, verdict))
            raise
    lost, fleet.lost = fleet.lost, 0
    if lost:
        yield Say(
            f"the store was away for so long that what became of {lost} messages was forgotten: their charges stand",
            event="store",
        )


def settle_or_keep(fleet: Fleet, made: Made, verdict: Verdict, now: float) -> Flow[None]:
    """Settle; what the store won't take now is kept for the next call."""
    made.outcome = verdict.outcome
    if fleet.onlooker is not None:
        fleet.onlooker.settled(made, verdict, now)
    try:
        yield from settle(fleet, made, verdict, now)
    except StoreError:
        _keep(fleet, made, verdict)
    except BaseException:  # torn away: what went out is known all the same
        _keep(fleet, made, verdict)
        raise
    yield from _tell(fleet, made, verdict)


def _tell(fleet: Fleet, made: Made, verdict: Verdict) -> Flow[None]:
    """Only when all is written, since whoever hears it may take their time, or be torn away."""
    if verdict.outcome is Outcome.LINE_REFUSED:
        yield from line_news(fleet, made.number)


def _keep(fleet: Fleet, made: Made, verdict: Verdict) -> None:
    if len(fleet.late) == fleet.late.maxlen:
        fleet.lost += 1
    fleet.late.append((made, verdict))
    fleet.calm_until = -float("inf")


def settle_once(fleet: Fleet, made: Made, verdict: Verdict, now: float) -> Flow[None]:
    """Settle, unless that was done. What went out is never in doubt for want of a store; what must be given back is
    settled only when the store has taken it, and stays open otherwise."""
    if made.outcome is not None:
        return
    if verdict.outcome in (Outcome.SENT, Outcome.UNKNOWN):
        yield from settle_or_keep(fleet, made, verdict, now)
        return
    made.outcome = verdict.outcome
    if fleet.onlooker is not None:
        fleet.onlooker.settled(made, verdict, now)
    if made.in_outage and verdict.outcome is Outcome.NOT_SENT:
        return  # nothing is on record yet
    try:
        yield from settle(fleet, made, verdict, now)
    except StoreError:
        if made.in_outage:
            _keep(fleet, made, verdict)
            return
        made.outcome = None
        raise
    except BaseException:
        made.outcome = None
        raise
    yield from _tell(fleet, made, verdict)
