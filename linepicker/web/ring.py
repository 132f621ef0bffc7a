"""The latest choices of this process, as the page shows them."""

from __future__ import annotations

from collections import Counter, deque
from datetime import UTC, datetime
from typing import Final

import attrs

from linepicker import _words as words
from linepicker._asks import Made
from linepicker.model import Decision

__all__ = ["KEPT", "Choice", "Ring"]

KEPT: Final = 50
"""How many choices are remembered."""
_SOON: Final = 0.5  # seconds; a delay below is none


@attrs.frozen
class Choice:
    """A choice in words; the recipient is masked. `kind`: what became of it, in a word or two, `good`: whether it may leave."""

    at: str
    to: str
    kind: str
    number: str
    why: str
    good: bool


class Ring:
    """Remembers the latest choices, whoever makes them in whichever thread. Lives as long as the page."""

    def __init__(self) -> None:
        self._latest: deque[Made | tuple[Decision, Counter[str]]] = deque(maxlen=KEPT)
        self.count = 0
        """How many there were, roughly."""

    def __call__(self, choice: Made | Decision) -> None:
        """Remember one. Nothing is put into words here: that is for those who look."""
        if isinstance(choice, Decision):
            # A refusal has every line of the fleet in it: too many to keep.
            excluded = Counter(each.excluded or "" for each in choice.candidates)
            self._latest.append((attrs.evolve(choice, candidates=()), excluded))
        else:
            self._latest.append(choice)
        self.count += 1

    def choices(self) -> list[Choice]:
        """The latest first."""
        return [_told(each) for each in reversed(list(self._latest))]


def _told(kept: Made | tuple[Decision, Counter[str]]) -> Choice:
    if not isinstance(kept, tuple):
        made = kept.decision
        parts = [_score(made)]
        if made.moved_from is not None:
            parts.insert(0, f"moved from {made.moved_from}")
        if made.delay >= _SOON:
            parts.append(f"leaves {words.until(made.delay)}")
        parts += made.notes
        why = "; ".join(part for part in parts if part)
        return Choice(_clock(made.at), made.to, made.kind or "", made.number or "", why, good=True)
    made, excluded = kept
    why = words.refusal(made, date=False)
    if made.outcome == "no_line":
        counts = (f"{code} {count:,}" for code, count in excluded.most_common() if code)
        why += f" ({', '.join(counts)})"
    kind = made.outcome.replace("_", " ")
    return Choice(_clock(made.at), made.to, kind, made.number or "", f"{why}.", good=False)


def _score(made: Decision) -> str:
    if made.kind == "known":
        return "their line"
    if not made.candidates or not made.candidates[0].terms:
        return ""
    best, *others = made.candidates
    text = f"score {words.score(best)}"
    return f"{text}, then {others[0].number} with {words.score(others[0])}" if others else text


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
