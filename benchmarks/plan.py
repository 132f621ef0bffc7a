"""What it costs to plan: `router.plan` beside a planner that knows nothing but counters, a call a plan.

A router keeps 20,000 people in mind, so a longer list is also parsed and read anew each time.

Strangers and known recipients, over lines that are HEALTHY and weigh the same, with the default policy, on a manual clock, in
memory. Recipients are made before the timing begins, and the deadline is far enough away for all of them.

The floor gives each to the line whose next slot is the earliest, by a heap, and holds it to the day's, the hour's and the six
hours' limit and the gap alone. It reads no record, parses no handle, asks nobody whether they opted out, knows neither
messages nor bursts, and its plan is not one that a router would carry out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from heapq import heapify, heapreplace
from itertools import cycle

import attrs

from benchmarks.measure import Goal, Subject
from linepicker import Line, Router
from linepicker.testing import ManualClock

PACKAGES = ("linepicker", "attrs")
NOW = 1_800_000_000.0
HOUR, DAY = 3600.0, 86400.0
WINDOWS = ((50, DAY), (15, HOUR), (18, 6 * HOUR))
GAP = 20.0


@attrs.frozen
class Scale:
    """How much is measured: numbers of people over so many lines, and rounds."""

    people: tuple[int, ...] = (1_000, 10_000, 100_000)
    lines: int = 100
    repeats: int = 5

    def words(self) -> Sequence[str]:
        """How it was measured."""
        return (f"rounds: {self.repeats}; lines: {self.lines}",)


QUICK = Scale(people=(1_000, 10_000), repeats=3)
TINY = Scale(people=(50, 200), lines=5, repeats=2)


def subjects(scale: Scale, house: ExitStack) -> list[Subject]:
    """Everything to time, opened in *house*."""
    numbers = [f"+1646{2_000_000 + 7 * i}" for i in range(scale.lines)]
    found = []
    for count in scale.people:
        people = _people(count)
        found += [
            _planning(f"plan, {count:,} new", people, numbers, house),
            _planning(f"plan, {count:,} known", people, numbers, house, known=True),
            _floor(f"floor, {count:,} new", people, numbers),
        ]
    return found


def goals(scale: Scale) -> list[Goal]:
    """What is compared with what."""
    few, many = min(scale.people), max(scale.people)
    return [
        *(
            Goal(f"plan / floor: {each:,} new", f"plan, {each:,} new", f"floor, {each:,} new")
            for each in scale.people
        ),
        *(
            Goal(
                f"plan: {many:,} {kind} / {few:,} {kind}",
                f"plan, {many:,} {kind}",
                f"plan, {few:,} {kind}",
            )
            for kind in ("new", "known")
        ),
    ]


def _people(count: int) -> list[str]:
    areas = (212, 312, 415, 503, 617, 702, 808, 917)
    return [f"+1{areas[i % 8]}{2_000_000 + i // 8}" for i in range(count)]


def _planning(
    name: str, people: list[str], numbers: list[str], house: ExitStack, *, known: bool = False
) -> Subject:
    router = house.enter_context(Router([Line(each) for each in numbers], clock=ManualClock(NOW)))
    if known:
        router.assign_many(zip(people, cycle(numbers), strict=False))
    deadline = NOW + 300 * DAY

    def prepare(calls: int) -> Callable[[], object]:
        def work() -> None:
            for _ in range(calls):
                plan = router.plan(people, deadline=deadline)
                if plan.unplaced:
                    raise RuntimeError(plan.shortfall)

        return work

    return Subject(name, prepare)


def _floor(name: str, people: list[str], numbers: list[str]) -> Subject:
    def plan() -> list[tuple[str, str, float]]:
        spent = {
            number: tuple(deque[float](maxlen=limit) for limit, _ in WINDOWS) for number in numbers
        }
        heap = [(NOW, number) for number in numbers]
        heapify(heap)
        slots = []
        for to in people:
            at, number = heap[0]
            slots.append((to, number, at))
            opens = at + GAP
            for (limit, window), times in zip(WINDOWS, spent[number], strict=True):
                times.append(at)
                if len(times) == limit:
                    opens = max(opens, times[0] + window)
            heapreplace(heap, (opens, number))
        return slots

    def prepare(calls: int) -> Callable[[], object]:
        def work() -> None:
            for _ in range(calls):
                plan()

        return work

    return Subject(name, prepare)
