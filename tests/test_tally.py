"""A line's week is counted to the unit, and what follows from it is explained, bounded and monotone."""

import itertools
import math
from array import array

import attrs
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from linepicker import StoreError
from linepicker._bytes import NEWEST_READABLE
from linepicker._record import Spending, tally_key
from linepicker._tally import (
    BUCKET,
    BUCKETS,
    CODES,
    LATEST,
    NAMES,
    Tally,
    counts,
    failed,
    time_out,
    tripped,
    troubles,
    vitality,
    week,
)
from linepicker._windows import count_week, week_counts

NOW = 1_700_000_000.0
DAY = 86400.0
LEARN = {"reply_rate": 0.15, "sample": 20}
BREAKER = {"streak": 5, "share": 0.3, "sample": 20, "window": 3600.0}

names = st.sampled_from([*NAMES, failed(None), failed(4001), failed(4002)])
ages = st.one_of(
    st.floats(-400, 9 * DAY), st.integers(-2, 40).map(lambda n: float(n * BUCKET)), st.just(0.0)
)
steps = st.one_of(
    st.floats(0, 4000),
    st.floats(-400, 2 * DAY),
    st.sampled_from([-30, -1, -0.25, 0.25, 6, 30]).map(lambda days: days * DAY),
)
events = st.lists(st.tuples(names, ages, steps, st.integers(-3, 5)), max_size=40)


def told(story, now=NOW):
    """The tally after *story*, (name, age, step, count) each, and the moment at its end."""
    tally = Tally()
    for name, age, step, count in story:
        now += step
        tally = tally.add(name, now - age, now, count)
    return tally, now


def of(now=NOW, **seen):
    """A tally that saw so many of each name at *now*; `failed` has no code."""
    tally = Tally()
    for name, count in seen.items():
        tally = tally.add(failed(None) if name == "failed" else name, now, now, count)
    return tally


def line_of(outcomes, gap=10.0, now=NOW):
    """A tally of deliveries (".") and failures ("x"), *gap* seconds apart, the last one at *now*."""
    tally = Tally()
    for i, outcome in enumerate(outcomes):
        name = "delivered" if outcome == "." else failed(4001)
        tally = tally.add(name, now - gap * (len(outcomes) - 1 - i), now)
    return tally


