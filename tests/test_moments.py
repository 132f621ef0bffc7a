"""The moment a decision is made at, where calls read the clock a little apart and a store's answers overtake each other."""

from contextlib import suppress
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepicker import Line, LineChanged, NoLine, Policy, Router, _hosttime
from linepicker._hosttime import HostTime
from linepicker.replay import check
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

NOW = 1_790_000_000.0
A, B, C = "+12125550100", "+12125550101", "+12125550102"
ANN, BOB, CAT = "+14155550101", "+14155550102", "+14155550103"
AT_ONCE = Policy.from_dict({"pace": {"new_gap": 0, "message_gap": 0}})


class Host:
    """A host's clocks, as the module `time` has them, which stand until they are told."""

    def __init__(self, wall: float, monotonic: float) -> None:
        self.ahead, self.at = wall - monotonic, monotonic

    def time(self) -> float:
        """The wall clock."""
        return self.at + self.ahead

    def monotonic(self) -> float:
        """The monotonic one."""
        return self.at


moments = st.floats(min_value=0.0, max_value=5.0, allow_subnormal=False)
ways = st.floats(min_value=0.0, max_value=0.9, allow_subnormal=False)


@given(st.lists(st.tuples(moments, ways, ways), min_size=1, max_size=8))
def test_answers_that_take_their_time_turn_no_clock_back(calls):
    """Calls one after the other or all at once, each with its own way there and back: what the clock shows only goes forward,
    and is behind the store's by no more than the way of an answer."""
    host = Host(NOW, 1000.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_hosttime, "time", host)
        clock = HostTime()
        heard = sorted(  # when, asked when, told what
            (1000.0 + began + there + back, 1000.0 + began, NOW + began + there)
            for began, there, back in calls
        )
        for at, asked, told in heard:
            shown, host.at = clock.now(), at
            assert clock.now() >= shown
            shown = clock.now()
            clock.heard(told, asked)
            assert clock.now() >= shown
            assert NOW + at - 1000.0 - 0.9 - 1e-6 <= clock.now() <= NOW + at - 1000.0 + 1e-6


@pytest.mark.parametrize("step", [-3600.0, -3.0, 3.0, 3600.0])
def test_a_store_whose_clock_was_set_is_followed_at_once(monkeypatch, step):
    """Another server took over, say: what its answer's way can't explain is its time."""
    host = Host(NOW, 1000.0)
    monkeypatch.setattr(_hosttime, "time", host)
    clock = HostTime()
    for heard in (NOW, NOW + step):
        clock.heard(heard, host.at)
        assert clock.now() == heard
        asked, host.at = host.at, host.at + 0.25
        clock.heard(heard + 0.125, asked)
        assert abs(clock.now() - (heard + 0.25)) <= 0.125
        host.at = asked


class Reading:
    """A clock that is read at these moments."""

    def __init__(self, *moments: float) -> None:
        self.moments = list(moments)

    def now(self) -> float:
        """The next one; the last for ever."""
        return self.moments.pop(0) if len(self.moments) > 1 else self.moments[0]

    def sleep(self, seconds: float) -> None:
        """Nobody has to."""
        raise AssertionError(seconds)


def test_a_call_that_another_overtook_decides_at_the_others_moment():
    """It read the clock, and came to decide a little later: no line is ranked anew for that."""
    clock = Reading(NOW)
    with Router([Line(A), Line(B), Line(C)], policy=AT_ONCE, clock=clock) as router:
        router.reserve(ANN)
        clock.moments = [NOW + 0.5, NOW + 0.2, NOW + 0.6]
        made = [router.reserve(BOB)]
        kept = {number: router._desk.fleet.rank(number) for number in (A, B, C)}
        made += [router.reserve(CAT)]
        again = {number: router._desk.fleet.rank(number) for number in (A, B, C)}
    assert [each.decision.at for each in made] == [NOW + 0.5, NOW + 0.5]
    assert [each.decision.delay for each in made] == [0.0, 0.0]
    assert sum(kept[number] is again[number] for number in (A, B, C)) >= 2


