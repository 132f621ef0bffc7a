"""A clock that stepped back: what began in a time that is yet to come is over, by the process that saw it and by another one.

What is kept of lines' pace and budgets then, test_invariants.py tells.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from linepicker import (
    Blocked,
    Delivered,
    Failed,
    Held,
    Line,
    LineChanged,
    LineReleased,
    NoLine,
    NotNow,
    OptedOut,
    Outcome,
    Policy,
    Replied,
    Reservation,
    Router,
    SourceError,
    StaleHealth,
)
from linepicker.model import ChatHealth, ChatHealthChanged
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

NOW, HOUR, DAY = 1_790_000_000.0, 3600.0, 86400.0
A, B = "+12025550101", "+12025550102"
ANN, BOB, CAT = "+14155550101", "+14155550102", "+14155550103"
RULES = {
    "limits": {"pair_per_minute": 2, "new_per_day": "off", "new_per_hour": "off"},
    "pace": {"new_gap": 0, "message_gap": 0, "spread": "off"},
    "learn": {"enabled": False},
    "recovery": {"ineligible": 100},
    "conversation": {"unanswered": "enforce", "unanswered_after": 5},
}

Again = Callable[[], Router]


class Account:
    """A list that can be changed."""

    def __init__(self) -> None:
        self.lines = [Line(A)]

    def fetch(self) -> list[Line]:
        """As it is."""
        return self.lines


@pytest.fixture
def account() -> Account:
    """One line."""
    return Account()


@pytest.fixture
def clock() -> ManualClock:
    """It shows some day."""
    return ManualClock(NOW)


@pytest.fixture(params=["the same process", "another process"])
def router(request, account, clock) -> tuple[Router, Again]:
    """A router, and the one that goes on after the step."""
    store = MemoryStore()

    def make() -> Router:
        return Router(account, store=store, policy=Policy.from_dict(RULES), clock=clock)

    first = make()
    return first, (lambda: first) if request.param == "the same process" else make


def settled(made: Reservation, outcome: Outcome = Outcome.SENT, **more) -> Reservation:
    """A reservation, and what became of it."""
    made.settle(outcome, **more)
    return made


def test_a_pair_is_not_kept_waiting_by_messages_of_a_time_to_come(router, clock):
    """After the step two leave within a minute, as before it."""
    first, again = router
    settled(first.reserve(ANN))
    settled(first.reserve(ANN))
    with pytest.raises(NotNow):
        first.reserve(ANN)
    clock.advance(-DAY)
    after = again()
    assert settled(after.reserve(ANN)).delay == 0.0
    settled(after.reserve(ANN))
    with pytest.raises(NotNow) as caught:
        after.reserve(ANN)
    assert caught.value.decision.reason == "pair"
    assert caught.value.retry_at == clock.now() + 60


def test_a_step_back_within_the_hosts_differences_forgets_nothing(router, clock):
    """Five minutes, and what a promise may take."""
    first, again = router
    settled(first.reserve(ANN))
    settled(first.reserve(ANN))
    clock.advance(-600)
    with pytest.raises(NotNow) as caught:
        again().reserve(ANN)
    assert caught.value.retry_at == NOW + 60


def test_a_promise_far_ahead_is_not_taken_for_a_step_back(account, clock):
    """Though everything on the line has left meanwhile, but that."""
    rules = RULES | {"conversation": {"at_risk_gap": 7200}}
    router = Router(account, policy=Policy.from_dict(rules), clock=clock)
    settled(router.reserve(ANN))
    router.report(ChatHealthChanged(at=NOW, to=ANN, number=A, health=ChatHealth.AT_RISK))
    assert settled(router.reserve(ANN, max_delay=2 * HOUR)).delay == 2 * HOUR
    clock.advance(100)
    settled(router.reserve(BOB))
    settled(router.reserve(BOB))
    with pytest.raises(NotNow) as caught:
        router.reserve(ANN)
    assert caught.value.decision.reason == "quiet"
    assert caught.value.retry_at > NOW + 3 * HOUR


def test_a_rate_limit_of_a_time_to_come_is_over(router, clock):
    """And one that is heard of after the step counts."""
    first, again = router
    settled(first.reserve(ANN), Outcome.RATE_LIMITED, retry_after=HOUR)
    clock.advance(-DAY)
    after = again()
    made = after.reserve(ANN)
    settled(made, Outcome.RATE_LIMITED, retry_after=90)
    with pytest.raises(NotNow) as caught:
        after.reserve(ANN)
    assert caught.value.retry_at == clock.now() + 90
    clock.advance(90)
    settled(after.reserve(ANN))


def test_a_rate_limit_of_a_time_to_come_is_over_though_no_message_tells_of_it(router, clock):
    """The one that met it was forgotten for another one, and that was given back."""
    first, again = router
    settled(first.reserve(ANN), Outcome.RATE_LIMITED, retry_after=100)
    clock.advance(101)
    settled(first.reserve(ANN), Outcome.RATE_LIMITED, retry_after=100)
    clock.advance(101)
    made = first.reserve(ANN)
    settled(made, Outcome.NOT_SENT)
    clock.advance(-100)
    with pytest.raises(NotNow):
        again().reserve(ANN)
    clock.advance(100 - DAY)
    settled(again().reserve(ANN))


def test_an_at_risk_conversation_waits_no_longer_than_its_gap(router, clock):
    """Its last message left in a time to come."""
    first, again = router
    settled(first.reserve(ANN))
    first.report(ChatHealthChanged(at=NOW, to=ANN, number=A, health=ChatHealth.AT_RISK))
    clock.advance(-DAY)
    after = again()
    assert settled(after.reserve(ANN)).delay == 0.0
    with pytest.raises(NotNow) as caught:
        after.reserve(ANN)
    assert caught.value.retry_at == pytest.approx(clock.now() + HOUR - 300)


@pytest.mark.parametrize("retry_after", [30.0, None])
def test_a_refusal_of_a_line_is_over(router, clock, retry_after):
    """At once where its end was known; else one at a time may try."""
    first, again = router
    settled(first.reserve(ANN))
    settled(first.reserve(BOB), Outcome.LINE_REFUSED, retry_after=retry_after)
    with pytest.raises(Held):
        first.reserve(ANN)
    clock.advance(-DAY)
    after = again()
    made = after.reserve(ANN)
    if retry_after is None:
        with pytest.raises(NoLine):
            after.reserve(BOB)
    settled(made)
    settled(after.reserve(BOB))


def test_a_refusal_after_the_step_counts(router, clock):
    """As long as it says."""
    first, again = router
    settled(first.reserve(ANN))
    settled(first.reserve(ANN), Outcome.LINE_REFUSED, retry_after=30)
    clock.advance(-DAY)
    after = again()
    settled(after.reserve(ANN), Outcome.LINE_REFUSED, retry_after=40)
    with pytest.raises(Held) as caught:
        after.reserve(ANN)
    assert caught.value.retry_at == clock.now() + 40


def test_an_open_trial_keeps_a_line_for_its_lease(router, clock):
    """Ten minutes from the step on, and not until the time comes again."""
    first, again = router
    settled(first.reserve(ANN), Outcome.LINE_REFUSED)
    clock.advance(101)
    first.reserve(BOB)
    clock.advance(-DAY)
    after = again()
    after.lines()
    with suppress(NoLine):
        after.reserve(CAT)
    clock.advance(601)
    settled(after.reserve(CAT))


def test_a_time_out_of_a_line_whose_messages_failed_ends_in_a_trial(router, clock):
    """Whose delivery ends it."""
    first, again = router
    for n in range(60):
        made = first.reserve(f"+1415556{n:04d}")
        settled(made, message_id=f"m{n}")
        first.report(Failed(at=NOW, number=A, message_id=f"m{n}"))
        if first.lines()[0].standing == "failing":
            break
    assert first.lines()[0].standing == "failing"
    clock.advance(-DAY)
    after = again()
    clock.advance(1)
    settled(after.reserve(BOB), message_id="after")
    assert after.lines()[0].standing == "failing"
    assert after.report(Delivered(at=clock.now(), number=A, message_id="after"))
    assert after.lines()[0].standing == "ok"


def test_a_line_that_was_taken_away_comes_back_with_the_list(router, clock, account):
    """A release of a time to come does not outlast the lists that have the line."""
    first, again = router
    account.lines = [Line(A), Line(B)]
    first.refresh()
    settled(first.reserve(ANN))
    assert first.report(LineReleased(A, at=NOW)) or first.report(LineReleased(A, at=NOW + 1))
    assert {each.line.number: each.standing for each in first.lines()}[A] == "not_in_fleet"
    clock.advance(-DAY)
    after = again()
    for _ in range(2):
        clock.advance(61)
        after.refresh()
    assert {each.line.number: each.standing for each in after.lines()}[A] == "ok"


def test_a_reply_after_the_step_is_an_answer(router, clock):
    """Though they wrote in a time to come already."""
    first, again = router
    made = settled(first.reserve(ANN))
    assert first.report(Replied(to=ANN, number=made.number, at=NOW, text="yes"))
    for _ in range(5):
        clock.advance(61)
        settled(first.reserve(ANN))
    clock.advance(-DAY)
    after = again()
    with pytest.raises(Held):
        after.reserve(ANN)
    assert after.report(Replied(to=ANN, number=made.number, at=clock.now() - 2, text="hello"))
    settled(after.reserve(ANN))


def test_what_the_provider_thinks_of_a_conversation_after_the_step_counts(router, clock):
    """Though it thought something of it in a time to come already."""
    first, again = router
    settled(first.reserve(ANN))
    first.report(ChatHealthChanged(at=NOW, to=ANN, number=A, health=ChatHealth.CRITICAL))
    clock.advance(-DAY)
    after = again()
    with pytest.raises(Held):
        after.reserve(ANN)
    good = ChatHealthChanged(at=clock.now() - 2, to=ANN, number=A, health=ChatHealth.HEALTHY)
    assert after.report(good)
    settled(after.reserve(ANN))


def test_a_reservation_that_is_written_after_the_step_counts_from_then_on(clock):
    """It was made before; meanwhile another call of that process has seen the step."""

    class Slow(MemoryStore):
        meanwhile: Callable[[], object] | None = None

        def swap(self, writes, **more):
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                meanwhile()
            return super().swap(writes, **more)

    def step() -> None:
        clock.advance(-2 * DAY)
        router.preview(CAT)

    store, rules = Slow(), RULES | {"limits": {"new_per_day": 1}}
    router = Router([Line(A)], store=store, policy=Policy.from_dict(rules), clock=clock)
    router.refresh()
    store.meanwhile = step
    settled(router.reserve(ANN))
    with pytest.raises(NoLine) as caught:
        router.reserve(BOB)
    assert caught.value.retry_at == clock.now() + DAY


def test_a_list_that_could_not_be_read_is_asked_for_again(clock):
    """Not only when the time comes again at which it was to be: by then nobody could have been written to for a day."""
    failing = [True]

    class Source:
        def fetch(self):
            if failing:
                raise SourceError("the token is wrong", fatal=True)
            return [Line(A)]

    router = Router(Source(), policy=Policy.from_dict(RULES), clock=clock)
    with pytest.raises(StaleHealth):
        router.reserve(ANN)
    failing.clear()
    with pytest.raises(StaleHealth):
        router.reserve(ANN)
    clock.advance(-DAY)
    assert router.reserve(ANN).number == A


def test_an_opt_out_outlasts_every_step(router, clock):
    """Nothing that stands against a message by a person's own word is forgotten."""
    first, again = router
    settled(first.reserve(ANN))
    first.report(OptedOut(ANN, at=NOW))
    clock.advance(-DAY)
    assert again().preview(ANN).reason == "opted_out"


