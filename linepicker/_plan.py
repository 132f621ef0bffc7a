"""Who could be written to from where and when: the router's own decisions, played forward on a copy of the fleet. Pure.

A plan is what happens if everybody is asked for at the moment the plan names, in its order, each message is SENT, and nothing
else happens meanwhile. So each is placed only where `decide` gives them a line that is free at that very moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Final

import attrs

from linepicker import _windows as windows
from linepicker._asks import Flow, Read, Sleep, Who
from linepicker._candidates import Request
from linepicker._charge import charge
from linepicker._contact import Contact
from linepicker._core import Grant, Refusal, decide
from linepicker._days import begins
from linepicker._kept import Held
from linepicker._line import NEVER, budget_of, catch_up, message_slot
from linepicker._quiet import Rest, quiet_until
from linepicker._record import EPOCH, Spending, Standing
from linepicker._small import Block
from linepicker._update import absorb
from linepicker._windows import DAY
from linepicker.errors import InvalidRecipient
from linepicker.fleet import Fleet
from linepicker.model import (
    Line,
)
from linepicker.plans import Capacity
from linepicker.stores import Answer

FORECAST_AT_MOST: Final = 10_000
"""New conversations per line that a forecast looks ahead."""
BATCH: Final = 500
FURTHEST: Final = 400 * DAY
"""No plan and no forecast looks further ahead, in seconds."""
BREATH: Final = 256
"""After so many decisions others get their turn."""
LEAST: Final = 1.0
"""Seconds until a decision is tried again that names no later moment itself."""


@attrs.define
class _Stranger:
    """Somebody of whom nothing is known but when they are left alone."""

    rest: Rest = ()
    salt: int = 0
    area: str | None = None
    contact: Contact | None = None
    block: Block | None = None
    is_group: bool = False


def twin_of(
    fleet: Fleet, now: float, newcomers: Iterable[Line] = (), *, alone: bool = False
) -> Fleet:
    """A copy to play things through on, which no store hears of; with *newcomers* that join now, perhaps *alone*."""
    twin = Fleet(fleet.policy, fleet.pool, static=fleet.static)
    lines, held = list[Line](), dict[str, Held]()
    for number, state in () if alone else fleet.states():
        lines.append(state.line)
        held[number] = Held(
            state.standing, state.standing_version, state.spending, state.spending_version
        )
    for line in newcomers:
        lines.append(line)
        held[line.number] = Held(Standing(first_seen=now), 0, Spending(), 0)
    twin.install(lines, held, now)
    twin.slow, twin.stale, twin.terse = fleet.slow, fleet.stale, True
    twin.profile = fleet.profile
    return twin


def put(twin: Fleet, grant: Grant, at: float, ident: int, max_delay: float = 0.0) -> None:
    """Put a message on the twin's records, as sent."""
    state = twin.state(grant.number)
    assert state is not None
    spending = charge(state, grant, twin.policy, at, ident, max_delay)
    spending.probe = 0
    opened = begins(twin, state, spending, at)
    if opened is not None:
        twin.stands(grant.number, state.standing_version, opened)
    twin.spent(grant.number, state.spending_version, spending, mine=True)


def capacity(
    fleet: Fleet,
    request: Request,
    rest: Rest,
    now: float,
    horizon: float,
    at_most: int | None = None,
) -> Flow[Capacity]:
    """How many new conversations fit from *now* until *now* + *horizon*, with people who are left alone in *rest*; the first
    *at_most* of them."""
    twin, stranger = twin_of(fleet, now), _Stranger(rest)
    by_line = {number: 0 for number, _ in fleet.states()}
    moments: list[float] = []
    at, until = now, now + min(horizon, FURTHEST)
    while at < until and (at_most is None or len(moments) < at_most):
        if len(moments) % BREATH == BREATH - 1:
            yield Sleep(0.0)
        choice = decide(request, stranger, twin, at)
        if isinstance(choice, Grant) and choice.send_at <= at:
            moments.append(at)
            put(twin, choice, at, len(moments))
            by_line[choice.number] += 1
            if by_line[choice.number] >= FORECAST_AT_MOST:
                request = attrs.evolve(request, exclude=request.exclude | {choice.number})
            continue
        later = choice.send_at if isinstance(choice, Grant) else choice.retry_at
        if later is None or later == NEVER:
            break
        at = later if later > at else at + LEAST
    return Capacity(len(moments), by_line, tuple(moments))


def everybody(
    known: Callable[[str | Iterable[str]], Who], recipients: Iterable[str | Iterable[str]]
) -> list[Who]:
    """Everybody in a list, once. Raises InvalidRecipient, which says whose turn it was."""
    found: dict[str, Who] = {}
    for place, to in enumerate(recipients, start=1):
        try:
            who = known(to)
        except InvalidRecipient as error:
            raise InvalidRecipient(f"recipient {place}: {error}") from None
        found[who.recipient.key] = who
    return list(found.values())


