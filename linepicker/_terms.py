"""What was learned of a line, in terms that have a name, a unit and a reason, and in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Final

from linepicker._learn import allowed
from linepicker._learned import Learned
from linepicker._line import NEVER, LineState
from linepicker._nearness import usual
from linepicker._windows import WEEK, load, messages_within, opened_in_week
from linepicker._words import duration, moment
from linepicker.model import Term
from linepicker.policy import Policy

A_DAY: Final = "new conversations a day"
_DRIVERS: Final = {
    "new_conversation_rate": "{today:.0f} opened within a day, of {bears:.0f} that it is taken to bear",
    "volume_spike": "{today:.0f} opened within a day, where its busiest one of the week before had {usual:.0f}; "
    "{messages} messages within a day",
    "overall_conversation_health": "of {opened} conversations opened in 7 days, too few were answered",
    "opt_out_handling": "of {opened} conversations opened in 7 days, too many opted out",
    "similar_openings": "the texts that opened its latest conversations are alike",
}


def terms(state: LineState, policy: Policy, now: float) -> tuple[Term, ...]:
    """All that was learned of a line and is in force."""
    learn, learned = policy.learn, state.standing.learned
    if not learn.enabled:
        return ()
    found = list(_budgets(learned, policy)) if learn.budgets else []
    if learn.nearness and learned.near_at and now < learned.near_at + WEEK:
        found.append(
            Term(
                "nearness",
                learned.nearness,
                "0 to 1",
                f"how near it is to AT_RISK by the nearest of its drivers, at {moment(learned.near_at)}",
            )
        )
        found += _drivers(state, now)
    return tuple(found)


def _budgets(learned: Learned, policy: Policy) -> Iterator[Term]:
    learn = policy.learn
    if learned.budget:
        cut = learned.changed_at and learned.changed_at == learned.cut_at
        what = "cut when it got worse" if cut else "raised, since it was HEALTHY and used it"
        yield Term(
            "learned_budget", learned.budget, A_DAY, f"{what}, at {moment(learned.changed_at)}"
        )
    if learned.ceiling:
        yield Term(
            "ceiling",
            learned.ceiling,
            A_DAY,
            f"what it bore before it got worse; it rises by {100 * learn.relax:g} % a day",
        )
    if learned.today:
        others = learned.bounded == "fleet"
        yield Term(
            "today",
            learned.today,
            A_DAY,
            "others of the fleet got worse at about so many, and it has not carried more"
            if others
            else f"at most {learn.jump:g} times its busiest day of the last week",
        )
    if learned.spread and learn.profile and policy.pace.spread is not None:
        yield Term(
            "spread",
            max(learned.spread, policy.pace.spread),
            "of the day's budget in any 6 h",
            "so much of its day the pool opens in its busiest 6 h",
        )


def _drivers(state: LineState, now: float) -> Iterator[Term]:
    learned, spending = state.standing.learned, state.spending
    facts = {
        "today": load(spending, now, now),
        "usual": usual(spending, now),
        "bears": learned.ceiling or state.limits.new_per_day or 0,
        "messages": messages_within(spending, now),
        "opened": opened_in_week(spending, now),
    }
    for name, value in sorted(learned.drivers.items(), key=lambda each: -each[1]):
        text = _DRIVERS.get(name)
        if text is not None:
            yield Term(name, value, "0 to 1", text.format(**facts))


def learned_sentences(state: LineState, policy: Policy, now: float) -> Iterator[str]:
    """What was learned of a line and holds it back, and how good the warnings have been."""
    learn, learned, most = policy.learn, state.standing.learned, allowed(state.standing, policy)
    if most < (state.limits.new_per_day or NEVER):
        since = (
            f", by what it bore before it got worse: about {learned.ceiling:.0f}"
            if learned.ceiling
            else ""
        )
        yield f"Learned: it may open at most {most:.0f} conversations a day{since}."
    if not (learn.enabled and learn.nearness):
        return
    if learned.warned_at and now < learned.near_at + WEEK:
        name = max(learned.drivers, key=lambda each: learned.drivers[each], default="")
        yield f"Near AT_RISK since {moment(learned.warned_at)} ({name} {learned.nearness:.2f}): slower."
    told = calibration(learned)
    if told:
        yield told


def calibration(learned: Learned) -> str:
    """How good the warnings of a line have been; empty where nothing tells."""
    if not (learned.hits or learned.alarms or learned.misses):
        return ""
    early = f", {duration(median(learned.leads))} before as a rule" if learned.leads else ""
    true = f"{learned.hits} of {learned.hits + learned.alarms} came true{early}"
    return f"Warnings: {true}; it got worse {learned.misses} times without one."
