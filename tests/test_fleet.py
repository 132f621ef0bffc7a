"""When the list of lines is asked for again, which list is believed, and what is seen to before a call decides at once."""

from __future__ import annotations

import pytest

from linepicker import (
    Line,
    LineAssigned,
    NoLine,
    Policy,
    Router,
    SourceError,
    StaleHealth,
    StoreError,
)
from linepicker._asks import Dice
from linepicker.fleet import Fleet
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

NOW = 1_790_000_000.0
DAY, TTL = 86400.0, 60.0
MAX_AGE, MAX_AGE_HARD = 900.0, 21600.0
A, B, C = "+12025550100", "+12025550101", "+12025550102"
FIVE = [f"+1202555020{n}" for n in range(5)]
ANN, BOB, CAT = "+14155550101", "+14155550102", "+14155550103"
LOOSE = {
    "limits": dict.fromkeys(("new_per_day", "new_per_hour", "pair_per_minute"), "off"),
    "pace": {"new_gap": 0, "message_gap": 0},
    "learn": {"enabled": False},
}


class Account:
    """A provider whose list can change, and can fail."""

    def __init__(self, *numbers):
        self.lines, self.fetches, self.error = list(map(Line, numbers)), 0, None

    def fetch(self):
        """The list, counted."""
        self.fetches += 1
        if self.error is not None:
            raise self.error
        return list(self.lines)


class Flaky(MemoryStore):
    """A store that can be away."""

    away = False

    def read(self, keys):
        """Read, or fail."""
        self._there()
        return super().read(keys)

    def swap(self, writes, *, seen={}):  # noqa: B006  as the port has it
        """Swap, or fail."""
        self._there()
        return super().swap(writes, seen=seen)

    def _there(self):
        if self.away:
            raise StoreError("the store is away")


@pytest.fixture
def clock():
    """A clock that moves when told."""
    return ManualClock(NOW)


@pytest.fixture
def account():
    """An account of two lines."""
    return Account(A, B)


def loose(**tables):
    """A policy that limits nothing but what *tables* say."""
    return Policy.from_dict({**LOOSE, **tables})


# When the list is asked for


def test_a_first_list_is_asked_for_by_each_call_until_it_comes(account, clock):
    """Without one nobody can be served, so there is no pause, but for one that the provider asks for: that one to its end."""
    router = Router(account, policy=loose(), clock=clock)
    account.error = SourceError("down")
    for asked in (1, 2):
        with pytest.raises(StaleHealth):
            router.reserve(ANN)
        assert account.fetches == asked
    account.error = SourceError("busy", retry_after=30.0)
    for _ in range(2):
        with pytest.raises(StaleHealth):
            router.reserve(ANN)
        assert account.fetches == 3
        clock.set(NOW + 29.5)
    account.error = None
    clock.set(NOW + 30.0)
    assert router.reserve(ANN).kind == "new"


def asked_after(fleet, error, now, dice):
    """How long the list is not asked for after that failure; and that it is from then on."""
    fleet.poll_failed(error, now, dice)
    pause = fleet.next_try - now
    assert not fleet.poll_due(now + pause - 0.001)
    assert fleet.poll_due(now + pause)
    return pause


@pytest.mark.parametrize(
    ("dice", "pauses"), [(0.0, [1, 2, 4, 8, 16, 30, 30]), (1.0, [2, 4, 8, 16, 32, 60, 60])]
)
def test_a_list_that_fails_is_asked_for_ever_more_seldom(dice, pauses):
    """Pauses double up to a ttl, chance takes half of each at most, and a list that was read lets them begin anew."""
    fleet = Fleet(Policy(), "default", static=False)
    for began in (NOW, NOW + DAY):
        fleet.polled(began)
        now, found = began + TTL + 1.0, []
        for _ in pauses:
            found.append(asked_after(fleet, SourceError("down"), now, dice))
            now += found[-1]
        assert found == pauses


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize(
    ("more", "pause"),
    [({"retry_after": 120.0}, 120.0), ({"retry_after": 1e9}, MAX_AGE), ({"fatal": True}, TTL)],
)
def test_what_the_provider_says_is_waited_for(more, pause, read_before):
    """As long as it asks, within reason; a whole ttl where asking again is of no use. A clock that is turned back by more than
    a list may age does not make the pause longer."""
    fleet = Fleet(Policy(), "default", static=False)
    if read_before:
        fleet.polled(NOW)
    now = NOW + TTL + 1.0
    assert asked_after(fleet, SourceError("no", **more), now, 0.0) == pause
    if read_before:
        assert not fleet.poll_due(now + pause - MAX_AGE_HARD)
        assert fleet.poll_due(now + pause - MAX_AGE_HARD - 0.5)


def test_a_list_is_old_when_it_is_older_than_its_ttl_or_from_the_future(account, clock):
    """Not yet at its ttl; and a clock that steps back a second makes no list one of a time to come, a longer step does."""
    router = Router(account, policy=loose(), clock=clock)
    for moment, fetches in (
        (NOW, 1),
        (NOW + TTL, 1),
        (NOW + TTL + 0.5, 2),
        (NOW + TTL - 0.5, 2),
        (NOW + TTL - 0.75, 3),
    ):
        clock.set(moment)
        router.lines()
        assert account.fetches == fetches, moment - NOW


