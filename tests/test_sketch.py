"""Openings are compared by sketches: what is alike is found alike, and no text is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepicker import Line, Policy, Router
from linepicker._priority import marks
from linepicker._record import Spending, spending_key
from linepicker._sketch import KEPT, alike, sketch, with_opening
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock

A = "+12025550100"
OFFER = "Hi {}, our spring offer ends on May {}: two coffees for the price of one, at our corner. Shall I keep you one?"
OTHERS = (
    "Good morning {}, your parcel could not be left at the door; when would you be at home this week?",
    "This is Dr. Lee's practice. {} has an appointment tomorrow at nine, please bring the insurance card.",
    "{}, thanks for the feedback on the bike! May we show it on our page, with your first name only?",
)


def common(one: str, other: str) -> int:
    """How many of eight values two sketches share."""
    return sum(a == b for a, b in zip(sketch(one), sketch(other), strict=True))


def kept(*texts: str, rest: bytes = b"") -> bytes:
    """What is kept after these openings."""
    for text in texts:
        rest = with_opening(rest, sketch(text))
    return rest


def test_a_name_and_a_number_filled_in_leave_texts_alike():
    """At least five of eight values are the same; of texts about other things at most two."""
    first = OFFER.format("Ann", 3)
    assert common(first, OFFER.format("Bartholomew", 17)) >= 5
    assert all(common(first, other.format("Ann")) <= 2 for other in OTHERS)


@given(st.text(max_size=300))
def test_a_sketch_is_eight_bytes_or_none(text):
    """Of any text; the same text has the same sketch, in any case."""
    made = sketch(text)
    assert len(made) in (0, 8)
    assert sketch(text) == made
    if text.isascii():
        assert sketch(text.upper()) == made


def test_the_share_is_of_those_that_follow_one_like_them():
    """The first of its kind is none; fewer than the sample tell nothing."""
    texts = [OFFER.format(name, 3) for name in ("Ann", "Bo", "Cy")]
    texts += [other.format("Ann") for other in OTHERS]
    assert alike(kept(*texts), 6) == pytest.approx(2 / 6)
    assert alike(kept(*texts), 7) is None
    assert alike(b"", 1) is None


@given(
    st.integers(0, 3 * KEPT),
    st.binary(max_size=30).filter(lambda rest: rest[:4] not in {b"URG1", b"TXT1"}),
)
def test_only_the_latest_are_kept_and_what_lies_around_stays(count, behind):
    """What another version keeps there, before and behind, is as it was."""
    before = b"URG1" + bytes(16)
    for rest in (behind, before + behind):
        after = kept(*(f"opening number {n % 7} of many" for n in range(count)), rest=rest)
        assert after.endswith(behind)
        assert not rest.startswith(before) or after.startswith(before)
        assert len(after) <= len(rest) + 5 + 9 * KEPT
        assert (alike(after, KEPT) is None) == (count < KEPT)


CHAT = (
    "Nine o'clock is fine with me",
    "We have moved to the second floor, left of the stairs",
    "Bring your own cup if you like",
    "It may rain all afternoon",
    "Your parcel left our house this morning",
    "Happy birthday from all of us!",
)


def test_a_router_keeps_sketches_of_openings_and_no_text():
    """Of new conversations with `text=`, not of others, beside what urgent messages keep there."""
    handle, clock = open_store("memory://"), ManualClock(1_700_000_000.0)
    policy = Policy(
        priority={"urgent_share": 0.3}, pace={"new_gap": 60, "new_burst": 4, "max_delay": 0}
    )
    with Router([Line(A)], policy=policy, store=handle, clock=clock) as router:
        for n, urgent in enumerate((False, False, True, True, False, False)):
            text, priority = OFFER.format("Ann", n), "urgent" if urgent else "normal"
            router.reserve(f"+1213555{n:04d}", text=text, priority=priority)
            router.reserve(f"+1213555{n:04d}", text=CHAT[n])
            clock.advance(0 if n < 3 else 600)
    record = handle.store().read([spending_key(A)]).records[spending_key(A)]
    spending = Spending.decode(record.value or b"")
    assert alike(spending.rest, 6) == pytest.approx(5 / 6)
    assert alike(spending.rest, 7) is None
    assert b"coffee" not in (record.value or b"")
    assert marks(spending) != (0.0, 0.0)


def test_without_learning_no_text_is_looked_at():
    """`learn.enabled` off: the spending holds no sketch."""
    handle = open_store("memory://")
    policy = Policy(learn={"enabled": False})
    with Router([Line(A)], policy=policy, store=handle, clock=ManualClock(1e9)) as router:
        router.reserve("+12135550001", text="Hello there")
    record = handle.store().read([spending_key(A)]).records[spending_key(A)]
    assert Spending.decode(record.value or b"").rest == b""
