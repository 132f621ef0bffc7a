"""What a line may bear is learned: it falls with bad news, grows when it was used, and stays within its bounds."""

from __future__ import annotations

import json
from array import array
from contextlib import suppress
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepicker import AsyncRouter, Line, LineChanged, NoLine, NotNow, Policy, Router
from linepicker._learn import Evidence, allowed, judged, opened
from linepicker._learned import Learned
from linepicker._observations import Observations
from linepicker._record import Spending, Standing, standing_key
from linepicker._windows import DAY, count_week, load, normal
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock

NOW = 1_700_006_400.0  # where 6 h begin
MINUTE, HOUR = 60.0, 3600.0
A, B = "+12025550100", "+12025550101"
WORDS = ("HEALTHY", "AT_RISK", "CRITICAL")


def spent(*days: int, now: float = NOW, begun: float | None = None) -> Spending:
    """A line that opened so many conversations on each of the last days, the latest last, evenly."""
    spending = Spending(week=array("i"), day=len(days))
    spending.day_start = now - DAY if begun is None else begun
    for n, count in enumerate(reversed(days)):
        for i in range(count):
            at = now - (n + 1) * DAY + (i + 0.5) * DAY / count
            count_week(spending, at, messages=1, opened=1)
    rows = [tuple(spending.week[i : i + 4]) for i in range(0, len(spending.week), 4)]
    spending.week = array("i", (n for row in sorted(rows) for n in row))
    return spending


def healthy(since: float = NOW - 30 * DAY, **learned) -> Standing:
    """The standing of a line that has been HEALTHY for long."""
    seen = Observations({"AT_RISK": (since - DAY,), "HEALTHY": (since, since + MINUTE)})
    return Standing(since - 2 * DAY, warm=True, reputation=seen, learned=Learned(**learned))


def turned(standing: Standing, word: str, at: float = NOW) -> Standing:
    """The standing with one more report."""
    seen = standing.reputation.add_report(word, at, at, polls=(), span=MINUTE)
    return attrs.evolve(standing, reputation=seen or standing.reputation)


def fallen(standing: Standing, word: str, spending: Spending, policy: Policy | None = None):
    """What is learned of a line that is reported as that."""
    policy = policy or Policy()
    after = turned(standing, word)
    return judged(standing, after, spending, policy.limits, policy, NOW, NOW).learned


def begun(standing: Standing, spending: Spending, policy: Policy | None = None, **more) -> Learned:
    """What is learned when the next sending day begins."""
    policy = policy or Policy()
    evidence = more.get("evidence", Evidence())
    number, now = more.get("number", spending.day + 1), more.get("now", NOW)
    return opened(standing, spending, policy.limits, policy, number, evidence, now).learned


# The rules


def test_the_load_of_a_day_is_counted_by_the_week():
    """The conversations opened in 24 h, wherever the day begins."""
    spending = spent(12, 24, 48)
    assert load(spending, NOW, NOW) == pytest.approx(48)
    assert load(spending, NOW - DAY, NOW) == pytest.approx(24)
    assert load(spending, NOW - DAY / 2, NOW) == pytest.approx(36)
    assert normal(spending, NOW) == pytest.approx(48)


def test_a_load_is_at_least_what_is_remembered_one_by_one():
    """A day that begins within 6 h had what came late in them; spread evenly that would be less, and a line that used its
    budget would seem not to have."""
    spending, at = Spending(week=array("i")), NOW + 5 * HOUR
    for n in range(12):
        moment = at - DAY + MINUTE * n + 1.0
        count_week(spending, moment, messages=1, opened=1)
        spending.times.append(moment)
    assert load(attrs.evolve(spending, times=array("d")), at, at) == pytest.approx(2)
    assert load(spending, at, at) == 12
    assert load(spending, at + 1.0, at + 1.0) == 11


