"""The policy: every tunable in one frozen value. TOML in and out.

A `Policy` has one section per TOML table. All are frozen: `attrs.evolve` makes changed ones. A dict may stand for a
section, whose other tunables then keep their defaults. Values are plain: int, float, bool, str, and None for "off".
Durations are seconds. Whatever is wrong is a `PolicyError` that names its place, as in `pace.spread`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

import attrs
import tomli_w

from linepicker._bounds import OFF, REGION, SECONDS, one_of, show
from linepicker._sections import (
    Affinity,
    AtRisk,
    Conversation,
    Failures,
    Health,
    Learn,
    Limits,
    Pace,
    Priority,
    Quiet,
    QuietPrefix,
    Recovery,
    Stickiness,
    Warmup,
)
from linepicker.errors import PolicyError
from linepicker.model import Line

__all__ = [
    "Affinity",
    "AtRisk",
    "Conversation",
    "Failures",
    "Health",
    "Learn",
    "Limits",
    "Overrides",
    "Pace",
    "Policy",
    "Priority",
    "Quiet",
    "QuietPrefix",
    "Recovery",
    "Stickiness",
    "Warmup",
]

_NAMES: Final = {"line": re.compile(r"\+[0-9]{7,15}"), "tag": re.compile(r"(?s:.+)")}

_Table = TypeVar("_Table", bound=attrs.AttrsInstance)


def _table(cls: type[_Table], place: str, value: Any) -> _Table:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise PolicyError(
            f"{place or 'what is given'} must be a table (a dict or {cls.__name__}), got {show(value)}"
        )
    known = attrs.fields_dict(cls)
    for name in value:
        if name not in known:
            raise _unknown(place, name)
    return cls(**value)


def _unknown(table: str, name: object) -> PolicyError:
    leaf = name[:60] if isinstance(name, str) else show(name)
    known = [("", each) for each in attrs.fields_dict(Policy)]
    for section, title in _SECTIONS.items():
        known += [(title, each) for each in attrs.fields_dict(section)]

    def likeness(entry: tuple[str, str]) -> float:
        return difflib.SequenceMatcher(None, leaf, entry[1]).ratio() + 0.2 * (entry[0] == table)

    place, nearest = (
        ".".join(filter(None, each)) for each in ((table, leaf), max(known, key=likeness))
    )
    return PolicyError(f"{place} is not a name of the policy; the nearest is {nearest}")


def _partial_limits(value: Mapping[str, Any] | Limits) -> Mapping[str, int | None]:
    limits = _table(Limits, "limits", value)
    given = attrs.fields_dict(Limits) if isinstance(value, Limits) else value
    return MappingProxyType({name: getattr(limits, name) for name in given})


@attrs.frozen
class Overrides:
    """What the policy says of one line, or of the lines with one tag, instead of what it says of all.

    Attributes:
        limits: the `Limits` that differ, by name; None is "off".
            Source: yours.
    """

    limits: Mapping[str, int | None] = attrs.field(
        factory=dict, converter=_partial_limits, hash=False
    )

    def __reduce__(self) -> tuple[type[Overrides], tuple[dict[str, int | None]]]:
        return Overrides, (dict(self.limits),)


def _by_name(table: Literal["line", "tag"], value: Any) -> Mapping[str, Overrides]:
    if not isinstance(value, Mapping):
        raise PolicyError(f"{table} must be a table, one entry per {table}, got {show(value)}")
    result = {}
    for name, entry in value.items():
        place = f"{table}.{json.dumps(name[:40]) if isinstance(name, str) else show(name)}"
        if not (isinstance(name, str) and _NAMES[table].fullmatch(name)):
            what = "an E.164 number" if table == "line" else "a string that is not empty"
            raise PolicyError(f"{place} must be named by {what}")
        try:
            result[name] = _table(Overrides, "", entry)
        except PolicyError as error:
            raise PolicyError(f"{place}: {error}") from None
    return MappingProxyType(result)


def _limits(value: Limits | Mapping[str, Any]) -> Limits:
    return _table(Limits, "limits", value)


def _pace(value: Pace | Mapping[str, Any]) -> Pace:
    return _table(Pace, "pace", value)


def _at_risk(value: AtRisk | Mapping[str, Any]) -> AtRisk:
    return _table(AtRisk, "at_risk", value)


def _warmup(value: Warmup | Mapping[str, Any]) -> Warmup:
    return _table(Warmup, "warmup", value)


def _health(value: Health | Mapping[str, Any]) -> Health:
    return _table(Health, "health", value)


def _recovery(value: Recovery | Mapping[str, Any]) -> Recovery:
    return _table(Recovery, "recovery", value)


def _stickiness(value: Stickiness | Mapping[str, Any]) -> Stickiness:
    return _table(Stickiness, "stickiness", value)


def _conversation(value: Conversation | Mapping[str, Any]) -> Conversation:
    return _table(Conversation, "conversation", value)


def _failures(value: Failures | Mapping[str, Any]) -> Failures:
    return _table(Failures, "failures", value)


def _learn(value: Learn | Mapping[str, Any]) -> Learn:
    return _table(Learn, "learn", value)


def _affinity(value: Affinity | Mapping[str, Any]) -> Affinity:
    return _table(Affinity, "affinity", value)


def _quiet(value: Quiet | Mapping[str, Any]) -> Quiet:
    return _table(Quiet, "quiet", value)


def _priority(value: Priority | Mapping[str, Any]) -> Priority:
    return _table(Priority, "priority", value)


def _lines(value: Mapping[str, Overrides | Mapping[str, Any]]) -> Mapping[str, Overrides]:
    return _by_name("line", value)


def _tags(value: Mapping[str, Overrides | Mapping[str, Any]]) -> Mapping[str, Overrides]:
    return _by_name("tag", value)


@attrs.frozen(kw_only=True)
class Policy:
    """Every tunable. `Policy()` has all defaults; frozen, compared by value.

    >>> import attrs
    >>> from linepicker import Policy, PolicyError
    >>> policy = Policy.from_dict({"limits": {"new_per_day": 40}, "tag": {"vip": {"limits": {"new_per_day": 10}}}})
    >>> policy.limits.new_per_day, policy.pace.new_gap
    (40, 20.0)
    >>> attrs.evolve(policy, prefer="weighted") == policy
    False
    >>> try:
    ...     Policy.from_dict({"limits": {"new_per_dya": 40}})
    ... except PolicyError as error:
    ...     print(error)
    limits.new_per_dya is not a name of the policy; the nearest is limits.new_per_day

    Attributes:
        prefer: "healthiest": a HEALTHY line with room always beats an AT_RISK one; "weighted": both are on one scale.
            Source: Linq, phone health guide: new recipients belong on HEALTHY lines.
        default_region: two letters, as in "US": where numbers without a '+' are at home; None: they are refused.
            Source: ours: a guessed country is a wrong recipient.
        on_store_error: what happens while the store is out: "refuse" (StoreError for everything), or "known_only": recipients
            whose line this process remembers are served, at AT_RISK pace, and charged when the store is back.
            Source: ours: nobody gets a first message, or another line, without the store.
        store_outage: seconds of an outage after which "known_only" refuses too.
            Source: ours.
        limits: how much may leave on one line.
            Source: see `Limits`.
        pace: how fast.
            Source: see `Pace`.
        at_risk: what an AT_RISK line keeps.
            Source: see `AtRisk`.
        warmup: how a new line begins.
            Source: see `Warmup`.
        health: how old what we know may be.
            Source: see `Health`.
        recovery: how a line comes back.
            Source: see `Recovery`.
        stickiness: what a known recipient does without their line.
            Source: see `Stickiness`.
        conversation: when a conversation is left quiet.
            Source: see `Conversation`.
        failures: when a line takes a time out.
            Source: see `Failures`.
        learn: what a line's record teaches.
            Source: see `Learn`.
        affinity: what likeness is worth.
            Source: see `Affinity`.
        quiet: when people are left alone.
            Source: see `Quiet`.
        priority: what is kept for urgent messages.
            Source: see `Priority`.
        line: limits of their own, by line (E.164).
            Source: yours.
        tag: limits of their own, by tag.
            Source: yours.
    """

    prefer: Literal["healthiest", "weighted"] = attrs.field(
        default="healthiest", validator=one_of("healthiest", "weighted")
    )
    default_region: str | None = attrs.field(default=None, validator=REGION)
    on_store_error: Literal["refuse", "known_only"] = attrs.field(
        default="refuse", validator=one_of("refuse", "known_only")
    )
    store_outage: float = attrs.field(default=900.0, validator=SECONDS)
    limits: Limits = attrs.field(factory=Limits, converter=_limits)
    pace: Pace = attrs.field(factory=Pace, converter=_pace)
    at_risk: AtRisk = attrs.field(factory=AtRisk, converter=_at_risk)
    warmup: Warmup = attrs.field(factory=Warmup, converter=_warmup)
    health: Health = attrs.field(factory=Health, converter=_health)
    recovery: Recovery = attrs.field(factory=Recovery, converter=_recovery)
    stickiness: Stickiness = attrs.field(factory=Stickiness, converter=_stickiness)
    conversation: Conversation = attrs.field(factory=Conversation, converter=_conversation)
    failures: Failures = attrs.field(factory=Failures, converter=_failures)
    learn: Learn = attrs.field(factory=Learn, converter=_learn)
    affinity: Affinity = attrs.field(factory=Affinity, converter=_affinity)
    quiet: Quiet = attrs.field(factory=Quiet, converter=_quiet)
    priority: Priority = attrs.field(factory=Priority, converter=_priority)
    line: Mapping[str, Overrides] = attrs.field(
        default=MappingProxyType({}), converter=_lines, hash=False
    )
    tag: Mapping[str, Overrides] = attrs.field(
        default=MappingProxyType({}), converter=_tags, hash=False
    )

    @classmethod
    def from_toml(cls, path: str | Path) -> Policy:
        """The policy in the TOML file at *path*; what it leaves out has its default.

        Raises `PolicyError` naming the file when it can't be read, isn't TOML, or says something wrong.
        """
        try:
            return cls.from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise PolicyError(f"{path} can't be read: {error.strerror or error}") from error
        except PolicyError as error:
            raise PolicyError(f"{path}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise PolicyError(f"{path} is not TOML: {error}") from error

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> Policy:
        """The policy that *tables*, shaped as the TOML, describe. Raises `PolicyError`, also for unknown names."""
        return _table(cls, "", tables)

    def to_dict(self) -> dict[str, Any]:
        """Every tunable but the empty ones, shaped as the TOML, "off" as a word: what `from_dict` takes."""
        tables: dict[str, Any] = {}
        for name in attrs.fields_dict(Policy):
            value = getattr(self, name)
            if isinstance(value, Quiet):
                tables[name] = value.to_dict()
            elif isinstance(value, Mapping):
                if value:
                    tables[name] = {
                        k: {"limits": _worded(each.limits)} for k, each in value.items()
                    }
            elif attrs.has(type(value)):
                tables[name] = _worded(attrs.asdict(value))
            elif value is not None:
                tables[name] = value
        return tables

    def to_toml(self) -> str:
        """Every tunable as TOML: what `from_toml` reads back as an equal policy."""
        return tomli_w.dumps(self.to_dict())

    def limits_for(self, line: Line) -> Limits:
        """The limits of *line*: each is the line's own, else the smallest of its tags', else the policy's.

        The policy's own object where nothing differs. Costs some microseconds where something does: ask once per line.
        """
        changes: dict[str, int | None] = {}
        for tag in line.tags & self.tag.keys():
            for name, value in self.tag[tag].limits.items():
                changes[name] = _smaller(changes.get(name), value)
        if line.number in self.line:
            changes.update(self.line[line.number].limits)
        return attrs.evolve(self.limits, **changes) if changes else self.limits

    def __reduce__(self) -> tuple[Callable[[Mapping[str, Any]], Policy], tuple[dict[str, Any]]]:
        return Policy.from_dict, (self.to_dict(),)


_SECTIONS: Final = {
    type(value): name
    for name, value in attrs.asdict(Policy(), recurse=False).items()
    if attrs.has(type(value))
}


def _smaller(one: int | None, other: int | None) -> int | None:
    return min(one, other, key=lambda value: math.inf if value is None else value)


def _worded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: OFF if value is None else value for name, value in values.items()}
