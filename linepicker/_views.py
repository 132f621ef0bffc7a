"""What people and planners see of the fleet: a line in words, and how much fits by when. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

import attrs

from linepicker import _windows as windows
from linepicker._asks import Who
from linepicker._candidates import Request
from linepicker._charge import charge
from linepicker._contact import Contact
from linepicker._core import Grant, decide
from linepicker._failing import seen_in_week
from linepicker._line import BUDGETS, NEVER, LineState, Rank, assess
from linepicker._tally import Tally, troubles
from linepicker._windows import DAY
from linepicker._words import moment
from linepicker.fleet import Fleet
from linepicker.model import Assignment, Capacity, LineView, Plan, To

FORECAST_AT_MOST: Final = 10_000
"""Slots per line that a forecast looks ahead."""

_SENTENCES: Final = {
    "stale": "The health data is too old to trust.",
    "not_in_fleet": "The provider took it away.",
    "paused": "Paused by the operator",
    "draining": "Draining: known recipients are served, new conversations are not opened",
    "flagged": "FLAGGED by the provider: it can't send until ACTIVE is observed and confirmed.",
    "ineligible": "It refused a message",
    "critical": "CRITICAL: nothing goes out until HEALTHY is observed and confirmed.",
    "recovering": "Recovering: it was CRITICAL and has not been HEALTHY since.",
    "day_budget": "The rolling day's new conversations are used up.",
    "hour_budget": "The rolling hour's new conversations are used up.",
    "spread": "The share of the day that may open within six hours is used up.",
    "failing": "Its messages failed",
    "messages": "The rolling day's messages are used up.",
}


_TRIPPED: Final = {
    "streak": " too often in a row",
    "share": " too often",
    "probe": " again when one was tried",
    "": "",
}


def view(state: LineState, fleet: Fleet, now: float, tally: Tally | None) -> LineView:
    """A line as it stands now, with what became of its messages."""
    rank = assess(state, fleet.policy, now, slow=fleet.slow)
    if fleet.stale:
        rank.excluded, rank.opens_at = "stale", NEVER
    budget, code = rank.budget.day, rank.excluded
    times = state.spending.times
    used = len(times) - windows.first_within(times, now, DAY)
    opens = max(rank.opens_at if code else now, rank.slot)
    seen, learn = seen_in_week(tally or Tally(), state.spending, now), fleet.policy.learn
    told = troubles(
        seen,
        0 if tally is None else tally.at(now).streak,
        rank.terms[3],
        reply_rate=learn.reply_rate,
        sample=learn.reply_sample,
    )
    return LineView(
        state.line,
        code if code and code not in BUDGETS else "ok",
        budget,
        used,
        None if budget is None else max(0, budget - used),
        None if opens == NEVER else opens,
        (*_reasons(state, fleet, rank, now), *told),
        MappingProxyType(seen),
    )


def _reasons(state: LineState, fleet: Fleet, rank: Rank, now: float) -> Sequence[str]:
    found, standing, budget = [], state.standing, rank.budget
    if rank.excluded:
        text = _SENTENCES[rank.excluded]
        if rank.excluded in ("paused", "draining") and standing.reason:
            text += f' ("{standing.reason}")'
        if rank.excluded == "failing":
            text += _TRIPPED[standing.tripped_for]
        if rank.excluded in ("ineligible", "failing"):
            text += f": out until {moment(rank.opens_at)}"
        found.append(text if text.endswith(".") else text + ".")
    if budget.at_risk and rank.excluded not in ("critical", "recovering"):
        why = "The health data is stale: it counts as AT_RISK" if fleet.slow else "AT_RISK"
        found.append(f"{why}: fewer new conversations, slower pace.")
    if state.line.unrecognised is not None:
        found.append(
            f'The provider calls it "{state.line.unrecognised}": it counts as AT_RISK at best.'
        )
    if (
        not standing.warm
        and budget.day is not None
        and budget.day < (state.limits.new_per_day or NEVER)
    ):
        found.append(f"Warming up: sending day {budget.day_number}.")
    if state.conclusion.ramp_for and budget.day != state.limits.new_per_day:
        found.append("Back from CRITICAL: its budget returns step by step.")
    if standing.probation and not rank.excluded:
        found.append("On probation: one unsettled reservation at a time until one is SENT.")
    if standing.failing_until and not rank.excluded:
        found.append("On trial after failures: one message at a time until one is delivered.")
    if rank.slot > now:
        found.append(f"Paced: next slot at {moment(rank.slot)}.")
    if state.line.doc_url and (budget.at_risk or rank.excluded in ("critical", "recovering")):
        found.append(f"See {state.line.doc_url}")
    return found


def forecast(state: LineState, fleet: Fleet, now: float, until: float) -> list[float]:
    """When this line could open new conversations, each as soon as may be, up to *until*."""
    if fleet.stale:
        return []
    mine = attrs.evolve(state)
    moments: list[float] = []
    at = now
    while len(moments) < FORECAST_AT_MOST:
        rank = assess(mine, fleet.policy, at, slow=fleet.slow)
        if rank.excluded is not None and rank.opens_at == NEVER:
            break
        opens = max(rank.opens_at if rank.excluded else at, rank.slot)
        if opens >= until:
            break
        if opens > at:
            at = opens
            continue
        grant = Grant(state.line.number, "new", at, rank.budget)
        mine.spending = charge(mine, grant, fleet.policy, at, len(moments) + 1, 0.0)
        mine.spending.probe, mine.budget = 0, None
        moments.append(at)
    return moments


def capacity(fleet: Fleet, now: float, horizon: float) -> Capacity:
    """How many new conversations fit from *now* until *now* + *horizon*."""
    by_line = {
        number: forecast(state, fleet, now, now + horizon) for number, state in fleet.states()
    }
    moments = sorted(at for each in by_line.values() for at in each)
    return Capacity(
        len(moments), {number: len(each) for number, each in by_line.items()}, tuple(moments)
    )


def plan(
    fleet: Fleet, people: Sequence[Who], request: Request, now: float, deadline: float
) -> Plan:
    """A line and a moment for each, earliest first. Who has a line stays there, or waits where it may not be used."""
    openings = sorted(
        (at, number)
        for number, state in fleet.states()
        for at in forecast(state, fleet, now, deadline)
    )
    free = iter(openings)
    slots: list[tuple[To, str, float]] = []
    unplaced: list[To] = []
    for who in people:
        known = who.contact
        opening = (
            _known_opening(fleet, who, known, request, now, deadline) if known else next(free, None)
        )
        if opening is None:
            unplaced.append(who.recipient.to)
        else:
            slots.append((who.recipient.to, opening[1], opening[0]))
    shortfall = ""
    if unplaced:
        shortfall = f"{len(slots)} of {len(people)} fit before {moment(deadline)}"
    return Plan(tuple(slots), tuple(unplaced), shortfall)


def _known_opening(
    fleet: Fleet, who: Who, contact: Contact, request: Request, now: float, deadline: float
) -> tuple[float, str] | None:
    choice = decide(request, who, fleet, now)
    if isinstance(choice, Grant):
        return choice.send_at, choice.number
    if choice.outcome == "not_now" and choice.retry_at is not None and choice.retry_at < deadline:
        return choice.retry_at, contact.number
    return None


def assignment(
    to: To, number: str, since: float, history: Sequence[tuple[str, float]]
) -> Assignment:
    """A recipient's line, for people."""
    return Assignment(to, number, since, tuple(history))
