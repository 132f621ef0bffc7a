"""What people see of the fleet: a line in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from linepicker import _windows as windows
from linepicker._failing import seen_in_week
from linepicker._line import BUDGETS, NEVER, LineState, Rank, assess
from linepicker._tally import Tally, troubles
from linepicker._terms import learned_sentences, terms
from linepicker._windows import DAY
from linepicker._words import moment
from linepicker.fleet import Fleet
from linepicker.model import Assignment, LineView, To

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
        fleet.polled_at,
        terms(state, fleet.policy, now),
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
    if budget.kept:
        found.append(f"{budget.kept} more new conversations a day are kept for urgent messages.")
    if state.line.unrecognised is not None:
        found.append(
            f'The provider calls it "{state.line.unrecognised}": it counts as AT_RISK at best.'
        )
    if (
        not standing.warm
        and budget.day is not None
        and budget.day + budget.kept < (state.limits.new_per_day or NEVER)
    ):
        found.append(f"Warming up: sending day {budget.day_number}.")
    whole = None if budget.day is None else budget.day + budget.kept
    if state.conclusion.ramp_for and whole != state.limits.new_per_day:
        found.append("Back from CRITICAL: its budget returns step by step.")
    if standing.probation and not rank.excluded:
        found.append("On probation: one unsettled reservation at a time until one is SENT.")
    if state.conclusion.failing_until and not rank.excluded:
        found.append("On trial after failures: one message at a time until one is delivered.")
    found += learned_sentences(state, fleet.policy, now)
    if rank.slot > now:
        found.append(f"Paced: next slot at {moment(rank.slot)}.")
    if state.line.doc_url and (budget.at_risk or rank.excluded in ("critical", "recovering")):
        found.append(f"See {state.line.doc_url}")
    return found


def assignment(
    to: To, number: str, since: float, history: Sequence[tuple[str, float]]
) -> Assignment:
    """A recipient's line, for people."""
    return Assignment(to, number, since, tuple(history))
