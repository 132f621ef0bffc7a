"""A line is slowed before its provider calls it AT_RISK, and every warning is held against what came of it."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_learn import HOUR, NOW, healthy, spent, turned

from linepicker import Line, LineChanged, Policy, Replied, Router
from linepicker._failing import weighed
from linepicker._learn import judged, shares
from linepicker._learned import Learned
from linepicker._nearness import calm, drivers, looked, nearness, scored
from linepicker._record import Spending, Standing
from linepicker._sketch import sketch, with_opening
from linepicker._tally import Tally
from linepicker._terms import calibration
from linepicker._windows import DAY, WEEK, busiest
from linepicker.policy import Learn
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock

A, B = "+12025550100", "+12025550101"
POLICY = Policy()


def found(spending: Spending, learned: Learned | None = None, **more) -> dict[str, float]:
    """The drivers of a line at NOW."""
    learn = more.pop("learn", POLICY.learn)
    seen, alike = more.pop("seen", {}), more.pop("alike", None)
    heard = more.pop("heard", False)
    return drivers(
        learned or Learned(), seen, spending, alike, POLICY.limits, learn, NOW, heard=heard
    )


def test_each_driver_is_what_its_words_say():
    """Of 7 days: the day's share of what it bears, of the jump it may make, unanswered, opted out, and texts alike."""
    spending = spent(20, 20, 40)
    assert found(spending) == {"new_conversation_rate": 0.8, "volume_spike": 0.8}
    assert found(spending, Learned(ceiling=50.0))["new_conversation_rate"] == 0.8
    assert found(spending, Learned(ceiling=30.0))["new_conversation_rate"] == 1.0
    told = found(spending, seen={"answered": 12, "opted_out": 2}, heard=True, alike=1.0)
    assert told["overall_conversation_health"] == 0.5
    assert told["opt_out_handling"] == pytest.approx(2 / 80 / 0.06, abs=1e-3)
    assert told["similar_openings"] == 0.5
    assert nearness(told) == 0.8
    assert nearness({}) == 0.0


def test_nothing_is_estimated_of_a_line_that_did_little():
    """From 20 conversations in 7 days on."""
    assert found(spent(*[2] * 7, 5)) == {}
    assert found(spent(10, 10)) != {}


def test_a_warning_that_comes_true_counts_with_how_early_it_came():
    """The line falls while it is near: a hit; without a warning, a miss; nothing where nothing could be estimated."""
    learned = looked(Learned(), {"volume_spike": 0.95}, Learn(), NOW)
    assert (learned.nearness, learned.warned_at) == (0.95, NOW)
    hit = scored(learned, NOW + HOUR)
    assert (hit.hits, hit.misses, hit.leads, hit.warned_at) == (1, 0, (HOUR,), 0.0)
    missed = scored(hit, NOW + DAY)
    assert (missed.hits, missed.misses) == (1, 1)
    assert scored(Learned(), NOW) == Learned()


def test_a_warning_that_passes_was_a_false_alarm():
    """It ends below the threshold, or after a week, when the next one begins."""
    learned = looked(Learned(), {"volume_spike": 1.0}, Learn(), NOW)
    over = looked(learned, {"volume_spike": 0.2}, Learn(), NOW + HOUR)
    assert (over.alarms, over.warned_at) == (1, 0.0)
    still = looked(learned, {"volume_spike": 1.0}, Learn(), NOW + WEEK)
    assert (still.alarms, still.warned_at) == (1, NOW + WEEK)


def test_a_look_that_tells_little_new_writes_nothing():
    """A move of less than a tenth, and no warning begun or ended."""
    learned = looked(Learned(), {"volume_spike": 0.5}, Learn(), NOW)
    assert looked(learned, {"volume_spike": 0.58}, Learn(), NOW + DAY) is learned
    assert looked(learned, {"volume_spike": 0.7}, Learn(), NOW + DAY) is not learned


def test_every_fall_scores_what_was_foretold():
    """With the observation that shows it, also where budgets are fixed; not where nearness is off."""
    learned = looked(Learned(), {"volume_spike": 1.0}, Learn(), NOW - HOUR)
    before = attrs.evolve(healthy(), learned=learned)
    for switch, hits in (({}, 1), ({"budgets": False}, 1), ({"nearness": False}, 0)):
        policy = Policy(learn=switch)
        after = turned(before, "AT_RISK")
        told = judged(before, after, spent(40), policy.limits, policy, NOW, NOW).learned
        assert told.hits == hits


def test_how_good_the_warnings_were_is_told_in_a_sentence():
    """How many came true, how early, how many falls came without one."""
    assert calibration(Learned()) == ""
    told = calibration(Learned(hits=3, alarms=1, misses=2, leads=(HOUR, 2 * HOUR, 9 * HOUR)))
    assert told == (
        "Warnings: 3 of 4 came true, 2 h before as a rule; it got worse 2 times without one."
    )


