"""One send told once: reserve, preview, check, and the whole story around the caller's function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from linepicker import _record as records
from linepicker._asks import (
    ATTEMPTS,
    Dice,
    Flow,
    Made,
    Now,
    Read,
    Refused,
    Say,
    Sleep,
    Swap,
    Who,
    ident_of,
)
from linepicker._candidates import Request, look_at_all, remembered
from linepicker._charge import charge
from linepicker._check import check, gates
from linepicker._contact import PAIR_KEPT, Contact, first_contact
from linepicker._conversation import said
from linepicker._core import Grant, Refusal, decide
from linepicker._days import begins
from linepicker._decode import decode
from linepicker._polls import ready
from linepicker._record import EPOCH
from linepicker._refusals import decision_of, refused, with_cause
from linepicker._seen import NOTHING
from linepicker._sketch import with_opening
from linepicker._small import Ticket, encode_small
from linepicker._straight import Draft, straight, taken, writes
from linepicker._update import absorb, busy
from linepicker._windows import DAY
from linepicker.errors import StoreError
from linepicker.fleet import Fleet
from linepicker.model import Decision, Line, Outcome
from linepicker.stores import Answer, Write

# Reserving


def reserve(
    fleet: Fleet,
    request: Request,
    who: Who,
    now: float,
    made_id: str,
    *,
    key: str | None = None,
    begun: Callable[[Made], None] | None = None,
    plain: bool = False,
    draft: Draft | None = None,
) -> Flow[Made]:
    """Choose, charge, and promise; or raise a refusal. *begun* is told of a reservation before it is written. *plain*: nothing
    is asked for, so that it may go the straight way; *draft*: it did, and this is to be written."""
    draft = draft or (straight(fleet, who, request, now, made_id) if plain and not key else None)
    if draft is None and fleet.calm(now) is None:
        now = yield from ready(fleet, now)
    ticket = _TicketSeen(records.ticket_key(fleet.pool, key)) if key else _NO_TICKET
    fresh: set[str] = set()
    for attempt in range(ATTEMPTS):
        if attempt > 1 and not attempt % 2:  # after a pause: it only looks, the next acts at once
            yield from _pause(fleet, who, attempt // 2)
        if draft is None:
            now = fleet.at((yield Now()) if attempt else now)
            choice = decide(request, who, fleet, now)
            while isinstance(choice, Refusal):  # which stands once what is behind it was read
                unread = [k for k in _behind(fleet, who, choice, ticket.key) if k not in fresh]
                if not unread:
                    raise (yield from _refusing(fleet, request, who, choice, now, made_id, key))
                answer: Answer = yield Read(unread)
                fresh.update(unread)
                absorb(fleet, answer, who)
                earlier = yield from _resumed(fleet, request, answer, ticket, who, key, now)
                if earlier is not None:
                    return earlier
                now = fleet.at((yield Now()))
                choice = decide(request, who, fleet, now)
            draft = _draft(fleet, request, who, choice, now, made_id)
        drafted, draft = draft, None
        made, _, _, written, seen, _ = drafted
        if ticket.key is not None:
            made.key = key
            written.append(_keyed(made, ticket.key, ticket.version, now))
        if begun is not None:
            begun(made)
        _shown(fleet, request, who, now, made, key)
        try:
            answer = yield Swap(written, seen)
        except StoreError as error:
            if error.unknown and (yield from _went_in(fleet, who, made.ident)):
                yield from gates(fleet, made)  # as they are after that while
                return made
            _withdraw(fleet, made_id)
            raise
        if answer.applied:
            taken(fleet, drafted, answer)
            if made.notes and made.notes[-1][0] == "despite":
                yield Say(f"{{to}} is written to despite: {made.notes[-1][1]}", 20, "despite", who)
            return made
        _refused(fleet, made_id)
        absorb(fleet, answer, who, written)
        earlier = yield from _resumed(fleet, request, answer, ticket, who, key, now)
        if earlier is not None:
            return earlier
        yield from _read_on(fleet, answer, written)
    raise busy()


def _pause(fleet: Fleet, who: Who, times: int) -> Flow[None]:
    """Let others go first, longer each time."""
    dice: float = yield Dice()
    yield Sleep(min(0.25, 0.002 * 2 ** min(times, 7)) * dice)
    if times % 4 == 2:  # what is read again of a long fleet takes some refusals to go round
        absorb(fleet, (yield Read(fleet.keys())), who)


def _read_on(fleet: Fleet, answer: Answer, refused: list[Write]) -> Flow[None]:
    """Where others spent on a line of a long fleet, they spent on its others too."""
    part = fleet.next_part() if refused[0].key in answer.records else None
    if part:
        absorb(fleet, (yield Read(part)))


def _refusing(
    fleet: Fleet,
    request: Request,
    who: Who,
    refusal: Refusal,
    now: float,
    made_id: str,
    key: str | None,
) -> Flow[Exception]:
    decision = decision_of(fleet, request, who, refusal, now)
    if fleet.onlooker is not None:
        fleet.onlooker.decided(request, who, now, made_id, decision, key=key)
    yield Refused(decision, who)
    return with_cause(refused(decision), fleet)


def _shown(
    fleet: Fleet, request: Request, who: Who, now: float, made: Made, key: str | None
) -> None:
    """What was decided, to who looks on."""
    if fleet.onlooker is not None:
        fleet.onlooker.decided(request, who, now, made.id, made, key=key)


def _refused(fleet: Fleet, made_id: str) -> None:
    """Somebody else wrote meanwhile."""
    fleet.company.met()
    _withdraw(fleet, made_id)


def _withdraw(fleet: Fleet, made_id: str) -> None:
    """What was decided was not written."""
    if fleet.onlooker is not None:
        fleet.onlooker.withdrawn(made_id)


@attrs.define
class _TicketSeen:
    """The key's record, as far as it was seen."""

    key: str | None
    version: int = 0
    found: Ticket | None = None


