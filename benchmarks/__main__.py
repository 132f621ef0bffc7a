"""`python -m benchmarks NAME` measures and reports; it asserts nothing. `--help` tells the names.

`simulate-faults` alone judges: it looks for an order of faults that breaks a promise.

`--self-check` tests the benchmarks.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import attrs

from benchmarks import faults, growth, page, pick, plan, rivals, sizes, stores, telemetry, webhooks
from benchmarks.faults import command as simulating
from benchmarks.measure import Figures, Goal, Ratio, compare, measure, surroundings, version

Scale: TypeAlias = (
    page.Scale
    | pick.Scale
    | plan.Scale
    | stores.Scale
    | sizes.Scale
    | webhooks.Scale
    | telemetry.Scale
    | rivals.Scale
    | growth.Scale
)


@attrs.frozen
class Outcome:
    """What one run found. A goal that could not be measured has no ratio."""

    surroundings: Mapping[str, Any]
    scale: Scale
    words: Sequence[str]
    figures: Mapping[str, Figures]
    ratios: Mapping[str, Ratio | None]
    wanted: Mapping[str, str]
    missing: Sequence[str]
    bytes_each: Mapping[str, float] = {}

    @classmethod
    def of(
        cls,
        where: Mapping[str, Any],
        scale: Scale,
        figures: Mapping[str, Figures],
        goals: Sequence[Goal],
        missing: Sequence[str],
        bytes_each: Mapping[str, float] = {},
    ) -> Outcome:
        """The figures with what they were to be."""
        return cls(
            where,
            scale,
            scale.words(),
            figures,
            {goal.what: compare(goal, figures) for goal in goals},
            {goal.what: goal.words for goal in goals},
            missing,
            bytes_each,
        )

    def to_json(self) -> str:
        """All of it; times in seconds per call."""
        return json.dumps(
            {
                "surroundings": self.surroundings,
                "scale": attrs.asdict(self.scale),
                "not_measured": self.missing,
                "bytes_each": dict(self.bytes_each),
                "figures": {
                    name: {
                        "median": each.median,
                        "min": each.least,
                        "calls": each.calls,
                        "rounds": each.seconds,
                    }
                    for name, each in self.figures.items()
                },
                "ratios": {
                    what: {
                        "ratio": ratio and ratio.median,
                        "middle_half": ratio and [ratio.low, ratio.high],
                        "wanted": self.wanted[what],
                        "ok": ratio and ratio.ok,
                    }
                    for what, ratio in self.ratios.items()
                },
            },
            indent=2,
        )

    def to_text(self) -> str:
        """Where, the times, and the ratios."""
        rows = [
            [name, _duration(each.median), _duration(each.least), f"{each.calls:,}"]
            for name, each in self.figures.items()
        ]
        verdicts = [self._verdict(what, ratio) for what, ratio in self.ratios.items()]
        return "\n".join(
            (
                *(f"{name}: {_plain(value)}" for name, value in self.surroundings.items()),
                *self.words,
                "",
                *_table(("one call", "median", "min", "calls per timing"), rows),
                "",
                *_table(("what", "measured ratio", "middle half", "wanted", "ok?"), verdicts),
                *(f"\n{name}: {size:.0f} bytes" for name, size in self.bytes_each.items()),
                *(f"\nNOT MEASURED: {each}" for each in self.missing),
            )
        )

    def _verdict(self, what: str, ratio: Ratio | None) -> list[str]:
        if ratio is None:
            return [what, "not measured", "", self.wanted[what], "not measured"]
        ok = {True: "yes", False: "NO", None: "-"}[ratio.ok]
        spread = f"{ratio.low:.2f} to {ratio.high:.2f}"
        return [what, f"{ratio.median:.2f}", spread, self.wanted[what], ok]


def run_pick(scale: pick.Scale, say: Callable[[str], None]) -> Outcome:
    """Measure what a choice costs."""
    where = surroundings(pick.PACKAGES)
    with ExitStack() as house:
        subjects, missing = pick.subjects(scale, house, say)
        for each in missing:
            say(f"NOT MEASURED: {each}")
        figures = measure(subjects, repeats=scale.repeats, seconds=scale.seconds, say=say)
    return Outcome.of(where, scale, figures, pick.goals(scale), missing)


def run_stores(scale: stores.Scale, say: Callable[[str], None]) -> Outcome:
    """Measure what a store costs."""
    where, missing = surroundings(stores.PACKAGES), stores.missing()
    for each in missing:
        say(f"NOT MEASURED: {each}")
    with ExitStack() as house:
        subjects = stores.subjects(scale, house, say)
        figures = measure(subjects, repeats=scale.repeats, seconds=scale.seconds, say=say)
    return Outcome.of(where, scale, figures, stores.goals(), missing)


def run_sizes(scale: sizes.Scale, say: Callable[[str], None]) -> Outcome:
    """Measure what many assignments take."""
    where, missing = surroundings(stores.PACKAGES), stores.missing()
    for each in missing:
        say(f"NOT MEASURED: {each}")
    with ExitStack() as house:
        subjects, bytes_each = sizes.subjects(scale, house, say)
        figures = measure(subjects, repeats=scale.repeats, seconds=scale.seconds, say=say)
    return Outcome.of(where, scale, figures, sizes.goals(scale), missing, bytes_each)


def run_plan(scale: plan.Scale, say: Callable[[str], None]) -> Outcome:
    """Measure what a plan costs."""
    where = surroundings(plan.PACKAGES)
    with ExitStack() as house:
        subjects = plan.subjects(scale, house)
        figures = measure(subjects, repeats=scale.repeats, seconds=0.0, say=say, once=True)
    return Outcome.of(where, scale, figures, plan.goals(scale), [])


def run_webhooks(scale: webhooks.Scale, say: Callable[[str], None]) -> Outcome:
    """Measure what a webhook costs."""
    where, missing = surroundings(webhooks.PACKAGES), webhooks.missing()
    del where["gc"]  # the servers are left alone
    for each in missing:
        say(f"NOT MEASURED: {each}")
    figures = {} if missing else webhooks.figures(scale, say)
    return Outcome.of(where, scale, figures, webhooks.goals(), missing)


def run_telemetry(scale: telemetry.Scale, say: Callable[[str], None]) -> Outcome:
    """Measure what being measured costs."""
    where, missing = surroundings(telemetry.PACKAGES), telemetry.missing()
    for each in missing:
        say(f"NOT MEASURED: {each}")
    figures: Mapping[str, Figures] = {}
    if not missing:
        with ExitStack() as house:
            subjects = telemetry.subjects(house)
            figures = measure(subjects, repeats=scale.repeats, seconds=scale.seconds, say=say)
    return Outcome.of(where, scale, figures, telemetry.goals(), missing)


def run_page(scale: page.Scale, say: Callable[[str], None]) -> Outcome:
    """Measure what the status page costs."""
    where, missing = surroundings(page.PACKAGES), page.missing()
    del where["gc"]  # the servers and the browser are left alone
    for each in missing:
        say(f"NOT MEASURED: {each}")
    figures = {} if version("jinja2") is None else page.figures(scale, say)
    return Outcome.of(where, scale, figures, page.goals(), missing)


def run_rivals(scale: rivals.Scale, say: Callable[[str], None]) -> Outcome:
    """Measure what people use instead."""
    where, missing = surroundings(rivals.PACKAGES), rivals.missing()
    for each in missing:
        say(f"NOT MEASURED: {each}")
    with ExitStack() as house:
        subjects = rivals.subjects(house)
        figures = measure(subjects, repeats=scale.repeats, seconds=scale.seconds, say=say)
    return Outcome.of(where, scale, figures, rivals.goals(), missing)


def run_growth(
    scale: growth.Scale, say: Callable[[str], None], picture: str | None = None
) -> Outcome:
    """Measure how a choice's cost grows."""
    where, missing = surroundings(growth.PACKAGES), stores.missing()
    for each in missing:
        say(f"NOT MEASURED: {each}")
    figures, bytes_each = growth.found(scale, say)
    if picture is not None:
        growth.draw(figures, picture)
    return Outcome.of(where, scale, figures, growth.goals(scale), missing, bytes_each)


