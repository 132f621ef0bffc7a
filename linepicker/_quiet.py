"""Quiet hours: when somebody is left alone, by the clock where they are. Pure: a moment in, a moment out.

They are quiet while their clock shows a time of the window, whatever was done to the clock meanwhile: a window that ends at
02:30 ends when the clock jumps from 02:00 to 03:00, and what it shows twice counts twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

import attrs

from linepicker._bounds import OFF, is_zone
from linepicker.policy import Policy, Quiet
from linepicker.recipients import time_zones

DAY: Final = 86400
AHEAD: Final = 14 * DAY
"""So many seconds without a gap, of zones and members together, are for ever."""


@attrs.frozen
class Hours:
    """From *start* to *end*, seconds after midnight as a zone's clock shows them; over midnight if *end* is lower."""

    start: int
    end: int
    zone: ZoneInfo

    def run(self, at: float) -> bool:
        """Whether it is such a time at *at*."""
        shown = (at + self.offset(at)) % DAY
        if self.start < self.end:
            return self.start <= shown < self.end
        return shown >= self.start or shown < self.end

    def end_after(self, at: float) -> float:
        """When those end that run at *at*."""
        while True:
            offset = self.offset(at)
            midnight = (at + offset) // DAY * DAY
            shown = (
                midnight + self.end
                if midnight + self.end > at + offset
                else midnight + self.end + DAY
            )
            then = shown - offset
            if self.offset(then) == offset:
                return then
            at = self._turn(at, then, offset)
            if not self.run(at):
                return at

    def offset(self, at: float) -> float:
        """How far the zone's clock is ahead of UTC, in seconds."""
        ahead = datetime.fromtimestamp(at, self.zone).utcoffset()
        return 0.0 if ahead is None else ahead.total_seconds()

    def _turn(self, before: float, after: float, offset: float) -> float:
        """When the offset stops being *offset*; clocks are changed on the second."""
        low, high = math.floor(before), math.ceil(after)
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle) == offset:
                low = middle
            else:
                high = middle
        return float(high)


Rest: TypeAlias = tuple[Hours, ...]
"""The hours of somebody, of all their zones and members: they are quiet while any of these run. Empty: never."""


def is_on(quiet: Quiet) -> bool:
    """Whether anybody at all has quiet hours."""
    return quiet.hours is not None or any(
        each.hours not in (None, OFF) for each in quiet.prefix.values()
    )


def quiet_of(policy: Policy) -> Quiet | None:
    """The policy's quiet hours, None where nobody has any. Raises PolicyError where what they need is not installed."""
    if not is_on(policy.quiet):
        return None
    rest_of(policy.quiet, ["+12125550100"])
    return policy.quiet


def rest_of(quiet: Quiet, handles: Iterable[str]) -> Rest:
    """The hours of one person, or of a group's members. Raises PolicyError where what `by_number` needs is not installed."""
    return tuple(dict.fromkeys(hours for handle in handles for hours in _hours_of(quiet, handle)))


def _hours_of(quiet: Quiet, handle: str) -> Iterator[Hours]:
    window, zones = quiet.hours, list[str]()
    for size in range(len(handle), 1, -1) if quiet.prefix and handle[:1] == "+" else ():
        entry = quiet.prefix.get(handle[:size])
        if entry is not None:
            window = entry.hours or window
            zones = [entry.zone] if entry.zone else []
            break
    if window is None or window == OFF:
        return
    if not zones and quiet.by_number and handle[:1] == "+":
        zones = [name for name in time_zones(handle) if is_zone(name)]
    start, end = (int(each[:2]) * 3600 + int(each[3:]) * 60 for each in window.split("-"))
    for name in zones or [quiet.zone]:
        yield Hours(start, end, ZoneInfo(name))


def written(rest: Rest) -> str:
    """The hours as text, for `read_back`."""
    return ";".join(f"{each.start}-{each.end} {each.zone.key}" for each in rest)


def read_back(text: str) -> Rest:
    """The inverse of `written`. Raises ValueError."""
    found = []
    for each in filter(None, text.split(";")):
        window, _, zone = each.partition(" ")
        start, end = map(int, window.split("-"))
        if not is_zone(zone):
            raise ValueError(f"{zone[:40]!r} is no time zone")
        found.append(Hours(start, end, ZoneInfo(zone)))
    return tuple(found)


def quiet_until(rest: Rest, at: float) -> float | None:
    """When they may be written to again; None: they may be at *at*. Infinite where the hours of zones and members leave no
    gap."""
    free = at
    while running := [each for each in rest if each.run(free)]:
        free = max(each.end_after(free) for each in running)
        if free > at + AHEAD:
            return math.inf
    return free if free > at else None


def in_words(rest: Rest, at: float) -> str:
    """The hours that run at *at*, in words."""
    running = [each for each in rest if each.run(at)]
    zones = ", ".join(each.zone.key for each in running[:3])
    return f"quiet hours in {zones}{' and elsewhere' if len(running) > 3 else ''}"
