"""The decision: the gates in their order, and the order among the lines that pass them.

A pure function of (request, records, policy, now): no clock, no dice, no I/O, no logging. The order of the gates is told once,
in `decide`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from linepicker import _windows as windows
from linepicker._candidates import (
    FleetView,
    Person,
    Request,
    affinity_of,
    best_of_what_is_kept,
    look_at_all,
    moves_full,
    opening,
    remembered,
    ruled_out,
)
from linepicker._contact import PAIR, Contact
from linepicker._conversation import Note, look
from linepicker._line import (
    BUDGETS,
    NEVER,
    Budget,
    LineState,
    Rank,
    budget_of,
    catch_up,
    exclusion,
    healthy_since,
    message_slot,
)
from linepicker._priority import NOTE, urgent_message, urgent_rank
from linepicker._quiet import in_words, quiet_until
from linepicker._ranking import Order
from linepicker.model import Candidate, Kind


@attrs.define
class Grant:
    """A line and a moment, not yet charged."""

    number: str
    kind: Kind
    send_at: float
    budget: Budget
    ranks: Sequence[tuple[str, Rank, float]] = ()
    moved_from: str | None = None
    notes: tuple[Note, ...] = ()
    homeward: bool = False
    shadowed: bool = False
    urgent: bool = False


@attrs.define
class Refusal:
    """Why not, and when to ask again (None: when something changes). `account`: every line as it was found, where all were
    looked at."""

    outcome: Literal["held", "not_now", "no_line", "blocked", "stale"]
    reason: str
    retry_at: float | None = None
    number: str | None = None
    kind: Kind | None = None
    notes: tuple[Note, ...] = ()
    account: Sequence[Candidate] = ()


def decide(
    request: Request, who: Person, fleet: FleetView, now: float, *, awake: bool = False
) -> Grant | Refusal:
    """The gates, in their order. *awake*: whatever their quiet hours are."""
    if who.rest and not awake and not request.inbound:
        return _by_their_clock(request, who, fleet, now)
    blocked = who.block is not None or request.chat_health == "OPTED_OUT"
    code = barred(request, who) if blocked else None
    if code is not None and not request.override_optout:
        return Refusal("blocked", code)
    if fleet.stale:
        return Refusal("stale", "stale")
    contact = remembered(who, fleet, now)
    held, opens_at, notes = look(
        contact, request.chat_health, fleet.policy, now, inbound=request.inbound
    )
    if held is not None:
        kind: Kind = "new" if contact is None else "known"
        number = request.line if contact is None else contact.number
        choice: Grant | Refusal = Refusal("held", "quiet", None, number, kind, (("quiet", held),))
    elif contact is not None:
        choice = _known(request, who, fleet, contact, opens_at, now)
    elif request.inbound:
        choice = _wrote_first(request, fleet, now)
    elif request.line is not None:
        choice = _pinned(request, fleet, request.line, now)
    else:
        choice = _new(request, who, fleet, now)
    if notes:
        choice.notes += notes
        if isinstance(choice, Grant):
            choice.shadowed = True
    if code is not None:
        choice.notes += (("despite", code),)
    return choice


def _by_their_clock(request: Request, who: Person, fleet: FleetView, now: float) -> Grant | Refusal:
    """As `decide`, but nothing leaves in their quiet hours, neither now nor when its slot comes."""
    rest, at = who.rest, now
    ends = quiet_until(rest, now)
    choice = decide(request, who, fleet, now, awake=True)
    if isinstance(choice, Refusal):
        theirs = choice.outcome == "held" and choice.reason == "quiet"
        if theirs or choice.outcome in ("blocked", "stale"):
            return choice
        if ends is None:
            if choice.retry_at is not None:  # asking then must be worth it
                leaves = choice.retry_at + (request.max_delay if choice.reason == "pace" else 0.0)
                later = quiet_until(rest, leaves) or choice.retry_at
                choice.retry_at = None if later == NEVER else later
            return choice
    elif ends is None:
        at = choice.send_at
        ends = quiet_until(rest, at)
        if ends is None:
            return choice
        # Its slot would come too late: then only what may leave at once.
        choice = decide(attrs.evolve(request, max_delay=0.0), who, fleet, now, awake=True)
        if isinstance(choice, Grant):
            return choice
    contact = who.contact
    number = request.line if contact is None else contact.number
    return Refusal(
        "no_line" if number is None else "not_now",
        "quiet",
        None if ends == NEVER else ends,
        number,
        "new" if contact is None else "known",
        (("quiet_hours", in_words(rest, at)),),
    )


def barred(request: Request, who: Person) -> str | None:
    """The code of what keeps every message from this person: their opt-out, or the provider's block."""
    code = who.block.code if who.block is not None else None
    if code is None and request.chat_health == "OPTED_OUT" and not who.is_group:
        return "opted_out"
    return code


