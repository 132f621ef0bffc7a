"""A move that somebody asked for, told once."""

from __future__ import annotations

from linepicker._asks import (
    ATTEMPTS,
    Flow,
    Now,
    Read,
    Swap,
    Who,
    ident_of,
)
from linepicker._candidates import Request
from linepicker._charge import charge
from linepicker._core import Refusal, decide_move
from linepicker._days import begins
from linepicker._polls import ready
from linepicker._record import EPOCH
from linepicker._refusals import decision_of, refused
from linepicker._seen import NOTHING
from linepicker._straight import with_standing
from linepicker._update import absorb, busy
from linepicker.errors import (
    StoreError,
)
from linepicker.fleet import Fleet
from linepicker.stores import Answer, Write


def move(fleet: Fleet, request: Request, who: Who, now: float, made_id: str) -> Flow[None]:
    """Give a recipient another line now. It is charged there as a new conversation, but no message goes out."""
    now = yield from ready(fleet, now)
    for _ in range(ATTEMPTS):
        answer: Answer = yield Read([who.contact_key, EPOCH, *fleet.keys()])
        absorb(fleet, answer, who)
        now = fleet.at((yield Now()))
        contact, contact_version = who.contact, who.contact_version
        if contact is None:
            raise ValueError(f"{who.masked} belongs to no line yet: assign() gives them one")
        if request.line == contact.number:
            return
        choice = decide_move(request, who, fleet, contact, now)
        if isinstance(choice, Refusal):
            raise refused(decision_of(fleet, request, who, choice, now))
        state = fleet.state(choice.number)
        assert state is not None
        ident = ident_of(made_id)
        spending = charge(state, choice, fleet.policy, now, ident, request.max_delay, message=False)
        after = contact.moved(choice.number, now, opened=0, made=0)
        opened = begins(fleet, state, spending, now)
        writes = [
            Write(state.spending_key, state.spending_version, spending.encode()),
            Write(who.contact_key, contact_version, after.encode()),
            state.same if opened is None else with_standing(state, opened),
            fleet.same,
        ]
        try:
            answer = yield Swap(writes, NOTHING)
        except StoreError as error:
            if not error.unknown:
                raise
            answer = yield Read([who.contact_key, EPOCH, *fleet.keys()])
            absorb(fleet, answer, who)
            there = fleet.state(choice.number)
            if there is not None and ident in there.spending.ids:
                return
            raise
        if answer.applied:
            fleet.spent(choice.number, answer.records[state.spending_key].version, spending)
            if opened is not None:
                fleet.stands(choice.number, answer.records[state.standing_key].version, opened)
            who.met(answer.records[who.contact_key].version, after)
            if fleet.onlooker is not None:
                fleet.onlooker.moved(who, request.line, now)
            return
        absorb(fleet, answer, who, writes)
    raise busy()
