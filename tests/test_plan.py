"""Plans and capacity: what is promised is given, to the line and the moment, and what is not promised has its reason."""

import asyncio
import os
import threading
from collections import Counter
from datetime import datetime
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from linepicker import (
    AsyncRouter,
    ChatHealthChanged,
    InvalidRecipient,
    Line,
    LineChanged,
    OptedOut,
    Policy,
    Reputation,
    Router,
    ServiceStatus,
    StoreError,
)
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

SOME = settings(max_examples=int(os.environ.get("LINEPICKER_EXAMPLES", "40")))
NOW = 1_800_000_000.0  # Friday 2027-01-15, 08:00 UTC
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NUMBERS = [f"+1202555010{n}" for n in range(6)]
A, B = NUMBERS[:2]
QUIET = {
    "hours": "21:00-08:00",
    "zone": "America/New_York",
    "prefix": {
        "+44": {"zone": "Europe/London"},
        "+81": {"zone": "Asia/Tokyo", "hours": "18:00-12:00"},
    },
}


def people(count, prefix="+1212555"):
    """So many recipients."""
    return [f"{prefix}{n:04d}" for n in range(count)]


def router_over(lines=(A, B), *, clock=None, **tables):
    """A router over a list that is read once."""
    lines = [each if isinstance(each, Line) else Line(each) for each in lines]
    policy = Policy.from_dict({"learn": {"enabled": False}, **tables})
    return Router(lines, policy=policy, clock=clock or ManualClock(NOW))


def carried_out(router, plan):
    """Carry a plan out: each is asked for at their moment, and gets just what the plan says."""
    clock = router._clock
    for to, number, at in plan.slots:
        assert at >= clock.now()
        clock.set(at)
        made = router.reserve(to)
        assert (made.number, made.send_at) == (number, at)
        made.settle("SENT")


# Whatever the fleet, the people and the policy