class Naive:
    """What a tally stands for: every event with its bucket, none forgotten but those that left the week."""

    def __init__(self):
        self.events = []

    def at(self, now):
        """Bring what is later than *now* to now, and drop what has left the week."""
        newest = now // BUCKET
        brought = [(name, min(bucket, newest), count) for name, bucket, count in self.events]
        self.events = [each for each in brought if each[1] > newest - BUCKETS]

    def add(self, name, at, now, count):
        """See an event."""
        self.at(now)
        self.events.append((name, min(at, now) // BUCKET, count))
        self.at(now)

    def counts(self, now):
        """Count by name."""
        self.at(now)
        totals = {}
        for name, _, count in self.events:
            totals[name] = totals.get(name, 0) + count
        return {name: total for name, total in totals.items() if total > 0}


@given(events)
def test_counts_are_those_of_a_list_of_all_events(story):
    """Late, early, taken back, over days of silence, with a clock that steps back: no unit is lost or invented."""
    naive, now = Naive(), NOW
    for name, age, step, count in story:
        now += step
        naive.add(name, now - age, now, count)
    tally, end = told(story)
    for later in range(BUCKETS + 1):
        now = end + later * BUCKET
        assert counts(tally, now) == naive.counts(now)
    assert naive.events == []


@given(events, st.randoms(use_true_random=False))
def test_order_is_no_matter(story, dice):
    """Within one moment of hearing, counts and outcomes don't depend on the order of what is heard."""
    story = [(name, age, 0.0, abs(count)) for name, age, _, count in story]
    mixed = story[:]
    dice.shuffle(mixed)
    one, other = told(story)[0], told(mixed)[0]
    assert counts(one, NOW) == counts(other, NOW)
    assert one.times == other.times
    assert one.oks.count(0) == other.oks.count(0) or len(one.oks) == LATEST


@given(st.floats(1e6, 1e10))
def test_a_count_leaves_seven_days_after_its_bucket(at):
    """It counts for 7 days at least, and not a moment after its bucket's seventh day has passed."""
    tally = Tally().add("read", at, at)
    end = (at // BUCKET + BUCKETS) * BUCKET
    assert end - at > 7 * DAY
    assert counts(tally, math.nextafter(end, -math.inf)) == {"read": 1}
    assert counts(tally, end) == {}


def test_what_is_heard_late_counts_to_the_end_of_its_week():
    """Added 7 days late it still counts, whole buckets being kept; a bucket later it changes nothing."""
    assert counts(Tally().add("read", NOW - 7 * DAY, NOW), NOW) == {"read": 1}
    assert Tally().add("read", NOW - 7 * DAY - BUCKET, NOW) == Tally().at(NOW)


def test_no_count_is_too_big():
    """Beyond 2**31 - 1 a bucket counts no further, also where a clock that stepped back brings two together."""
    tally = Tally().add("read", NOW, NOW, 2**40).add("read", NOW + DAY, NOW + DAY, 2**40)
    assert counts(tally, NOW + DAY) == {"read": 2 * (2**31 - 1)}
    assert counts(tally, NOW) == {"read": 2**31 - 1}


@given(events)
def test_a_failure_that_is_corrected_was_none(story):
    """Taking a failure away leaves what would be there without it; the delivery then counts as any other."""
    tally, now = told([(name, age, abs(step), abs(count)) for name, age, step, count in story])
    assume(len(tally.times) < LATEST)
    wrong = tally.add(failed(4009), now - 50.25, now)
    assert counts(wrong, now)[failed(4009)] == 1
    right = wrong.add(failed(4009), now - 50.25, now + 9, -1).add("delivered", now, now + 9)
    plain = tally.add("delivered", now, now + 9)
    assert counts(right, now + 9) == counts(plain, now + 9)
    assert (right.times, right.oks) == (plain.times, plain.oks)


def test_a_corrected_failure_ends_the_streak():
    """Four failures, the third of them corrected: one failed since."""
    tally = line_of("xxxx")
    tally = tally.add(failed(4001), NOW - 10.0, NOW, -1).add("delivered", NOW - 10.0, NOW)
    assert (tally.streak, tally.oks) == (1, bytes([0, 0, 1, 0]))


def test_a_correction_of_what_is_forgotten_touches_no_other_failure():
    """A failure older than all that is remembered takes none of those away."""
    tally = line_of("x" * LATEST)
    corrected = tally.add(failed(4001), NOW - DAY, NOW, -1)
    assert corrected.oks == tally.oks
    assert counts(corrected, NOW) == {failed(4001): LATEST - 1}


@given(st.lists(st.tuples(st.floats(0, 6 * DAY), st.booleans()), max_size=300))
def test_the_latest_outcomes_are_remembered_in_order(outcomes):
    """Whatever the order they are heard in, the latest 100 moments are kept, sorted."""
    tally = Tally()
    for age, ok in outcomes:
        tally = tally.add("delivered" if ok else failed(4001), NOW - age, NOW)
    assert list(tally.times) == sorted(NOW - age for age, _ in outcomes)[-LATEST:]
    assert len(tally.oks) == len(tally.times)


def test_outcomes_from_ahead_are_brought_to_now():
    """After a clock stepped back, what it had put ahead was now, in the order it had; what came before stays."""
    tally = line_of("x..x").add("read", NOW - 15, NOW - 15)
    assert list(tally.times) == [NOW - 30, NOW - 20, NOW - 15, NOW - 15]
    assert tally.oks == bytes([0, 1, 1, 0])


def test_only_receipts_are_outcomes():
    """What is read or answered says nothing of a delivery that is owed."""
    tally = of(read=9, answered=9, opted_out=9)
    assert (len(tally.times), tally.oks) == (0, b"")


@given(events, st.sampled_from(["delivered", failed(None), failed(4001)]), ages, st.integers(-3, 3))
def test_what_owes_no_receipts_is_counted_and_is_no_outcome(story, name, age, count):
    """Added or taken back with outcome=False it changes the counts alone."""
    tally, now = told(story)
    after = tally.add(name, now - age, now, count, outcome=False)
    assert counts(after, now) == counts(tally.add(name, now - age, now, count), now)
    assert (after.times, after.oks) == (tally.at(now).times, tally.at(now).oks)


@given(events, names, st.integers(-3, 3))
def test_adding_changes_a_copy(story, name, count):
    """A tally that others hold stays as it is."""
    tally, now = told(story)
    before = tally.encode()
    tally.add(name, now - 1, now + DAY, count)
    tally.add(name, now - 1, now - 30 * DAY, count)
    assert tally.encode() == before


# Bytes


@given(events)
def test_a_tally_is_read_as_it_was_written(story):
    """Its bytes hold all of it."""
    tally, _ = told(story)
    assert Tally.decode(tally.encode()) == tally


def test_the_bytes_are_little_endian():
    """A tally reads alike on every host."""
    raw = Tally(("read",), array("i", range(BUCKETS)), 3, array("d", (1.5,)), b"\1").encode()
    assert raw.hex() == (
        "01"  # format
        "0300000000000000"
        "0400"
        "0100"  # newest bucket, size of the names, outcomes
        + b"read".hex()
        + "000000000000f83f"
        + "".join(f"{n:02x}000000" for n in range(BUCKETS))
        + "01"
    )


@given(events)
def test_what_a_later_version_added_is_carried_along(story):
    """Its bytes at the end and its names stay through a change, and leave under its number."""
    tally, now = told([*story, ("clicked", 0.0, 0.0, 7)])
    later = bytes([NEWEST_READABLE]) + tally.encode()[1:] + b"added later"
    changed = Tally.decode(later).add("read", now, now + DAY)
    again = changed.encode()
    assert again[0] == NEWEST_READABLE
    assert again.endswith(b"added later")
    assert counts(Tally.decode(again), now + DAY)["clicked"] == 7


def test_a_format_from_the_future_says_to_upgrade():
    """What this version can't know it does not touch."""
    with pytest.raises(StoreError, match="upgrade"):
        Tally.decode(bytes([NEWEST_READABLE + 1]) + Tally().encode()[1:])


@given(events)
def test_a_tally_that_is_cut_short_is_damaged(story):
    """Wherever it was cut."""
    raw = told(story)[0].encode()
    for end in range(len(raw)):
        with pytest.raises(StoreError):
            Tally.decode(raw[:end])


@pytest.mark.parametrize(
    "tally",
    [
        Tally(("read", "read"), array("i", bytes(8 * BUCKETS))),
        Tally(times=array("d", [math.nan]), oks=b"\1"),
        Tally(times=array("d", [math.inf]), oks=b"\1"),
    ],
)
def test_impossible_values_are_damage(tally):
    """Two rows of one name, and moments that are none, are no tally's."""
    with pytest.raises(StoreError, match="impossible"):
        Tally.decode(tally.encode())


def lives(raw):
    """Reads *raw*: it is a StoreError, or a tally that can be changed, judged and written."""
    try:
        tally = Tally.decode(raw)
    except StoreError:
        return
    for name in ("delivered", failed(4001), "read"):
        tally = tally.add(name, NOW, NOW, 2**40)
        tally = tally.add(name, NOW, NOW, -3)
    tripped(tally, NOW, **BREAKER)
    seen = counts(tally, NOW)
    week(seen, sample=20)
    list(troubles(seen, tally.streak, 0.5, **LEARN))
    assert 0.1 <= vitality(seen, **LEARN) <= 1
    assert Tally.decode(tally.encode()) == tally


@given(events, st.data())
def test_damaged_bytes_are_a_store_error_or_a_tally(story, data):
    """Flipped bits raise nothing else, then or later."""
    raw = bytearray(told(story)[0].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    lives(bytes(raw))


@given(st.binary(max_size=300))
@example(b"")
@example(b"\1" + b"\xff" * 200)
@example(b"\1" + bytes(8) + b"\3\0\0\0a a" + bytes(8 * BUCKETS))
def test_any_bytes_are_a_store_error_or_a_tally(raw):
    """A store that holds something else altogether is told so."""
    lives(raw)


def test_a_full_week_is_small():
    """All names, more codes than are told apart, in every bucket, and all outcomes: under 4 KB, and nothing is lost."""
    tally, now = Tally(), NOW
    for _ in range(BUCKETS + 5):
        now += BUCKET
        for name in [*NAMES, *(failed(4000 + n) for n in range(3 * CODES))]:
            tally = tally.add(name, now, now, 1750)
    assert len(tally.encode()) < 4000
    seen = counts(tally, now)
    assert sum(n for name, n in seen.items() if name.startswith("failed:")) == (
        3 * CODES * BUCKETS * 1750
    )
    assert seen[failed(None)] == 2 * CODES * BUCKETS * 1750


def test_names_that_have_left_the_week_leave_the_record():
    """A code seen once is not carried for ever."""
    tally = of(failed=3).add(failed(4001), NOW, NOW).add("read", NOW + 8 * DAY, NOW + 8 * DAY)
    assert (tally.names, len(tally.times)) == (("read",), 0)


def test_a_tally_has_a_key_of_its_own():
    """Beside its line's other records."""
    assert tally_key("+12025550100") == "line/+12025550100/tally"


# What left: the week in a line's spending


@given(
    st.lists(
        st.tuples(
            st.floats(0, 9 * DAY), st.integers(0, 2), st.integers(0, 1), st.floats(0, 2 * DAY)
        ),
        max_size=30,
    )
)
def test_what_left_is_counted_in_rows_of_six_hours(story):
    """Messages, conversations and shadow, whichever order they leave in; a row leaves the week 7 days after its end."""
    spending, now, events = Spending(), NOW, []
    for age, opened, shadow, step in story:
        now += step
        at = now - min(age, 3600.0)
        count_week(spending, at, messages=1, opened=opened, shadow=shadow)
        events.append((at // BUCKET, opened, shadow))
    for later in range(0, 10 * BUCKETS, 7):
        moment = now + later * BUCKET / 7
        seen = [each for each in events if moment // BUCKET - BUCKETS < each[0]]
        assert week_counts(spending, moment) == {
            "sent": len(seen),
            "opened": sum(opened for _, opened, _ in seen),
            "shadow": sum(shadow for _, _, shadow in seen),
        }


@given(st.lists(st.tuples(st.floats(0, DAY), st.booleans()), min_size=1, max_size=20), st.data())
def test_what_is_given_back_was_not_counted(story, data):
    """Taken away at the moment it was counted at, a message and its conversation leave nothing behind."""
    spending = Spending()
    for age, opened in story:
        count_week(spending, NOW - age, messages=1, opened=int(opened))
    gone = data.draw(st.sets(st.sampled_from(range(len(story)))))
    for place in gone:
        age, opened = story[place]
        count_week(spending, NOW - age, messages=-1, opened=-int(opened))
    left = [opened for place, (_, opened) in enumerate(story) if place not in gone]
    assert week_counts(spending, NOW) == {"sent": len(left), "opened": sum(left), "shadow": 0}


def test_what_is_given_back_late_takes_nothing_else():
    """A row that has left the week takes no count below nothing."""
    spending = Spending()
    count_week(spending, NOW, messages=1, opened=1)
    count_week(spending, NOW - 8 * DAY, messages=-1, opened=-1)
    assert week_counts(spending, NOW) == {"sent": 1, "opened": 1, "shadow": 0}


# Conclusions


@given(st.integers(0, 60), st.integers(0, 80))
def test_the_reply_rate_needs_a_sample(opened, answered):
    """Answered over opened, nothing said of it under the floor, never above 100 %."""
    told_of = week({"opened": opened, "answered": answered}, sample=20)
    share = f"answered ({100 * min(1.0, answered / (opened or 1)):.0f} %)"
    assert (share in told_of) == (opened >= 20 and answered > 0)
    assert "%" not in week({"answered": 5}, sample=0)


@pytest.mark.parametrize(
    ("outcomes", "gap", "why"),
    [
        ("", 10, None),
        ("xxxx", 10, None),
        ("xxxxx", 10, "streak"),
        ("..xxxxx", 10, "streak"),
        ("xxxxx.", 10, None),
        ("xxxx.xxxx", 10, None),
        ("xxxxx", 899, "streak"),
        ("xxxxx", 900, None),
        ("x..x..x..x..x..x....", 10, "share"),
        ("x..x..x..x..x.......", 10, None),
        ("x..x..x..x..x..x...", 10, None),
        ("x..x..x..x..x..x....", 189, "share"),
        ("x..x..x..x..x..x....", 190, None),
        ("x" * 15 + "." * 85, 10, None),
        ("." * 15 + "x" * 5, 10, "streak"),
    ],
)
def test_a_streak_or_a_share_of_failures_trips(outcomes, gap, why):
    """Five in a row, or 30 % of 20 or more, each within the hour; a streak is told first."""
    assert tripped(line_of(outcomes, gap), NOW, **BREAKER) == why


def test_what_a_time_out_was_for_does_not_trip_again():
    """Outcomes up to `since` are left out; later failures count from one."""
    tally = line_of("xxxxx")
    assert tripped(tally, NOW + 1, **BREAKER) == "streak"
    assert tripped(tally, NOW + 1, **BREAKER, since=NOW) is None
    for i in range(1, 6):
        assert tripped(tally, NOW + i, **BREAKER, since=NOW) is None
        tally = tally.add(failed(4001), NOW + i, NOW + i)
    assert tripped(tally, NOW + 5, **BREAKER, since=NOW) == "streak"


@given(st.text("x.", max_size=LATEST), st.integers(1, 60), st.integers(1, 30), st.floats(0.05, 1))
def test_trips_are_those_of_a_list_of_outcomes(outcomes, gap, least, share):
    """Streak and share are counted over the outcomes of the window and no others."""
    tally = line_of(outcomes, gap)
    seen = outcomes[-math.ceil(1000 / gap) :]
    failures = seen.count("x") / len(seen) if len(seen) >= least else -1.0
    expected = "share" if failures >= share else None
    if len(seen) - len(seen.rstrip("x")) >= 4:
        expected = "streak"
    assert tripped(tally, NOW, streak=4, share=share, sample=least, window=1000) == expected


@given(
    st.integers(0, 10**9),
    st.floats(0.001, 1e5),
    st.floats(1, 1e6),
    st.floats(1, 1e6),
    st.text(max_size=16),
)
def test_a_time_out_stays_within_its_bounds(trips, first, growth, times, salt):
    """From nine tenths of the first to the longest, whatever the policy, and the same each time."""
    longest = first * times
    seconds = time_out(trips, first=first, growth=growth, longest=longest, salt=salt)
    assert 0.9 * first <= seconds <= longest
    assert seconds == time_out(trips, first=first, growth=growth, longest=longest, salt=salt)


def test_time_outs_grow_and_lines_come_back_apart():
    """Doubling from 5 minutes to 6 hours, and no two of 200 lines at the same second."""
    lines = [f"+1202555{n:04}" for n in range(200)]
    for trips, base in enumerate((300, 600, 1200, 2400, 4800, 9600, 19200, 21600, 21600), start=1):
        outs = {time_out(trips, first=300, growth=2, longest=21600, salt=line) for line in lines}
        assert len(outs) == len(lines)
        assert 0.9 * base <= min(outs) < 0.92 * base
        assert min(21500, 1.08 * base) < max(outs) <= min(21600, 1.1 * base)
    closest = sorted(time_out(9, first=300, growth=2, longest=21600, salt=line) for line in lines)
    assert max(b - a for a, b in itertools.pairwise(closest)) < 100


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_vitality_is_monotone_and_in_steps(opened, answered, delivered, failures):
    """One reply more never lowers it, one failure more never raises it; it lies from 0.1 to 1, in steps of 0.05."""
    seen = {"opened": opened, "answered": answered, "delivered": delivered, failed(4001): failures}
    value = vitality(seen, **LEARN)
    assert 0.1 <= value <= 1
    assert value == round(20 * value) / 20
    assert vitality({**seen, "answered": answered + 1}, **LEARN) >= value
    assert vitality({**seen, failed(4001): failures + 1}, **LEARN) <= value
    assert vitality({**seen, failed(None): 1}, **LEARN) <= value


@pytest.mark.parametrize(
    ("seen", "value"),
    [
        ({}, 1.0),
        ({"opened": 19}, 1.0),
        ({"opened": 20}, 0.1),
        ({"opened": 100, "answered": 15}, 0.5),
        ({"opened": 100, "answered": 30}, 1.0),
        ({"opened": 100, "answered": 100}, 1.0),
        ({"delivered": 1, "failed:1": 18}, 1.0),
        ({"delivered": 10, "failed:1": 10}, 0.5),
        ({"delivered": 10, "failed:1": 4, "failed:": 6}, 0.5),
        ({"failed:1": 20}, 0.1),
        ({"delivered": 990, "failed:1": 10}, 1.0),
        ({"sent": 100, "failed:1": 10}, 0.9),
        ({"sent": 19, "failed:1": 19}, 1.0),
        ({"sent": 5, "delivered": 10, "failed:1": 10}, 0.5),
        ({"opened": 100, "answered": 15, "delivered": 70, "failed:1": 30}, 0.35),
    ],
)
def test_vitality_is_what_its_formula_says(seen, value):
    """1 until enough is seen; half where trouble begins; the share of messages that did not fail, of those whose end is
    told or of those that left, whichever are more; the product of both."""
    assert vitality(seen, **LEARN) == value


def test_vitality_without_a_threshold_asks_for_no_replies():
    """A reply rate of 0 counts as trouble never."""
    assert vitality({"opened": 50}, reply_rate=0.0, sample=20) == 1.0


def test_a_week_is_told_in_one_sentence():
    """Counts with their codes, the commonest first, and the share answered; nothing where nothing was seen."""
    seen = {"sent": 120, "delivered": 160, "read": 9, "opened": 40, "answered": 12, "opted_out": 1}
    assert week({**seen, failed(4001): 2, failed(4002): 1, failed(None): 1}, sample=20) == (
        "7 days: 120 sent, 160 delivered, 9 read, 4 failed (4001: 2, no code: 1, 4002: 1), "
        "40 conversations opened, 12 answered (30 %), 1 opt-out."
    )
    assert week({"shadow": 2}, sample=20) == (
        "7 days: 2 that a rule in shadow mode would have held."
    )
    assert week({}, sample=20) == week({"sent": 0}, sample=20) == ""


def test_a_week_names_no_share_under_the_floor():
    """One answer to one conversation is not 100 %."""
    assert week({"opened": 1, "answered": 1, "opted_out": 2}, sample=20) == (
        "7 days: 1 conversation opened, 1 answered, 2 opt-outs."
    )


def test_what_speaks_against_a_line_is_told():
    """Few answers, failures in a row, and what vitality follows."""
    assert list(troubles({"opened": 40, "answered": 3}, 5, 0.25, **LEARN)) == [
        "8 % of 40 conversations answered: under 15 % is trouble.",
        "The last 5 outcomes all failed.",
        "Vitality 0.25: new conversations rather go to other lines.",
    ]


def test_nothing_is_said_against_a_good_line():
    """Answers right at the threshold, one failure, full vitality; nor where too little was seen."""
    assert list(troubles({"opened": 40, "answered": 6}, 1, 1.0, **LEARN)) == []
    assert list(troubles({"opened": 19}, 0, 1.0, **LEARN)) == []


def test_a_streak_that_has_left_the_week_is_none():
    """Failures in a row count as long as the week holds them."""
    tally = line_of("xxxxx", now=NOW - 6 * DAY)
    assert tally.at(NOW).streak == 5
    assert tally.at(NOW + 3 * DAY).streak == 0


def test_the_rest_is_kept_by_a_change():
    """What a later version put at the end is not ours to drop, even as the week moves on."""
    tally = attrs.evolve(of(read=1), rest=b"added")
    assert tally.add("read", NOW + DAY, NOW + DAY).rest == b"added"
