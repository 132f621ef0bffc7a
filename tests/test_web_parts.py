"""What the status page draws and says, before anybody asks for it over HTTP; and the past that a line's record keeps for it."""

import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepicker import AsyncRouter, Line, LineChanged, NoLine, Policy, Router
from linepicker._line import PAST_AT_MOST, called, remembering
from linepicker._record import Standing, standing_key
from linepicker._windows import DAY, ROWS, SPREAD, WEEK
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock
from linepicker.web import pages, rows, strip
from linepicker.web.door import Door
from linepicker.web.ring import KEPT, Ring

NOW = 1_790_000_000.0
ONE, TWO = "+12025550100", "+12025550101"
PERSON = "+12125550123"
NAMES = ["HEALTHY", "AT_RISK", "CRITICAL", "FLAGGED"]

counts = st.lists(st.integers(0, 60), min_size=strip.DAYS, max_size=strip.DAYS).map(tuple)
changes = st.lists(
    st.tuples(st.floats(NOW - 2 * WEEK, NOW), st.sampled_from(NAMES)), max_size=8
).map(lambda found: tuple(sorted(found)))


# A line's past


def standing_of(handle, number):
    """A line's standing as it is stored."""
    return Standing.decode(
        handle.store().read([standing_key(number)]).records[standing_key(number)].value
    )


def test_what_a_line_came_to_is_remembered_with_the_moment():
    """Each change of reputation or status is in the record with the change itself; what repeats is not."""
    clock, handle = ManualClock(NOW), open_store("memory://")
    router = Router([Line(ONE)], store=handle, clock=clock)
    router.refresh()
    for seconds, change in [
        (10, {"reputation": "AT_RISK"}),
        (20, {"reputation": "AT_RISK"}),
        (30, {"reputation": "CRITICAL"}),
        (40, {"status": "FLAGGED"}),
    ]:
        clock.set(NOW + seconds)
        router.report(LineChanged(ONE, at=clock.now(), **change))
    router.pause(ONE)
    told = [(at - NOW, name) for at, name in standing_of(handle, ONE).past]
    assert told == [(0, "HEALTHY"), (10, "AT_RISK"), (30, "CRITICAL"), (40, "FLAGGED")]


def test_a_past_has_an_end():
    """A line that flaps keeps its latest changes, and of those older than a week only the last."""
    standing = Standing()
    good, bad = (
        Standing().reputation,
        Standing().reputation.add_report("CRITICAL", 1.0, 1.0, polls=(), span=0.0),
    )
    for turn in range(100):
        standing = attrs.evolve(standing, reputation=bad if turn % 2 else good)
        standing = remembering(standing, 0.0, NOW + turn)
    assert len(standing.past) == PAST_AT_MOST
    assert standing.past[-1] == (NOW + 99, "CRITICAL")
    later = remembering(attrs.evolve(standing, reputation=good), 0.0, NOW + 2 * WEEK)
    assert later.past == ((NOW + 99, "CRITICAL"), (NOW + 2 * WEEK, "HEALTHY"))


def test_a_record_without_a_past_begins_one_with_its_next_change():
    """What an earlier version wrote is read as it is, and nothing is made up about it."""
    old = Standing(first_seen=NOW)
    raw = old.encode().replace(b',"past":[]', b"")
    assert b"past" not in raw
    assert Standing.decode(raw).past == ()
    assert remembering(Standing.decode(raw), 60.0, NOW + 5).past == ((NOW + 5, called(old, 60.0)),)


# Drawings


