"""`linepicker capacity` and `linepicker plan`: how much fits, and who could be written to from where and when."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from linepicker._words import day_and_minute
from linepicker.cli import rows, show
from linepicker.cli.settings import AsJson, CommandError, Config, Pool, Settings, Store
from linepicker.plans import Capacity, Plan

__all__ = ["capacity", "plan"]

REFUSED: Final = 3
SHOWN: Final = 20
"""Wrong rows that are shown one by one."""
_SPAN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Format(StrEnum):
    """How the rows of a plan are written."""

    JSONL = "jsonl"
    CSV = "csv"


def capacity(
    context: typer.Context,
    by: Annotated[
        str, typer.Option(metavar="WHEN", help="Until when: 24h, 3d, or 2026-12-04T18:00 (UTC).")
    ] = "24h",
    count: Annotated[
        int | None, typer.Option("--for", metavar="N", min=1, help="When so many have fitted.")
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """How many new conversations fit by when.

    Nothing is charged. The exit status is 3 where fewer fit than were asked for.
    """
    settings = Settings.of(context, as_json, config, store, pool)
    with settings.router() as router:
        now = time.time()
        until = _moment(by, now)
        found = router.capacity(horizon=max(0.0, until - now))
    earliest = None if count is None else found.earliest(count)
    if settings.as_json:
        document = {"until": until, "total": found.total, "by_line": dict(found.by_line)}
        if count is not None:
            document |= {"for": count, "earliest": earliest}
        show.document(document)
    else:
        _show_capacity(found, until, count, earliest)
    if count is not None and earliest is None:
        raise typer.Exit(REFUSED)


def _show_capacity(
    found: Capacity, until: float, count: int | None, earliest: float | None
) -> None:
    show.say(f"{found.total:,} new conversations fit before {day_and_minute(until)}.", style="bold")
    for number, fit in found.by_line.items():
        show.say(f"{number}: {fit:,}", indent=2)
    if count is not None and earliest is not None:
        show.say(f"{count:,} of them by {day_and_minute(earliest)}.")
    elif count is not None:
        show.say(f"{count:,} do not fit: {count - found.total:,} are too many.")


def plan(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A recipient a row: .txt, .csv or .jsonl.")
    ],
    deadline: Annotated[
        str, typer.Option(metavar="WHEN", help="By when: 6h, 3d, or 2026-12-04T18:00 (UTC).")
    ] = "24h",
    form: Annotated[
        Format | None, typer.Option("--format", help="Write each row; handles are in clear.")
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """Who could be written to from which line and when.

    Nothing is charged and nothing is sent. Rows that are no recipients are named on stderr and left out; the others are
    planned. The exit status is 3 where somebody does not fit, and 1 where a row was wrong.
    """
    settings = Settings.of(context, as_json, config, store, pool)
    policy = settings.policy()
    found = rows.read(file, None if policy is None else policy.default_region)
    with settings.router() as router:
        until = _moment(deadline, time.time())
        made = router.plan([each.to for each in found.recipients], deadline=until)
    if settings.as_json:
        show.document(
            {
                "deadline": until,
                "slots": [{"to": to, "number": number, "at": at} for to, number, at in made.slots],
                "unplaced": [
                    {"to": to, "reason": reason}
                    for to, reason in zip(made.unplaced, made.reasons, strict=True)
                ],
                "shortfall": made.shortfall,
                "repeated": found.repeated,
                "wrong": [{"line": line, "message": why} for line, why in found.wrong],
            }
        )
    elif form is not None:
        for row in made.to_csv() if form is Format.CSV else made.to_jsonl():
            print(row)
    else:
        _show_plan(made, until)
    _complain(file, found)
    if found.wrong:
        raise typer.Exit(1)
    if made.unplaced:
        raise typer.Exit(REFUSED)


def _show_plan(made: Plan, until: float) -> None:
    total = len(made.slots) + len(made.unplaced)
    show.say(
        f"{made.shortfall or f'All {total:,} fit before {day_and_minute(until)}'}.", style="bold"
    )
    moments: dict[str, list[float]] = {}
    for _, number, at in made.slots:
        moments.setdefault(number, []).append(at)
    for number, mine in sorted(moments.items()):
        first, last = day_and_minute(mine[0]), day_and_minute(mine[-1])
        when = first if first == last else f"{first} to {last}"
        show.say(f"{number}: {len(mine):,}, {when}", indent=2)


def _complain(file: Path, found: rows.Rows) -> None:
    """Name the rows that were left out, on stderr."""
    for line, why in found.wrong[:SHOWN]:
        print(f"linepicker: {file.name}, line {line}: {why}", file=sys.stderr)
    more = len(found.wrong) - SHOWN
    if more > 0:
        print(f"linepicker: {file.name}: {more:,} more lines are wrong", file=sys.stderr)
    if found.repeated:
        count = len(found.repeated)
        print(
            f"linepicker: {file.name}: {count:,} rows name somebody once more, planned once (line {found.repeated[0]} first)",
            file=sys.stderr,
        )


def _moment(text: str, now: float) -> float:
    """A moment: so long from now, or a date and a time. Raises CommandError for what is neither."""
    span = _SPAN.fullmatch(text.strip())
    if span is not None:
        return now + float(span[1]) * _UNITS[span[2]]
    try:
        when = datetime.fromisoformat(text.strip())
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise CommandError(
            f"{text!r} is no moment: write 6h or 3d, or a date and a time as in 2026-12-04T18:00"
        ) from None