@pytest.mark.parametrize(("word", "most"), [("AT_RISK", 40), ("CRITICAL", 30)])
def test_a_fall_cuts_the_budget_and_remembers_the_load(word, most):
    """Each entry into a worse standing, by the load that preceded it."""
    after = fallen(healthy(), word, spent(40, 40))
    assert 5 <= after.budget < most
    assert after.ceiling == pytest.approx(40)


def test_a_standing_is_cut_for_once_per_episode():
    """The same word again, before HEALTHY is confirmed, cuts nothing; a worse one does."""
    policy, spending = Policy(), spent(40, 40)
    first = judged(
        healthy(), turned(healthy(), "AT_RISK"), spending, policy.limits, policy, NOW, NOW
    )
    later = turned(turned(first, "HEALTHY", NOW + 10), "AT_RISK", NOW + 20)
    assert judged(first, later, spending, policy.limits, policy, NOW, NOW) == later
    worse = turned(first, "CRITICAL", NOW + 10)
    cut = judged(first, worse, spending, policy.limits, policy, NOW, NOW)
    assert cut.learned.budget < first.learned.budget


def test_another_fall_about_the_ceiling_moves_it_half_way():
    """And cuts for half as much, if the line had carried that load; one far above it is a new one."""
    known = {"budget": 36.0, "ceiling": 40.0, "proven": 45.0}
    known |= {"relaxed_at": NOW - DAY, "changed_at": NOW - 9 * DAY}
    after = fallen(healthy(**known), "AT_RISK", spent(32, 32))
    assert after.ceiling == pytest.approx((40 * 32) ** 0.5)
    assert after.budget == pytest.approx(0.925 * after.ceiling)
    above = fallen(healthy(**known), "AT_RISK", spent(49, 49))
    assert above.ceiling == pytest.approx((40 * 49) ** 0.5)
    assert above.budget == 34.92
    far = fallen(healthy(**known | {"ceiling": 20.0}), "AT_RISK", spent(40, 40))
    assert far.ceiling == pytest.approx(40)
    assert far.budget == pytest.approx(0.85 * 40)


@pytest.mark.parametrize(("proven", "ceiling"), [(28.7, 32.0), (28.9, (40 * 32) ** 0.5)])
def test_a_fall_under_a_load_never_carried_is_no_bad_day(proven, ceiling):
    """A line that falls before it has carried nine tenths of that load bears less than was thought: it is cut from the load."""
    known = {"budget": 36.0, "ceiling": 40.0, "relaxed_at": NOW - DAY, "proven": proven}
    after = fallen(healthy(**known), "AT_RISK", spent(32, 32))
    assert after.ceiling == pytest.approx(ceiling)
    assert after.budget == pytest.approx((0.85 if ceiling == 32 else 0.925) * ceiling)


def test_a_used_budget_grows_after_its_hold():
    """By a step of the policy's limit, once a hold, while HEALTHY."""
    known = {"budget": 20.0, "changed_at": NOW - 9 * DAY}
    after = begun(healthy(**known), spent(20, 20))
    assert after.budget == pytest.approx(22.5)
    assert after.changed_at == NOW


@pytest.mark.parametrize(
    "standing",
    [
        healthy(budget=20.0, changed_at=NOW - HOUR),
        healthy(NOW - HOUR, budget=20.0, changed_at=NOW - 9 * DAY),
        turned(healthy(budget=20.0, changed_at=NOW - 9 * DAY), "AT_RISK"),
        healthy(
            budget=20.0,
            changed_at=NOW - 9 * DAY,
            drivers={"overall_conversation_health": 0.6},
        ),
    ],
    ids=["just raised", "just back", "AT_RISK", "nobody answers"],
)
def test_a_budget_does_not_grow_before_its_verdict(standing):
    """Raised or cut a moment ago, not HEALTHY for long, or with few replies: it stays."""
    assert begun(standing, spent(20, 20)).budget == 20.0