class Hooked(MemoryStore):
    """Something happens while it reads a key of a kind, once."""

    kind, happens = "", staticmethod(lambda: None)

    def read(self, keys):
        """After that."""
        if self.kind and any(self.kind in key for key in keys):
            self.kind = ""
            self.happens()
        return super().read(keys)


@pytest.mark.parametrize(
    ("kind", "look"),
    [
        ("/tally", lambda router, clock: router.lines()),
        ("to/", lambda router, clock: router.plan([BOB, CAT], deadline=clock.now() + HOUR)),
        ("to/", lambda router, clock: router.plan([BOB], deadline=clock.now() + HOUR, hold=True)),
        ("line/", lambda router, clock: router.capacity(horizon=clock.now() + DAY)),
    ],
)
def test_who_looked_before_the_step_leaves_nothing_of_it(clock, kind, look):
    """A look at all lines that is under way as the clock steps back, and as another call has seen that it did, does not have
    them taken for looked after."""
    store = Hooked()
    rules = Policy.from_dict({**RULES, "limits": {"new_per_day": 1, "new_per_hour": "off"}})
    with Router([Line(A)], store=store, policy=rules, clock=clock) as router:
        router.reserve(ANN).settle("SENT")

        def stepped():
            clock.advance(-5 * HOUR)
            router.report(Replied(B, BOB, at=clock.now()))

        store.kind, store.happens = kind, stepped
        with suppress(NoLine, NotNow):
            look(router, clock)
        assert not store.kind
        assert clock.now() == NOW - 5 * HOUR
        opens_at = router.preview(CAT).retry_at
        assert opens_at is not None
        assert opens_at <= clock.now() + DAY


