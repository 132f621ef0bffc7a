"""Urgent messages: what is kept for them, that others can't have it, and that together they stay within the line's limits."""

import math
import os
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepicker import AsyncRouter, Line, LineReleased, NoLine, NotNow, Policy, Router
from linepicker._priority import marks
from linepicker._record import Spending
from linepicker.testing import ManualClock

SOME = settings(max_examples=int(os.environ.get("LINEPICKER_EXAMPLES", "40")))
NOW = 1_800_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
A, B = "+12025550100", "+12025550101"


def people(count, prefix="+1212555"):
    """So many recipients."""
    return [f"{prefix}{n:04d}" for n in range(count)]


def keeping(share, *lines, **tables):
    """A router over these lines that keeps a share for urgent messages."""
    policy = Policy.from_dict(
        {"priority": {"urgent_share": share}, "learn": {"enabled": False}, **tables}
    )
    found = [each if isinstance(each, Line) else Line(each) for each in lines or (A,)]
    return Router(found, policy=policy, clock=ManualClock(NOW))


UNPACED = {"new_gap": 0, "message_gap": 0, "spread": "off"}


def until_refused(router, to, **more):
    """How many of these people get a line."""
    for count, each in enumerate(to):
        try:
            router.reserve(each, **more)
        except (NoLine, NotNow) as refused:
            return count, refused.decision.reason
    return len(to), None


@pytest.mark.parametrize(
    ("limits", "pace", "ordinary", "reason", "urgent"),
    [
        ({"new_per_day": 10, "new_per_hour": "off"}, UNPACED, 7, "day_budget", 3),
        ({"new_per_day": 50, "new_per_hour": 9}, UNPACED, 6, "hour_budget", 3),
        (
            {"new_per_day": 20, "new_per_hour": "off"},
            {"new_gap": 0.001, "message_gap": 0, "spread": 0.5},
            7,
            "spread",
            3,
        ),
        ({"new_per_day": 1}, UNPACED, 1, "day_budget", 0),
    ],
)
def test_a_share_of_each_budget_is_kept(limits, pace, ordinary, reason, urgent):
    """Ordinary conversations end before the limit, urgent ones go up to it; one is always left for the others."""
    router = keeping(0.3, limits=limits, pace=pace)
    assert until_refused(router, people(30), max_delay=1.0) == (ordinary, reason)
    more = people(30, "+1646555")
    assert until_refused(router, more, priority="urgent", max_delay=1.0) == (urgent, reason)


def test_urgent_messages_may_use_everything():
    """Without others, they have the whole limit."""
    router = keeping(0.3, limits={"new_per_day": 10, "new_per_hour": "off"}, pace=UNPACED)
    assert until_refused(router, people(30), priority="urgent") == (10, "day_budget")


def test_messages_of_the_day_are_kept_too():
    """Known recipients: what is kept of the day's messages is for urgent ones."""
    router = keeping(0.2, limits={"messages_per_day": 10}, pace=UNPACED)
    known = people(20)
    router.assign_many([(to, A) for to in known])
    assert until_refused(router, known) == (8, "messages")
    assert until_refused(router, known[10:], priority="urgent") == (2, "messages")


def test_an_urgent_message_does_not_queue():
    """Where others have promised slots for minutes ahead, it leaves at once, in a slot of its own."""
    router = keeping(0.2)
    ordinary = [router.reserve(to) for to in people(10)]
    assert ordinary[-1].delay > 100
    made = router.reserve("+16465550000", priority="urgent")
    assert made.delay == 0
    assert made.decision.notes == ("urgent: it may use what is kept from other messages",)
    assert router.reserve("+16465550001", priority="urgent").delay == 100  # 20 s / 0.2
    known = people(10)[0]
    for _ in range(25):
        router.reserve(known)
    assert router.preview(known).delay > 0
    assert router.reserve(known, priority="urgent").delay == 0


def test_it_goes_as_the_others_while_there_is_room():
    """An urgent message that a line takes at once anyway leaves what is kept alone."""
    router = keeping(0.2)
    made = router.reserve("+16465550000", priority="urgent")
    assert (made.delay, made.decision.notes) == (0, ())


