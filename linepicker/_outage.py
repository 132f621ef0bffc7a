"""What may go on while the store is out: known recipients, slowly, for a while; and how it is put on the records afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from linepicker import _record as records
from linepicker import _windows as windows
from linepicker._asks import Flow, Made, Now, Say, Who, ident_of
from linepicker._candidates import FleetView, Request
from linepicker._charge import charge
from linepicker._contact import PAIR_KEPT, Contact
from linepicker._core import Grant, decide
from linepicker._line import LineState, Rank
from linepicker._ranking import Ranking
from linepicker._record import Spending
from linepicker._update import update
from linepicker.errors import StoreError
from linepicker.fleet import Fleet
from linepicker.policy import Policy

DEBTS_AT_MOST: Final = 10_000
"""How many messages may go out that the store does not know of; then everything is refused."""


_NOT_THE_STORES: Final = -1
"""The version of a record as this process has it alone: the store's own replaces it when it is read."""


@attrs.define
class _Slowly:
    """The fleet, with every line at AT_RISK pace."""

    fleet: Fleet
    policy: Policy
    stale: bool
    slow: bool = True
    terse: bool = False

    @property
    def span(self) -> float:
        return self.fleet.span

    def state(self, number: str) -> LineState | None:
        return self.fleet.state(number)

    def rank(self, number: str) -> Rank:
        return self.fleet.rank(number)

    def ranking(self, now: float) -> Ranking:
        return self.fleet.ranking(now)

    def again(self, number: str, now: float) -> Rank:
        return self.fleet.again(number, now)

    def states(self) -> Any:
        return self.fleet.states()


def slowly(fleet: Fleet) -> FleetView:
    """The fleet as it is decided upon without a store."""
    return _Slowly(fleet, fleet.policy, fleet.stale)


def carry_on(
    fleet: Fleet, request: Request, who: Who, now: float, made_id: str, key: str | None
) -> Made | None:
    """A reservation without the store, by the records this process keeps: for somebody known on their line, while the policy
    allows it. None: there is none, and the store's error stands."""
    policy = fleet.policy
    if policy.on_store_error != "known_only" or key is not None or who.contact is None:
        return None
    if who.block_key is not None and not who.block_seen:
        return None  # nobody asked yet whether they want messages
    if fleet.out_since is None:
        return None
    fleet.out_since = min(fleet.out_since, now)  # the clock may have stepped back since
    if now - fleet.out_since > policy.store_outage:
        return None
    if fleet.polled_at is None or len(fleet.debts) >= DEBTS_AT_MOST:
        return None
    now = fleet.at(now)
    choice = decide(request, who, slowly(fleet), now)
    if not isinstance(choice, Grant) or choice.kind != "known":
        return None
    state = fleet.state(choice.number)
    assert state is not None
    if state.standing.probation or state.conclusion.failing_until:
        return None  # one trial at a time takes a store
    made = Made(
        made_id,
        who,
        choice.number,
        "known",
        now,
        choice.send_at,
        state.line,
    )
    made.chat_id = who.contact.chats.get(choice.number)
    made.override_optout, made.chat_health = request.override_optout, request.chat_health
    made.notes, made.in_outage = choice.notes, True
    if fleet.onlooker is not None:
        fleet.onlooker.decided(request, who, now, made_id, made, in_outage=True)
    ident = ident_of(made_id)
    state.spending = charge(state, choice, policy, now, ident, request.max_delay)
    keep = max(PAIR_KEPT, state.limits.pair_per_minute or 0)
    who.contact = who.contact.messaged(choice.send_at, now, ident, keep)
    state.spending_version = who.contact_version = _NOT_THE_STORES
    fleet.debts.append(made)
    fleet.calm_until = -float("inf")
    return made


def pay(fleet: Fleet) -> Flow[None]:
    """Put on the records what went out while the store was away. Raises StoreError while it still is."""
    paid = 0
    while fleet.debts:
        made = fleet.debts[0]
        if _owed(made):
            yield from _charged(fleet, made)
            paid += 1
        if fleet.debts and fleet.debts[0] is made:
            fleet.debts.popleft()
            made.in_outage = False
    fleet.out_since = None
    if paid:
        yield Say(
            f"the store is back: {paid} messages that went out without it are on record",
            20,
            "store",
        )


def _owed(made: Made) -> bool:
    """Whether it went out, as far as is known."""
    return made.outcome is None or made.outcome in ("SENT", "UNKNOWN", "RATE_LIMITED")


def _charged(fleet: Fleet, made: Made) -> Flow[None]:
    spending_key, contact_key = records.spending_key(made.number), made.who.contact_key

    def change(was: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        contact: Contact | None = was[contact_key]
        if contact is not None and made.ident in contact.ids:
            return None  # the answer was lost, not the write
        if not _owed(made):
            return None  # another call has put it on record meanwhile, and it was given back
        spending = (was[spending_key] or Spending()).copy()
        at = min(made.send_at, now)
        windows.add_message(spending, at, now)
        windows.count_week(spending, at, messages=1)
        after: dict[str, Any] = {spending_key: spending}
        if contact is not None:
            after[contact_key] = contact.messaged(at, now, made.ident, PAIR_KEPT)
        return after

    yield from update(fleet, [spending_key, contact_key], change, who=made.who)


def surviving(
    flow: Flow[Made],
    fleet: Fleet,
    request: Request,
    who: Who,
    now: float,
    made_id: str,
    key: str | None,
    begun: Callable[[Made], None] | None,
) -> Flow[Made]:
    """The reservation that *flow* makes, or where the store is out, one without it."""
    try:
        made = yield from flow
    except StoreError as error:
        if error.answered:
            raise
        if fleet.out_since is None:
            fleet.out_since = now
        found = carry_on(fleet, request, who, (yield Now()), made_id, key)
        if found is None:
            raise
        made = found
        if begun is not None:
            begun(made)
    return made