def self_check() -> None:
    """Run every benchmark very small. Raises SystemExit if a figure makes no sense."""
    start = time.perf_counter()
    outcomes = [
        run_pick(pick.TINY, say=lambda _: None),
        run_stores(stores.TINY, say=lambda _: None),
        run_sizes(sizes.TINY, say=lambda _: None),
        run_plan(plan.TINY, say=lambda _: None),
        run_webhooks(webhooks.TINY, say=lambda _: None),
        run_telemetry(telemetry.TINY, say=lambda _: None),
        run_page(page.TINY, say=lambda _: None),
        run_rivals(rivals.TINY, say=lambda _: None),
        run_growth(growth.TINY, say=lambda _: None),
    ]
    subjects = goals = 0
    for outcome in outcomes:
        ratios = [each.median for each in outcome.ratios.values() if each is not None]
        times = [each.least for each in outcome.figures.values()]
        sane = all(0 < each < math.inf for each in (*times, *ratios))
        text, found = outcome.to_text(), json.loads(outcome.to_json())["figures"]
        for reason in outcome.missing:
            print(f"NOT MEASURED: {reason}")
        measured = (times and ratios) or outcome.missing
        if not (
            sane and measured and all(each in text and each in found for each in outcome.figures)
        ):
            sys.exit(f"benchmarks: a figure makes no sense\n{text}")
        subjects, goals = subjects + len(times), goals + len(ratios)
    took = time.perf_counter() - start
    print(f"benchmarks: self-check ok, {subjects} subjects and {goals} ratios in {took:.1f} s")


