"""Who wants to hear from us, when, and how they will take it: drawn before anything is sent, so that every chooser meets the
same people."""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from typing import Final

import attrs

from linepicker.simulate.scenario import DAY, HOUR, START, Scenario

__all__ = ["Person", "people"]

TURNS: Final = 6
"""How often somebody answers at most."""
_HOURS: Final = (
    1,
    1,
    1,
    1,
    1,
    2,
    4,
    8,
    14,
    20,
    22,
    20,
    17,
    18,
    20,
    20,
    19,
    18,
    18,
    17,
    13,
    8,
    4,
    2,
)
_CUMULATED: Final = tuple(accumulate(_HOURS))
_WEEK: Final = (1.15, 1.1, 1.1, 1.1, 1.05, 0.8, 0.7)
_DELAY: Final = (math.log(40 * 60.0), 1.2)
_LONGEST: Final = 2 * DAY


@attrs.frozen
class Turn:
    """One chance to answer: `willing` is below the share of people who do, `after` so many seconds; `leaves` is below the
    share of those who want no more, `lands` below that of messages that land."""

    willing: float
    after: float
    leaves: float
    lands: float


@attrs.define
class Person:
    """Somebody who wants a first message, from `at` on. What follows `remind_after` is known of the future.

    `eager`: how likely they answer a first message that landed. `remind_after`: when another message is due, so many seconds
    after they were reached; None: never. `numbers`: the lines that wrote to them, in order; `gone`: opted out.
    """

    to: str
    at: float
    eager: float
    turns: tuple[Turn, ...]
    remind_after: float | None
    numbers: list[str] = attrs.Factory(list)
    reached: bool = False
    gone: bool = False


def people(scenario: Scenario, bears: Callable[[float], float], seed: int) -> list[Person]:
    """Everybody, in the order of their coming. *bears*: what the lines bear together, in new conversations a day."""
    dice = random.Random(f"people {seed}")
    moments: list[tuple[float, float]] = []
    for day in range(scenario.days):
        begin = START + day * DAY
        mean = scenario.demand * bears(begin + DAY / 2) * _WEEK[day % 7]
        count = max(0, round(dice.gauss(mean, math.sqrt(mean))))
        eager = scenario.reply_rate * dice.uniform(0.6, 1.4)
        burst = dice.random() < 1 - math.exp(-scenario.bursts)
        begins = begin + dice.uniform(9 * HOUR, 18 * HOUR)
        for _ in range(count):
            if burst and dice.random() < 0.3:
                at = begins + dice.random() * HOUR / 2
            else:
                hour = bisect(_CUMULATED, dice.random() * _CUMULATED[-1])
                at = begin + (hour + dice.random()) * HOUR
            moments.append((at, eager))
    moments.sort()
    return [_person(i, at, eager, scenario, dice) for i, (at, eager) in enumerate(moments)]


def _person(index: int, at: float, eager: float, scenario: Scenario, dice: random.Random) -> Person:
    turns = tuple(
        Turn(
            dice.random(),
            min(_LONGEST, dice.lognormvariate(*_DELAY)),
            dice.random(),
            dice.random(),
        )
        for _ in range(TURNS)
    )
    reminded, after = dice.random() < scenario.reminders, dice.uniform(2 * DAY, 8 * DAY)
    return Person(f"+1646{index:07d}", at, eager, turns, after if reminded else None)
