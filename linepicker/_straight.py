"""The straight way of a reservation: nearly every one goes it, since nearly always nothing is unusual.

What `_core.decide` and `_flow.reserve` come to for a plain request, in one step, for somebody whose line has nothing against a
message, or for a new one whom the best line takes: the same choice, the same records. Whatever is unusual, and every refusal,
is left to them. A test goes both ways over random fleets, and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from linepicker._asks import Made, Swap, Who, ident_of
from linepicker._candidates import Request
from linepicker._charge import leave, open_one, reach_to
from linepicker._contact import PAIR_KEPT, PLAIN, Contact, first_contact
from linepicker._conversation import Note, look
from linepicker._days import begins
from linepicker._line import LineState, budget_of, catch_up, message_slot
from linepicker._record import Spending, Standing
from linepicker._seen import NOTHING
from linepicker.fleet import Fleet
from linepicker.stores import Answer, Write

T = TypeVar("T")

Draft: TypeAlias = tuple[Made, Spending, Contact, list[Write], Mapping[str, int], Standing | None]
"""A reservation not yet written: the records with it on them, what to write if nothing has moved, the versions to show, and the
standing with which the line's sending day begins, where that is another one."""

_tuple: Final = tuple.__new__
"""Makes a named tuple of values that are known to be right, at a third of the cost."""


def straight(fleet: Fleet, who: Who, request: Request, now: float, made_id: str) -> Draft | None:
    """A reservation for a plain request; None: something is unusual, and the flow must see to it."""
    if who.block is not None or who.rest or fleet.onlooker is not None:
        return None
    moment = fleet.calm(now)
    if moment is None:
        return None
    contact = who.contact
    if contact is None:
        return _new(fleet, who, request, moment, made_id)
    return _known(fleet, who, contact, request, moment, made_id)


def _known(
    fleet: Fleet, who: Who, contact: Contact, request: Request, now: float, made_id: str
) -> Draft | None:
    policy, state = fleet.policy, fleet.state(contact.number)
    if state is None or not state.clear:
        return None
    seldom = contact.seldom
    notes: tuple[Note, ...] = ()
    if seldom is not PLAIN:
        homeward = seldom.home and policy.stickiness.return_home is not None
        if homeward or (seldom.history and not (contact.made or contact.opened)):
            return None  # they may go home, or an operator moved them
    if contact.unanswered >= policy.conversation.unanswered_after or seldom.views:
        held, opens_at, notes = look(contact, None, policy, now, inbound=False)
        if held is not None or opens_at:
            return None
    if not state.on_time:
        catch_up(state, policy, now)
    was, most = state.spending, state.limits.messages_per_day
    pair = state.limits.pair_per_minute
    if most is not None and was.messages >= most:
        return None
    times = contact.times
    if contact.wait_until > now or (pair is not None and len(times) >= pair):
        return None
    if times and times[-1] > now:
        return None  # promised for later, or from a clock that stepped back
    budget, send_at = budget_of(state, policy, now, slow=fleet.slow), now
    if was.message_mark > now:
        send_at = message_slot(was, budget, policy, now)
        if send_at - request.max_delay > now:
            return None
    ident = ident_of(made_id)
    made = Made(made_id, who, contact.number, "known", now, send_at, state.line)
    if notes:
        made.notes, made.shadowed = notes, True
    if seldom is not PLAIN:
        made.chat_id = seldom.chats.get(contact.number)
    spending = was.copy()
    leave(spending, budget, policy, now, send_at, opened=False, shadow=made.shadowed)
    if send_at > now or spending.reach:
        reach_to(spending, send_at, now, request.max_delay)
    keep = PAIR_KEPT if pair is None or pair < PAIR_KEPT else pair
    contact = contact.messaged(send_at, now, ident, keep)
    written = writes(fleet, state, who, spending, contact, None)
    return made, spending, contact, written, NOTHING, None


def _new(fleet: Fleet, who: Who, request: Request, now: float, made_id: str) -> Draft | None:
    """The same for somebody who has no line yet, as far as this process knows."""
    if who.area is not None:
        return None
    for order in fleet.ranking(now).tiers:
        found = order.first_two(who.salt)
        if found:
            break
    else:
        return None
    number = found[0]
    rank, state = fleet.rank(number), fleet.state(number)
    if state is None or not state.clear or rank.slot - request.max_delay > now:
        return None
    send_at = max(now, rank.slot)
    policy, budget, ident = fleet.policy, rank.budget, ident_of(made_id)
    ranks = [(each, fleet.rank(each), 1.0) for each in found]
    made = Made(made_id, who, number, "new", now, send_at, state.line, ranks)
    spending = state.spending.copy()
    open_one(spending, state, budget, policy, now, send_at, ident, moved=False)
    leave(spending, budget, policy, now, send_at, opened=True, shadow=False)
    reach_to(spending, send_at, now, request.max_delay)
    contact = first_contact(number, now, send_at, ident)
    opened = begins(fleet, state, spending, now)
    written = writes(fleet, state, who, spending, contact, opened)
    return made, spending, contact, written, fleet.seen(), opened


def writes(
    fleet: Fleet,
    state: LineState,
    who: Who,
    spending: Spending,
    contact: Contact,
    opened: Standing | None,
) -> list[Write]:
    """What a reservation writes: the line's spending and the recipient, if neither has moved, nor the line's standing, nor
    whether they want messages; and if it is this store still. *opened*: the standing with which a sending day begins."""
    packed: Any = spending if fleet.packs else spending.encode()
    found = [
        _tuple(Write, (state.spending_key, state.spending_version, packed, None)),
        _tuple(Write, (who.contact_key, who.contact_version, contact.encode(), None)),
        state.same if opened is None else with_standing(state, opened),
        fleet.same,
    ]
    if who.same is not None:
        found.append(who.same)
    return found


def with_standing(state: LineState, opened: Standing) -> Write:
    """Write a line's standing, if it has not moved."""
    return Write(state.standing_key, state.standing_version, opened.encode())


def taken(fleet: Fleet, draft: Draft, answer: Answer) -> Made:
    """Take in that a reservation was written."""
    made, spending, contact, written, _, opened = draft
    records, who = answer.records, made.who
    fleet.out_since = None
    mine = made.at <= fleet.moment  # else the clock stepped back since: it is to be looked at anew
    fleet.spent(made.number, records[written[0].key].version, spending, mine=mine)
    if opened is not None:
        fleet.stands(made.number, records[written[2].key].version, opened)
    who.met(records[who.contact_key].version, contact)
    return made


def told_first(told: Answer | Exception, ask: Callable[[Swap], T]) -> Callable[[Swap], Answer | T]:
    """Answers the first swap with what is known of it already, and asks on with the others."""
    waiting = [told]

    def answer(swap: Swap) -> Answer | T:
        if not waiting:
            return ask(swap)
        first = waiting.pop()
        if isinstance(first, Exception):
            raise first
        return first

    return answer
