"""The decision: the gates in their order, and the order among the lines that pass them.

A pure function of (request, records, policy, now): no clock, no dice, no I/O, no logging. The order of the gates is told once,
in `decide`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import attrs

from linepicker import _windows as windows
from linepicker._contact import PAIR, Contact
from linepicker._line import (
    BUDGETS,
    NEVER,
    Budget,
    LineState,
    Rank,
    assess,
    budget_of,
    catch_up,
    exclusion,
    message_slot,
)
from linepicker._ranking import Ranking, Trie
from linepicker._small import Block
from linepicker._windows import DAY
from linepicker.model import Candidate, Kind, Line
from linepicker.policy import Policy


@attrs.define
class Request:
    """What the caller asks for."""

    line_type: str | None = None
    tags: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    line: str | None = None
    max_delay: float = 300.0
    inbound: bool = False
    override_optout: bool = False


class Person(Protocol):
    """What a decision sees of the recipient. `salt` settles ties; `area` is the area code if affinity matters."""

    salt: int
    area: str | None
    contact: Contact | None
    block: Block | None


@attrs.define
class Grant:
    """A line and a moment, not yet charged."""

    number: str
    kind: Kind
    send_at: float
    budget: Budget
    ranks: Sequence[tuple[str, Rank, float]] = ()
    moved_from: str | None = None


@attrs.define
class Refusal:
    """Why not, and when to ask again (None: when something changes)."""

    outcome: Literal["held", "not_now", "no_line", "blocked", "stale"]
    reason: str
    retry_at: float | None = None
    number: str | None = None
    kind: Kind | None = None


class FleetView(Protocol):
    """What a decision sees of the fleet."""

    policy: Policy
    slow: bool
    stale: bool

    def state(self, number: str) -> LineState | None:
        """A line of the fleet."""
        ...

    def rank(self, number: str) -> Rank:
        """A line as it was last ranked."""
        ...

    def ranking(self, now: float) -> Ranking:
        """The ranking, brought up to *now*."""
        ...

    def again(self, number: str, now: float) -> Rank:
        """Rank one line anew."""
        ...

    def states(self) -> Iterator[tuple[str, LineState]]:
        """All lines of the fleet."""
        ...


def decide(request: Request, who: Person, fleet: FleetView, now: float) -> Grant | Refusal:
    """The gates, in their order."""
    if who.block is not None and not request.override_optout:
        code = who.block.code
        if code is not None:
            return Refusal("blocked", code)
    if fleet.stale:
        return Refusal("stale", "stale")
    if who.contact is not None:
        return _known(request, who, fleet, who.contact, now)
    if request.inbound:
        return _wrote_first(request, fleet, now)
    if request.line is not None:
        return _pinned(request, fleet, request.line, now)
    return _new(request, who, fleet, now)


def _known(
    request: Request, who: Person, fleet: FleetView, contact: Contact, now: float
) -> Grant | Refusal:
    number, stickiness = contact.number, fleet.policy.stickiness
    if number in request.exclude or request.line not in (None, number):
        return Refusal("held", "excluded", None, number, "known")
    state = fleet.state(number)
    if state is not None and state.clear:
        return _message(request, fleet, state, contact, now)
    code, ends = ("not_in_fleet", NEVER) if state is None else exclusion(state, now)
    if state is not None and code is None:
        return _message(request, fleet, state, contact, now)
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
        opening = min((m for m in (known_end, answer.retry_at) if m is not None), default=None)
        return Refusal("held", code or "", opening, number, "known")
    return answer


def _message(
    request: Request, fleet: FleetView, state: LineState, contact: Contact | None, now: float
) -> Grant | Refusal:
    """A message that opens no conversation, on the line it belongs to."""
    policy, limits, number = fleet.policy, state.limits, state.line.number
    catch_up(state, policy, now)
    spending = state.spending
    ends: list[tuple[str, float]] = []
    most = limits.messages_per_day
    if most is not None and windows.messages_reach(spending, now, most):
        ends.append(("messages", windows.room_for_messages_at(spending, now, most)))
    if contact is not None:
        if contact.wait_until > now:
            ends.append(("pair", contact.wait_until))
        limit, times = limits.pair_per_minute, contact.times
        if limit is not None and len(times) - windows.first_within(times, now, PAIR) >= limit:
            ends.append(("pair", times[-limit] + PAIR))
    budget = budget_of(state, policy, now, slow=fleet.slow)
    slot = message_slot(spending, budget, policy, now)
    if slot - request.max_delay > now:
        ends.append(("pace", slot - request.max_delay))
    if ends:
        return Refusal("not_now", ends[0][0], max(end for _, end in ends), number, "known")
    return Grant(number, "known", slot, budget)


def _wrote_first(request: Request, fleet: FleetView, now: float) -> Grant | Refusal:
    number = request.line
    assert number is not None  # the door has asked for it
    state = fleet.state(number)
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
    fleet.ranking(now)
    rank = fleet.again(number, now)
    code = rank.excluded if rank.excluded not in BUDGETS else None
    code = code or ruled_out(request, state.line)
    if code is not None:
        ends = rank.opens_at if code == rank.excluded else NEVER
        return Refusal("held", code, None if ends == NEVER else ends, number, "new")
    opening = _opening(rank, request.max_delay, now)
    if opening > now:
        return Refusal("not_now", rank.excluded or "pace", opening, number, "new")
    return Grant(number, "new", rank.slot, rank.budget, ((number, rank, 1.0),))


def _opening(rank: Rank, max_delay: float, now: float) -> float:
    """When a line whose exclusion time ends would take a new conversation; *now* if it would now."""
    opens = rank.opens_at if rank.excluded else now
    return max(opens, rank.slot - max_delay, now)


def ruled_out(request: Request, line: Line) -> str | None:
    """What this call itself has against a line."""
    if request.line_type and (line.line_type or "iMessage").lower() != request.line_type.lower():
        return "line_type"
    if not request.tags <= line.tags:
        return "tag"
    return "excluded" if line.number in request.exclude else None


def _new(
    request: Request, who: Person, fleet: FleetView, now: float, leaving: str | None = None
) -> Grant | Refusal:
    """The best line for a new conversation, or for one that moves away from the line *leaving*."""
    plain = not (request.line_type or request.tags or request.exclude or leaving or who.area)
    ranking = fleet.ranking(now)
    for tier, trie in enumerate(ranking.tiers):
        found: Sequence[str] = trie.first_two(who.salt) if plain else ()
        if not found or fleet.rank(found[0]).slot - request.max_delay > now:
            near = ranking.area(tier, who.area) if who.area else None
            found = _best(request, who, fleet, trie, near, leaving, now)
        if not found:
            continue
        rank = fleet.rank(found[0])
        send_at = max(rank.slot, now)
        ranks = [
            (number, fleet.rank(number), _affinity(who, fleet, number) if who.area else 1.0)
            for number in found
        ]
        kind: Kind = "new" if leaving is None else "moved"
        return Grant(found[0], kind, send_at, rank.budget, ranks, leaving)
    return _nobody(request, who, fleet, now, leaving)


def _best(
    request: Request,
    who: Person,
    fleet: FleetView,
    trie: Trie,
    near: Trie | None,
    leaving: str | None,
    now: float,
) -> Sequence[str]:
    """The best line of one tier and the next best. Lines this call rules out are set aside; those *near* the recipient
    weigh more."""
    best = _two_acceptable(request, who, fleet, trie, leaving, now)
    if near is not None:
        best += _two_acceptable(request, who, fleet, near, leaving, now)
    keyed = {}
    for number in best:
        slot, score = fleet.rank(number).key
        keyed[number] = (slot, score * _affinity(who, fleet, number))
    return sorted(keyed, key=keyed.__getitem__, reverse=True)[:2]


def _two_acceptable(
    request: Request, who: Person, fleet: FleetView, trie: Trie, leaving: str | None, now: float
) -> list[str]:
    latest = now + request.max_delay
    found: list[str] = []
    for number in trie.walk(who.salt):
        state, rank = fleet.state(number), fleet.rank(number)
        if -rank.key[0] > latest + 1.0:  # slots are ranked by the second: all that follow are later
            break
        if rank.slot - request.max_delay > now:
            continue
        if state is None or number == leaving or ruled_out(request, state.line):
            continue
        if leaving is not None and moves_full(state, now):
            continue
        found.append(number)
        if len(found) == 2:
            break
    return found


def moves_full(state: LineState, now: float) -> float | None:
    """When a line that took its day's moves may take another; None: it may now."""
    limit, spending = state.limits.moves_per_day, state.spending
    start = windows.first_within(spending.times, now, DAY)
    moves = [
        moment
        for moment, moved in zip(spending.times[start:], spending.moved[start:], strict=True)
        if moved
    ]
    return moves[-limit] + DAY if limit is not None and len(moves) >= limit else None


