"""The fleet as a status page shows it: each line with its week, and how fresh all of it is.

Nothing is decided by it. What takes long is worked out in portions, between which other calls go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, Literal, TypeVar

import attrs

from linepicker._asks import Flow, Sleep
from linepicker._line import LineState, budget_of, called
from linepicker._polls import read_all, tallies
from linepicker._tally import Tally
from linepicker._views import view
from linepicker._windows import ROWS, SPREAD
from linepicker.fleet import Fleet
from linepicker.model import LineView

AT_ONCE: Final = 25
"""How many lines are looked at before other calls may go on."""

T = TypeVar("T")


@attrs.frozen
class LineDetail:
    """A line with its week.

    `called`: FLAGGED, CRITICAL, AT_RISK or HEALTHY, what reputation and status come to, reports included. `new_gap`: seconds
    between new conversations, 0 for none, after `new_burst` at once. `week`: for each 6 hours of the rolling week, oldest
    first, the messages and the new conversations; the last is the current one. `week_from`: when the first of them began.
    `past`: (since when, called what), oldest first; before the first nothing is known. `heard_at`: when the provider last
    told something of the line or its messages, as far as the records tell, None if never.
    """

    view: LineView
    called: str
    new_gap: float
    new_burst: int
    week: tuple[tuple[int, int], ...]
    week_from: float
    past: tuple[tuple[float, str], ...]
    heard_at: float | None


@attrs.frozen
class Overview:
    """The fleet at the moment `now`.

    `polled_at`: when the list of lines in force was asked for. `freshness`: whether it may be trusted: "fresh", "slow" (HEALTHY
    counts as AT_RISK) or "stale" (everything is refused). `failing`: whether the list could not be read since.
    """

    now: float
    lines: tuple[LineDetail, ...]
    polled_at: float
    freshness: Literal["fresh", "slow", "stale"]
    failing: bool
    static: bool

    @property
    def heard_at(self) -> float | None:
        """When the provider last told something of any line, None if never."""
        return max(
            (each.heard_at for each in self.lines if each.heard_at is not None), default=None
        )


def overview(fleet: Fleet, now: float) -> Flow[Overview]:
    """All lines, their records read anew. Raises SourceError where no list was ever read."""
    now = yield from read_all(fleet, now)
    counts = yield from tallies(fleet)
    found = list[LineDetail]()
    for portion in _portions(fleet.states()):
        found += [_detail(state, fleet, now, counts.get(number)) for number, state in portion]
        yield Sleep(0.0)
    assert fleet.polled_at is not None
    return Overview(
        now,
        tuple(found),
        fleet.polled_at,
        fleet.freshness(now),
        fleet.last_error is not None,
        fleet.static,
    )


def _portions(items: Iterator[T]) -> Iterator[Sequence[T]]:
    """The items as they are now, so many at a time."""
    kept = iter(list(items))
    while portion := list(islice(kept, AT_ONCE)):
        yield portion


def _detail(state: LineState, fleet: Fleet, now: float, tally: Tally | None) -> LineDetail:
    standing, spending = state.standing, state.spending
    budget = budget_of(state, fleet.policy, now, slow=fleet.slow)
    first = int(now // SPREAD) - ROWS + 1
    week = [(0, 0)] * ROWS
    rows = spending.week
    for i in range(0, len(rows), 4):
        if 0 <= rows[i] - first < ROWS:
            week[rows[i] - first] = (rows[i + 1], rows[i + 2])
    pairs = (*standing.reputation.reports.values(), *standing.status.reports.values())
    heard = [received for each in pairs for _, received in each]
    if tally is not None and tally.times:
        heard.append(tally.times[-1])
    return LineDetail(
        view(state, fleet, now, tally),
        called(standing, fleet.span),
        budget.new_gap,
        budget.new_burst,
        tuple(week),
        first * SPREAD,
        standing.past,
        min(max(heard), now) if heard else None,
    )
