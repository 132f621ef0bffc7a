"""What came of a run, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

__all__ = ["MEASURES", "Measures", "Sample", "fairness", "median"]


@attrs.frozen
class Sample:
    """One line at one moment, for the picture: reputation as shown (0 to 2), flagged, its hidden limit and what its chooser
    grants it (new conversations a day), and what it opened within a day."""

    at: float
    number: str
    shown: int
    flagged: bool
    limit: float
    budget: int | None
    opened: int


@attrs.frozen(kw_only=True)
class Measures:
    """What came of a run. Line-days are 24 hours of one line.

    Attributes:
        people: who wanted a first message.
        reached: people whose first message landed within their patience.
        late: people whose first message landed after that.
        due: follow-ups that were owed: answers to replies, and reminders.
        answered: follow-ups that landed in time.
        wait: median seconds from asking to the first message, of those reached.
        opened: new conversations, those on another line of somebody known included.
        messages: messages sent.
        moved: conversations that went on from another line than before.
        at_risk_days: line-days shown as AT_RISK.
        critical_days: line-days shown as CRITICAL.
        flagged_days: line-days flagged.
        on_critical: messages sent on a line that the chooser had been shown, or told, to be CRITICAL.
        on_flagged: messages tried on a line that it had been told to be FLAGGED, or that had refused less than a day ago.
        refused: messages that their line refused.
        after_opt_out: messages to somebody who had opted out.
        fairness: how evenly the lines were used for what they bear (Jain's index, 1: all alike).
        trace: a hash of everything that was sent, when, to whom and from where.
    """

    people: int
    reached: int
    late: int
    due: int
    answered: int
    wait: float
    opened: int
    messages: int
    moved: int
    at_risk_days: float
    critical_days: float
    flagged_days: float
    on_critical: int
    on_flagged: int
    refused: int
    after_opt_out: int
    fairness: float
    trace: str

    @property
    def served(self) -> int:
        """People reached and follow-ups answered: what rivals are compared by."""
        return self.reached + self.answered


MEASURES: Final[Mapping[str, str]] = {
    "reached": "people reached",
    "answered": "follow-ups answered",
    "wait": "wait, min",
    "at_risk_days": "AT_RISK days",
    "critical_days": "CRITICAL days",
    "flagged_days": "FLAGGED days",
    "on_critical": "sent on CRITICAL",
    "on_flagged": "sent on FLAGGED",
    "fairness": "fairness",
}
"""What a table shows, and what it calls it; each is explained in `Measures`."""


def median(values: Sequence[float]) -> float:
    """The middle one; 0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def fairness(opened: Counter[str], bears: Mapping[str, float]) -> float:
    """Jain's index of what each line opened as a share of what it bears: 1/n where one did all, 1 where all did alike."""
    shares = [opened[number] / base for number, base in bears.items()]
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / len(shares) / squares if squares else 1.0