def test_growth_is_slow_near_the_ceiling():
    """And the ceiling itself rises by 1 % a day."""
    known = {"budget": 36.0, "changed_at": NOW - 9 * DAY, "ceiling": 40.0, "relaxed_at": NOW - DAY}
    after = begun(healthy(**known), spent(36, 36))
    assert 36 < after.budget < 37.5
    assert after.ceiling == pytest.approx(40.4)


@pytest.mark.parametrize(("days", "step"), [(2, 0.02), (5, 0.02), (10, 0.08), (30, 0.0625)])
def test_growth_near_the_ceiling_gathers_pace_while_there_is_no_fall(days, step):
    """From five days after the last fall on, with the square of the days, up to the step of a line without a ceiling."""
    known = {"budget": 38.0, "ceiling": 40.0, "relaxed_at": NOW, "cut_at": NOW - days * DAY}
    after = begun(healthy(**known), spent(38, 38))
    assert after.budget - 38 == pytest.approx(min(2.5, step * 40))


def test_a_young_line_is_cut_from_what_its_warm_up_granted():
    """Not from the policy's limit, however few it opened, and without a ceiling; an older one as others are."""
    young = attrs.evolve(healthy(), warm=False)
    after = fallen(young, "AT_RISK", spent(8))
    assert after.budget == pytest.approx(0.85 * 8)
    assert after.ceiling == 0
    second = fallen(young, "AT_RISK", spent(10, 30))
    assert second.budget == pytest.approx(0.85 * 20)
    old = spent(8)
    old.day = 15
    assert fallen(young, "AT_RISK", old).ceiling == 50


def test_what_others_fell_at_bounds_a_line_that_never_fell():
    """Their mean, those without a fall standing for the limit; and never below half as much again as it has carried."""
    evidence = Evidence()
    for n, ceiling in enumerate((20.0, 20.0, 20.0, 0.0)):
        evidence.hear(str(n), healthy(ceiling=ceiling))
    expected = (20**3 * 50) ** 0.25
    assert evidence.expected(50) == pytest.approx(expected, rel=1e-2)
    assert begun(healthy(), spent(10, 10), evidence=evidence).today == pytest.approx(
        expected, rel=1e-2
    )
    assert begun(healthy(proven=28.0), spent(10), evidence=evidence).today == pytest.approx(42)
    own = begun(healthy(budget=45.0, ceiling=49.0), spent(40), evidence=evidence)
    assert own.today == 0


def test_a_jump_against_the_lines_own_normal_is_smoothed():
    """From 20 conversations in 7 days on."""
    assert begun(healthy(), spent(*[4] * 7)).today == pytest.approx(10)
    assert begun(healthy(), spent(*[2] * 7)).today == 0
    rough = Policy(learn={"jump": "off"})
    assert begun(healthy(), spent(*[4] * 7), rough).today == 0


def test_what_is_learned_of_a_line_is_told_apart_from_what_others_teach():
    """Hearing a line again replaces what was heard of it, in any order."""
    one, two = Evidence(), Evidence()
    one.hear(A, healthy(ceiling=30.0))
    one.hear(A, healthy(ceiling=10.0))
    one.hear(B, healthy(ceiling=0.0))
    two.hear(B, healthy(ceiling=7.0))
    two.hear(B, healthy())
    two.hear(A, healthy(ceiling=10.0))
    assert one.expected(50) == two.expected(50)


# Properties

STEPS = st.lists(
    st.tuples(st.sampled_from((*WORDS, "day", "day", "day")), st.integers(0, 60)), max_size=30
)
POLICIES = st.builds(
    lambda limit, floor, growth, jump: Policy(
        limits={"new_per_day": limit}, learn={"floor": floor, "growth": growth, "jump": jump}
    ),
    st.integers(1, 200),
    st.integers(1, 20),
    st.floats(0.01, 1.0),
    st.sampled_from(["off", 1.0, 2.5]),
)


