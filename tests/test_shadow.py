"""A second policy beside the one in force: it counts where it would have chosen otherwise, and changes nothing."""

import asyncio
import importlib.util
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepicker import AsyncRouter, Blocked, Line, NoLine, NotNow, OptedOut, Policy, Router
from linepicker.testing import ManualClock

NOW = 1_790_000_000.0
A, B = "+12025550100", "+12025550101"
LOOSE = Policy.from_dict({"pace": {"new_gap": 0, "spread": "off"}})

_SPEC = importlib.util.spec_from_file_location(
    "histories", Path(__file__).with_name("histories.py")
)
histories = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(histories)


def tables(**more: Any) -> Policy:
    """A policy as loose as LOOSE, but for these tables."""
    return Policy.from_dict({"pace": {"new_gap": 0, "spread": "off"}, **more})


def router(shadow: Policy | None, clock: ManualClock | None = None, **given: Any) -> Router:
    """A router with two lines."""
    given = {"policy": LOOSE, **given}
    return Router([Line(A), Line(B)], shadow=shadow, clock=clock or ManualClock(NOW), **given)


def person(i: int) -> str:
    """One of many."""
    return f"+1415555{i:04d}"


def test_the_same_policy_would_do_the_same():
    """Nothing differs from a policy that says the same."""
    mine = router(LOOSE)
    for i in range(20):
        mine.reserve(person(i % 15))
    counts = mine.shadowed()
    assert (counts.decided, counts.same) == (20, 20)
    assert counts.opened == counts.would_open
    assert sum(counts.opened.values()) == 15


def test_what_a_smaller_budget_would_have_refused_is_counted_by_reason():
    """On what was really spent: five conversations on each of two lines leave a limit of three behind after six."""
    mine = router(tables(limits={"new_per_hour": 3}))
    for i in range(10):
        mine.reserve(person(i))
    counts = mine.shadowed()
    assert counts.refused == {"hour_budget": 4}
    assert (counts.decided, counts.same) == (10, 6)
    assert sum(counts.would_open.values()) == 6
    assert "of 10 decisions it would have refused 4 (hour_budget 4)" in str(counts)


def test_what_a_larger_budget_would_have_let_out_is_counted_by_the_reason_it_was_refused_for():
    """A refusal that the other policy would not have given."""
    mine = router(LOOSE, policy=tables(limits={"new_per_hour": 1}))
    for i in range(5):
        try:
            mine.reserve(person(i))
        except NoLine:
            continue
    assert mine.shadowed().allowed == {"hour_budget": 3}


def test_another_line_and_another_moment_are_counted():
    """Weights that count for more than tiers choose otherwise; a slower pace lets out later."""
    lines = [Line(A, reputation="AT_RISK", weight=1000.0), Line(B)]
    clock = ManualClock(NOW)
    other = tables(prefer="weighted")
    with Router(lines, policy=LOOSE, shadow=other, clock=clock) as mine:
        assert mine.reserve(person(1)).number == B
        counts = mine.shadowed()
    assert (counts.other_line, counts.opened, counts.would_open) == (1, {B: 1}, {A: 1})
    pace = {"new_gap": 60, "spread": "off"}
    one, two = (Policy.from_dict({"pace": {**pace, "new_burst": n}}) for n in (1, 2))
    with Router([Line(A)], policy=two, shadow=one, clock=clock) as mine:
        for i in range(2):
            assert mine.reserve(person(i)).delay == 0.0
        counts = mine.shadowed()
    assert (counts.same, counts.other_moment) == (1, 1)


def test_two_refusals_for_different_reasons_are_told_apart():
    """Neither lets the message out, and the reasons differ; or they are the same."""
    clock = ManualClock(NOW)
    mine = router(
        tables(limits={"new_per_day": 1}), clock, policy=tables(limits={"new_per_hour": 1})
    )
    for i in range(4):
        try:
            mine.reserve(person(i))
        except NoLine:
            continue
    mine.report(OptedOut(person(9), at=NOW))
    with pytest.raises(Blocked):
        mine.reserve(person(9))
    counts = mine.shadowed()
    assert (counts.other_reason, counts.same) == (2, 3)


