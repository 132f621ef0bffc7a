"""`linepicker config check`, `show` and `diff`: the policy that is in force, and where each value came from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w
import typer

from linepicker.cli import show as out
from linepicker.cli.origins import Value, values
from linepicker.cli.settings import AsJson, Config, Settings
from linepicker.policy import Policy

__all__ = ["app"]

app = typer.Typer(
    help="The policy that is in force, and where each value came from.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def check(context: typer.Context, as_json: AsJson = False, config: Config = None) -> None:
    """Whether the policy can be used.

    What is wrong is said with its place; the exit status is 1 then.
    """
    _, named, found = _read(context, as_json, config)
    changed = _changed(found)
    if Settings.of(context, as_json, config).as_json:
        out.document({"config": named, "ok": True, "changes": [each.place for each in changed]})
        return
    if named is None:
        out.say("No file is named: the policy is the default.")
        return
    same = [each.place for each in found if each.named and each.value == each.default]
    out.say(f"{named} is a policy: it changes {len(changed)} of {len(found)} values.")
    if same:
        out.say(f"Named, and the same as the default: {', '.join(same)}.")


@app.command()
def show(context: typer.Context, as_json: AsJson = False, config: Config = None) -> None:
    """The policy that is in force, as TOML that can be read back.

    Behind each value stands where it came from: the file, or the default and its source.
    """
    policy, named, found = _read(context, as_json, config)
    if Settings.of(context, as_json, config).as_json:
        out.document({"config": named, "values": {e.place: _json(e, named) for e in found}})
        return
    notes = {each.place: _origin(each, named) for each in found}
    for row in _annotated(policy, notes):
        print(row)


@app.command()
def diff(context: typer.Context, as_json: AsJson = False, config: Config = None) -> None:
    """What the policy changes of the defaults."""
    _, named, found = _read(context, as_json, config)
    changed = _changed(found)
    if Settings.of(context, as_json, config).as_json:
        out.document({"config": named, "changes": {e.place: _json(e, named) for e in changed}})
        return
    if not changed:
        out.say("Nothing: every value is the default.")
    for each in changed:
        usual = (
            each.meaning
            if each.default is None and "." in each.place
            else f"default {_toml(each.default)}"
        )
        out.say(f"{each.place} = {_toml(each.value)}   ({usual})")


def _read(
    context: typer.Context, as_json: bool, config: Path | None
) -> tuple[Policy, str | None, list[Value]]:
    """The policy, the file's name, and each value. Raises PolicyError."""
    settings = Settings.of(context, as_json, config)
    path = settings.config or os.environ.get("LINEPICKER_CONFIG")
    policy = settings.policy() or Policy()
    return policy, str(path) if path else None, values(policy, Path(path) if path else None)


def _changed(found: Iterable[Value]) -> list[Value]:
    return [each for each in found if each.value != each.default]


def _origin(each: Value, named: str | None) -> str:
    if each.named and named:
        return named if each.value != each.default else f"{named}, as the default"
    return f"default; {each.source}" if each.source else "default"


def _json(each: Value, named: str | None) -> dict[str, Any]:
    return {
        "value": each.value,
        "default": each.default,
        "from": named if each.named else "default",
        "source": each.source,
    }


def _toml(value: Any) -> str:
    """A value as TOML has it; nothing is "left out"."""
    return "left out" if value is None else tomli_w.dumps({"v": value}).strip().removeprefix("v = ")


def _annotated(policy: Policy, notes: dict[str, str]) -> Iterable[str]:
    """The policy's TOML, each value with its note behind it."""
    table = ""
    for row in policy.to_toml().splitlines():
        name, mark, _ = row.partition(" = ")
        if row.startswith("["):
            table = row.strip("[]")
        place = f"{table}.{name}" if table else name
        note = notes.get(place) or notes.get(_quoted(place))
        yield f"{row}  # {note}" if mark and note else row


def _quoted(place: str) -> str:
    """A place of a single line or tag, its name in quotes whether it needs them or not."""
    table, _, rest = place.partition(".")
    name, _, leaf = rest.rpartition(".limits.")
    return f"{table}.{json.dumps(name.strip(chr(34)))}.limits.{leaf}" if name else place