def heights(path):
    """What a path of days draws: a height for each."""
    if not path:
        return [0] * strip.DAYS
    found, height = [], 0
    assert re.fullmatch(rf"M0 {strip.HIGH}(v-?\d+h\d+)+V{strip.HIGH}z", path)
    for down, wide in re.findall(r"v(-?\d+)h(\d+)", path):
        height -= int(down)
        found += [height] * (int(wide) // strip.WIDE)
    return found


@given(counts, st.integers(0, 100))
def test_days_are_drawn_as_high_as_they_were_full(days, full):
    """Each day has its bar: none for nothing, the full height for a full day or more, and more is never lower."""
    drawn = heights(strip.bars(days, full))
    assert len(drawn) == strip.DAYS
    for count, height in zip(days, drawn, strict=True):
        assert 0 <= height <= strip.HIGH
        assert (height == 0) == (count == 0)
        if count >= max(1, full):
            assert height == strip.HIGH
    assert sorted(drawn) == [height for _, height in sorted(zip(days, drawn, strict=True))]


@given(st.lists(st.integers(0, 9), min_size=ROWS, max_size=ROWS))
def test_the_days_hold_the_last_seven_times_24_hours(opened):
    """The oldest six hours of the record are the eighth day's, and are left out."""
    days = strip.days(tuple((0, each) for each in opened))
    assert len(days) == 7
    assert sum(days) == sum(opened[1:])
    assert days[-1] == sum(opened[-4:])


@given(changes)
def test_the_week_is_told_without_a_gap(past):
    """What the line was called, the unknown, and HEALTHY are all of the week; drawn is what is neither HEALTHY nor later."""
    told = strip.past(past, NOW)
    assert sum(told.values()) <= WEEK + 1e-3
    assert not told.keys() - {"AT_RISK", "CRITICAL", "FLAGGED"}
    week_from = (NOW // SPREAD - ROWS + 1) * SPREAD
    for name, path in strip.band(past, week_from):
        assert name in {"", "AT_RISK", "CRITICAL", "FLAGGED"}
        for left, wide in re.findall(r"M(\d+) [\d.]+h(\d+)", path):
            assert int(wide) >= 1
            assert 0 <= int(left) < strip.DAYS * strip.WIDE


def test_a_fall_is_drawn_where_it_was():
    """Two days of CRITICAL, a day ago, are two days wide; before the first observation nothing is claimed."""
    end = (NOW // SPREAD + 1) * SPREAD
    past = ((end - 5 * DAY, "HEALTHY"), (end - 3 * DAY, "CRITICAL"), (end - DAY, "HEALTHY"))
    week_from = end - ROWS * SPREAD
    assert dict(strip.band(past, week_from)) == {"": "M0 22h40", "CRITICAL": "M80 24.5h40"}
    assert strip.past(past, end) == {"CRITICAL": 2 * DAY}


# Words


@pytest.fixture
def clock():
    """A clock that stands still."""
    return ManualClock(NOW)


def seen(router):
    """All lines as the page sees them."""
    from linepicker._overview import overview

    return router._drive(overview(router._desk.fleet, router._clock.now()))


def test_a_line_is_called_what_was_reported(clock):
    """The list still says HEALTHY, and a report says otherwise: the row tells the worse, the link explains it safely."""
    lines = [
        Line(ONE, doc_url="javascript:alert(1)"),
        Line(TWO, doc_url="https://example.com/risk"),
    ]
    router = Router(lines, clock=clock)
    router.report(LineChanged(ONE, reputation="CRITICAL", at=NOW))
    router.report(LineChanged(TWO, reputation="AT_RISK", at=NOW))
    found = seen(router)
    told = [rows.row(line, found.now) for line in found.lines]
    assert [(each.called, each.standing) for each in told] == [
        ("CRITICAL", "nothing goes out"),
        ("AT_RISK", "open, slower"),
    ]
    summary = rows.summary(found.lines, told, found.now)
    assert summary.sentence == "1 of 2 lines can take a new conversation now."
    assert summary.trouble == (("CRITICAL", 1, ""), ("AT_RISK", 1, "https://example.com/risk"))


def test_a_full_fleet_says_when_it_opens(clock):
    """Nobody can take anybody: the sentence names the first moment that somebody can."""
    policy = Policy(limits={"new_per_day": 1}, pace={"spread": "off"})
    router = Router([Line(ONE)], clock=clock, policy=policy)
    router.reserve(PERSON)
    found = seen(router)
    summary = rows.summary(found.lines, [rows.row(each, NOW) for each in found.lines], NOW)
    assert summary.sentence == (
        "0 of 1 line can take a new conversation now. The first one can at Sep 22, 14:13."
    )


def test_freshness_is_told_by_the_records(clock):
    """When the list was read and when the provider last told something; that it is too old, where it is."""
    router = Router([Line(ONE)], clock=clock)
    found = seen(router)
    assert rows.freshness(found, 60.0, None, None).sentences[1] == (
        "Reports of the provider: none on record."
    )
    router.report(LineChanged(ONE, reputation="AT_RISK", at=NOW - 30))
    found = attrs.evolve(seen(router), static=False, freshness="stale", failing=True)
    told = rows.freshness(found, 60.0, {"applied": 2}, NOW - 5)
    assert not told.good
    assert told.sentences == (
        "List of lines: read at 14:13:20, again every 1 min.",
        "Since then it could not be read: the log says why.",
        "It is too old to trust: everything is refused until it is read again.",
        "Reports of the provider: the last one at 14:13:20.",
        "Webhooks taken here: the last one at 14:13:15, 2 applied.",
    )


async def test_the_next_hours_hold_what_capacity_counts(clock):
    """Hour by hour, the outlook is the router's own capacity."""
    router = Router([Line(ONE), Line(TWO, reputation="AT_RISK")], clock=clock)
    for n in range(7):
        router.reserve(f"+1212555{n:04d}")
    counts = await Door(router).outlook(12)
    expected = [router.capacity(horizon=3600.0 * n).total for n in range(1, 13)]
    assert [sum(counts[: n + 1]) for n in range(12)] == expected
    hours = rows.hours(counts, NOW)
    assert [each.count for each in hours] == list(counts)
    assert max(each.high for each in hours) == 40


async def test_lines_without_limits_are_not_looked_ahead_without_end(monkeypatch):
    """The look ahead ends at so many, and the page says that there may be more."""
    monkeypatch.setattr("linepicker.web.door.MOST", 40)
    off = dict.fromkeys(("new_per_day", "new_per_hour", "messages_per_day"), "off")
    router = Router([Line(ONE), Line(TWO)], policy=Policy(limits=off, pace={"new_gap": 0.0}))
    counts = await Door(router).outlook(12)
    assert counts == (40, *[0] * 11)
    told = pages.outlook(rows.hours(counts, NOW), more=True)
    assert told.split("<p>")[1].startswith(
        "At least 40 new conversations fit into the next 12 hours."
    )


async def test_hours_without_room_are_said_not_drawn():
    """Where nothing fits there is a sentence in the place of empty bars; large numbers are short."""
    assert "No new conversation fits into the next 3 hours." in pages.outlook(
        rows.hours([0, 0, 0], NOW)
    )
    assert [each.shown for each in rows.hours([9_999, 11_139], NOW)] == ["9,999", "11k"]


# Choices


def test_a_router_that_nobody_watches_is_as_it_was():
    """Watching replaces a function of this one router; before, there is nothing to ask, and nothing to pay."""
    router, other = Router([Line(ONE)]), Router([Line(ONE)])
    Door(router).watch(Ring())
    assert "reserve" in vars(router._desk)
    assert "reserve" not in vars(other._desk)


@pytest.mark.parametrize("door", [Router, AsyncRouter])
async def test_the_latest_choices_are_kept_masked(door, clock):
    """Reservations and refusals of either router, the latest first, no more than fit, and nobody in clear."""
    router, ring = door([Line(ONE)], clock=clock), Ring()
    Door(router).watch(ring)

    async def reserve(to):
        found = router.reserve(to, max_delay=0)
        return found if door is Router else await found

    for n in range(5):
        await reserve(f"+1212555{n:04d}")
    with pytest.raises(NoLine):
        await reserve("+12125550009")
    clock.advance(20)
    await reserve("+12125550000")
    told = ring.choices()
    assert [each.kind for each in told] == ["known", "no line", *["new"] * 5]
    assert told[0].why == "their line"
    assert told[1].why == "no line may take a new conversation now; ask again in 20 s (pace 1)."
    assert told[0].to == "+1•••••••000"
    assert not [each for each in told if "+1212555" in repr(each)]
    for _ in range(2 * KEPT):
        clock.advance(20)
        await reserve("+12125550000")
    assert len(ring.choices()) == KEPT