_NO_TICKET: Final = _TicketSeen(None)


def _draft(
    fleet: Fleet, request: Request, who: Who, grant: Grant, now: float, made_id: str
) -> Draft:
    """A reservation not yet written."""
    state = fleet.state(grant.number)
    assert state is not None
    ident = ident_of(made_id)
    spending = charge(state, grant, fleet.policy, now, ident, request.max_delay)
    if request.sketch and grant.kind != "known":
        spending.rest = with_opening(spending.rest, request.sketch)
    keep = max(PAIR_KEPT, state.limits.pair_per_minute or 0)
    contact = _contacted(
        remembered(who, fleet, now), grant, now, ident, keep, inbound=request.inbound
    )
    standing = state.standing
    made = Made(
        made_id,
        who,
        grant.number,
        grant.kind,
        now,
        grant.send_at,
        state.line,
        grant.ranks,
    )
    made.moved_from, made.chat_id = grant.moved_from, contact.chats.get(grant.number)
    made.on_probation = standing.probation or state.conclusion.failing_until > 0.0
    made.notes, made.shadowed = grant.notes, grant.shadowed
    made.override_optout, made.chat_health = request.override_optout, request.chat_health
    made.inbound = request.inbound
    if grant.moved_from is not None and not grant.homeward:
        made.continuation = fleet.policy.stickiness.continuation or None
    seen = NOTHING if grant.kind == "known" else fleet.seen()
    opened = begins(fleet, state, spending, now)
    written = writes(fleet, state, who, spending, contact, opened)
    left = fleet.state(grant.moved_from or "") if grant.kind == "moved" else None
    if left is not None:
        written.append(left.same)  # that line is the reason, and others may know better
    return made, spending, contact, written, seen, opened


def _resumed(
    fleet: Fleet,
    request: Request,
    answer: Answer,
    seen: _TicketSeen,
    who: Who,
    key: str | None,
    now: float,
) -> Flow[Made | None]:
    """The reservation that a key in an answer stands for, if it still does. A key gets past no gate: one that is open is
    checked like any other, and one that was sent is not handed out after an opt-out. That an open one is handed out again is
    written down: what its first call meets is then no reason to give it back, or to send it from another line."""
    while (earlier := _earlier(fleet, answer, seen, who, key, now)) is not None:
        earlier.override_optout, earlier.chat_health = request.override_optout, request.chat_health
        earlier.inbound = request.inbound
        if earlier.outcome is not None:
            if who.block is not None and who.block.code and not request.override_optout:
                refusal = Refusal("blocked", who.block.code, None, earlier.number, earlier.kind)
                now = fleet.at((yield Now()))
                raise refused(decision_of(fleet, request, who, refusal, now))
            return earlier
        ticket = seen.found
        if seen.key is not None and ticket is not None and not (ticket.outcome or ticket.again):
            value = encode_small(attrs.evolve(ticket, again=True))
            until = max(now, ticket.made_at) + DAY
            answer = yield Swap([Write(seen.key, seen.version, value, until), fleet.same], {})
            if not answer.applied:
                absorb(
                    fleet, answer, who
                )  # it was settled meanwhile, or handed out by somebody else
                continue
        yield from check(fleet, earlier)
        return earlier
    return None


