"""What a refusal is recorded and raised as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from linepicker._asks import Who
from linepicker._candidates import Request, look_at_all
from linepicker._conversation import said
from linepicker._core import Refusal
from linepicker._line import BUDGETS
from linepicker.errors import Blocked, Held, NoLine, NotNow, StaleHealth
from linepicker.fleet import Fleet
from linepicker.model import Decision

_ERRORS: Final[Mapping[str, type[NoLine | Held | NotNow | StaleHealth]]] = {
    "no_line": NoLine,
    "held": Held,
    "not_now": NotNow,
    "stale": StaleHealth,
}

_PACED: Final = BUDGETS | {"pace"}
"""What keeps a message off for longer while what is known of the lines is old."""


def refused(decision: Decision) -> Blocked | NoLine | Held | NotNow | StaleHealth:
    """The error that a refusal is raised as."""
    subject = f"{decision.to} on {decision.number}" if decision.number else decision.to
    text = f"{subject}: {decision.outcome} ({decision.reason})"
    if decision.outcome == "blocked":
        return Blocked(text, decision=decision)
    assert decision.retry_at is not None
    error = _ERRORS[decision.outcome]
    return error(text, decision=decision, retry_at=decision.retry_at)


def decision_of(fleet: Fleet, request: Request, who: Who, refusal: Refusal, now: float) -> Decision:
    """The record of a refusal that was decided on just now."""
    retry_at = refusal.retry_at
    if retry_at is None and refusal.outcome != "blocked":
        retry_at = now + fleet.policy.health.ttl
        if refusal.outcome == "stale":
            retry_at = max(retry_at, min(fleet.next_try, now + fleet.policy.health.max_age))
    elif fleet.slow and refusal.reason in _PACED and retry_at is not None:
        retry_at = min(retry_at, now + fleet.policy.health.ttl)  # fresh news may open them sooner
    leaving = refusal.number if refusal.outcome == "held" and refusal.kind == "known" else None
    account = refusal.account or look_at_all(request, who, fleet, now, leaving)
    candidates = (
        attrs.evolve(each, excluded=refusal.reason, opens_at=refusal.retry_at, score=0.0)
        if each.number == refusal.number
        or (refusal.outcome == "no_line" and refusal.reason == "quiet" and not each.excluded)
        else each
        for each in account
    )
    return Decision(
        refusal.outcome,
        refusal.number,
        refusal.kind,
        refusal.reason,
        retry_at,
        0.0,
        tuple(candidates),
        now,
        who.masked,
        None,
        tuple(map(said, refusal.notes)),
    )


def with_cause(error: Exception, fleet: Fleet) -> Exception:
    """The error, with what keeps the list of lines from being read."""
    if isinstance(error, StaleHealth):
        error.__cause__ = fleet.last_error
    return error
