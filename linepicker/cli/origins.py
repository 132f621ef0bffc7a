"""Where each value of a policy came from: a file, or the default and its source."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from linepicker._bounds import OFF
from linepicker.policy import Policy

__all__ = ["Value", "changes", "values"]


@attrs.frozen
class Value:
    """One tunable: its place as in `pace.spread`, what it is and what it is by default ("off" as a word, None: left out), and
    whether the file names it. `meaning` and `source`, of the default, are the policy's own words."""

    place: str
    value: Any
    default: Any
    named: bool
    meaning: str
    source: str


def values(policy: Policy, path: Path | None) -> list[Value]:
    """Every tunable, in the policy's order, and after them what it says of single lines and tags."""
    named = _named(path)
    default = Policy()
    found = []
    for title, section in [("", policy), *attrs.asdict(policy, recurse=False).items()]:
        if not attrs.has(type(section)):
            continue
        usual = getattr(default, title) if title else default
        told = _told(type(section))
        for name in attrs.fields_dict(type(section)):
            value = getattr(section, name)
            if attrs.has(type(value)) or isinstance(value, Mapping):
                continue
            place = f"{title}.{name}" if title else name
            meaning, source = told.get(name, ("", ""))
            found.append(
                Value(
                    place,
                    _worded(title, value),
                    _worded(title, getattr(usual, name)),
                    place in named,
                    meaning,
                    source,
                )
            )
    return [*found, *_overrides(policy)]


def changes(policy: Policy) -> list[Value]:
    """Those that are not what they are by default."""
    return [each for each in values(policy, None) if each.value != each.default]


def _worded(title: str, value: Any) -> Any:
    return OFF if value is None and title else value


def _overrides(policy: Policy) -> Iterator[Value]:
    for table in ("line", "tag"):
        for name, each in getattr(policy, table).items():
            for limit, value in each.limits.items():
                place = f'{table}."{name}".limits.{limit}'
                general = _worded("limits", getattr(policy.limits, limit))
                meaning = f"instead of limits.{limit}, {general}"
                yield Value(place, _worded("limits", value), None, True, meaning, "yours")


def _named(path: Path | None) -> frozenset[str]:
    """The places that the file names."""
    if path is None:
        return frozenset()
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    found = set()
    for name, value in tables.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}" for inner in value}
        else:
            found.add(name)
    return frozenset(found)


def _told(section: type) -> dict[str, tuple[str, str]]:
    """What a section's docstring says of each tunable: its meaning, and the source of its default."""
    text = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")[2]
    found = {}
    for entry in re.split(r"^    (?=\S)", text, flags=re.MULTILINE)[1:]:
        name, _, said = " ".join(entry.split()).partition(": ")
        meaning, _, source = said.partition(" Source: ")
        found[name] = meaning.replace(" (here None)", ""), source
    return found
