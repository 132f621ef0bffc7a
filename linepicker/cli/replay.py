"""`linepicker replay`: recorded decisions made again, exactly or under another policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
import typer
from rich.table import Table

from linepicker import _words as words
from linepicker.cli import show
from linepicker.cli.settings import AsJson, CommandError, Settings
from linepicker.policy import Policy
from linepicker.replay import Checked, LineUse, Side, WhatIf, check, what_if

__all__ = ["replay"]

OTHERWISE: Final = 4
"""The exit status where a decision came out otherwise than it was recorded."""


def replay(
    context: typer.Context,
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG", help="What record= wrote; several: oldest first.")
    ],
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What this policy, in TOML, would have done."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The key that was given to DecisionLog, as it is."),
    ] = None,
    differences: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many differences to show.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Make recorded decisions again.

    Each from its recorded inputs, compared byte for byte; the exit status is 4 where one comes out otherwise. With --policy:
    what another policy would have done with the same requests, line by line. No account and no store is asked.
    """
    settings = Settings.of(context, as_json)
    key = None if key_file is None else _key(key_file)
    if policy is not None:
        found = what_if(logs, Policy.from_toml(policy), key=key, most=differences)
        if settings.as_json:
            show.document(attrs.asdict(found))
        else:
            _show_what_if(found)
        return
    checked = check(logs, key=key, most=differences)
    if settings.as_json:
        show.document(attrs.asdict(checked))
    else:
        _show_checked(checked)
    if checked.different:
        raise typer.Exit(OTHERWISE)


def _key(path: Path) -> bytes:
    key = path.read_bytes()
    if not 16 <= len(key) <= 64:
        raise CommandError(f"{path} holds {len(key)} bytes, and a key has 16 to 64")
    return key


def _show_checked(checked: Checked) -> None:
    if not checked.different:
        many = "decision" if checked.decisions == 1 else "decisions"
        show.say(f"{checked.decisions:,} {many} made again, each exactly as it was recorded.")
        return
    show.say(
        f"{checked.different:,} of {checked.decisions:,} decisions came out otherwise than recorded. "
        "Were they made by another version of linepicker?"
    )
    for each in checked.differences:
        told = "; ".join(
            f"{name} {_short(each.recorded.get(name))} -> {_short(each.replayed.get(name))}"
            for name in each.fields
        )
        show.say(f"{each.place}: {told}", indent=2)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _show_what_if(found: WhatIf) -> None:
    was, would = found.was, found.would
    show.say(
        f"{found.requests:,} requests: {found.different:,} would have ended otherwise. New conversations {was.new:,} -> "
        f"{would.new:,}, moves {was.moves:,} -> {would.moves:,}, messages {was.messages:,} -> {would.messages:,}, refusals "
        f"{sum(was.refusals.values()):,} -> {sum(would.refusals.values()):,}.",
        style="bold",
    )
    _table("line", ("new", "busiest hour", "busiest day", "moves", "messages"), _rows(was, would))
    codes = sorted({*was.refusals, *would.refusals})
    if codes:
        rows = [
            (code, [_pair(was.refusals.get(code, 0), would.refusals.get(code, 0))])
            for code in codes
        ]
        _table("refused", ("requests",), rows)
    for each in found.differences:
        show.say(f"{words.moment(each.at)} {each.masked}: {each.was} -> {each.would}", indent=2)
    left = found.different - len(found.differences)
    if left:
        show.say(f"And {left:,} more: --differences shows them.")
    show.say(
        "The requests, replies, opt-outs and the lines' health are those of the log; assignments and budgets went where the "
        "other policy took them. Who would be refused only now does not come again later."
    )


def _rows(was: Side, would: Side) -> list[tuple[str, list[str]]]:
    one = {each.number: each for each in was.lines}
    two = {each.number: each for each in would.lines}
    names = ("new", "busiest_hour", "busiest_day", "moves", "messages")
    return [
        (number, [_pair(_of(one.get(number), name), _of(two.get(number), name)) for name in names])
        for number in sorted({*one, *two})
    ]


def _of(use: LineUse | None, name: str) -> int:
    return 0 if use is None else getattr(use, name)


def _pair(was: int, would: int) -> str:
    return f"{was:,}" if was == would else f"{was:,} -> {would:,}"


def _table(first: str, titles: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right")
    for name, cells in rows:
        table.add_row(name, *cells)
    show.console().print(table)
