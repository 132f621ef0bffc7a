"""`linepicker simulate`: its options. What it does with them is told in `scoring`, which is imported only then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from linepicker.cli.settings import AsJson, Config, Settings

__all__ = ["simulate"]


def simulate(
    context: typer.Context,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The scenario, in TOML; else the defaults.")
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Compare this policy, in TOML; repeatable."),
    ] = None,
    world: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A model of the provider: daily, jumps, blend, ..."),
    ] = None,
    demand: Annotated[
        float | None, typer.Option(metavar="X", help="As a multiple of what the lines bear.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10000, help="How many runs of each.")] = 20,
    processes: Annotated[int, typer.Option(min=1, max=64, help="How many at a time.")] = 1,
    suite: Annotated[
        bool, typer.Option("--suite", help="All worlds, tuned and held out, at several demands.")
    ] = False,
    ablate: Annotated[
        bool, typer.Option("--ablations", help="The policy, and it without each mechanism.")
    ] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Also write FILE: .png, .html or .md; repeatable."),
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Try policies on simulated people and providers, beside rivals and an oracle.

    Nothing leaves this machine. The router is the real one; its clock is not. Intervals hold 95 % over the seeds.
    """
    from linepicker.cli.scoring import run

    settings = Settings.of(context, as_json, config)
    run(
        settings,
        scenario=scenario,
        policies=policy or (),
        world=world,
        demand=demand,
        seeds=seeds,
        processes=processes,
        suite=suite,
        ablate=ablate,
        output=output or (),
    )
