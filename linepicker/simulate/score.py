"""The scoring run: contenders on scenarios over seeds, on as many processes as asked, with confidence intervals.

The one place that reads the held-out worlds.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

import attrs

from linepicker.policy import Policy
from linepicker.simulate.choosers import Linepicker, Make
from linepicker.simulate.engine import Run, play
from linepicker.simulate.heldout import HELD_OUT
from linepicker.simulate.measures import Measures
from linepicker.simulate.oracle import Oracle
from linepicker.simulate.provider import World
from linepicker.simulate.rivals import RIVALS
from linepicker.simulate.scenario import Scenario, ScenarioError
from linepicker.simulate.worlds import TUNING

__all__ = [
    "CONDITIONS",
    "ORACLE",
    "WORLDS",
    "Condition",
    "Contender",
    "Match",
    "Played",
    "field",
    "is_held_out",
    "match",
    "run",
    "score",
    "world",
]

ORACLE: Final = "oracle"
_log: Final = logging.getLogger("linepicker")
WORLDS: Final[Mapping[str, World]] = {each.name: each for each in (*TUNING, *HELD_OUT)}
_MAKERS: Final[Mapping[str, Make]] = {ORACLE: Oracle, "linepicker": Linepicker, **RIVALS}


def world(name: str) -> World:
    """The world of that name. Raises ScenarioError, which names the nearest."""
    if name not in WORLDS:
        near = difflib.get_close_matches(name, WORLDS, n=1, cutoff=0.0)
        raise ScenarioError(
            f"world must be one of {', '.join(WORLDS)}, got {name!r}; the nearest is {near[0]}"
        )
    return WORLDS[name]


def is_held_out(name: str) -> bool:
    """Whether nothing was tuned on the world of that name."""
    return any(each.name == name for each in HELD_OUT)


@attrs.frozen
class Contender:
    """A chooser under a name of its own. `maker`: "linepicker", "oracle", or a rival's name; `policy`: linepicker's, or whose
    caps it obeys, on top of which a condition lays its limits."""

    name: str
    maker: str = "linepicker"
    policy: Policy = attrs.field(factory=Policy)


@attrs.frozen
class Condition:
    """What is asked of all worlds. `limits`: of the policy, by name; None is off. `hidden`: the range of the hidden limits."""

    name: str
    demand: float
    limits: Mapping[str, int | None] = attrs.field(factory=dict)
    hidden: tuple[float, float] | None = None

    def scenario(self, base: Scenario, name: str) -> Scenario:
        """*base* in the world of that name, under this condition."""
        hidden = self.hidden or base.limits
        return attrs.evolve(base, world=name, demand=self.demand, limits=hidden)


CONDITIONS: Final = (
    Condition("0.7", 0.7),
    Condition("1.0", 1.0),
    Condition("1.3", 1.3),
    Condition("1.3, 100 a day", 1.3, {"new_per_day": 100, "new_per_hour": None}),
    Condition("8 to 120, 120 a day", 1.0, {"new_per_day": 120}, (8.0, 120.0)),
)


def field(policy: Policy | None = None) -> tuple[Contender, ...]:
    """Everybody who is compared: the oracle first, linepicker, the same without learning, and the rivals."""
    policy = policy or Policy()
    fixed = attrs.evolve(policy, learn=attrs.evolve(policy.learn, enabled=False))
    return (
        Contender(ORACLE, ORACLE, policy),
        Contender("linepicker", policy=policy),
        Contender("linepicker, fixed budgets", policy=fixed),
        *(Contender(name, name, policy) for name in RIVALS),
    )


@attrs.frozen
class Match:
    """One run to play: who, in which scenario and condition, with which seed."""

    contender: Contender
    scenario: Scenario
    seed: int
    condition: str = ""
    limits: Mapping[str, int | None] = attrs.field(factory=dict)


@attrs.frozen
class Played:
    """What came of a match."""

    match: Match
    measures: Measures


def match(each: Match) -> Run:
    """Play one. Raises ScenarioError, PolicyError."""
    policy = each.contender.policy
    if each.limits:
        policy = attrs.evolve(policy, limits=attrs.evolve(policy.limits, **each.limits))
    maker = _MAKERS[each.contender.maker]
    with _quiet():
        return play(each.scenario, world(each.scenario.world), maker, seed=each.seed, policy=policy)


def _played(each: Match) -> Played:
    return Played(each, match(each).measures)


def run(
    matches: Sequence[Match], *, processes: int = 1, each: Callable[[Played], None] | None = None
) -> list[Played]:
    """Play all, and answer in their order. *each* is told of every one as it is over."""
    found: list[Played] = []
    with contextlib.closing(_run(matches, processes)) as playing:
        for played in playing:
            found.append(played)
            if each is not None:
                each(played)
    return found


def _run(matches: Sequence[Match], processes: int) -> Generator[Played, None, None]:
    if processes <= 1:
        yield from map(_played, matches)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(_played, matches)
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Meanwhile the router says errors only: a simulated outage is none."""
    level = _log.level
    _log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _log.setLevel(level)


def score(
    contenders: Iterable[Contender],
    seeds: int,
    *,
    base: Scenario | None = None,
    worlds: Iterable[str] = tuple(WORLDS),
    conditions: Iterable[Condition] = CONDITIONS,
) -> list[Match]:
    """The matches of a scoring run: every contender in every world, under every condition, with every seed from 0."""
    base, contenders, conditions = base or Scenario(), tuple(contenders), tuple(conditions)
    return [
        Match(contender, condition.scenario(base, name), seed, condition.name, condition.limits)
        for name in worlds
        for condition in conditions
        for seed in range(seeds)
        for contender in contenders
    ]
