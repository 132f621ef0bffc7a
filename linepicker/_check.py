"""Whether a reservation may still go out, by what is read directly before its send."""

from __future__ import annotations

import attrs

from linepicker import _record as records
from linepicker._asks import Flow, Made, Now, Read
from linepicker._candidates import Request
from linepicker._conversation import look
from linepicker._core import Refusal
from linepicker._line import catch_up, exclusion, new_exclusion
from linepicker._quiet import in_words, quiet_until
from linepicker._record import EPOCH
from linepicker._refusals import decision_of, refused
from linepicker._settle import undo
from linepicker._update import absorb
from linepicker.errors import StoreError
from linepicker.fleet import Fleet
from linepicker.stores import Answer


def check(fleet: Fleet, made: Made) -> Flow[None]:
    """Read line and recipient anew; if a gate now forbids the send, give the reservation back and raise."""
    who, number = made.who, made.number
    keys = [
        who.contact_key,
        records.standing_key(number),
        records.spending_key(number),
        EPOCH,
        *((who.block_key,) if who.block_key else ()),
    ]
    try:
        answer: Answer = yield Read(keys)
    except StoreError:
        if made.in_outage:
            return  # it was made without the store, by what this process knows
        raise
    absorb(fleet, answer, who)
    yield from gates(fleet, made)


def gates(fleet: Fleet, made: Made) -> Flow[None]:
    """If a gate forbids the send, by what has just been read, give the reservation back and raise."""
    who, number = made.who, made.number
    # As they were read: an older answer to another call may come in before the next question is answered.
    contact, block = who.contact, who.block
    now = fleet.at((yield Now()))
    state, refusal = fleet.state(number), None
    code = block.code if block and not made.override_optout else None
    if code is not None:
        refusal = Refusal("blocked", code, None, number, made.kind)
    elif state is None:
        refusal = Refusal("held", "not_in_fleet", None, number, made.kind)
    elif contact is None or contact.number != number:
        refusal = Refusal("held", "excluded", None, number, made.kind)
    else:
        catch_up(state, fleet.policy, now)
        gate = exclusion if made.kind == "known" or made.resumed else new_exclusion
        code, ends = gate(state, now, mine=made.ident)
        if code is not None:
            retry_at = None if ends == float("inf") else ends
            refusal = Refusal("held", code, retry_at, number, made.kind)
        else:
            told = None if contact.health()[1] > made.at else made.chat_health
            held, _, _ = look(contact, told, fleet.policy, now, inbound=True)
            wakes = None if made.inbound or not who.rest else quiet_until(who.rest, now)
            if held is not None:
                refusal = Refusal("held", "quiet", None, number, made.kind, (("quiet", held),))
            elif wakes is not None:
                retry_at = None if wakes == float("inf") else wakes
                notes = (("quiet_hours", in_words(who.rest, now)),)
                refusal = Refusal("held", "quiet", retry_at, number, made.kind, notes)
    if refusal is not None:
        yield from undo(fleet, made, now)
        then, now = now, fleet.at((yield Now()))
        decision = decision_of(fleet, Request(), who, refusal, now)
        # It was decided then, and its wait may be over by now; or the clock stepped back, and then is yet to come.
        raise refused(attrs.evolve(decision, at=min(then, now)))