def _keyed(made: Made, key: str, version: int, now: float) -> Write:
    return Write(key, version, encode_small(_ticket(made)), now + DAY)


def _ticket(made: Made) -> Ticket:
    return Ticket(
        made.id,
        made.who.recipient.key,
        made.number,
        made.kind,
        made.send_at,
        made.at,
        moved_from=made.moved_from,
        continuation=made.continuation,
    )


def _went_in(fleet: Fleet, who: Who, ident: int) -> Flow[bool]:
    """Whether a swap whose answer was lost is seen to have been applied."""
    block = (who.block_key,) if who.block_key else ()
    try:
        answer: Answer = yield Read([who.contact_key, *block, EPOCH, *fleet.keys()])
    except StoreError:
        return False  # as little is known as before
    absorb(fleet, answer, who)
    return who.contact is not None and ident in who.contact.ids


def preview(fleet: Fleet, request: Request, who: Who, now: float) -> Flow[Decision]:
    """What `reserve` would decide, writing nothing."""
    now = yield from ready(fleet, now, write=False)
    if fleet.polled_at is None:
        return decision_of(fleet, request, who, Refusal("stale", "stale"), now)
    keys = [who.contact_key, EPOCH, *fleet.keys()]
    if who.block_key is not None:
        keys.append(who.block_key)
    answer: Answer = yield Read(keys)
    absorb(fleet, answer, who)
    now = fleet.at((yield Now()))
    choice = decide(request, who, fleet, now)
    if isinstance(choice, Refusal):
        return decision_of(fleet, request, who, choice, now)
    return Decision(
        "reserved",
        choice.number,
        choice.kind,
        None,
        None,
        choice.send_at - now,
        tuple(look_at_all(request, who, fleet, now, choice.moved_from)),
        now,
        who.masked,
        choice.moved_from,
        tuple(map(said, choice.notes)),
    )


def _contacted(
    contact: Contact | None, grant: Grant, now: float, ident: int, keep: int, *, inbound: bool
) -> Contact:
    """The recipient's record with this reservation on it."""
    if contact is None:
        contact = first_contact(grant.number, now, grant.send_at, ident)
        return attrs.evolve(contact, replied_at=now) if inbound else contact
    if grant.kind == "moved":
        home = "" if grant.homeward else contact.home or contact.number
        contact = contact.moved(grant.number, now, opened=ident, made=0, home=home)
    if inbound:
        contact = attrs.evolve(contact, unanswered=0)
    return contact.messaged(grant.send_at, now, ident, keep)


def _behind(fleet: Fleet, who: Who, refusal: Refusal, ticket_key: str | None) -> Iterator[str]:
    """The keys of the records that a refusal rests on."""
    if refusal.outcome == "stale":
        return
    yield who.contact_key
    if who.block_key is not None:
        yield who.block_key
    if ticket_key is not None:
        yield ticket_key
    yield EPOCH
    if refusal.outcome == "not_now" and refusal.number is not None:
        yield records.standing_key(refusal.number)
        yield records.spending_key(refusal.number)
    elif refusal.outcome != "blocked" and (refusal.outcome, refusal.reason) != ("no_line", "quiet"):
        yield from fleet.keys()


def _earlier(
    fleet: Fleet, answer: Answer, seen: _TicketSeen, who: Who, key: str | None, now: float
) -> Made | None:
    """The reservation that a key in an answer already stands for, if it still does."""
    found = answer.records.get(seen.key) if seen.key is not None else None
    if found is None:
        return None
    seen.version = found.version
    ticket: Ticket | None = decode("key/", found)
    seen.found = ticket
    if ticket is None or now >= ticket.made_at + DAY:
        return None
    if ticket.to != who.recipient.key:
        raise ValueError(f"key {key!r} stands for a message to another recipient")
    if ticket.outcome in ("NOT_SENT", "LINE_REFUSED", "RECIPIENT_REFUSED"):
        return None
    kind: Any = ticket.kind
    outcome = Outcome.SENT if ticket.outcome == "SENT" else None
    contact, state = who.contact, fleet.state(ticket.number)
    chat_id = contact.chats.get(ticket.number) if contact is not None else None
    made = Made(
        ticket.id,
        who,
        ticket.number,
        kind,
        now,
        max(ticket.send_at, now),
        state.line if state is not None else Line(ticket.number),
    )
    made.moved_from, made.continuation = ticket.moved_from, ticket.continuation
    made.chat_id, made.key, made.outcome, made.resumed = chat_id, key, outcome, True
    return made