def read_people(fleet: Fleet, people: Sequence[Who]) -> Flow[None]:
    """What the store knows of these people: their line, and whether they want messages."""
    for start in range(0, len(people), BATCH):
        batch = people[start : start + BATCH]
        keys = {EPOCH, *(who.contact_key for who in batch)}
        keys.update(who.block_key for who in batch if who.block_key is not None)
        answer: Answer = yield Read(keys)
        absorb(fleet, answer)
        for who in batch:
            who.learn(answer.records)


@attrs.define
class _Queue:
    """Those who wait for the same: a line of their own, or any at all. `places`: a heap of their places in the list.
    `called`: whether a moment is set at which the first of them is tried."""

    places: list[int] = attrs.field(factory=list)
    called: bool = False


class Rehearsal:
    """A plan in the making.

    `slots`: (place in the list, line, moment), in the order in which they are to be carried out. `never`: the code of what
    keeps a person out for as long as can be foreseen, by place.
    """

    def __init__(self, twin: Fleet, request: Request, people: Sequence[Who], now: float) -> None:
        self.slots: list[tuple[int, str, float]] = []
        self.never: dict[int, str] = {}
        self._twin, self._request, self._people = twin, request, people
        self._queues: list[_Queue] = []
        self._queue_of: list[int] = []
        self._tries, self._now = 0, now
        self._events: list[
            tuple[float, int, int]
        ] = []  # moment, place, queue; or -1: that person alone
        ids: dict[tuple[str | None, Rest], int] = {}
        for place, who in enumerate(people):
            key = (None if who.contact is None else who.contact.number, who.rest)
            queue = ids.setdefault(key, len(ids))
            if queue == len(self._queues):
                self._queues.append(_Queue())
            self._queue_of.append(queue)
            self._queues[queue].places.append(place)
        for queue in range(len(self._queues)):
            self._call(queue, now)

    def run(self, until: float) -> Flow[None]:
        """Place whoever fits before *until*."""
        events, until = self._events, min(until, self._now + FURTHEST)
        while events and events[0][0] < until:
            self._tries += 1
            if self._tries % BREATH == 0:
                yield Sleep(0.0)
            at, place, queue = heappop(events)
            if queue < 0:
                queue = self._queue_of[place]
                heappush(self._queues[queue].places, place)
                if not self._queues[queue].called:
                    self._call(queue, at)
                continue
            self._queues[queue].called = False
            self._try(queue, at)

    def _call(self, queue: int, at: float) -> None:
        """Try the first of a queue at that moment."""
        mine = self._queues[queue]
        if mine.places:
            mine.called = True
            heappush(self._events, (at, mine.places[0], queue))

    def _try(self, queue: int, at: float) -> None:
        places = self._queues[queue].places
        place = places[0]
        who = self._people[place]
        choice = decide(self._request, who, self._twin, at)
        if isinstance(choice, Grant) and choice.send_at <= at:
            heappop(places)
            put(self._twin, choice, at, len(self.slots) + 1)
            self.slots.append((place, choice.number, at))
            self._call(queue, at)
            return
        later, alone = self._later(who, choice, at)
        if later != NEVER and later <= at:
            later = at + LEAST
        if alone:
            heappop(places)
            if later == NEVER:
                self.never[place] = self._code(who, at)
            else:
                heappush(self._events, (later, place, -1))
            self._call(queue, at)
        elif later == NEVER:
            self.never.update(dict.fromkeys(places, self._code(who, at)))
            places.clear()
        else:
            self._call(queue, later)

    def _later(self, who: Who, choice: Grant | Refusal, at: float) -> tuple[float, bool]:
        """When to try again, and whether that is about this person alone."""
        later = choice.send_at if isinstance(choice, Grant) else choice.retry_at
        if later is None:
            later = NEVER
        if isinstance(choice, Refusal):
            if choice.outcome == "blocked" or (choice.outcome, choice.reason) == ("held", "quiet"):
                return NEVER, True
            if who.rest and quiet_until(who.rest, at) is not None:
                return later, False
        elif choice.homeward:
            return later, True
        message = choice.kind == "known" and (
            isinstance(choice, Grant) or choice.outcome == "not_now"
        )
        if who.contact is None or not message:
            return later, False
        opens = self._opens(who.contact.number, at)
        return (later, True) if opens <= at else (opens, False)

    def _opens(self, number: str, at: float) -> float:
        """When a line may send one more message, whoever it is for."""
        twin = self._twin
        state = twin.state(number)
        assert state is not None
        catch_up(state, twin.policy, at)
        most, spending = state.limits.messages_per_day, state.spending
        slot = message_slot(
            spending, budget_of(state, twin.policy, at, slow=twin.slow), twin.policy, at
        )
        if most is not None and windows.messages_reach(spending, at, most):
            slot = max(slot, windows.room_for_messages_at(spending, at, most))
        return slot

    def _code(self, who: Who, at: float) -> str:
        """What keeps somebody out."""
        self._twin.terse = False
        choice = decide(self._request, who, self._twin, at)
        self._twin.terse = True
        return choice.reason if isinstance(choice, Refusal) else "pace"