def main() -> None:
    """Read the command line and do as it says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--self-check", action="store_true", help="run everything very small, within seconds"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module, what in (
        (pick, "what a choice costs"),
        (stores, "what a store costs"),
        (sizes, "what many assignments take"),
        (plan, "what a plan costs"),
        (webhooks, "what a webhook costs"),
        (telemetry, "what being measured costs"),
        (page, "what the status page costs"),
        (rivals, "what people use instead"),
        (growth, "how a choice's cost grows"),
    ):
        name = module.__name__.rpartition(".")[2]
        one = commands.add_parser(
            name, help=what, description=module.__doc__, formatter_class=_AsWritten
        )
        one.add_argument("--json", action="store_true", help="print JSON instead of tables")
        one.add_argument("--quick", action="store_true", help="fewer rounds, shorter timings")
        one.add_argument("--repeats", type=_count, metavar="ROUNDS", help="how many rounds")
    telling = commands.add_parser(
        "simulate-faults",
        help="whether any order of faults breaks a promise",
        description=faults.__doc__,
        formatter_class=_AsWritten,
    )
    simulating.arguments(telling)
    choosing = commands.choices["pick"]
    choosing.add_argument("--lines", type=_counts, metavar="N,N,…", help="numbers of lines")
    taking = commands.choices["webhooks"]
    taking.add_argument("--connections", type=_count, metavar="N", help="how many at once")
    growing = commands.choices["growth"]
    growing.add_argument("--picture", metavar="FILE", help="draw the curves, as PNG or SVG")
    growing.add_argument("--assignments", type=_counts, metavar="N,N,…", help="how many of them")
    arguments = parser.parse_args()
    if arguments.self_check:
        self_check()
        return
    if arguments.command is None:
        parser.error("name a benchmark, or --self-check")
    if arguments.command == "simulate-faults":
        sys.exit(simulating.run(arguments))
    changes = {"repeats": arguments.repeats} if arguments.repeats else {}
    outcome = _run(arguments, changes, lambda text: print(text, file=sys.stderr, flush=True))
    print(outcome.to_json() if arguments.json else outcome.to_text())


def _run(
    arguments: argparse.Namespace, changes: dict[str, Any], say: Callable[[str], None]
) -> Outcome:
    if arguments.command == "webhooks":
        often = webhooks.QUICK if arguments.quick else webhooks.Scale()
        if arguments.connections:
            changes["connections"] = arguments.connections
        return run_webhooks(attrs.evolve(often, **changes), say)
    if arguments.command == "stores":
        some = stores.QUICK if arguments.quick else stores.Scale()
        return run_stores(attrs.evolve(some, **changes), say)
    if arguments.command == "sizes":
        many = sizes.QUICK if arguments.quick else sizes.Scale()
        return run_sizes(attrs.evolve(many, **changes), say)
    if arguments.command == "plan":
        return run_plan(
            attrs.evolve(plan.QUICK if arguments.quick else plan.Scale(), **changes), say
        )
    if arguments.command == "telemetry":
        few = telemetry.QUICK if arguments.quick else telemetry.Scale()
        return run_telemetry(attrs.evolve(few, **changes), say)
    if arguments.command == "page":
        return run_page(
            attrs.evolve(page.QUICK if arguments.quick else page.Scale(), **changes), say
        )
    if arguments.command == "rivals":
        return run_rivals(
            attrs.evolve(rivals.QUICK if arguments.quick else rivals.Scale(), **changes), say
        )
    if arguments.command == "growth":
        if arguments.assignments:
            changes["assignments"] = arguments.assignments
        scale = attrs.evolve(growth.QUICK if arguments.quick else growth.Scale(), **changes)
        return run_growth(scale, say, arguments.picture)
    if arguments.lines:
        changes["lines"] = arguments.lines
    return run_pick(attrs.evolve(pick.QUICK if arguments.quick else pick.Scale(), **changes), say)


_AsWritten = argparse.RawDescriptionHelpFormatter


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({_count(each) for each in text.split(",")}))


_count.__name__ = _counts.__name__ = "count"  # which argparse names in its message


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each or 'not installed'}" for name, each in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "unknown" if value is None else str(value)


def _duration(seconds: float) -> str:
    for unit, size in (("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, ["-" * width for width in widths], *rows):
        first, *rest = (
            each.rjust(width) if place else each.ljust(width)
            for place, (each, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(" | ".join((first, *rest)))
    return lines


if __name__ == "__main__":
    main()