def test_its_own_longest_delay_holds_where_the_caller_names_none():
    """max_delay is the shadow's, unless the caller gave one."""
    pace = {"new_gap": 30, "new_burst": 1, "spread": "off"}
    mine = router(
        Policy.from_dict({"pace": {**pace, "max_delay": 10}}),
        policy=Policy.from_dict({"pace": {**pace, "max_delay": 300}}),
    )
    for i in range(4):
        mine.reserve(person(i))
    mine.reserve(person(5), max_delay=900.0)
    assert mine.shadowed().refused == {"pace": 2}


def test_counts_are_of_the_last_hour_or_as_long_as_asked_for():
    """Older decisions leave the count, to five minutes; a day is the most."""
    clock = ManualClock(NOW)
    mine = router(LOOSE, clock)
    for i in range(3):
        mine.reserve(person(i))
        clock.advance(3000.0)
    assert mine.shadowed().decided == 2
    assert mine.shadowed(2 * 3600.0).decided == 3
    clock.advance(86400.0)
    mine.reserve(person(1))
    assert mine.shadowed(1e9).decided == 1


def test_without_a_shadow_there_is_nothing_to_count():
    """Asking is a ValueError that says how to have one; so is a span that is none."""
    with pytest.raises(ValueError, match=r"shadow=policy"):
        router(None).shadowed()
    with pytest.raises(ValueError, match="seconds"):
        router(LOOSE).shadowed(0.0)
    with pytest.raises(TypeError, match="shadow must be a Policy"):
        router("policy.toml")


def test_a_shadow_that_fails_hurts_nobody(caplog, monkeypatch):
    """Whatever goes wrong in it is counted and said once."""
    mine = router(LOOSE)

    def fail(*given: Any) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("linepicker._shadow.decide", fail)
    with caplog.at_level(logging.WARNING):
        for i in range(3):
            mine.reserve(person(i))
    counts = mine.shadowed()
    assert (counts.failed, counts.decided) == (3, 0)
    assert len([each for each in caplog.records if "in shadow" in each.message]) == 1


def test_a_policy_that_is_reloaded_leaves_the_shadow_as_it_is():
    """A reload changes what is in force, not what is compared with it."""
    mine = router(tables(limits={"new_per_hour": 1}))
    mine.reload(tables(limits={"new_per_hour": 2}))
    for i in range(5):
        try:
            mine.reserve(person(i))
        except (NoLine, NotNow):
            continue
    assert mine.shadowed().refused == {"hour_budget": 2}


def test_the_async_door_counts_the_same():
    """AsyncRouter.shadowed tells what Router.shadowed tells."""
    shadow = tables(limits={"new_per_hour": 3})

    async def play() -> Any:
        async with AsyncRouter(
            [Line(A), Line(B)], policy=LOOSE, shadow=shadow, clock=ManualClock(NOW)
        ) as mine:
            for i in range(10):
                await mine.reserve(person(i))
            return await mine.shadowed()

    mine = router(shadow)
    for i in range(10):
        mine.reserve(person(i))
    assert asyncio.run(play()) == mine.shadowed()


@settings(max_examples=10)
@given(seed=st.integers(0, 1 << 32), which=st.sampled_from(range(6)))
def test_a_shadow_changes_nothing(seed, which):
    """A random history goes as it would without one, and each decision is counted once."""
    told = []
    for shadow in (None, Policy.from_dict(histories.POLICIES[which])):
        history = histories.History(random.Random(seed), None, routers=2, shadow=shadow)
        for _ in range(150):
            history.step()
        told.append((history.outcomes, history.clock.now()))
    assert told[0] == told[1]


@settings(max_examples=10)
@given(seed=st.integers(0, 1 << 32))
def test_each_decision_is_counted_once(seed):
    """However often others write in between: what was decided in vain is not counted."""
    shadow = Policy.from_dict({"limits": {"new_per_hour": 4}})
    history = histories.History(random.Random(seed), None, routers=2, shadow=shadow)
    history.break_something = lambda router: None  # without a store nothing is compared
    for _ in range(150):
        history.step()
    counts = [each.shadowed(86400.0) for each in history.routers]
    if history.clock.now() < histories.START + 86000.0:
        assert sum(each.decided for each in counts) == history.decided
    assert sum(each.failed for each in counts) == 0