def _known(
    request: Request,
    who: Person,
    fleet: FleetView,
    contact: Contact,
    quiet_until: float,
    now: float,
) -> Grant | Refusal:
    number, stickiness = contact.number, fleet.policy.stickiness
    if number in request.exclude or request.line not in (None, number):
        return Refusal("held", "excluded", None, number, "known")
    if contact.home:
        homeward = _homeward(request, fleet, contact, now)
        if homeward is not None:
            return homeward
    state = fleet.state(number)
    if state is not None:
        catch_up(state, fleet.policy, now)
    if state is not None and state.clear:
        return _message(request, fleet, state, contact, now, quiet_until)
    code, ends = ("not_in_fleet", NEVER) if state is None else exclusion(state, now)
    if state is not None and code is None:
        return _message(request, fleet, state, contact, now, quiet_until)
    mode = {
        "not_in_fleet": stickiness.on_released,
        "flagged": stickiness.on_flagged,
        "ineligible": stickiness.on_flagged,
        "critical": stickiness.on_critical,
        "recovering": stickiness.on_critical,
    }.get(code or "", "hold")
    known_end = None if ends == NEVER else ends
    if mode == "hold" or request.line == number:
        return Refusal("held", code or "", known_end, number, "known")
    answer = _new(request, who, fleet, now, leaving=number)
    if isinstance(answer, Refusal):
        opens_at = min((m for m in (known_end, answer.retry_at) if m is not None), default=None)
        return Refusal("held", code or "", opens_at, number, "known")
    return answer


def _homeward(request: Request, fleet: FleetView, contact: Contact, now: float) -> Grant | None:
    """A move back to the line that a gate moved them away from, once that has long been HEALTHY and nobody is talking."""
    stickiness, home = fleet.policy.stickiness, contact.home
    state = fleet.state(home)
    if state is None or request.inbound or request.line or stickiness.return_home is None:
        return None
    since = healthy_since(state.standing, now, fleet.span)
    if since is None or since + stickiness.return_home > now:
        return None
    if contact.last_at + stickiness.mid_conversation > now or moves_full(state, now) is not None:
        return None
    there = contact.views.get(home, ("", 0.0))[0]
    if there == "CRITICAL" and fleet.policy.conversation.chat_health == "enforce":
        return None
    answer = _pinned(request, fleet, home, now)
    if isinstance(answer, Refusal):
        return None  # they are well where they are
    answer.kind, answer.moved_from, answer.homeward = "moved", contact.number, True
    return answer


def _message(
    request: Request,
    fleet: FleetView,
    state: LineState,
    contact: Contact | None,
    now: float,
    quiet_until: float = 0.0,
) -> Grant | Refusal:
    """A message that opens no conversation, on the line it belongs to."""
    policy, limits, number = fleet.policy, state.limits, state.line.number
    spending = state.spending
    ends: list[tuple[str, float]] = []
    most = limits.messages_per_day
    budget = budget_of(state, policy, now, slow=fleet.slow)
    slot = message_slot(spending, budget, policy, now)
    if request.urgent:
        most, slot = urgent_message(state, policy, now, slow=fleet.slow)
    if most is not None and windows.messages_reach(spending, now, most):
        ends.append(("messages", windows.room_for_messages_at(spending, now, most)))
    if contact is not None:
        if contact.wait_until > now:
            ends.append(("pair", contact.wait_until))
        limit, times = limits.pair_per_minute, contact.times
        if limit is not None and len(times) - windows.first_within(times, now, PAIR) >= limit:
            ends.append(("pair", times[-limit] + PAIR))
    if slot - request.max_delay > now:
        ends.append(("pace", slot - request.max_delay))
    if quiet_until > slot:
        slot = quiet_until
        if slot - request.max_delay > now:
            ends.append(("quiet", slot - request.max_delay))
    if ends:
        return Refusal("not_now", ends[0][0], max(end for _, end in ends), number, "known")
    grant = Grant(number, "known", slot, budget)
    if request.urgent:
        grant.urgent = True
    if contact is not None and not contact.made and not contact.opened and contact.history:
        # An operator moved them, and this is the first message since.
        grant.moved_from = contact.history[-1][0]
    return grant


def _wrote_first(request: Request, fleet: FleetView, now: float) -> Grant | Refusal:
    number = request.line
    assert number is not None  # the door has asked for it
    state = fleet.state(number)
    if state is not None:
        catch_up(state, fleet.policy, now)
    code, ends = ("not_in_fleet", NEVER) if state is None else exclusion(state, now)
    if number in request.exclude:
        code, ends = "excluded", NEVER
    if state is None or code is not None:
        return Refusal("held", code or "", None if ends == NEVER else ends, number, "known")
    return _message(request, fleet, state, None, now)


