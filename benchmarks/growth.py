"""How a choice's cost grows: with lines, with assignments, with processes; and what an assignment takes in memory.

- *lines*: a reservation for a new recipient, in memory, without limits, among 10 to 10,000 lines.
- *assignments*: a reservation for a known recipient whom the router remembers, and for one whom it has to read, in a SQLite
  file (synchronous=normal) of 1,000 to as many as asked for.
- *processes*: reservations a second for new recipients by 1 to 16 processes on 1,000 lines, on SQLite, Valkey and PostgreSQL.
- *bulk*: `assign_many` of 1,000,000 in memory, beside filling a dict with the same strings.
- *memory*: what the process grows by for each of 100,000 assignments in the memory store.

`--picture FILE.svg` draws them.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import attrs

from benchmarks import pick, sizes, stores
from benchmarks.measure import Figures, Goal, Subject, measure
from linepicker import Router

PACKAGES = stores.PACKAGES
MEMORY_OF = 100_000


@attrs.frozen
class Scale:
    """How much is measured: rounds, seconds per timing, and the points of each curve."""

    repeats: int = 5
    seconds: float = 0.1
    lines: tuple[int, ...] = (10, 100, 1000, 10_000)
    assignments: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000, 10_000_000)
    processes: tuple[int, ...] = (1, 2, 4, 8, 16)
    assigned: int = MEMORY_OF
    bulk: int = 1_000_000

    def words(self) -> Sequence[str]:
        """How it was measured."""
        return (f"rounds: {self.repeats}, each timing about {self.seconds * 1000:g} ms",)


QUICK = Scale(
    repeats=3, seconds=0.05, assignments=(1000, 10_000, 100_000), processes=(1, 2, 4), bulk=200_000
)
TINY = Scale(2, 0.001, (10, 20), (10, 20), (1, 2), assigned=100, bulk=1000)


def found(
    scale: Scale, say: Callable[[str], None]
) -> tuple[Mapping[str, Figures], Mapping[str, float]]:
    """All curves, a subject each point, and the bytes of an assignment."""
    bytes_each = {f"memory store, each of {scale.assigned:,}": _memory(scale.assigned)}
    with ExitStack() as house:
        subjects = [*_lines(scale, house), *_assignments(scale, house, say)]
        figures = measure(subjects, repeats=scale.repeats, seconds=scale.seconds, say=say)
    with ExitStack() as house:
        figures |= measure(
            list(_processes(scale, house, say)),
            repeats=scale.repeats,
            seconds=3 * scale.seconds,
            say=say,
        )
    return figures | _bulk(scale, say), bytes_each


def goals(scale: Scale) -> list[Goal]:
    """Each curve's last point over its first."""
    few, many = scale.lines[0], scale.lines[-1]
    compared = [Goal(f"new: {many:,} lines / {few:,}", f"{many:,} lines", f"{few:,} lines")]
    few, many = scale.assignments[0], scale.assignments[-1]
    compared += [
        Goal(
            f"known, {how}: {many:,} assignments / {few:,}",
            f"{many:,} assignments, {how}",
            f"{few:,} assignments, {how}",
        )
        for how in ("remembered", "read")
    ]
    compared.append(Goal("assign_many / filling a dict", "assign_many, each", "a dict, each", 15.0))
    few, many = scale.processes[0], scale.processes[-1]
    compared += [
        Goal(
            f"{name}: throughput of {many} processes / {few}",
            f"{few} processes on {name}",
            f"{many} processes on {name}",
        )
        for name in ("SQLite", "Valkey", "PostgreSQL")
    ]
    return compared


def _lines(scale: Scale, house: ExitStack) -> list[Subject]:
    strangers = stores.people()
    return [attrs.evolve(pick.new(n, strangers, house), name=f"{n:,} lines") for n in scale.lines]


def _assignments(scale: Scale, house: ExitStack, say: Callable[[str], None]) -> list[Subject]:
    folder = Path(house.enter_context(tempfile.TemporaryDirectory()))
    found = []
    for size in scale.assignments:
        say(f"assigning {size:,}")
        url = f"sqlite:///{folder / f'{size}.db'}?synchronous=normal"
        with Router(stores.lines(sizes.LINES), policy=pick.ROOMY, store=url) as router:
            numbers = cycle([line.number for line in stores.lines(sizes.LINES)])
            router.assign_many(zip(islice(stores.people(), size), numbers, strict=False))
        found.append(sizes.known(f"{size:,} assignments, read", url, size, house))
        router = house.enter_context(
            Router(stores.lines(sizes.LINES), policy=pick.ROOMY, store=url)
        )
        few = cycle(list(islice(stores.people(), min(size, 500))))
        prepare = pick.reserving(router, few)
        prepare(500)()
        found.append(Subject(f"{size:,} assignments, remembered", prepare))
    return found


