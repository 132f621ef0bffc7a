"""Reserving now what a plan has room for now.

Budgets are never spent ahead, so only what they have room for at this moment can be held: as many conversations as each line
may still open, as far apart as its pace wants, up to the deadline. What must wait for a budget is asked for when its moment
comes.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from linepicker._asks import Flow, Made, NewId, Now, Sleep, Who
from linepicker._candidates import Request
from linepicker._core import Grant, decide
from linepicker._flow import reserve
from linepicker._plan import BREATH, put, twin_of
from linepicker._quiet import Rest
from linepicker._settle import undo
from linepicker.errors import Blocked, Held, NoLine, NotNow, StaleHealth, StoreError
from linepicker.fleet import Fleet


def hold(
    fleet: Fleet,
    people: Sequence[Who],
    request: Request,
    now: float,
    deadline: float,
    held: dict[str, Made],
) -> Flow[None]:
    """Reserve for whom there is room, in the order of the list, into *held*, by id.

    Each is a reservation like any other: charged, and as sent unless it is settled otherwise. Where the store fails, those made
    so far are given back before StoreError is raised.
    """
    for who, delay in (yield from _holdable(fleet, people, request, now, deadline)):
        made_id: str = yield NewId()
        now = yield Now()
        patient = attrs.evolve(request, max_delay=max(request.max_delay, delay))
        try:
            made = yield from reserve(
                fleet, patient, who, now, made_id, begun=lambda each: held.update({each.id: each})
            )
        except (NoLine, Held, NotNow, Blocked, StaleHealth):
            held.pop(made_id, None)
            continue
        except StoreError:
            yield from give_back(fleet, held)
            raise
        held[made_id] = made
        if made.send_at >= deadline:  # somebody else took the slot before
            yield from undo(fleet, held.pop(made_id), now)


def give_back(fleet: Fleet, held: dict[str, Made]) -> Flow[None]:
    """Take all of them back, as far as the store lets us."""
    while held:
        _, made = held.popitem()
        now: float = yield Now()
        try:
            yield from undo(fleet, made, now)
        except StoreError:
            held.clear()


def _holdable(
    fleet: Fleet, people: Sequence[Who], request: Request, now: float, deadline: float
) -> Flow[list[tuple[Who, float]]]:
    """For whom there is room now, and how long each would wait."""
    twin, found = twin_of(fleet, now), list[tuple[Who, float]]()
    patient = attrs.evolve(request, max_delay=max(0.0, deadline - now))
    full: set[Rest] = set()
    for place, who in enumerate(people):
        if place % BREATH == BREATH - 1:
            yield Sleep(0.0)
        if who.contact is None and who.rest in full:
            continue
        choice = decide(patient, who, twin, now)
        if isinstance(choice, Grant) and choice.send_at < deadline:
            put(twin, choice, now, place + 1, patient.max_delay)
            found.append((who, choice.send_at - now))
        elif who.contact is None and (isinstance(choice, Grant) or choice.outcome == "no_line"):
            full.add(who.rest)
    return found
