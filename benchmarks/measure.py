"""Times subjects in turns, so that whatever else the machine does falls on all of them alike; and says where that was.

A timing: full garbage collection, some untimed calls, then the timed ones. The collector stays on throughout. What is left
after each collection is frozen (`gc.freeze`), so that no subject pays for walking through what belongs to another.
"""

from __future__ import annotations

import gc
import os
import platform
import shlex
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

GC = "gc.collect() and gc.freeze() before each timing, collector on throughout; the same for all"


@attrs.frozen
class Subject:
    """Something to time. `prepare(calls)` does what is not timed and gives the function that makes so many calls. `most`:
    a timing makes no more calls than that."""

    name: str
    prepare: Callable[[int], Callable[[], object]]
    most: int = 5000


@attrs.frozen
class Figures:
    """The timings of one subject, a round each: seconds per call, each the mean of so many calls."""

    calls: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, in seconds per call."""
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        """The smallest, in seconds per call."""
        return min(self.seconds)


@attrs.frozen
class Goal:
    """How two subjects should compare. `wanted`: at most (or, with *at_least*, at least) so many; None: just to know."""

    what: str
    over: str
    under: str
    wanted: float | None = None
    at_least: bool = False

    @property
    def words(self) -> str:
        """What is wanted."""
        return "-" if self.wanted is None else f"{'>=' if self.at_least else '<='} {self.wanted:g}"


@attrs.frozen
class Ratio:
    """How two subjects did compare: the median of the rounds' ratios, and between what the middle half of them lie."""

    goal: Goal
    median: float
    low: float
    high: float

    @property
    def ok(self) -> bool | None:
        """Whether that is as wanted; None where nothing is."""
        wanted = self.goal.wanted
        if wanted is None:
            return None
        return self.median >= wanted if self.goal.at_least else self.median <= wanted


def measure(
    subjects: Sequence[Subject],
    *,
    repeats: int,
    seconds: float,
    say: Callable[[str], None],
    once: bool = False,
) -> dict[str, Figures]:
    """Time all subjects, *repeats* rounds, each timing about so many *seconds* long. Every second round runs backwards.

    *once*: a call is long, so each timing is one.
    """
    calls = {each.name: 1 if once else _calls_in(each, seconds) for each in subjects}
    found: dict[str, list[float]] = {each.name: [] for each in subjects}
    for turn in range(repeats):
        say(f"round {turn + 1} of {repeats}")
        for each in reversed(subjects) if turn % 2 else subjects:
            found[each.name].append(_time(each, calls[each.name]))
    gc.unfreeze()
    return {name: Figures(calls[name], tuple(times)) for name, times in found.items()}


def compare(goal: Goal, figures: Mapping[str, Figures]) -> Ratio | None:
    """How the two compare, round by round; None where one of them was not measured."""
    over, under = figures.get(goal.over), figures.get(goal.under)
    if over is None or under is None:
        return None
    ratios = [one / other for one, other in zip(over.seconds, under.seconds, strict=True)]
    low, median, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return Ratio(goal, median, low, high)


def _time(subject: Subject, calls: int) -> float:
    warm, work = subject.prepare(max(1, calls // 10)), subject.prepare(calls)
    gc.collect()
    gc.freeze()
    warm()
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / calls


def _calls_in(subject: Subject, seconds: float) -> int:
    """How many calls take about so long, by the fastest of a few trials; at least 3."""
    _time(subject, 3)
    once = min(_time(subject, 10) for _ in range(3))
    return max(3, min(subject.most, round(seconds / once)))


# Where


def surroundings(packages: Sequence[str]) -> dict[str, Any]:
    """The machine, what runs on it, the versions of *packages*, and the command line."""
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {_processor()}",
        "cpus": os.cpu_count(),
        "load": [round(each, 2) for each in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {
            **{name: version(name) for name in packages},
            "SQLite": sqlite3.sqlite_version,
        },
        "gc": GC,
    }


def version(package: str) -> str | None:
    """The installed version, None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "processor unknown"


def _commit() -> str | None:
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        asked = [
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout
            for words in (
                ("rev-parse", "--short", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no", "--", ".."),
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked[0].strip() + (" with uncommitted changes" if asked[1].strip() else "")
