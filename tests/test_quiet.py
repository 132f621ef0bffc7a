"""Quiet hours: whose clock counts, when they end, and that nobody is written to in them."""

import subprocess
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linepicker import (
    AsyncRouter,
    Held,
    Line,
    LineChanged,
    NoLine,
    NotNow,
    OptedOut,
    Policy,
    PolicyError,
    Router,
    ServiceStatus,
)
from linepicker._quiet import AHEAD, Hours, is_on, quiet_until, rest_of
from linepicker.policy import Quiet
from linepicker.testing import ManualClock

A, B = "+12025550100", "+12025550101"
YORKER, LONDONER, ANGELENO, TOKYOITE = (
    "+12125550101",
    "+442079460101",
    "+13105550101",
    "+81312345678",
)
MAIL = "cat@example.com"
HOUR, DAY = 3600.0, 86400.0
HOURS = {
    "hours": "21:00-08:00",
    "zone": "America/New_York",
    "prefix": {
        "+44": {"zone": "Europe/London"},
        "+1310": {"zone": "America/Los_Angeles"},
        "+81": {"zone": "Asia/Tokyo", "hours": "22:00-07:00"},
        "+1800": {"hours": "off"},
    },
}
ZONES = [
    "UTC",
    "America/New_York",
    "America/Los_Angeles",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
    "Europe/London",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Honolulu",
]


def moment(text: str, zone: str = "UTC", fold: int = 0) -> float:
    """An epoch moment, as a zone's clock shows it."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def hours(window: str, zone: str) -> Hours:
    """One window in one zone."""
    (found,) = rest_of(Quiet(hours=window, zone=zone), ["+12025550199"])
    return found


def shows(each: Hours, at: float) -> bool:
    """Whether the zone's clock shows a time of the window, worked out the long way."""
    shown = datetime.fromtimestamp(at, UTC).astimezone(each.zone)
    minutes = 60 * (60 * shown.hour + shown.minute) + shown.second
    if each.start < each.end:
        return each.start <= minutes < each.end
    return not each.end <= minutes < each.start


# The hours alone

windows = (
    st.tuples(st.integers(0, 95), st.integers(0, 95))
    .filter(lambda each: each[0] != each[1])
    .map(lambda each: "-".join(f"{q // 4:02}:{q % 4 * 15:02}" for q in each))
)
moments = st.integers(int(moment("2015-01-01")), int(moment("2040-01-01")))


