"""What goes out under a policy, line by line, and what is refused."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final

import attrs

from linepicker.model import Decision

__all__ = ["OPEN", "LineUse", "Side", "Use", "code_of", "end_of"]

HOUR: Final = 3600.0
DAY: Final = 86400.0
OPEN: Final = 10_000
"""How many requests may still be settled, or decided anew."""


@attrs.frozen
class LineUse:
    """What went out on a line: messages, new conversations and moves to it, and how many of both at most in any rolling hour
    and any rolling 24 hours. What was given back is not counted."""

    number: str
    messages: int
    new: int
    moves: int
    busiest_hour: int
    busiest_day: int


@attrs.frozen
class Side:
    """One policy over the history: what went out by line, and what was refused by outcome and reason, as in
    "no_line (day_budget)"."""

    lines: tuple[LineUse, ...]
    new: int
    moves: int
    messages: int
    refusals: Mapping[str, int]


class Use:
    """What goes out under one policy."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.new: Counter[str] = Counter()
        self.moves: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.refusals: Counter[str] = Counter()
        self._made: OrderedDict[str, tuple[str, str, float]] = OrderedDict()

    def end(self, made_id: str, decision: Decision) -> None:
        """Count how a request ended."""
        number = decision.number
        if decision.outcome != "reserved" or number is None:
            self.refusals[code_of(decision)] += 1
            self._made[made_id] = "", code_of(decision), 0.0
        else:
            at = decision.at + decision.delay
            self._made[made_id] = number, str(decision.kind), at
            self._count(number, str(decision.kind), at, 1)
        if len(self._made) > OPEN:
            self._made.popitem(last=False)

    def undo(self, made_id: str) -> None:
        """Take back what was counted."""
        number, kind, at = self._made.pop(made_id, ("", "", 0.0))
        if number:
            self._count(number, kind, at, -1)
        elif kind:
            self.refusals[kind] -= 1

    def _count(self, number: str, kind: str, at: float, n: int) -> None:
        self.messages[number] += n
        if kind == "known":
            return
        (self.new if kind == "new" else self.moves)[number] += n
        times = self.times.setdefault(number, [])
        if n > 0:
            insort(times, at)
        else:
            times.remove(at)

    def side(self) -> Side:
        """All of it."""
        numbers = sorted({*self.messages, *self.times})
        lines = tuple(
            LineUse(
                number,
                self.messages[number],
                self.new[number],
                self.moves[number],
                _busiest(self.times.get(number, []), HOUR),
                _busiest(self.times.get(number, []), DAY),
            )
            for number in numbers
        )
        return Side(
            lines,
            sum(self.new.values()),
            sum(self.moves.values()),
            sum(self.messages.values()),
            {code: n for code, n in sorted(self.refusals.items()) if n},
        )


def _busiest(times: list[float], window: float) -> int:
    """The most moments that any window of that length holds."""
    return max((i + 1 - bisect_right(times, at - window) for i, at in enumerate(times)), default=0)


def code_of(decision: Decision) -> str:
    """A refusal, in short."""
    return f"{decision.outcome} ({decision.reason})"


def end_of(decision: Decision) -> str:
    """How a request ended, in short."""
    if decision.outcome != "reserved":
        return code_of(decision)
    moved = f", moved from {decision.moved_from}" if decision.moved_from else ""
    later = f", {decision.delay:.0f} s later" if decision.delay >= 1.0 else ""
    return f"{decision.number} ({decision.kind}{moved}{later})"
