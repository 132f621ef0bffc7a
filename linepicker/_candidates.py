"""What a choice is made of: the request, whom it is for, the fleet; and how each line stands to them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Protocol
from zlib import crc32

import attrs

from linepicker import _windows as windows
from linepicker._contact import Contact
from linepicker._line import BUDGETS, NEVER, LineState, Rank, assess
from linepicker._priority import urgent_rank
from linepicker._quiet import Rest
from linepicker._ranking import Ranking
from linepicker._small import Block
from linepicker._windows import DAY
from linepicker.model import Candidate, Line
from linepicker.policy import Policy


@attrs.define
class Request:
    """What the caller asks for. `urgent`: it may use what is kept for that, if anything is. `sketch`: of the text; no decision
    depends on it."""

    line_type: str | None = None
    tags: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    line: str | None = None
    max_delay: float = 300.0
    inbound: bool = False
    override_optout: bool = False
    chat_health: str | None = None
    urgent: bool = False
    sketch: bytes = b""


class Person(Protocol):
    """What a decision sees of the recipient. `salt` settles ties; `area` is the area code if affinity matters; `rest`: their
    quiet hours."""

    salt: int
    area: str | None
    rest: Rest
    contact: Contact | None
    block: Block | None

    @property
    def is_group(self) -> bool:
        """Whether it is a group."""
        ...


class FleetView(Protocol):
    """What a decision sees of the fleet. `terse`: nobody asks which line opens first, only when anything changes."""

    policy: Policy
    slow: bool
    stale: bool
    terse: bool

    @property
    def span(self) -> float:
        """How long a better value must have been seen before it counts, in seconds."""
        ...

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
        """A line, ranked anew."""
        ...

    def states(self) -> Iterator[tuple[str, LineState]]:
        """All lines of the fleet."""
        ...


def remembered(who: Person, fleet: FleetView, now: float) -> Contact | None:
    """What is remembered of a recipient, without moments that only a clock that stepped back can explain: further ahead than
    any promise on their line reaches, and `SKEW` more."""
    contact = who.contact
    if contact is None or (contact.last_at <= now and contact.wait_until <= now):  # nearly always
        return contact
    state = fleet.state(contact.number)
    reach = 0.0 if state is None else state.spending.reach
    return contact.on_time(now, now + max(fleet.policy.pace.max_delay, reach) + windows.SKEW)


def opening(rank: Rank, max_delay: float, now: float) -> float:
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


def affinity_of(who: Person, fleet: FleetView, number: str) -> float:
    """What likeness of line and recipient is worth."""
    if who.area is None:
        return 1.0
    state = fleet.state(number)
    return 1.0 if state is not None and state.area == who.area else fleet.policy.affinity.area_code


def candidate(
    number: str,
    rank: Rank,
    affinity: float,
    code: str | None = None,
    opens_at: float = NEVER,
    at: float = -NEVER,
) -> Candidate:
    """A line as a decision shows it. *code*: what this call has against it, beyond the rank's own. *at*: the moment of the
    choice, where the line may have been ranked before."""
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
        max(rank.slot, at),
    )


def look_at_all(
    request: Request, who: Person, fleet: FleetView, now: float, leaving: str | None = None
) -> list[Candidate]:
    """Every line of the fleet as this request finds it, the best first."""
    found = []
    for number, state in fleet.states():
        look = urgent_rank if request.urgent else assess
        rank = look(state, fleet.policy, now, slow=fleet.slow)
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
            rank.opens_at = opening(rank, request.max_delay, now)
        affinity = affinity_of(who, fleet, number)
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


def best_of_what_is_kept(
    request: Request, who: Person, fleet: FleetView, now: float, leaving: str | None
) -> list[tuple[str, Rank, float]]:
    """The two best lines for an urgent message that none takes at once as they take others, with what likeness is worth."""
    found = []
    for number, state in fleet.states():
        rank = urgent_rank(state, fleet.policy, now, slow=fleet.slow)
        if rank.excluded or rank.slot - request.max_delay > now or ruled_out(request, state.line):
            continue
        if leaving is not None and (number == leaving or moves_full(state, now) is not None):
            continue
        affinity = affinity_of(who, fleet, number)
        tie = crc32(number.encode(), who.salt)
        key = (-rank.tier, rank.key[0], rank.key[1] * affinity, tie)
        found.append((key, (number, rank, affinity)))
    return [each for _, each in sorted(found, key=itemgetter(0), reverse=True)[:2]]