def _processes(scale: Scale, house: ExitStack, say: Callable[[str], None]) -> list[Subject]:
    found = []
    for name, url in stores.servers(house).items():
        for size in scale.processes:
            say(f"{size} processes on {name}")
            place = f"{url}.{size}" if name == "SQLite" else stores.within(url, f"crowd{size}")
            crowd = stores.Crowd(name, place, "ours", size, 1000)
            house.callback(crowd.close)
            found.append(Subject(f"{size} processes on {name}", crowd.prepare))
    return found


def _memory(size: int) -> float:
    """Bytes that this process grows by for each assignment."""
    with Router(stores.lines(sizes.LINES), policy=pick.ROOMY) as router:
        router.assign("+12125559999", router.lines()[0].line.number)
        numbers = cycle([line.number for line in stores.lines(sizes.LINES)])
        gc.collect()
        before = _resident()
        router.assign_many(zip(islice(stores.people(), size), numbers, strict=False))
        gc.collect()
        return max(1.0, (_resident() - before) / size)


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def draw(figures: Mapping[str, Figures], path: str) -> None:
    """The three curves, in black and with marks, so that no colour is needed to tell them apart."""
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "linepicker"
    picture, panels = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    _curve(panels[0], figures, {"new recipient": "{:,} lines"}, "lines")
    _curve(
        panels[1],
        figures,
        {"remembered": "{:,} assignments, remembered", "read": "{:,} assignments, read"},
        "assignments",
    )
    kinds = {name: f"{{:,}} processes on {name}" for name in ("SQLite", "Valkey", "PostgreSQL")}
    _curve(panels[2], figures, kinds, "processes", rate=True)
    picture.savefig(path, metadata={"Date": None})
    plt.close(picture)


def _curve(
    panel: Any,
    figures: Mapping[str, Figures],
    kinds: Mapping[str, str],
    what: str,
    *,
    rate: bool = False,
) -> None:
    for (label, name), mark in zip(kinds.items(), "os^", strict=False):
        points = [
            (n, figures[name.format(n)].median)
            for n in sorted({*Scale().lines, *Scale().assignments, *Scale().processes})
            if name.format(n) in figures
        ]
        across = [n for n, _ in points]
        up = [1 / each if rate else each * 1e6 for _, each in points]
        panel.plot(across, up, marker=mark, label=label, linewidth=1.5)
    panel.set_xscale("log", base=2 if rate else 10)
    if rate:
        panel.set_xticks(list(Scale().processes), [str(n) for n in Scale().processes])
    panel.set_ylim(bottom=0)
    panel.set_xlabel(what)
    panel.set_ylabel("reservations a second" if rate else "µs a reservation")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)


def _bulk(scale: Scale, say: Callable[[str], None]) -> dict[str, Figures]:
    """What each of many costs to assign, and to put into a dict."""
    numbers = cycle([line.number for line in stores.lines(sizes.LINES)])
    pairs = list(zip(islice(stores.people(), scale.bulk), numbers, strict=False))
    ours, theirs = list[float](), list[float]()
    for turn in range(scale.repeats):
        say(f"bulk {turn + 1} of {scale.repeats}")
        with Router(stores.lines(sizes.LINES), policy=pick.ROOMY) as router:
            router.lines()
            gc.collect()
            begun = time.perf_counter()
            router.assign_many(pairs)
            ours.append((time.perf_counter() - begun) / scale.bulk)
        filled: dict[str, str] = {}
        gc.collect()
        begun = time.perf_counter()
        for to, number in pairs:
            filled[to] = number  # noqa: PERF403  one by one, as a program would
        theirs.append((time.perf_counter() - begun) / scale.bulk)
    return {
        "assign_many, each": Figures(scale.bulk, tuple(ours)),
        "a dict, each": Figures(scale.bulk, tuple(theirs)),
    }