def test_a_line_that_is_pinned_or_left_counts_too():
    """line= and a move find what is kept."""
    router = keeping(0.5, A, B, limits={"new_per_day": 2, "moves_per_day": 2}, pace=UNPACED)
    router.reserve("+16465550000", line=A)
    with pytest.raises(NotNow):
        router.reserve("+16465550001", line=A)
    assert router.reserve("+16465550001", line=A, priority="urgent").number == A
    router.reserve("+16465550002", line=B)
    router.report(LineReleased(A, at=NOW))
    assert router.preview("+16465550000").outcome == "held"
    made = router.reserve("+16465550000", priority="urgent")
    assert (made.kind, made.number) == ("moved", B)


def test_what_an_at_risk_line_has_is_shared_likewise():
    """The share is of what AT_RISK leaves; a HEALTHY line's kept room comes first."""
    risky = Line(B, reputation="AT_RISK")
    limits = {"new_per_day": 40, "new_per_hour": "off"}
    router = keeping(0.2, risky, limits=limits, pace=UNPACED)
    assert until_refused(router, people(30)) == (16, "day_budget")
    assert until_refused(router, people(30, "+1646555"), priority="urgent")[0] == 4
    both = keeping(0.2, A, risky, limits=limits, pace=UNPACED)
    for to in people(48):
        both.reserve(to)
    assert [both.reserve(to, priority="urgent").number for to in people(8, "+1646555")] == [A] * 8


def test_a_refusal_names_when_the_kept_share_opens():
    """retry_at is for urgent messages: earlier than for the others where the kept part frees first, and then it is given."""
    router = keeping(0.5, limits={"new_per_day": 2, "new_per_hour": "off"}, pace=UNPACED)
    router.reserve("+16465550000", priority="urgent")
    router._clock.advance(HOUR)
    router.reserve("+16465550001", priority="urgent")
    with pytest.raises(NoLine) as urgent:
        router.reserve("+16465550002", priority="urgent")
    with pytest.raises(NoLine) as ordinary:
        router.reserve("+16465550002")
    assert (urgent.value.retry_at, ordinary.value.retry_at) == (NOW + DAY, NOW + DAY + HOUR)
    router._clock.set(urgent.value.retry_at)
    assert router.reserve("+16465550002", priority="urgent").delay == 0


def test_the_preview_is_what_reserve_decides():
    """Line, delay and notes are the same, and the line is shown as open."""
    router = keeping(0.2, A, B)
    for to in people(20):
        router.reserve(to)
    made = router.preview("+16465550000", priority="urgent")
    given_ = router.reserve("+16465550000", priority="urgent")
    assert (made.number, made.delay, made.notes) == (
        given_.number,
        given_.delay,
        given_.decision.notes,
    )
    assert next(each for each in made.candidates if each.number == made.number).excluded is None


def test_lines_say_what_is_kept():
    """A line's budget is that of ordinary messages, and a sentence says how much more there is."""
    (found,) = keeping(0.2).lines()
    assert (found.budget, found.remaining) == (40, 40)
    assert "10 more new conversations a day are kept for urgent messages." in found.reasons
    (found,) = keeping(0).lines()
    assert (found.budget, found.reasons) == (50, ())


def test_without_a_share_urgent_is_ordinary():
    """Nothing is kept by default, so it changes nothing."""
    router = keeping(0)
    for to in people(10):
        router.reserve(to)
    assert router.preview("+16465550000", priority="urgent") == router.preview("+16465550000")


@pytest.mark.parametrize("wrong", ["high", "", None, 1, "URGENT"])
def test_another_priority_is_refused(wrong):
    """Only two words are known."""
    router = keeping(0.2)
    for verb in (router.reserve, router.preview, lambda to, **more: router.send(to, str, **more)):
        with pytest.raises(ValueError, match='priority must be "normal" or "urgent"'):
            verb("+16465550000", priority=wrong)


def test_a_released_urgent_reservation_is_given_back():
    """What it took of a budget is free again."""
    router = keeping(0.5, limits={"new_per_day": 2}, pace=UNPACED)
    router.reserve("+16465550000")
    router.reserve("+16465550001", priority="urgent").release()
    assert router.reserve("+16465550002", priority="urgent").number == A


