"""What is learned breaks no promise: capacity and plans are carried out, and better health is never worth less."""

import os
from array import array
from contextlib import suppress

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from linepicker import Line, LineChanged, NoLine, NotNow, Policy, Replied, Router
from linepicker._learn import Evidence, judged, opened
from linepicker._learned import Learned
from linepicker._line import budget_of
from linepicker._observations import Observations
from linepicker._record import Spending, Standing
from linepicker._windows import WEEK, count_week
from linepicker.testing import ManualClock

SOME = settings(max_examples=int(os.environ.get("LINEPICKER_EXAMPLES", "40")))
NOW = 1_800_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NUMBERS = [f"+1202555010{n}" for n in range(4)]
WORDS = ("HEALTHY", "AT_RISK", "CRITICAL")

fleets = st.lists(
    st.builds(Line, st.sampled_from(NUMBERS), weight=st.sampled_from([0.5, 1.0])),
    min_size=1,
    max_size=4,
    unique_by=lambda line: line.number,
)
policies = st.fixed_dictionaries(
    {
        "limits": st.fixed_dictionaries(
            {"new_per_day": st.integers(1, 30)},
            optional={"new_per_hour": st.integers(1, 9) | st.just("off")},
        ),
        "pace": st.fixed_dictionaries(
            {},
            optional={
                "new_gap": st.sampled_from([0.0, 7.3, 60.0, 900.0]),
                "spread": st.sampled_from(["off", 0.35, 1.0]),
                "max_delay": st.sampled_from([0.0, 45.0, 300.0]),
            },
        ),
        "learn": st.fixed_dictionaries(
            {}, optional={"floor": st.integers(1, 4), "reply_sample": st.integers(1, 20)}
        ),
    }
)
# Of each day: how many ask, and what is heard of the first line when it is over.
days = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([None, None, *WORDS])), max_size=6)


def lived(fleet, policy, past):
    """A router that has learned: every fifth person answers."""
    clock, people = ManualClock(NOW), 0
    router = Router(fleet, policy=Policy.from_dict(policy), clock=clock)
    for count, word in past:
        for _ in range(count):
            clock.advance(1200)
            people += 1
            with suppress(NoLine, NotNow):
                made = router.reserve(f"+1646556{people:04d}")
                made.settle("SENT")
                if people % 5 == 0:
                    router.report(Replied(made.number, made.to, at=clock.now()))
        if word is not None:
            heard(router, fleet[0].number, word)
        clock.advance(DAY - 1200 * count)
    return router


def heard(router, number, word):
    """A report, and another one by which a better word is confirmed."""
    for _ in range(2):
        router._clock.advance(61)
        router.report(LineChanged(number, reputation=word, at=router._clock.now()))


@SOME
@given(fleets, policies, days, st.sampled_from([HOUR, 7 * HOUR, DAY, 3 * DAY]), st.booleans())
def test_capacity_promises_what_reserve_gives_with_learned_budgets(
    fleet, policy, past, horizon, plain
):
    """Also over the beginning of sending days, at which budgets are learned anew."""
    router = lived(fleet, policy, past)
    found = router.capacity(horizon=horizon)
    for n, at in enumerate(found.moments):
        router._clock.set(at)
        made = router.reserve(f"+1646555{n:04d}", **({} if plain else {"max_delay": 0}))
        made.settle("SENT")


@SOME
@given(fleets, policies, days, st.integers(0, 60), st.sampled_from([HOUR, DAY, 3 * DAY]))
def test_a_plan_is_carried_out_with_learned_budgets(fleet, policy, past, count, span):
    """Each at their moment, on their line."""
    router = lived(fleet, policy, past)
    people = [f"+1646555{n:04d}" for n in range(count)]
    plan = router.plan(people, deadline=router._clock.now() + span)
    for to, number, at in plan.slots:
        router._clock.set(at)
        made = router.reserve(to)
        assert (made.number, made.send_at) == (number, at)
        made.settle("SENT")


@SOME
@given(fleets, policies, days, st.integers(1, 40))
def test_better_health_never_lowers_a_lines_share(fleet, policy, past, count):
    """After any history, the better the last word on a line is, the more of the same people it is given."""
    got = []
    for word in WORDS:
        router = lived(fleet, policy, past)
        heard(router, fleet[0].number, word)
        mine = 0
        with suppress(NoLine, NotNow):
            for n in range(count):
                mine += router.reserve(f"+1646555{n:04d}", max_delay=0).number == fleet[0].number
                router._clock.advance(MINUTE)
        got.append(mine)
    assert got == sorted(got, reverse=True)


@given(
    st.floats(0, 60), st.floats(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(0, 2)
)
def test_the_worse_the_fall_the_smaller_the_budget(budget, ceiling, bore, limit, good):
    """And none is the best: of one record, what is learned from HEALTHY, AT_RISK and CRITICAL."""
    policy = Policy(limits={"new_per_day": limit})
    spending = Spending(week=array("i"))
    for n in range(bore):
        count_week(spending, NOW - DAY + n, messages=1, opened=1)
    seen = Observations({"AT_RISK": (NOW - 9 * DAY,), "HEALTHY": (NOW - 8 * DAY, NOW - 7 * DAY)})
    standing = Standing(
        NOW - 10 * DAY,
        warm=True,
        reputation=seen,
        learned=Learned(
            budget=budget and min(max(budget, policy.learn.floor), limit),
            ceiling=ceiling and min(max(ceiling, policy.learn.floor), limit),
            relaxed_at=NOW,
        ),
    )
    allows = []
    for word in WORDS:
        told = seen.add_report(word, NOW, NOW, polls=(), span=MINUTE) or seen
        after = attrs.evolve(standing, reputation=told)
        after = judged(standing, after, spending, policy.limits, policy, NOW, NOW)
        for n in range(good):
            after = opened(after, spending, policy.limits, policy, n + 1, Evidence(), NOW + n * DAY)
        allows.append(after.learned.budget or limit)
    assert allows == sorted(allows, reverse=True)


def test_an_old_look_at_a_line_slows_it_no_more():
    """A week after it, whether or not the line's budget was asked for meanwhile."""
    router = lived([Line(NUMBERS[0])], {}, [(20, None), (20, None)])
    now = router._clock.now()
    router.reserve("+16465550001")
    state = router._desk.fleet.state(NUMBERS[0])
    near = Learned(nearness=1.0, near_at=now + 10 * MINUTE - WEEK)
    state.standing, state.budget = attrs.evolve(state.standing, learned=near), None
    policy = router._desk.policy
    slow = budget_of(state, policy, now + MINUTE, slow=False)
    later = budget_of(state, policy, now + 15 * MINUTE, slow=False)
    assert slow.new_gap == 2 * policy.pace.new_gap
    assert later.new_gap == policy.pace.new_gap