@pytest.mark.parametrize("behind", [30.0, 60.0, 299.0])
@pytest.mark.parametrize("priority", ["normal", "urgent"])
def test_a_slow_hosts_clock_does_not_undo_what_a_fast_one_promised(behind, priority):
    """Slots that are taken as far ahead as they may be are still taken for who thinks that it is earlier."""
    policy = Policy.from_dict(
        {
            "limits": {"new_per_day": "off", "new_per_hour": "off"},
            "pace": {"new_gap": 20, "new_burst": 1, "message_gap": 0, "spread": "off"},
            "at_risk": {"pace": 1.0},
            "priority": {"urgent_share": 0.5},
            "learn": {"enabled": False},
        }
    )
    store, people = MemoryStore(), iter(f"+1415{2_000_000 + n}" for n in range(1000))
    sent = []
    for now in (NOW, NOW - behind, NOW):
        with (
            Router([Line(A)], policy=policy, store=store, clock=ManualClock(now)) as router,
            suppress(NoLine),
        ):
            while True:
                sent.append(router.reserve(next(people), priority=priority).send_at)
    assert min(b - a for a, b in pairwise(sorted(sent))) >= 20.0


def test_a_clock_that_was_turned_back_is_believed():
    """What lies further back than calls overtake each other is another time."""
    clock = Reading(NOW)
    with Router([Line(A), Line(B)], policy=AT_ONCE, clock=clock) as router:
        router.reserve(ANN)
        clock.moments = [NOW - 10.0]
        made = router.reserve(BOB)
    assert (made.decision.at, made.decision.delay) == (NOW - 10.0, 0.0)


class Overtaking(MemoryStore):
    """A store at which others are quicker, once."""

    def __init__(self) -> None:
        super().__init__()
        self.others = None

    def swap(self, writes, *, seen={}):  # noqa: B006  as the port has it
        """After theirs."""
        others, self.others = self.others, None
        if others is not None:
            others()
        return super().swap(writes, seen=seen)


def test_who_comes_second_is_decided_upon_anew_at_the_moment_it_is_then(tmp_path):
    """While a reservation is written others take its line, later: the log tells what was decided, and when."""
    path, clock, store = tmp_path / "decisions.jsonl", ManualClock(NOW), Overtaking()
    with Router([Line(A)], policy=AT_ONCE, clock=clock, store=store, record=path) as router:
        router.reserve("+14155550100")

        def others() -> None:
            clock.advance(0.5)
            router.reserve(BOB)
            router.reserve(CAT)

        store.others = others
        made = router.reserve(ANN)
    assert made.decision.at == NOW + 0.5
    assert made.send_at == NOW + 0.5
    assert check([path]).different == 0


class Listing:
    """An account with two lines, one of which comes to be otherwise."""

    status: Literal["ACTIVE", "FLAGGED"] = "ACTIVE"

    def fetch(self):
        """The lines."""
        return [Line(A, status=self.status), Line(B, status="ACTIVE")]


@pytest.mark.parametrize("ago", [60.0, 40_000.0])
def test_what_was_reported_before_the_clock_was_turned_back_is_no_news_of_the_time_since(ago):
    """It seems to be of a time to come: a line that a list has FLAGGED since is out all the same, until lists say otherwise
    long enough."""
    clock, account = ManualClock(NOW), Listing()
    with Router(account, policy=AT_ONCE, clock=clock) as router:
        router.refresh()
        assert router.report(LineChanged(A, status="FLAGGED", at=NOW))
        clock.advance(ago)
        assert router.report(LineChanged(A, status="ACTIVE", at=NOW + ago))
        clock.advance(-3600.0)
        account.status = "FLAGGED"
        router.refresh()
        account.status, usable = "ACTIVE", []
        for _ in range(5):
            clock.advance(30.0)
            router.refresh()
            (view,) = (each for each in router.lines() if each.line.number == A)
            usable.append(view.standing == "ok")
    assert usable == [False, False, True, True, True]
