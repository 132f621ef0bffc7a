"""What fits by when: plans and capacities, as people and files see them. Frozen.

Times are seconds, moments are epoch seconds UTC (float).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from linepicker.model import To

__all__ = ["Capacity", "Plan"]


def _counted(values: tuple[object, ...]) -> str:
    return f"<{len(values)}>"


@attrs.frozen
class Plan:
    """Who would be written to from which line and when.

    `slots`: (recipient, line, moment), in the order in which they are to be carried out. `unplaced`: recipients for whom
    there is no room; `reasons`: why, a code for each of them. `shortfall`: a sentence, empty when all fit. `held`: with
    hold=True the reservations of those slots that could be held, the earliest first.

    >>> from linepicker import Line, Router
    >>> from linepicker.testing import ManualClock
    >>> router = Router([Line("+12025550100")], clock=ManualClock(start=1_800_000_000.0))
    >>> plan = router.plan([f"+1212555{n:04d}" for n in range(20)], deadline=1_800_003_600.0)
    >>> len(plan.slots), len(plan.unplaced), plan.reasons[0]
    (15, 5, 'deadline')
    >>> list(plan.to_csv())[:2]
    ['to,number,at,time,reason', '+12125550000,+12025550100,1800000000.0,2027-01-15T08:00:00.000+00:00,']
    """

    slots: tuple[tuple[To, str, float], ...] = attrs.field(repr=_counted)
    unplaced: tuple[To, ...] = attrs.field(default=(), repr=_counted)
    shortfall: str = ""
    reasons: tuple[str, ...] = attrs.field(default=(), repr=_counted)
    held: tuple[Any, ...] = attrs.field(default=(), repr=_counted)

    def to_jsonl(self) -> Iterator[str]:
        """One JSON object a line, slots first: "to" (a group's handles as a list), "number", "at" in epoch seconds, "time" in
        ISO 8601; of the unplaced "reason", and null for the rest. Handles are in clear. Lines without their ends."""
        return (json.dumps(row, ensure_ascii=False) for row in self._rows())

    def to_csv(self) -> Iterator[str]:
        """The same as CSV, the names first; a group's handles are joined by blanks. Lines without their ends."""
        yield "to,number,at,time,reason"
        for to, *rest in map(dict.values, self._rows()):
            told = [to if isinstance(to, str) else " ".join(to)]  # none has a comma or a quote
            yield ",".join(told + ["" if each is None else str(each) for each in rest])

    def _rows(self) -> Iterator[dict[str, Any]]:
        for to, number, at in self.slots:
            iso = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
            yield {"to": to, "number": number, "at": at, "time": iso, "reason": None}
        for to, reason in zip(self.unplaced, self.reasons, strict=True):
            yield {"to": to, "number": None, "at": None, "time": None, "reason": reason}


@attrs.frozen
class Capacity:
    """How many new conversations fit within the horizon: `total`, `by_line`, and when (`moments`, sorted).

    >>> from linepicker import Line, Router
    >>> from linepicker.testing import ManualClock
    >>> clock = ManualClock(start=1_800_000_000.0)
    >>> hour = Router([Line("+12025550100")], clock=clock).capacity(horizon=3600.0)
    >>> hour.total, hour.earliest(6) - clock.now(), hour.earliest(16)
    (15, 20.0, None)
    """

    total: int
    by_line: Mapping[str, int]
    moments: tuple[float, ...] = attrs.field(repr=False)

    def earliest(self, n: int) -> float | None:
        """The moment by which *n* new conversations fit, None if not within the horizon. Raises ValueError for *n* below 1."""
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        return self.moments[n - 1] if n <= len(self.moments) else None