def _pinned(request: Request, fleet: FleetView, number: str, now: float) -> Grant | Refusal:
    state = fleet.state(number)
    if state is None:
        return Refusal("held", "not_in_fleet", None, number, "new")
    rank = fleet.again(number, now)
    if request.urgent:
        rank = urgent_rank(state, fleet.policy, now, slow=fleet.slow)
    code = rank.excluded if rank.excluded not in BUDGETS else None
    code = code or ruled_out(request, state.line)
    if code is not None:
        ends = rank.opens_at if code == rank.excluded else NEVER
        return Refusal("held", code, None if ends == NEVER else ends, number, "new")
    opens_at = opening(rank, request.max_delay, now)
    if opens_at > now:
        return Refusal("not_now", rank.excluded or "pace", opens_at, number, "new")
    ranks = ((number, rank, 1.0),)
    return Grant(number, "new", rank.slot, rank.budget, ranks, urgent=request.urgent)


def _new(
    request: Request, who: Person, fleet: FleetView, now: float, leaving: str | None = None
) -> Grant | Refusal:
    """The best line for a new conversation, or for one that moves away from the line *leaving*."""
    plain = not (request.line_type or request.tags or request.exclude or leaving or who.area)
    ranking = fleet.ranking(now)
    for tier, order in enumerate(ranking.tiers):
        found: Sequence[str] = order.first_two(who.salt) if plain else ()
        if not found or fleet.rank(found[0]).slot - request.max_delay > now:
            near = ranking.area(tier, who.area) if who.area else None
            found = _best(request, who, fleet, order, near, leaving, now)
        if not found:
            continue
        rank = fleet.rank(found[0])
        send_at = max(rank.slot, now)
        ranks = [
            (number, fleet.rank(number), affinity_of(who, fleet, number) if who.area else 1.0)
            for number in found
        ]
        if request.urgent and send_at > now and fleet.policy.priority.urgent_share:
            break
        kind: Kind = "new" if leaving is None else "moved"
        return Grant(found[0], kind, send_at, rank.budget, ranks, leaving)
    if request.urgent and fleet.policy.priority.urgent_share:
        best = best_of_what_is_kept(request, who, fleet, now, leaving)
        if best:
            number, rank, _ = best[0]
            kind = "new" if leaving is None else "moved"
            slot, notes = rank.slot, (NOTE,)
            return Grant(number, kind, slot, rank.budget, best, leaving, notes, urgent=True)
    return _nobody(request, who, fleet, now, leaving)


def _best(
    request: Request,
    who: Person,
    fleet: FleetView,
    order: Order,
    near: Order | None,
    leaving: str | None,
    now: float,
) -> Sequence[str]:
    """The best line of one tier and the next best. Lines this call rules out are set aside; those *near* the recipient
    weigh more."""
    best = _two_acceptable(request, who, fleet, order, leaving, now)
    if near is not None:
        best += _two_acceptable(request, who, fleet, near, leaving, now)
    keyed = {}
    for number in best:
        slot, score = fleet.rank(number).key
        keyed[number] = (slot, score * affinity_of(who, fleet, number))
    return sorted(keyed, key=keyed.__getitem__, reverse=True)[:2]


def _two_acceptable(
    request: Request, who: Person, fleet: FleetView, order: Order, leaving: str | None, now: float
) -> list[str]:
    latest = now + request.max_delay
    found: list[str] = []
    for number in order.walk(who.salt):
        state, rank = fleet.state(number), fleet.rank(number)
        # Slots are ranked by the second: all that follow are later.
        if -rank.key[0] > latest + 1.0:
            return found
        if rank.slot - request.max_delay > now:
            continue
        if state is None or number == leaving or ruled_out(request, state.line):
            continue
        if leaving is not None and moves_full(state, now):
            continue
        found.append(number)
        if len(found) == 2:
            return found
    return found


def _nobody(
    request: Request, who: Person, fleet: FleetView, now: float, leaving: str | None
) -> Refusal:
    if fleet.terse:
        due = fleet.ranking(now).next_due
        return Refusal("no_line", "pace", None if due == NEVER else due)
    first: Candidate | None = None
    account = look_at_all(request, who, fleet, now, leaving)
    for each in account:
        if each.opens_at is not None and (
            first is None or first.opens_at is None or each.opens_at < first.opens_at
        ):
            first = each
        first = first or each
    if first is None:
        return Refusal("no_line", "not_in_fleet")
    return Refusal("no_line", first.excluded or "pace", first.opens_at, account=account)


def decide_move(
    request: Request, who: Person, fleet: FleetView, contact: Contact, now: float
) -> Grant | Refusal:
    """Where a recipient goes whom somebody wants to move: to *request.line*, or to the best other line."""
    if fleet.stale:
        return Refusal("stale", "stale")
    if request.line is None:
        return _new(request, who, fleet, now, leaving=contact.number)
    answer = _pinned(request, fleet, request.line, now)
    state = fleet.state(request.line)
    full = moves_full(state, now) if state is not None else None
    if isinstance(answer, Grant) and full is not None:
        return Refusal("not_now", "moves", full, request.line, "moved")
    if isinstance(answer, Grant):
        answer.kind, answer.moved_from = "moved", contact.number
    return answer