def _affinity(who: Person, fleet: FleetView, number: str) -> float:
    if who.area is None:
        return 1.0
    state = fleet.state(number)
    return 1.0 if state is not None and state.area == who.area else fleet.policy.affinity.area_code


def candidate(
    number: str, rank: Rank, affinity: float, code: str | None = None, opens_at: float = NEVER
) -> Candidate:
    """A line as a decision shows it. *code*: what this call has against it, beyond the rank's own."""
    weight, tier, headroom, vitality = rank.terms
    excluded, opens = rank.excluded, rank.opens_at
    if code is not None and (excluded is None or excluded in BUDGETS):
        by_call = code in ("line_type", "tag", "excluded")
        excluded = code if by_call else excluded or code
        opens = NEVER if by_call else max(opens_at, opens if rank.excluded else opens_at)
    return Candidate(
        number,
        0.0 if excluded else weight * tier * headroom * vitality * affinity,
        {
            "weight": weight,
            "tier": tier,
            "headroom": headroom,
            "vitality": vitality,
            "affinity": affinity,
        },
        excluded,
        None if excluded is None or opens == NEVER else opens,
        rank.slot,
    )


def look_at_all(
    request: Request, who: Person, fleet: FleetView, now: float, leaving: str | None = None
) -> list[Candidate]:
    """Every line of the fleet as this request finds it, the best first."""
    found = []
    for number, state in fleet.states():
        rank = assess(state, fleet.policy, now, slow=fleet.slow)
        if fleet.stale:
            rank.excluded, rank.opens_at = "stale", NEVER
        code, opens = ruled_out(request, state.line), NEVER
        if code is None and leaving is not None:
            full = moves_full(state, now)
            if number == leaving or full is not None:
                code, opens = ("excluded", NEVER) if number == leaving else ("moves", full or NEVER)
        if code is None and not rank.excluded and rank.slot - request.max_delay > now:
            code, opens = "pace", rank.slot - request.max_delay
        if rank.excluded and rank.opens_at != NEVER:
            rank = attrs.evolve(rank, opens_at=_opening(rank, request.max_delay, now))
        affinity = _affinity(who, fleet, number)
        found.append((rank.tier, rank.key, candidate(number, rank, affinity, code, opens)))
    found.sort(
        key=lambda each: (
            each[2].excluded is not None,
            each[0],
            (-each[1][0], -each[2].score),
            each[2].number,
        )
    )
    return [each for _, _, each in found]


def _nobody(
    request: Request, who: Person, fleet: FleetView, now: float, leaving: str | None
) -> Refusal:
    first: Candidate | None = None
    for each in look_at_all(request, who, fleet, now, leaving):
        if each.opens_at is not None and (
            first is None or first.opens_at is None or each.opens_at < first.opens_at
        ):
            first = each
        first = first or each
    if first is None:
        return Refusal("no_line", "not_in_fleet")
    return Refusal("no_line", first.excluded or "pace", first.opens_at)


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
