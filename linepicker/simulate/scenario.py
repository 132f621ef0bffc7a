"""A scenario: which world, how many lines, how much demand, for how long. TOML in, with clear errors."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

__all__ = ["DAY", "HOUR", "START", "Scenario", "ScenarioError"]

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
START: Final = 1_767_571_200.0
"""Every simulation begins here: Monday, 2026-01-05, 00:00 UTC."""


class ScenarioError(ValueError):
    """A scenario is wrong; the message names the field and what is wrong with it."""


def _between(low: float, high: float, *, whole: bool = False) -> Any:
    kind = "a whole number" if whole else "a number"

    def check(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not fits or not low <= value <= high:  # type: ignore[operator]  # compared only where it fits
            raise ScenarioError(
                f"{attribute.name} must be {kind} from {low:g} to {high:g}, got {value!r}"
            )

    return check


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _limits(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    fits = isinstance(value, tuple) and len(value) == 2
    fits = fits and all(isinstance(each, int | float) and math.isfinite(each) for each in value)
    if not fits or not 1 <= value[0] <= value[1] <= 1000:
        raise ScenarioError(
            f"{attribute.name} must be two numbers, the lower first, from 1 to 1000, got {value!r}"
        )


def _world(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ScenarioError(f"{attribute.name} must be the name of a world, got {value!r}")


@attrs.frozen(kw_only=True)
class Scenario:
    """What is simulated. Durations are seconds unless the name says otherwise.

    Attributes:
        world: the model of the provider, by name.
        days: how long it lasts.
        lines: how many lines are there from the start, all in use for a while.
        newcomers: how many more join, unused, after a third of the time.
        limits: the lowest and the highest hidden limit of a line: new conversations a day that it bears when they are spread
            as the demand is. Spread evenly between the two on a logarithmic scale.
        demand: people who want a first message, as a multiple of the sum of the hidden limits.
        patience: how long after somebody asked the first message is still in time.
        answer_within: how long after it became due a follow-up still is.
        reply_rate: share of people who answer a first message that landed, on an average day.
        continues: share of those who answer a follow-up as well, and so on.
        reminders: share of people reached who are owed another message some days later.
        opt_outs: share of messages that landed after which the person wants no more.
        noise: standard deviation of what the provider's verdict is off by from day to day, as a share.
        drift: standard deviation of a day's change of a hidden limit, as a share.
        false_alarms: AT_RISK for half a day without a cause, per line and day.
        bursts: campaigns a day: three tenths of the day's people within half an hour.
        outages: times a week that the list of lines can't be read.
        outage_hours: how long that lasts on average.
        pushes: share of the changes of lines that are also told by a webhook, within minutes.
        poll: how old the list of lines may be before it is read again: a policy's `health.ttl`, and three times that its
            `health.max_age`. Verdicts change in hours; a minute, the policy's default, makes no other decisions and a
            simulation many times longer. 0: as the policy says.
    """

    world: str = attrs.field(default="daily", validator=_world)
    days: int = attrs.field(default=30, validator=_between(1, 366, whole=True))
    lines: int = attrs.field(default=8, validator=_between(1, 200, whole=True))
    newcomers: int = attrs.field(default=1, validator=_between(0, 200, whole=True))
    limits: tuple[float, float] = attrs.field(
        default=(30.0, 55.0), converter=_pair, validator=_limits
    )
    demand: float = attrs.field(default=1.0, validator=_between(0.01, 10))
    patience: float = attrs.field(default=12 * HOUR, validator=_between(60, 30 * DAY))
    answer_within: float = attrs.field(default=4 * HOUR, validator=_between(60, 30 * DAY))
    reply_rate: float = attrs.field(default=0.4, validator=_between(0, 1))
    continues: float = attrs.field(default=0.5, validator=_between(0, 1))
    reminders: float = attrs.field(default=0.2, validator=_between(0, 1))
    opt_outs: float = attrs.field(default=0.01, validator=_between(0, 1))
    noise: float = attrs.field(default=0.05, validator=_between(0, 1))
    drift: float = attrs.field(default=0.03, validator=_between(0, 1))
    false_alarms: float = attrs.field(default=0.01, validator=_between(0, 1))
    bursts: float = attrs.field(default=0.3, validator=_between(0, 10))
    outages: float = attrs.field(default=1.0, validator=_between(0, 100))
    outage_hours: float = attrs.field(default=3.0, validator=_between(0.01, 240))
    pushes: float = attrs.field(default=0.9, validator=_between(0, 1))
    poll: float = attrs.field(default=1800.0, validator=_between(0, 6 * HOUR))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scenario:
        """A scenario of these values; the others keep their defaults. Raises ScenarioError."""
        known = attrs.fields_dict(cls)
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
                raise ScenarioError(f"{name} is not a name of a scenario; the nearest is {near[0]}")
        return cls(**values)

    @classmethod
    def from_toml(cls, path: str | Path) -> Scenario:
        """A scenario of the file at *path*. Raises ScenarioError, also for what is no TOML, and OSError."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ScenarioError(f"{path} is not TOML: {error}") from None
        try:
            return cls.from_dict(values)
        except ScenarioError as error:
            raise ScenarioError(f"{path}: {error}") from None

    @property
    def end(self) -> float:
        """The moment it is over."""
        return START + self.days * DAY