@given(windows, st.sampled_from(ZONES), moments)
@example("21:00-02:30", "America/New_York", int(moment("2026-03-08 01:59", "America/New_York")))
@example("21:00-01:30", "America/New_York", int(moment("2026-11-01 01:29", "America/New_York")))
@example(
    "23:45-00:15", "Australia/Lord_Howe", int(moment("2026-04-04 23:50", "Australia/Lord_Howe"))
)
@example("00:00-23:45", "Pacific/Apia", int(moment("2021-09-25 12:00", "Pacific/Apia")))
def test_they_run_while_the_clock_shows_them(window, zone, at):
    """They end at the first moment at which the clock where they are shows another time, whatever was done to it."""
    each = hours(window, zone)
    ends = quiet_until((each,), at)
    assert (ends is not None) == shows(each, at)
    if ends is None:
        return
    assert at < ends <= at + 2 * DAY
    assert not shows(each, ends)
    assert shows(each, ends - 1)
    step = max(1, int(ends - at) // 50)
    assert all(shows(each, between) for between in range(at, int(ends), step))


@given(st.lists(st.tuples(windows, st.sampled_from(ZONES)), min_size=1, max_size=4), moments)
def test_of_several_all_count(pairs, at):
    """Zones and members together: quiet while any of them is, and free at the moment that is given."""
    rest = tuple(hours(*pair) for pair in pairs)
    ends = quiet_until(rest, at)
    if ends is None:
        assert not any(shows(each, at) for each in rest)
    elif ends == float("inf"):
        assert all(any(shows(each, at + s) for each in rest) for s in range(0, int(AHEAD), 900))
    else:
        assert not any(shows(each, ends) for each in rest)
        step = max(1, int(ends - at) // 50)
        assert all(any(shows(each, t) for each in rest) for t in range(at, int(ends), step))


@pytest.mark.parametrize(
    ("window", "at", "ends"),
    [
        ("21:00-08:00", "2026-12-01 20:59:59", None),
        ("21:00-08:00", "2026-12-01 21:00", "2026-12-02 08:00"),
        ("21:00-08:00", "2026-12-02 00:00", "2026-12-02 08:00"),
        ("21:00-08:00", "2026-12-02 08:00", None),
        ("12:00-13:30", "2026-12-02 12:10", "2026-12-02 13:30"),
        ("12:00-13:30", "2026-12-02 13:30", None),
        ("21:00-08:00", "2026-03-07 22:00", "2026-03-08 08:00"),  # 9 hours: the clock goes forward
        ("21:00-08:00", "2026-10-31 22:00", "2026-11-01 08:00"),  # 11 hours: it goes back
    ],
)
def test_windows_of_a_day_and_over_midnight(window, at, ends):
    """The end is by the local clock, also in the nights that are an hour shorter or longer."""
    zone = "America/New_York"
    found = quiet_until((hours(window, zone),), moment(at, zone))
    assert found == (None if ends is None else moment(ends, zone))


def test_the_longest_prefix_tells():
    """Of the prefixes that a number has, the longest counts; what it leaves out is the pool's; an email is the pool's."""
    quiet = Quiet(**HOURS)

    def told(*handles):
        return {
            (each.start // 3600, each.end // 3600, each.zone.key)
            for each in rest_of(quiet, handles)
        }

    assert told(YORKER) == told(MAIL) == {(21, 8, "America/New_York")}
    assert told(ANGELENO) == {(21, 8, "America/Los_Angeles")}
    assert told(TOKYOITE) == {(22, 7, "Asia/Tokyo")}
    assert told("+18005550101") == set()
    assert told(YORKER, LONDONER, MAIL) == told(YORKER) | told(LONDONER)


def test_off_unless_somebody_has_hours():
    """Without hours nothing is looked at; those of a prefix alone are enough."""
    assert not is_on(Quiet())
    assert not is_on(Quiet(zone="Asia/Tokyo", prefix={"+44": {"zone": "Europe/London"}}))
    assert not is_on(Quiet(prefix={"+44": {"hours": "off"}}))
    assert is_on(Quiet(prefix={"+44": {"hours": "21:00-08:00"}}))
    assert rest_of(Quiet(prefix={"+44": {"hours": "21:00-08:00"}}), [YORKER]) == ()


def test_a_number_may_tell_where_it_is():
    """With `by_number` its region's zone counts, all of them where it does not tell; a prefix outweighs it."""
    quiet = Quiet(
        hours="21:00-08:00", zone="Asia/Tokyo", by_number=True, prefix={"+1310": {"zone": "UTC"}}
    )

    def zones(handle):
        return {each.zone.key for each in rest_of(quiet, [handle])}

    assert zones(YORKER) == {"America/New_York"}
    assert zones("+18085550101") == {"Pacific/Honolulu"}
    assert zones(ANGELENO) == {"UTC"}
    assert "Europe/London" in zones("+447700900123")
    assert {"Europe/Moscow", "Asia/Vladivostok"} <= zones("+79161234567")
    assert zones(MAIL) == zones("+9990000001") == {"Asia/Tokyo"}


def test_without_the_package_by_number_is_refused_at_once():
    """A router that can't know the zones says which extra is missing, when it is made and when it gets the policy."""
    script = """
import sys
sys.modules["phonenumbers"] = None
from linepicker import Policy, PolicyError, Router
lost = Policy(quiet={"hours": "21:00-08:00", "by_number": True})
Router([], policy=Policy(quiet={"by_number": True}))
for door in (lambda: Router([], policy=lost), lambda: Router([]).reload(lost)):
    try:
        door()
    except PolicyError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("quiet.by_number needs a package that is not installed") == 2


# The router


def opened(at: str, zone: str = "America/New_York", lines=(A, B), **tables):
    """A router over two lines at that local time."""
    clock = ManualClock(moment(at, zone))
    policy = Policy.from_dict({"quiet": HOURS, "learn": {"enabled": False}, **tables})
    return Router([Line(each) for each in lines], policy=policy, clock=clock), clock


def test_a_new_recipient_is_refused_until_they_end():
    """NoLine with the code and the end; then they get a line."""
    router, clock = opened("2026-12-01 22:00")
    with pytest.raises(NoLine) as caught:
        router.reserve(YORKER)
    assert caught.value.retry_at == moment("2026-12-02 08:00", "America/New_York")
    decision = caught.value.decision
    assert (decision.outcome, decision.reason, decision.number) == ("no_line", "quiet", None)
    assert decision.kind == "new"
    assert decision.notes == ("quiet hours in America/New_York",)
    assert {each.excluded for each in decision.candidates} == {"quiet"}
    assert {each.opens_at for each in decision.candidates} == {caught.value.retry_at}
    clock.set(caught.value.retry_at)
    assert router.reserve(YORKER).delay == 0


def test_a_known_recipient_waits_too():
    """NotNow on their line, and so for a line that is asked for."""
    router, clock = opened("2026-12-01 22:00")
    router.assign(YORKER, B)
    for to, more, kind in ((YORKER, {}, "known"), ("+12125550102", {"line": A}, "new")):
        with pytest.raises(NotNow) as caught:
            router.reserve(to, **more)
        assert (caught.value.decision.reason, caught.value.decision.kind) == ("quiet", kind)
        assert caught.value.retry_at == moment("2026-12-02 08:00", "America/New_York")
    clock.set(caught.value.retry_at)
    assert router.reserve(YORKER).number == B


def test_a_conversation_that_is_held_is_held_at_night_too():
    """That it has gone quiet outlasts the night, so the morning is not promised."""
    router, clock = opened(
        "2026-12-01 12:00", conversation={"unanswered": "enforce", "unanswered_after": 1}
    )
    router.reserve(YORKER).settle("SENT")
    clock.advance(10 * HOUR)
    with pytest.raises(Held) as caught:
        router.reserve(YORKER)
    assert caught.value.decision.notes == ("1 messages without a reply",)
    assert caught.value.retry_at == clock.now() + 60  # the next poll


def test_preview_says_so():
    """A preview in quiet hours is what reserve would refuse."""
    router, _ = opened("2026-12-01 22:00")
    made = router.preview(YORKER)
    assert (made.outcome, made.reason) == ("no_line", "quiet")
    assert made.retry_at == moment("2026-12-02 08:00", "America/New_York")
    router.assign(YORKER, A)
    assert router.preview(YORKER).outcome == "not_now"


def test_who_wrote_first_is_answered():
    """inbound=True is served at night, whether they are known or not."""
    router, _ = opened("2026-12-01 22:00")
    assert router.reserve(YORKER, inbound=True, line=A).kind == "known"
    made = router.reserve(YORKER, inbound=True)
    made.check()
    assert made.outcome is None


def test_each_by_their_own_clock():
    """At ten at night in New York Los Angeles is awake and London asleep; Tokyo is up by its own hours."""
    router, _ = opened("2026-12-01 22:00")
    assert router.preview(ANGELENO).outcome == "reserved"
    assert router.preview(TOKYOITE).outcome == "reserved"
    assert router.preview("+18005550101").outcome == "reserved"
    london = router.preview(LONDONER)
    assert london.retry_at == moment("2026-12-02 08:00", "Europe/London")


def test_a_group_is_quiet_while_any_member_is():
    """The last one to wake decides."""
    router, _ = opened("2026-12-01 22:00")
    made = router.preview([ANGELENO, LONDONER])
    # London wakes at 00:00 in Los Angeles, which sleeps until 08:00, 16:00 in London.
    assert made.retry_at == moment("2026-12-02 08:00", "America/Los_Angeles")
    assert router.preview([ANGELENO, "+13105550102"]).outcome == "reserved"


def test_a_group_without_a_common_hour_is_asked_again_later():
    """Where the members leave no gap, nobody knows when, so it is the next poll."""
    tables = {"quiet": {"hours": "18:00-09:00", "prefix": {"+81": {"zone": "Asia/Tokyo"}}}}
    router, clock = opened("2026-12-01 20:00", "UTC", **tables)
    with pytest.raises(NoLine) as caught:
        router.reserve([YORKER, TOKYOITE])
    assert caught.value.retry_at == clock.now() + 60


def test_send_waits_for_the_morning_if_it_may():
    """max_wait reaches over quiet hours; without it the refusal is raised."""
    router, clock = opened("2026-12-02 07:50")
    with pytest.raises(NoLine):
        router.send(YORKER, lambda made: made.number)
    assert router.send(YORKER, lambda made: made.number, max_wait=700.0) in {A, B}
    assert clock.now() == moment("2026-12-02 08:00", "America/New_York")


def test_no_slot_falls_into_quiet_hours():
    """A minute before they begin a line whose slot would come later is no use, and one that is free now is."""
    tables = {"pace": {"new_gap": 120, "new_burst": 1, "spread": "off"}}
    router, _ = opened("2026-12-01 20:59", **tables)
    found = {router.reserve(f"+1212555020{n}").number for n in range(2)}
    assert found == {A, B}
    with pytest.raises(NoLine) as caught:
        router.reserve(YORKER)
    assert caught.value.decision.reason == "quiet"
    assert caught.value.retry_at == moment("2026-12-02 08:00", "America/New_York")
    assert router.reserve(ANGELENO).delay == 120
    router.assign(YORKER, A)
    assert router.reserve(YORKER).delay == 0


def test_a_healthy_line_that_is_late_yields_to_one_that_is_free():
    """Shortly before quiet hours only what may leave at once counts, whatever its tier."""
    clock = ManualClock(moment("2026-12-01 20:59", "America/New_York"))
    policy = Policy.from_dict(
        {"quiet": HOURS, "pace": {"new_gap": 120, "new_burst": 1, "spread": "off"}}
    )
    router = Router([Line(A), Line(B, reputation="AT_RISK")], policy=policy, clock=clock)
    assert router.reserve(ANGELENO).number == A
    made = router.reserve(YORKER)
    assert (made.number, made.delay) == (B, 0)


def test_retry_at_is_a_moment_at_which_they_are_awake():
    """A refusal for want of room, whose line opens at night, names the morning; then they are served."""
    tables = {"limits": {"new_per_hour": 1, "pair_per_minute": 1}}
    router, clock = opened("2026-12-01 20:59:30", lines=(A,), **tables)
    router.assign(YORKER, A)
    router.reserve(YORKER)
    router.reserve(ANGELENO)
    morning = moment("2026-12-02 08:00", "America/New_York")
    for to, error, reason in ((YORKER, NotNow, "pair"), (MAIL, NoLine, "hour_budget")):
        with pytest.raises(error) as caught:
            router.reserve(to)
        assert caught.value.decision.reason == reason
        assert caught.value.retry_at == morning
    clock.set(morning)
    assert {router.reserve(to).delay for to in (YORKER, MAIL)} == {0}


def test_paced_out_until_the_night_is_until_the_morning():
    """What could be asked for in time, but would leave too late, is put off until the end."""
    tables = {"pace": {"new_gap": 400, "new_burst": 1, "spread": "off", "max_delay": 300}}
    router, _ = opened("2026-12-01 20:54", lines=(A,), **tables)
    router.reserve(ANGELENO)
    with pytest.raises(NoLine) as caught:
        router.reserve(YORKER)
    assert caught.value.decision.reason == "pace"
    assert caught.value.retry_at == moment("2026-12-02 08:00", "America/New_York")


def test_a_reservation_that_waited_too_long_is_checked():
    """Who comes late with a message finds the person asleep: Held, and the charge is given back."""
    router, clock = opened("2026-12-01 20:59")
    made = router.reserve(YORKER)
    clock.advance(120)
    with pytest.raises(Held) as caught:
        made.check()
    assert caught.value.decision.reason == "quiet"
    assert caught.value.retry_at == moment("2026-12-02 08:00", "America/New_York")
    assert router.assignment(YORKER) is None
    late = router.preview([YORKER, "+819012345678"])
    assert late.outcome != "reserved"


def test_a_key_gets_nobody_out_of_bed():
    """The same reservation, asked for again at night, is checked like any other."""
    router, clock = opened("2026-12-01 20:59")
    router.reserve(YORKER, key="k")
    clock.advance(120)
    with pytest.raises(Held):
        router.reserve(YORKER, key="k")


def test_an_opt_out_is_said_first():
    """Who wants no messages at all is not asked to wait."""
    router, _ = opened("2026-12-01 22:00")
    router.report(OptedOut(YORKER, at=0.0))
    assert router.preview(YORKER).outcome == "blocked"


def test_a_person_who_moves_by_policy_moves_by_day():
    """A line's fall at night moves nobody before the morning."""
    router, clock = opened("2026-12-01 20:00")
    was = router.reserve(YORKER).number
    router.report(LineChanged(was, status=ServiceStatus.FLAGGED, at=clock.now()))
    clock.advance(2 * HOUR)
    assert router.preview(YORKER).reason == "quiet"
    clock.set(moment("2026-12-02 08:00", "America/New_York"))
    made = router.reserve(YORKER)
    assert made.kind == "moved"
    assert made.number != was


def test_another_policy_brings_other_hours():
    """A reload changes whose night it is."""
    router, _ = opened("2026-12-01 22:00")
    assert router.preview(YORKER).outcome == "no_line"
    router.reload(Policy())
    assert router.preview(YORKER).outcome == "reserved"
    router.reload(Policy(quiet={"hours": "12:00-13:00", "zone": "UTC"}))
    assert router.preview(YORKER).outcome == "reserved"


async def test_the_async_door_keeps_them_too():
    """AsyncRouter refuses alike, and sleeps until the morning where it may."""
    clock = ManualClock(moment("2026-12-02 07:50", "America/New_York"))
    policy = Policy.from_dict({"quiet": HOURS})
    async with AsyncRouter([Line(A)], policy=policy, clock=clock) as router:
        with pytest.raises(NoLine) as caught:
            await router.reserve(YORKER)
        assert caught.value.retry_at == moment("2026-12-02 08:00", "America/New_York")
        assert (await router.preview(YORKER)).reason == "quiet"

        async def call(made):
            return made.send_at

        assert await router.send(YORKER, call, max_wait=DAY) == caught.value.retry_at


def test_the_package_tells_what_is_missing():
    """A policy whose zone this machine does not know says what to install."""
    with pytest.raises(PolicyError, match="pip install tzdata"):
        Policy(quiet={"zone": "Nowhere/Land"})