def test_marks_of_its_own_are_carried_by_the_record():
    """They are part of the line's spending, before whatever a later version may have written."""
    assert marks(Spending()) == marks(Spending(rest=b"something newer")) == (0.0, 0.0)
    router = keeping(0.2)
    for to in people(10):
        router.reserve(to)
    state = router._desk.fleet.state(A)
    state.spending.rest = b"newer"
    router.reserve("+16465550000", priority="urgent")
    again = Spending.decode(router._desk.fleet.state(A).spending.encode())
    assert marks(again) == (NOW + 100, 0.0)
    assert again.rest.endswith(b"newer")
    router.reserve("+16465550001", priority="urgent")
    assert marks(router._desk.fleet.state(A).spending)[0] == NOW + 200


def test_a_clock_that_stepped_back_keeps_no_urgent_message_waiting():
    """A mark that only such a clock explains is brought to one burst ahead."""
    router = keeping(0.2, limits={"new_per_day": 200, "new_per_hour": "off"})
    for to in people(10):
        router.reserve(to)
    router.reserve("+16465550000", priority="urgent")
    router._clock.advance(-30 * DAY)
    router.lines()
    for to in people(10, "+1303555"):
        router.reserve(to)
    assert router.reserve("+16465550001", priority="urgent").delay <= 100


steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 3.0, 40.0, 700.0]), st.booleans(), st.booleans()),
    max_size=60,
)


@SOME
@given(
    steps,
    st.sampled_from([0.05, 0.2, 0.5]),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([0.0, 60.0, 300.0]),
    st.sampled_from(["HEALTHY", "AT_RISK"]),
)
def test_together_they_keep_the_lines_limits(
    stories, share, new_burst, message_burst, delay, reputation
):
    """Whatever is asked for in whatever order, no window and no pace is ever overrun, and others never take what is kept."""
    pace = {
        "new_gap": 20.0,
        "new_burst": new_burst,
        "message_gap": 3.0,
        "message_burst": message_burst,
        "max_delay": delay,
        "spread": "off",
    }
    limits = {"new_per_day": 12, "new_per_hour": 8, "messages_per_day": 40}
    router = keeping(share, Line(A, reputation=reputation), pace=pace, limits=limits)
    known = people(3)
    router.assign_many([(to, A) for to in known])
    slow = 0.5 if reputation == "AT_RISK" else 1.0
    opened, left, asked = [], [], []
    for n, (wait, urgent, new) in enumerate(stories):
        router._clock.advance(wait)
        priority = "urgent" if urgent else "normal"
        to = f"+1646555{n:04d}" if new else known[n % 3]
        ordinary = router.preview(to)
        made = router.preview(to, priority="urgent")
        if ordinary.outcome == "reserved":
            assert (made.outcome, made.delay <= ordinary.delay) == ("reserved", True)
        try:
            found = router.reserve(to, priority=priority)
        except (NoLine, NotNow):
            continue
        (opened if new else left).append((found.send_at, urgent))
        asked += [router._clock.now()] * new
        found.settle("SENT")
    for window, limit in ((DAY, int(12 * slow)), (HOUR, int(8 * slow))):
        most = max(1, limit)
        others = max(1, most - math.ceil(share * most - 1e-9))
        for n, (at, urgent) in enumerate(opened):
            assert sum(at - window < each <= at for each, _ in opened) <= most
            before = sum(each > asked[n] - window for each, _ in opened[: n + 1])
            assert urgent or before <= others
    burst = max(1, int(new_burst * slow))
    conforms([at for at, _ in opened], 20.0 / slow, burst)
    if not opened:
        conforms([at for at, _ in left], 3.0 / slow, max(1, int(message_burst * slow)))


def conforms(times, gap, burst):
    """No stretch of time holds more than a burst and what its length allows."""
    times = sorted(times)
    for (i, one), (j, other) in combinations(enumerate(times), 2):
        assert j - i + 1 <= burst + (other - one) / gap + 1e-6


async def test_the_async_door_knows_urgent_too():
    """AsyncRouter takes the same word, in all three verbs."""
    policy = Policy.from_dict({"priority": {"urgent_share": 0.2}})
    async with AsyncRouter([Line(A)], policy=policy, clock=ManualClock(NOW)) as router:
        for to in people(10):
            await router.reserve(to)
        assert (await router.preview("+16465550000", priority="urgent")).delay == 0
        assert (await router.reserve("+16465550000", priority="urgent")).delay == 0

        async def call(made):
            return made.delay

        assert await router.send("+16465550001", call, priority="urgent") == 100
        with pytest.raises(ValueError, match="priority"):
            await router.reserve("+16465550002", priority="soon")