@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.floats(0, 80),
    st.integers(0, 60),
    st.integers(0, 9),
    st.none() | st.floats(0, 1),
)
def test_nearness_lies_between_0_and_1_and_better_signs_never_raise_it(
    before, today, ceiling, answered, out, alike
):
    """More answers, fewer opt-outs, a higher ceiling, fewer openings: none brings a line nearer."""
    seen = {"answered": answered, "opted_out": out}
    learned, spending = Learned(ceiling=ceiling), spent(30, before, today)

    def near(spending=spending, learned=learned, alike=alike, **more):
        told = found(spending, learned, seen={**seen, **more}, heard=True, alike=alike)
        assert all(0.0 < value <= 1.0 for value in told.values())
        return nearness(told)

    assert 0.0 <= near() <= 1.0
    assert near(answered=answered + 1) <= near()
    assert near(opted_out=out + 1) >= near()
    assert near(alike=None) <= near()
    if ceiling:
        assert near(learned=Learned(ceiling=2 * ceiling)) <= near()


def test_nearness_lowers_vitality_and_pace_until_it_is_a_week_old():
    """By half at the edge; not at all where it is switched off."""
    learned = Learned(nearness=1.0, near_at=NOW, drivers={"volume_spike": 1.0})
    assert calm(learned, Learn(), NOW) == 0.5
    assert calm(learned, Learn(), NOW + WEEK) == 1.0
    assert calm(learned, Learn(nearness=False), NOW) == 1.0
    standing = Standing(learned=Learned())
    after = weighed(standing, Tally(), spent(20, 20, 50), POLICY.limits, POLICY, NOW, heard=False)
    assert after.learned.nearness == 1.0
    assert after.vitality == 0.5


def test_texts_alike_bring_a_line_nearer():
    """By half their share."""
    spending = spent(20, 20, 10)
    for n in range(40):
        made = sketch(f"Hi number {n}, this is our offer of the week, just for you")
        spending.rest = with_opening(spending.rest, made)
    after = weighed(Standing(), Tally(), spending, POLICY.limits, POLICY, NOW, heard=False)
    assert after.learned.drivers["similar_openings"] == pytest.approx(0.5 * 39 / 40, abs=1e-3)


def test_a_pool_whose_days_are_crowded_may_use_them():
    """The share of its busiest 6 h, up to seven tenths; known from 100 conversations in 7 days on; never less than the
    policy's."""
    crowded = [spent(0) for _ in range(3)]
    for spending in crowded:
        for day in range(5):
            row = int(NOW // (6 * HOUR)) - 4 * (5 - day)
            spending.week.extend((row, 10, 6, 0, row + 1, 5, 4, 0))
    assert busiest(crowded, NOW, 100) == pytest.approx(0.6)
    assert busiest(crowded, NOW, 151) == 0.0
    for spread, learned, share in ((0.35, 0.6, 0.6), (0.8, 0.6, 0.8), (None, 0.6, None)):
        policy = Policy(pace={"spread": "off" if spread is None else spread})
        standing = Standing(learned=Learned(spread=learned))
        assert shares(standing, policy) == share
        fixed = attrs.evolve(policy, learn=Learn(profile=False))
        assert shares(standing, fixed) == spread


def test_a_line_near_at_risk_says_so_and_is_slower():
    """In its view: terms with a unit and a reason, a sentence, and a wider gap; and when it falls, the warning counts."""
    handle, clock = open_store("memory://"), ManualClock(NOW)
    policy = Policy(
        limits={"new_per_day": 24, "new_per_hour": "off"},
        pace={"new_gap": 60, "new_burst": 1, "max_delay": 0, "spread": "off"},
        learn={"reply_rate": 0.0},
    )
    with Router([Line(A)], policy=policy, store=handle, clock=clock) as router:
        for n in range(23):
            router.reserve(f"+1213555{n:04d}").settle("SENT")
            clock.advance(60)
        assert router.lines()[0].terms == ()
        router.report(Replied(A, "+12135550001", at=clock.now()))
        (view,) = router.lines()
        terms = {term.name: term for term in view.terms}
        assert terms["nearness"].value == terms["new_conversation_rate"].value > 0.9
        assert all(term.unit and term.reason for term in view.terms)
        assert any(reason.startswith("Near AT_RISK since") for reason in view.reasons)
        router.reserve("+12135559999").settle("SENT")
        assert router.lines()[0].next_slot_at > clock.now() + 100
        clock.advance(HOUR)
        router.report(LineChanged(A, reputation="AT_RISK", at=clock.now()))
        (view,) = router.lines()
        assert any(reason.startswith("Warnings: 1 of 1 came true, 1 h") for reason in view.reasons)
        assert any(reason.startswith("Learned: it may open at most") for reason in view.reasons)
        assert {"learned_budget", "ceiling"} <= {term.name for term in view.terms}