def test_a_new_line_that_the_list_could_not_tell_of_is_soon_asked_for_again(account, clock):
    """`LineAssigned`, and the list fails: it is asked for after the pause, and not only when it is old."""
    router = Router(account, policy=loose(), clock=clock)
    router._answers[Dice] = lambda _: 1.0
    router.lines()
    account.lines.append(Line(C))
    account.error = SourceError("down")
    assert router.report(LineAssigned(C, at=NOW))
    router.reserve(ANN)
    account.error = None
    clock.advance(2.0)
    router.reserve(BOB)
    assert router.reserve(CAT, line=C).number == C


def test_another_policys_ttl_holds_from_the_next_call_on(account, clock):
    """A call that needs nothing else reads the list as often as the new policy says."""
    router = Router(account, policy=loose(), clock=clock)
    router.reserve(ANN)
    router.reload(loose(health={"ttl": 10}))
    for asked in (2, 3):
        clock.advance(10.5)
        router.reserve(ANN)
        assert account.fetches == asked


# Which list is believed


def test_a_list_that_lost_half_counts_and_one_that_lost_more_must_come_twice_in_a_row(clock):
    """Two lists that lost more, but not the same lines, say nothing of each other."""
    account = Account(*FIVE)
    router = Router(account, policy=loose(), clock=clock)

    def shown(*numbers):
        account.lines = list(map(Line, numbers))
        clock.advance(TTL + 1.0)
        return {view.line.number for view in router.lines()}

    assert shown(*FIVE) == set(FIVE)
    one, two, three, four, _ = FIVE
    assert shown(one, two) == set(FIVE)
    assert shown(three, four) == set(FIVE)
    assert shown(one, two, three, four) == {one, two, three, four}
    assert shown(one, two) == {one, two}
    assert shown(three) == {one, two}
    assert shown() == {one, two}
    assert shown() == set()


def test_a_line_that_a_later_process_lists_is_a_newcomer(clock):
    """Of lines that are given as a list, too, only those of the first one ever are trusted from the start."""
    store = MemoryStore()
    for numbers, budgets in (((A, B), [50, 50]), ((A, B, C), [50, 50, 10])):
        rules = loose(limits={"new_per_day": 50})
        with Router(list(map(Line, numbers)), policy=rules, store=store, clock=clock) as router:
            assert [view.budget for view in router.lines()] == budgets


# Deciding at once


@pytest.mark.parametrize("verb", ["reserve", "preview"])
def test_a_clock_may_be_read_a_second_late_and_no_more(clock, verb):
    """A call that another one overtook decides at the other's moment; one that is further behind has a clock that was set."""
    router = Router([Line(A), Line(B)], policy=loose(), clock=clock)
    router.reserve(ANN)

    def decided_at(moment):
        clock.set(moment)
        return router.preview(BOB).at if verb == "preview" else router.reserve(BOB).decision.at

    assert decided_at(NOW - 1.0) == NOW
    assert decided_at(NOW - 1.25) == NOW - 1.25


def test_what_an_outage_left_behind_is_written_by_the_first_call_that_can(clock):
    """A settlement, and a charge: a call that is refused in between, still without the store, leaves them to the next one."""
    store = Flaky()
    rules = loose(on_store_error="known_only", limits={"pair_per_minute": 2})
    lines = [Line(A), Line(B)]
    router, other = (Router(lines, policy=rules, store=store, clock=clock) for _ in range(2))
    router.assign(ANN, A)
    made = router.reserve(ANN)
    store.away = True
    made.settle("SENT", chat_id="chat-1")
    router.reserve(ANN)
    with pytest.raises(StoreError):
        router.reserve(ANN)
    store.away = False
    router.reserve(BOB)
    assert sum(view.outcomes.get("sent", 0) for view in other.lines()) == 3
    clock.advance(61.0)
    assert other.reserve(ANN).chat_id == "chat-1"


def test_what_a_preview_saw_is_written_by_the_next_call(account, clock):
    """Who shares the store and reads no list knows it then."""
    store = MemoryStore()
    router = Router(account, policy=loose(), store=store, clock=clock)
    other = Router([Line(A), Line(B)], policy=loose(), store=store, clock=clock)
    router.reserve(ANN, line=B)
    other.lines()
    account.lines = [Line(A, reputation="CRITICAL"), Line(B)]
    clock.advance(TTL + 1.0)
    router.preview(BOB)
    router.reserve(ANN)
    assert [view.standing for view in other.lines()] == ["critical", "ok"]


def test_a_store_that_lost_its_last_writes_is_followed(clock):
    """At once: it is the same one, and what it has is all there is. A charge and a drain that it forgot are forgotten."""
    store = MemoryStore()
    router = Router([Line(A)], policy=loose(), store=store, clock=clock)
    router.reserve(ANN)
    kept = dict(store.scan(""))
    router.reserve(BOB)
    router.drain(A)
    store._records = kept
    assert router.reserve(ANN).kind == "known"
    assert router.reserve(CAT).kind == "new"
    assert clock.now() == NOW
    assert [view.used for view in router.lines()] == [2]


def test_a_clock_that_is_set_back_ten_days_keeps_no_line_full_for_eleven(clock):
    """Charges that seem to be of a time to come count from now."""
    router = Router([Line(A)], policy=loose(limits={"new_per_day": 1}), clock=clock)
    router.reserve(ANN)
    clock.advance(-10 * DAY)
    with pytest.raises(NoLine) as refused:
        router.reserve(BOB)
    assert refused.value.retry_at == clock.now() + DAY
