"""A line's seven days as a drawing: the new conversations of each 24 hours, and below them what the line was called. Pure.

The shapes are SVG paths, as short as may be: a page has a thousand of them. The last of the seven days ends with the current
six hours of the record.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import Final

from linepicker._windows import DAY, SPREAD, WEEK

__all__ = ["DAYS", "HIGH", "WIDE", "band", "bars", "days", "past"]

DAYS: Final = 7
WIDE: Final = 20
"""How wide a day is."""
HIGH: Final = 18
"""How high the days may be, and so where their ground is."""
_WIDE: Final = DAYS * WIDE
_IN_A_DAY: Final = round(DAY / SPREAD)
_MIDDLES: Final = {"AT_RISK": "23", "CRITICAL": "24.5", "FLAGGED": "24.5"}
"""Where a stroke's middle is, so that all begin at one height; how broad they are the page's style says."""
_CACHED: Final = 20_000

Week = tuple[tuple[int, int], ...]
Past = tuple[tuple[float, str], ...]


def days(week: Week) -> tuple[int, ...]:
    """The new conversations of each of the seven days, the latest last."""
    counts = [opened for _, opened in week][-DAYS * _IN_A_DAY :]
    return tuple(sum(counts[i : i + _IN_A_DAY]) for i in range(0, len(counts), _IN_A_DAY))


@lru_cache(maxsize=_CACHED)
def bars(counts: tuple[int, ...], full: int) -> str:
    """The days' counts as a path, empty where there are none. *full*: as many fill the height; more are drawn no higher."""
    if not any(counts):
        return ""
    heights = [min(HIGH, -(-count * HIGH // max(1, full))) for count in counts]
    path, before = [f"M0 {HIGH}"], 0
    for height, run in groupby(heights):
        path.append(f"v{before - height}h{WIDE * len(list(run))}")
        before = height
    return f"{''.join(path)}V{HIGH}z"


@lru_cache(maxsize=_CACHED)
def band(changes: Past, week_from: float) -> tuple[tuple[str, str], ...]:
    """What the line was called as (name, path of strokes), without HEALTHY, on which the page's style draws the others. The
    name is empty for the time before anything is known. *week_from*: when the first six hours of the record began."""
    start = week_from + SPREAD
    found: dict[str, list[str]] = {}
    for name, since, until in _stretches(changes, start, start + WEEK):
        left, right = _place(since - start), _place(until - start)
        if name == "HEALTHY" or left >= _WIDE:
            continue
        stroke = f"M{left} {_MIDDLES.get(name, '22')}h{max(1, right - left)}"
        found.setdefault(name, []).append(stroke)
    return tuple((name, "".join(paths)) for name, paths in found.items())


def past(changes: Past, now: float) -> dict[str, float]:
    """For how many seconds of the last week the line was called what it should not be, by name."""
    found: dict[str, float] = {}
    for name, since, until in _stretches(changes, now - WEEK, now):
        if name not in {"", "HEALTHY"} and until > since:
            found[name] = found.get(name, 0.0) + until - since
    return found


def _stretches(changes: Past, start: float, end: float) -> list[tuple[str, float, float]]:
    """(name, from, until) of all that lies between, in order; the name is empty before the first change."""
    marks = [(start, ""), *((at, name) for at, name in changes)]
    ends = [*(at for at, _ in marks[1:]), end]
    spans = (
        (name, max(at, start), min(until, end))
        for (at, name), until in zip(marks, ends, strict=True)
    )
    return [(name, since, until) for name, since, until in spans if until > since]


def _place(seconds: float) -> int:
    return round(seconds * WIDE / DAY)
