"""What `linepicker simulate` does: contenders and scenarios, a progress bar, and a table, JSON, PNG or HTML."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from linepicker.cli import show
from linepicker.cli.settings import CommandError, Settings
from linepicker.policy import Policy
from linepicker.simulate import ablations, report, score
from linepicker.simulate.measures import MEASURES
from linepicker.simulate.page import page
from linepicker.simulate.picture import MissingExtra, save, svg
from linepicker.simulate.scenario import Scenario

__all__ = ["run"]

COLUMNS: Final[Mapping[str, str]] = {"share": "% of oracle", **MEASURES}
"""What is shown; "share" is of people reached and follow-ups answered."""
BRIEF: Final = {
    name: COLUMNS[name]
    for name in ("share", "wait", "at_risk_days", "critical_days", "flagged_days")
}
"""What is shown where each has a column per group of worlds."""
DRAWN: Final = ("linepicker", "plain switch")
"""Whom the picture shows: policies, and what the provider's guide shows beside them."""
MOST: Final = 3


def run(
    settings: Settings,
    *,
    scenario: Path | None,
    policies: Sequence[Path],
    world: str | None,
    demand: float | None,
    seeds: int,
    processes: int,
    suite: bool,
    ablate: bool,
    output: Sequence[Path],
) -> None:
    """Play what was asked for, and show what came of it. Raises CommandError, ScenarioError, PolicyError, OSError."""
    kinds = [(path, _kind(path)) for path in output]
    base = _scenario(scenario, world, demand)
    contenders = _contenders(settings.policy() or Policy(), policies, ablate=ablate)
    matches = score.score(
        contenders,
        seeds,
        base=base,
        worlds=tuple(score.WORLDS)
        if suite or (ablate and not (world or scenario))
        else (base.world,),
        conditions=score.CONDITIONS if suite else (score.Condition("", base.demand),),
    )
    with _progress(len(matches), quiet=settings.as_json) as advance:
        played = score.run(matches, processes=processes, each=lambda _: advance())
    grouped = suite or ablate
    rows = report.summary(played, report.by_group if grouped else report.by_world)
    title = _title(base, seeds, grouped=grouped)
    for path, kind in kinds:
        _write(path, kind, title, rows, matches)
    if settings.as_json:
        show.document(
            {
                "scenario": attrs.asdict(base),
                "seeds": seeds,
                "results": [row.to_json() for row in rows],
                "worlds": [row.to_json() for row in report.summary(played)] if grouped else [],
                "runs": [_run(each) for each in played],
            }
        )
    else:
        _tables(title, rows)


def _scenario(path: Path | None, world: str | None, demand: float | None) -> Scenario:
    base = Scenario.from_toml(path) if path else Scenario()
    if world is not None:
        base = attrs.evolve(base, world=world)
    if demand is not None:
        base = attrs.evolve(base, demand=demand)
    score.world(base.world)
    return base


def _contenders(
    policy: Policy, files: Sequence[Path], *, ablate: bool
) -> tuple[score.Contender, ...]:
    if ablate and files:
        raise CommandError("--ablations takes its policy from --config: leave out --policy")
    if ablate:
        return ablations.contenders(policy)
    if not files:
        return score.field(policy)
    names = [path.stem for path in files]
    if len(set(names)) < len(names):
        names = [str(path) for path in files]
    policies = [Policy.from_toml(path) for path in files]
    return (
        score.Contender(score.ORACLE, score.ORACLE, policies[0]),
        *(score.Contender(name, policy=each) for name, each in zip(names, policies, strict=True)),
    )


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in {".png", ".html", ".md"}:
        raise CommandError(f"--output must end in .png, .html or .md, got {path.name}")
    return kind


def _title(base: Scenario, seeds: int, *, grouped: bool) -> str:
    runs = f"{seeds} run{'s' if seeds > 1 else ''} of {base.days} days"
    where = "all worlds" if grouped else f"world {base.world}, {base.demand:g} times what it bears"
    return (
        f"linepicker simulate: {where}, {runs}, {base.lines} lines and {base.newcomers} newcomers"
    )


@contextlib.contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on stderr where that is a terminal; the function that moves it on by one."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    bar = Progress(
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def _tables(title: str, rows: Sequence[report.Row]) -> None:
    show.say(title)
    out = show.console()
    for (group, condition), some in groupby(rows, key=lambda row: (row.group, row.condition)):
        caption = f"{group}, demand {condition}" if condition else group
        table = Table(
            box=None, pad_edge=False, header_style="bold", title=caption, title_justify="left"
        )
        table.add_column("", no_wrap=True)
        for name in COLUMNS.values():
            table.add_column(name, justify="right", min_width=6)
        for row in some:
            table.add_row(row.contender, *_cells(row))
        print()
        out.print(table)


def _cells(row: report.Row) -> list[str]:
    return [
        report.shown(name, row.share if name == "share" else row.values[name]) for name in COLUMNS
    ]


def _write(
    path: Path, kind: str, title: str, rows: Sequence[report.Row], matches: Sequence[score.Match]
) -> None:
    if kind == ".md":
        several = len({row.group for row in rows}) > 1
        text = report.markdown(rows, BRIEF if several else COLUMNS)
        path.write_text(text + "\n", encoding="utf-8")
        return
    first = matches[0]
    drawn = [
        each
        for each in matches
        if each.contender.maker in DRAWN
        and (each.scenario, each.condition, each.seed) == (first.scenario, first.condition, 0)
    ][:MOST]
    runs = {each.contender.name: score.match(each) for each in drawn}
    caption = f"world {first.scenario.world}, demand {first.scenario.demand:g}, seed 0"
    try:
        if kind == ".png":
            save(runs, path, title=caption)
        else:
            drawing = svg(runs, title=caption)
            path.write_text(page(title, rows, COLUMNS, drawing), encoding="utf-8")
    except MissingExtra as error:
        raise CommandError(str(error)) from None


def _run(played: score.Played) -> dict[str, object]:
    each = played.match
    return {
        "world": each.scenario.world,
        "condition": each.condition,
        "contender": each.contender.name,
        "seed": each.seed,
        **attrs.asdict(played.measures),
    }