@given(POLICIES, STEPS)
def test_a_learned_budget_stays_within_its_bounds(policy, steps):
    """Never above the limit nor below the floor; lower after every AT_RISK that finds it above the floor; never higher while
    it was not used; and the same word twice changes nothing."""
    limit = policy.limits.new_per_day
    floor = min(policy.learn.floor, limit)
    standing, now, spending = healthy(), NOW, Spending(week=array("i"))
    for word, count in steps:
        before = min(limit, allowed(standing, policy))
        if word == "day":
            now += DAY + MINUTE
            was = standing.learned.budget
            standing = opened(
                standing, spending, policy.limits, policy, spending.day + 1, Evidence(), now
            )
            if load(spending, spending.day_start + DAY, now) == 0:
                assert standing.learned.budget == was
            spending.day, spending.day_start = spending.day + 1, now
            for n in range(count):
                count_week(spending, now + n, messages=1, opened=1)
            now += HOUR
        else:
            now += MINUTE
            was, level = standing, standing.reputation.level(MINUTE)
            told = turned(standing, word, now)
            standing = judged(was, told, spending, policy.limits, policy, now, now)
            after = min(limit, allowed(standing, policy))
            if WORDS.index(word) > level:
                assert int(after) < int(before) or after == floor
            assert judged(standing, standing, spending, policy.limits, policy, now, now) is standing
        assert floor <= min(limit, allowed(standing, policy)) <= limit


@given(st.floats(5, 50), st.integers(0, 50), st.floats(0, 60), st.integers(1, 9))
def test_an_unused_budget_never_grows(budget, opened_, ceiling, number):
    """Below the share that `learn.used` asks for."""
    policy = Policy()
    standing = healthy(budget=budget, ceiling=ceiling, changed_at=NOW - 30 * DAY)
    after = begun(standing, spent(opened_), number=number)
    if load(spent(opened_), NOW, NOW) < policy.learn.used * budget:
        assert after.budget == budget
    assert budget <= after.budget <= 50


def test_without_learning_nothing_is_learned():
    """`learn.enabled`, and `learn.budgets` alone."""
    for learn in ({"enabled": False}, {"budgets": False}):
        policy = Policy(learn=learn)
        assert fallen(healthy(), "CRITICAL", spent(40, 40), policy) == Learned()
        assert begun(healthy(), spent(*[4] * 7), policy) == Learned()
        assert allowed(healthy(budget=7.0), policy) == float("inf")


# In the router


class World:
    """A clock, a store, a list of lines."""

    def __init__(self, **tables) -> None:
        self.clock, self.handle = ManualClock(NOW), open_store("memory://")
        self.lines = {A: Line(A), B: Line(B)}
        self.policy = Policy.from_dict(
            {
                "pace": {"new_gap": 0, "message_gap": 0},
                "limits": {"new_per_hour": "off"},
                "health": {"ttl": 60, "max_age": 1e6, "max_age_hard": 1e6},
                **tables,
            }
        )
        self.people = 0

    def fetch(self):
        """The list."""
        return list(self.lines.values())

    def more(self) -> dict:
        """What both kinds of router are given."""
        return {"policy": self.policy, "store": self.handle, "clock": self.clock}

    def someone(self) -> str:
        """Somebody new."""
        self.people += 1
        return f"+1213555{self.people:04d}"

    def learned(self, number: str = A) -> Learned:
        """What is on record of a line."""
        key = standing_key(number)
        record = self.handle.store().read([key]).records[key]
        return Standing.decode(record.value or b"").learned