policies = st.fixed_dictionaries(
    {
        "limits": st.fixed_dictionaries(
            {},
            optional={
                "new_per_day": st.integers(1, 8) | st.just("off"),
                "new_per_hour": st.integers(1, 4) | st.just("off"),
                "messages_per_day": st.integers(1, 12) | st.just("off"),
                "moves_per_day": st.integers(1, 3),
            },
        ),
        "pace": st.fixed_dictionaries(
            {},
            optional={
                "new_gap": st.sampled_from([0.0, 7.3, 60.0, 900.0]),
                "new_burst": st.integers(1, 3),
                "message_gap": st.sampled_from([0.0, 1.1, 30.0, 700.0]),
                "message_burst": st.integers(1, 3),
                "spread": st.sampled_from(["off", 0.35, 1.0]),
                "max_delay": st.sampled_from([0.0, 45.0, 300.0]),
            },
        ),
        "warmup": st.sampled_from([{}, {"start": 2, "trust_first_snapshot": False}]),
        "quiet": st.sampled_from([{}, QUIET]),
        "prefer": st.sampled_from(["healthiest", "weighted"]),
        "affinity": st.sampled_from([{}, {"area_code": 0.5}]),
        "learn": st.sampled_from([{}, {"floor": 2, "reply_sample": 1, "jump": 1.0}]),
    }
)
fleets = st.lists(
    st.builds(
        Line,
        st.sampled_from(NUMBERS),
        reputation=st.sampled_from(list(Reputation)),
        status=st.sampled_from([None, ServiceStatus.FLAGGED]),
        weight=st.sampled_from([0.5, 1.0]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda line: line.number,
)
somebody = st.builds(
    lambda prefix, n: f"{prefix}{n:04d}",
    st.sampled_from(["+1212555", "+1202555", "+44207946", "+81312345"]),
    st.integers(0, 30),
)
lists = st.lists(somebody | st.lists(somebody, min_size=2, max_size=3).map(tuple), max_size=40)
words = st.sampled_from([None, None, None, *Reputation])
pasts = st.lists(
    st.tuples(somebody, st.sampled_from([0.0, 5.0, HOUR, 7 * HOUR]), words), max_size=12
)


def lived(fleet, policy, past, start=NOW):
    """A router with a past: people that were written to, or known beforehand; lines that got worse and better."""
    router = router_over(fleet, clock=ManualClock(start), **policy)
    for place, (to, wait, word) in enumerate(past):
        router._clock.advance(wait)
        if word is not None:
            number = fleet[place % len(fleet)].number
            router.report(LineChanged(number, reputation=word, at=router._clock.now()))
        made = router.preview(to)
        if made.outcome == "reserved":
            router.reserve(to).settle("SENT")
        elif router.assignment(to) is None:
            router.assign(to, fleet[place % len(fleet)].number)
    return router


@SOME
@given(fleets, policies, pasts, lists, st.floats(0, 3 * DAY), st.integers(0, 23))
def test_a_plan_is_carried_out_without_one_refusal(fleet, policy, past, wanted, span, hour):
    """At each slot's moment, in their order, a plain reserve gives that line, at once."""
    router = lived(fleet, policy, past, NOW + hour * HOUR)
    now = router._clock.now()
    plan = router.plan(wanted, deadline=now + span)
    assert all(now <= at < now + span for _, _, at in plan.slots)
    assert [at for _, _, at in plan.slots] == sorted(at for _, _, at in plan.slots)
    everybody = {to if isinstance(to, str) or len(set(to)) > 1 else to[0] for to in wanted}
    everybody = {tuple(sorted(set(to))) if isinstance(to, tuple) else to for to in everybody}
    told = [to for to, _, _ in plan.slots] + list(plan.unplaced)
    assert len(told) == len(set(told))
    assert set(told) == everybody
    assert len(plan.reasons) == len(plan.unplaced)
    assert bool(plan.unplaced) == bool(plan.shortfall)
    carried_out(router, plan)


@SOME
@given(fleets, policies, pasts, st.sampled_from([HOUR, 7 * HOUR, DAY, 3 * DAY]), st.booleans())
def test_capacity_promises_what_reserve_gives(fleet, policy, past, horizon, plain):
    """Somebody new at each of its moments is never refused, whether they would wait for a slot or not."""
    policy["limits"] = {"new_per_day": 9, **policy["limits"]}
    assume(policy["limits"]["new_per_day"] != "off")
    router = lived(fleet, policy, past)
    found = router.capacity(horizon=horizon)
    assert found.total == sum(found.by_line.values()) == len(found.moments)
    for n, at in enumerate(found.moments):
        assert found.earliest(n + 1) == at
        router._clock.set(at)
        made = router.reserve(f"+1646555{n:04d}", **({} if plain else {"max_delay": 0}))
        made.settle("SENT")


@SOME
@given(fleets, policies, pasts, st.sampled_from([HOUR, DAY]))
def test_capacity_and_plan_agree(fleet, policy, past, horizon):
    """As many strangers are placed as capacity says, at the same moments."""
    policy["limits"] = {"new_per_day": 9, **policy["limits"]}
    assume(policy["limits"]["new_per_day"] != "off")
    policy["affinity"] = {}
    router = lived(fleet, policy, past)
    found = router.capacity(horizon=horizon)
    plan = router.plan(people(found.total + 1, "+1646555"), deadline=router._clock.now() + horizon)
    assert [at for _, _, at in plan.slots] == list(found.moments)


# One by one


def test_those_who_have_a_line_stay_on_it_and_wait_for_its_pace():
    """Messages of one line keep its gap, whoever they are for; another line's do not wait."""
    router = router_over(pace={"message_gap": 10, "message_burst": 2})
    known = people(5)
    router.assign_many([(to, A) for to in known])
    other = "+13105550000"
    router.assign(other, B)
    plan = router.plan([*known, other], deadline=NOW + HOUR)
    assert [(number, at - NOW) for _, number, at in plan.slots] == [
        (A, 0),
        (A, 0),
        (B, 0),
        (A, 10),
        (A, 20),
        (A, 30),
    ]
    carried_out(router, plan)


def test_a_person_who_must_wait_holds_nobody_up():
    """A pair's limit is that person's own: the others on the line go first."""
    router = router_over(limits={"pair_per_minute": 1})
    known = people(3)
    router.assign_many([(to, A) for to in known])
    router.reserve(known[0])
    plan = router.plan(known, deadline=NOW + HOUR)
    assert [to for to, _, _ in plan.slots] == [known[1], known[2], known[0]]
    assert plan.slots[2][2] == NOW + MINUTE
    carried_out(router, plan)


def test_messages_of_the_day_are_kept():
    """A line that has sent its day's messages goes on when the first of them has left the day."""
    router = router_over([A], limits={"messages_per_day": 3})
    known = people(5)
    router.assign_many([(to, A) for to in known])
    plan = router.plan(known, deadline=NOW + 2 * DAY)
    assert [at < NOW + DAY for _, _, at in plan.slots] == [True] * 3 + [False] * 2
    carried_out(router, plan)


def test_somebody_named_twice_is_planned_once():
    """However they are written, and however a group is ordered."""
    router = router_over()
    wanted = [
        "+12125550001",
        "+1 212 555-0001",
        ["+12125550002", "+12125550003"],
        ["+12125550003", "+12125550002", "+12125550003"],
    ]
    plan = router.plan(wanted, deadline=NOW + HOUR)
    assert [to for to, _, _ in plan.slots] == ["+12125550001", ("+12125550002", "+12125550003")]
    assert plan.shortfall == ""


def test_each_is_placed_in_their_own_day():
    """Quiet hours are those of the recipient; a deadline inside them leaves them unplaced."""
    clock = ManualClock(datetime(2026, 12, 4, 20, 0, tzinfo=ZoneInfo("Europe/London")).timestamp())
    router = router_over(clock=clock, quiet=QUIET)
    yorker, londoner, tokyoite = "+12125550001", "+442079460001", "+81312340001"
    wanted = [tokyoite, londoner, yorker]
    plan = router.plan(wanted, deadline=clock.now() + DAY)
    at = {to: datetime.fromtimestamp(moment, ZoneInfo("UTC")) for to, _, moment in plan.slots}
    assert (at[yorker].hour, at[londoner].hour) == (20, 20)
    assert (at[tokyoite].hour, at[tokyoite].day) == (3, 5)  # noon in Tokyo
    carried_out(router, plan)
    clock.advance(4 * HOUR)  # five in the morning in London... and early evening in New York
    late = router.plan(["+442079460002"], deadline=clock.now() + HOUR)
    assert late.unplaced == ("+442079460002",)
    assert late.reasons == ("deadline",)
    assert "1 more line" not in late.shortfall


def test_who_may_not_be_written_to_is_unplaced_with_the_reason():
    """Opted out, held by their conversation, or on a line that is out for good: each with its code, counted in words."""
    router = router_over([Line(A), Line(B, reputation=Reputation.CRITICAL)])
    gone, quiet, held, fine = people(4)
    router.assign(quiet, A)
    router.assign(held, B)
    router.report(OptedOut(gone, at=NOW))
    router.report(ChatHealthChanged(quiet, "CRITICAL", at=NOW))
    plan = router.plan([gone, quiet, held, fine], deadline=NOW + HOUR)
    assert dict(zip(plan.unplaced, plan.reasons, strict=True)) == {
        gone: "opted_out",
        quiet: "quiet",
        held: "critical",
    }
    assert plan.shortfall == (
        "1 of 4 fit before Fri 2027-01-15 09:00 UTC; "
        "3 can't be written to (1 critical, 1 opted_out, 1 quiet)"
    )
    carried_out(router, plan)


def test_people_of_a_fallen_line_are_moved_within_the_moves_of_a_day():
    """A released line's people go to another one, so many a day."""
    router = router_over(limits={"moves_per_day": 2}, pace={"new_gap": 0, "spread": "off"})
    known = people(5)
    router.assign_many([(to, A) for to in known])
    router.report(LineChanged(A, status=ServiceStatus.FLAGGED, at=NOW))
    plan = router.plan(known, deadline=NOW + 4 * DAY)
    assert {number for _, number, _ in plan.slots} == {B}
    assert [int((at - NOW) // DAY) for _, _, at in plan.slots] == [0, 0, 1, 1, 2]
    carried_out(router, plan)


def test_a_shortfall_says_how_many_fit_and_what_would_do():
    """How many of how many, by when; and how many lines or how much time are missing."""
    router = router_over(limits={"new_per_day": 5}, pace={"spread": "off"})
    plan = router.plan(people(100), deadline=NOW + DAY)
    assert plan.shortfall == (
        "10 of 100 fit before Sat 2027-01-16 08:00 UTC; 18 more lines or 9 more days would do"
    )
    assert plan.reasons == ("deadline",) * 90
    hourly = router.plan(people(12), deadline=NOW + 30)
    assert hourly.shortfall.endswith("or 24 more hours would do")


@SOME
@given(fleets, policies, st.integers(1, 30), st.sampled_from([HOUR, 9 * HOUR, DAY]))
def test_what_would_do_does(fleet, policy, count, span):
    """With so many lines more that join now, or so much more time, everybody is placed."""
    policy = {**policy, "affinity": {}}
    router = router_over(fleet, **policy)
    plan = router.plan(people(count), deadline=NOW + span)
    words = plan.shortfall.replace(",", "").split()
    if "lines" in words or "line" in words:
        missing = int(words[words.index("lines" if "lines" in words else "line") - 2])
        clock = ManualClock(NOW)
        again = Account(list(fleet))
        other = Router(again, policy=router._desk.policy, clock=clock)
        other.lines()
        again.lines += [Line(f"+1303555{n:04d}") for n in range(missing)]
        other.refresh()
        assert not other.plan(people(count), deadline=NOW + span).unplaced
    for unit, seconds in (("hour", HOUR), ("day", DAY)):
        found = [place for place, word in enumerate(words) if word.rstrip("s") == unit]
        if found and "than" not in words:
            later = NOW + span + int(words[found[0] - 2]) * seconds
            assert not router.plan(people(count), deadline=later).unplaced


class Account:
    """A provider whose list grows."""

    def __init__(self, lines) -> None:
        self.lines = lines

    def fetch(self):
        """The list as it is."""
        return list(self.lines)


def test_a_deadline_that_has_passed_places_nobody():
    """And is no error."""
    plan = router_over().plan(people(3), deadline=NOW)
    assert plan.slots == ()
    assert plan.shortfall.startswith("0 of 3 fit before Fri 2027-01-15 08:00 UTC; ")


def test_nobody_is_planned_for_an_empty_list():
    """An empty list is a plan without slots, that lacks nothing."""
    plan = router_over().plan([], deadline=NOW + HOUR)
    assert (plan.slots, plan.unplaced, plan.shortfall) == ((), (), "")


def test_a_fleet_without_lines_says_what_is_missing():
    """Without any line, lines are what would do."""
    plan = router_over([]).plan(people(25), deadline=NOW + DAY)
    assert "3 more lines would do" in plan.shortfall


def test_a_wrong_recipient_is_named_by_its_place():
    """The one that is none is found in a long list, and shown masked at most."""
    with pytest.raises(InvalidRecipient, match="recipient 3: ") as caught:
        router_over().plan([*people(2), "12125550009x"], deadline=NOW + HOUR)
    assert "12125550009x" not in str(caught.value)


def test_other_threads_get_their_turn():
    """While a long plan is made, another thread's reserve is not kept waiting for its end."""
    router = router_over(
        limits=dict.fromkeys(("new_per_day", "new_per_hour"), "off"),
        pace={"new_gap": 0, "message_gap": 0, "spread": "off"},
    )
    router.lines()
    done = threading.Event()

    def plan():
        router.plan(people(9000), deadline=NOW + DAY)
        done.set()

    thread = threading.Thread(target=plan)
    turns = Counter()
    thread.start()
    n = 0
    while not done.is_set():
        router.preview(f"+1646555{n % 10000:04d}")
        turns["while"] += not done.is_set()
        n += 1
    thread.join()
    assert turns["while"] > 1


async def test_the_async_door_plans_alike():
    """Both doors make the same plan of the same list, and the same forecast."""
    lines = [Line(A), Line(B, reputation=Reputation.AT_RISK)]
    wanted = [*people(80), ("+442079460001", "+442079460002")]
    policy = Policy.from_dict({"quiet": QUIET})
    one = Router(lines, policy=policy, clock=ManualClock(NOW))
    async with AsyncRouter(lines, policy=policy, clock=ManualClock(NOW)) as other:
        plan = one.plan(wanted, deadline=NOW + DAY)
        assert await other.plan(wanted, deadline=NOW + DAY) == plan
        assert await other.capacity(horizon=DAY) == one.capacity(horizon=DAY)
        assert plan.unplaced
        clock = other._clock
        for to, number, at in plan.slots:
            clock.set(at)
            made = await other.reserve(to)
            assert (made.number, made.send_at) == (number, at)
            await made.settle("SENT")


def test_a_plan_and_a_forecast_are_values():
    """They are frozen, and show counts rather than handles."""
    plan = router_over().plan(people(2), deadline=NOW + HOUR)
    assert "+1212" not in repr(plan)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        plan.shortfall = ""


# Held


@SOME
@given(fleets, policies, pasts, lists, st.floats(0, 3 * DAY))
def test_what_is_held_is_reserved_and_the_rest_is_carried_out(fleet, policy, past, wanted, span):
    """Held slots are reservations for just that line and moment; the others are given when their moment comes."""
    router = lived(fleet, policy, past)
    now = router._clock.now()
    plan = router.plan(wanted, deadline=now + span, hold=True)
    held = {made.to: made for made in plan.held}
    slots = {to: (number, at) for to, number, at in plan.slots}
    assert set(slots).isdisjoint(plan.unplaced)
    assert [at for _, _, at in plan.slots] == sorted(at for _, _, at in plan.slots)
    assert {to: (made.number, made.send_at) for to, made in held.items()}.items() <= slots.items()
    assert [made.send_at for made in plan.held] == sorted(made.send_at for made in plan.held)
    for to, number, at in plan.slots:
        router._clock.set(at)
        made = held.get(to) or router.reserve(to)
        assert (made.number, made.send_at) == (number, at)
        if made.outcome is None:
            made.check()
        made.settle("SENT")


def test_holding_takes_what_todays_budgets_have_room_for():
    """Fifteen an hour and line, 20 seconds apart after five at once, are charged now; what comes later is only planned."""
    router = router_over([A])
    plan = router.plan(people(20), deadline=NOW + 2 * HOUR, hold=True)
    assert len(plan.slots) == 18  # of six hours
    assert len(plan.held) == 15
    assert plan.held[-1].delay == 200
    assert router.lines()[0].used == 15
    assert plan.shortfall.startswith("18 of 20 fit before")
    plan.held[0].release()
    assert router.lines()[0].used == 14


def test_a_plan_holds_nothing_unless_asked():
    """Without hold nothing is charged."""
    router = router_over()
    assert router.plan(people(5), deadline=NOW + HOUR).held == ()
    assert all(found.used == 0 for found in router.lines())


def test_holding_reaches_no_further_than_the_deadline():
    """Slots at or after it are not taken."""
    router = router_over([A], pace={"new_gap": 100, "new_burst": 1, "spread": "off"})
    plan = router.plan(people(5), deadline=NOW + 200, hold=True)
    assert [made.send_at - NOW for made in plan.held] == [0, 100]
    assert len(plan.unplaced) == 3


class Failing:
    """A store that is lost after so many swaps."""

    def __init__(self, swaps) -> None:
        self.store, self.left = MemoryStore(), swaps

    def __getattr__(self, name):
        return getattr(self.store, name)

    def swap(self, writes, *, seen=None):
        """Refuse one, when its turn has come."""
        self.left -= 1
        if self.left == 0:
            raise StoreError("lost")
        return self.store.swap(writes, seen=seen or {})


def test_where_the_store_fails_nothing_stays_held():
    """What was reserved before is given back, and StoreError raised."""
    store = Failing(swaps=0)
    router = Router([Line(A)], clock=ManualClock(NOW), store=store)
    router.lines()
    store.left = 4
    with pytest.raises(StoreError):
        router.plan(people(8), deadline=NOW + HOUR, hold=True)
    assert router.lines()[0].used == 0
    assert router.assignment(people(1)[0]) is None
    assert len(router.plan(people(8), deadline=NOW + HOUR, hold=True).held) == 8


async def test_the_async_door_holds_and_gives_back_when_cancelled():
    """Held reservations are the door's own; a cancelled call leaves none."""
    clock = ManualClock(NOW)
    async with AsyncRouter([Line(A), Line(B)], clock=clock) as router:
        plan = await router.plan(people(12), deadline=NOW + HOUR, hold=True)
        assert len(plan.held) == 12
        await plan.held[0].settle("SENT")
        for made in plan.held[1:]:
            await made.release()
        assert sum(found.used for found in await router.lines()) == 1
        task = asyncio.create_task(
            router.plan(people(12, "+1646555"), deadline=NOW + HOUR, hold=True)
        )
        write, count = router._store.swap, Counter()

        async def swap(*given, **more):
            count["swaps"] += 1
            if count["swaps"] == 5:
                task.cancel()
                await asyncio.sleep(0)
            return await write(*given, **more)

        router._store.swap = swap
        with pytest.raises(asyncio.CancelledError):
            await task
        del router._store.swap
        assert sum(found.used for found in await router.lines()) == 1