def test_who_is_kept_off_as_the_clock_steps_back_leaves_nothing_of_the_time_before(clock):
    """A check gives the reservation back, the clock steps back meanwhile, and another call sees that it did: what the refusal
    then says of the lines is of now, and so is what comes after it."""
    store = MemoryStore()
    rules = Policy.from_dict({**RULES, "limits": {"new_per_day": 1, "new_per_hour": "off"}})
    with Router([Line(A), Line(B)], store=store, policy=rules, clock=clock) as router:
        made = router.reserve(ANN)
        router.reserve(BOB).settle("SENT")
        router.pause(made.number)
        swap = store.swap

        def stepped(writes, *, seen={}):  # noqa: B006  as the port has it
            store.swap = swap
            clock.advance(-5 * HOUR)
            router.report(Replied(B, CAT, at=clock.now()))
            return swap(writes, seen=seen)

        store.swap = stepped
        with pytest.raises(Held, match="paused") as caught:
            made.check()
        assert clock.now() == NOW - 5 * HOUR
        told = [each.opens_at for each in caught.value.decision.candidates]
        told.append(router.preview("+14155550199").retry_at)
        assert all(each is None or each <= clock.now() + DAY for each in told)


def test_a_refusal_that_ends_while_the_reservation_is_given_back_was_told_before(clock):
    """A slow store: the wait that a check tells is over by the time it has given the reservation back. What is told is of when
    it was decided, with a moment after that to come again at."""
    store = MemoryStore()
    with Router(
        [Line(A), Line(B)], store=store, policy=Policy.from_dict(RULES), clock=clock
    ) as router:
        made = router.reserve(ANN)
        other = router.reserve(BOB, line=made.number)
        other.settle("LINE_REFUSED", retry_after=30.0)
        swap = store.swap

        def slow(writes, *, seen={}):  # noqa: B006  as the port has it
            store.swap = swap
            clock.advance(HOUR)
            return swap(writes, seen=seen)

        store.swap = slow
        with pytest.raises(Held, match="ineligible") as caught:
            made.check()
        decision = caught.value.decision
        assert decision.at == NOW
        assert decision.at < caught.value.retry_at <= NOW + HOUR