class Both:
    """One story for both kinds of router: every verb is awaited."""

    def __init__(self, world: World, *, is_async: bool) -> None:
        source = _Awaited(world) if is_async else world
        self._router = (AsyncRouter if is_async else Router)(source, **world.more())
        self._is_async = is_async

    async def __call__(self, verb: str, *arguments, **more):
        """What the verb answers."""
        return await self.of(self._router, verb, *arguments, **more)

    async def of(self, thing, verb: str, *arguments, **more):
        """What a router's or a reservation's verb answers."""
        found = getattr(thing, verb)(*arguments, **more)
        return await found if self._is_async else found

    async def budgets(self) -> dict[str, int | None]:
        """Today's budgets by line."""
        return {view.line.number: view.budget for view in await self("lines")}

    async def opens(self, world: World, count: int, **more) -> None:
        """So many new conversations, as far as there is room for them."""
        with suppress(NoLine, NotNow):
            for _ in range(count):
                made = await self("reserve", world.someone(), **more)
                await self.of(made, "settle", "SENT")


class _Awaited:
    """A source, awaited."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def fetch(self):
        return self._world.fetch()


doors = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@doors
async def test_a_line_that_falls_has_less_from_then_on(is_async):
    """Cut at once by a report, and by a list; remembered by every process; and back to HEALTHY it begins from there."""
    world = World()
    router = Both(world, is_async=is_async)
    for _ in range(8):
        await router.opens(world, 20)
        world.clock.advance(3 * HOUR)
    assert (await router.budgets())[A] == 50
    at = world.clock.now()
    assert await router("report", LineChanged(A, reputation="AT_RISK", at=at))
    assert not await router("report", LineChanged(A, reputation="AT_RISK", at=at))
    cut = world.learned().budget
    assert 5 < cut <= 42.5
    world.lines[B] = Line(B, reputation="CRITICAL")
    await router("refresh")
    assert 5 < world.learned(B).budget < cut
    for _ in range(4):
        world.clock.advance(61)
        await router("refresh")
    assert (await Both(world, is_async=is_async).budgets())[A] == int(cut)


@doors
async def test_the_first_conversation_of_a_sending_day_raises_the_budget(is_async):
    """In the swap that opens it, once, even if it is given back and made again."""
    world = World(pace={"new_gap": 0, "message_gap": 0, "spread": "off"}, learn={"lag": 0})
    router = Both(world, is_async=is_async)
    await router.opens(world, 60)
    await router("report", LineChanged(A, reputation="AT_RISK", at=world.clock.now()))
    seen = [world.learned().budget]
    for _ in range(6):
        world.clock.advance(DAY + 61)
        await router("refresh")
        world.clock.advance(61)
        await router("refresh")
        made = await router("reserve", world.someone(), line=A)
        seen.append(world.learned().budget)
        await router.of(made, "release")
        await router.opens(world, 60, line=A)
        assert world.learned().budget == seen[-1]
    assert seen[0] == seen[1] < seen[3] < seen[6] <= 50
    assert max(later - before for before, later in pairwise(seen)) <= 2.5


@doors
async def test_fixed_budgets_write_nothing(is_async):
    """With `learn.enabled` off no record of a line says anything of learning."""
    world = World(learn={"enabled": False})
    router = Both(world, is_async=is_async)
    for _ in range(8):
        await router.opens(world, 20)
        world.clock.advance(6 * HOUR)
    await router("report", LineChanged(A, reputation="AT_RISK", at=world.clock.now()))
    assert world.learned() == Learned()
    assert (await router.budgets())[A] == 25


def test_a_version_that_learns_nothing_carries_it_along():
    """What another version learned is written back by one that only knows the rest, and by one that knows more."""
    raw = healthy(budget=20.0, ceiling=30.0).encode()
    value = json.loads(raw[1:])
    assert value["learned"] == {"budget": 20.0, "ceiling": 30.0}
    value["learned"]["later"] = [1]
    again = Standing.decode(raw[:1] + json.dumps(value).encode())
    after = attrs.evolve(again, learned=attrs.evolve(again.learned, budget=21.0))
    assert json.loads(after.encode()[1:])["learned"] == {
        "budget": 21.0,
        "ceiling": 30.0,
        "later": [1],
    }
    del value["learned"]
    old = Standing.decode(raw[:1] + json.dumps(value).encode())
    assert old.learned == Learned()
    assert b"learned" not in old.encode()