def test_a_slow_report_takes_nothing_that_it_reads_for_yet_to_come(clock, account):
    """While it waits for the store, another process reads that the line is flagged; what was seen then keeps its date, so that
    an older word does not overtake it."""
    account.lines = [Line(A, status="ACTIVE")]
    store = MemoryStore()
    rules = Policy.from_dict(RULES)
    with (
        Router(account, store=store, policy=rules, clock=clock) as first,
        Router(account, store=store, policy=rules, clock=clock) as second,
    ):
        first.refresh()
        second.refresh()
        swap = store.swap

        def slow(writes, *, seen={}):  # noqa: B006  as the port has it
            store.swap = swap
            clock.advance(30)
            account.lines = [Line(A, status="FLAGGED")]
            second.refresh()
            clock.advance(30)
            return swap(writes, seen=seen)

        store.swap = slow
        first.report(LineChanged(A, status="FLAGGED", at=NOW))
        assert not first.report(LineChanged(A, status="ACTIVE", at=NOW + 15))
        with pytest.raises(NoLine, match="flagged"):
            first.reserve(ANN)


def test_a_refusal_of_long_ago_does_not_take_what_came_after_it_for_a_step_back(clock):
    """The clock leaps a day ahead while a check gives a reservation back, and another process opens a conversation
    on that line: its charge stays where it is, whatever the check still has to tell."""
    store = MemoryStore()
    rules = Policy.from_dict({**RULES, "limits": {"new_per_day": 1, "new_per_hour": "off"}})
    with (
        Router([Line(A)], store=store, policy=rules, clock=clock) as router,
        Router([Line(A)], store=store, policy=rules, clock=clock) as other,
    ):
        made = router.reserve(ANN)
        other.report(OptedOut(ANN, at=NOW))
        swap = store.swap

        def slow(writes, *, seen={}):  # noqa: B006  as the port has it
            store.swap = swap
            clock.advance(DAY + HOUR)
            other.reserve(BOB).settle("SENT")
            return swap(writes, seen=seen)

        store.swap = slow
        with pytest.raises(Blocked):
            made.check()
        clock.advance(60)
        with pytest.raises(NoLine, match="day_budget"):
            router.reserve(CAT)
