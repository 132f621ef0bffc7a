"""The gates at their edges: which one is named, until when, and what a reservation says of itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from linepicker import (
    Blocked,
    Held,
    Line,
    NoLine,
    NotNow,
    OptedOut,
    Policy,
    Reservation,
    Router,
)
from linepicker._record import Spending
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

NOW, HOUR, DAY = 1_790_000_000.0, 3600.0, 86400.0
A, B, C = "+12025550101", "+12125550102", "+13105550103"
ANN, BOB, CAT = "+14155550101", "+14155550102", "+14155550103"
YORKER = "+12125550109"
RULES = {
    "limits": {"pair_per_minute": "off", "new_per_day": "off", "new_per_hour": "off"},
    "pace": {"new_gap": 0, "message_gap": 0, "spread": "off"},
    "learn": {"enabled": False},
}


def router(
    *lines: str | Line, store: MemoryStore | None = None, clock: ManualClock | None = None, **tables
) -> Router:
    """Over these lines, with no rule but these."""
    return Router(
        [each if isinstance(each, Line) else Line(each) for each in lines or (A,)],
        policy=Policy.from_dict({**RULES, **tables}),
        store=store,
        clock=clock or ManualClock(NOW),
    )


def paced(**more) -> dict[str, object]:
    """A minute between messages, and nothing else that waits."""
    return {"new_gap": 0, "message_gap": 60, "spread": "off", "message_burst": 1, **more}


def test_a_paced_message_is_to_be_asked_for_as_soon_as_it_could_wait_for_its_slot():
    """Not at the slot itself: up to `max_delay` before."""
    with router(pace=paced()) as mine:
        mine.assign(ANN, A)
        mine.reserve(ANN)
        with pytest.raises(NotNow, match="pace") as caught:
            mine.reserve(ANN, max_delay=10.0)
        assert caught.value.retry_at == NOW + 50.0


def test_what_forbids_first_is_what_is_named():
    """The messages to one person before the line's pace; until both let it go."""
    limits = {"new_per_day": "off", "new_per_hour": "off", "pair_per_minute": 1}
    with router(limits=limits, pace=paced(message_gap=90)) as mine:
        mine.assign(ANN, A)
        mine.reserve(ANN)
        with pytest.raises(NotNow) as caught:
            mine.reserve(ANN, max_delay=0.0)
        assert caught.value.decision.reason == "pair"
        assert caught.value.retry_at == NOW + 90.0


def test_a_message_that_may_wait_until_its_slot_gets_it():
    """Though it may wait for no longer than that."""
    with router(pace=paced()) as mine:
        mine.assign(ANN, A)
        first = mine.reserve(ANN, max_delay=0.0)
        second = mine.reserve(ANN, max_delay=60.0)
        assert (first.send_at, second.send_at) == (NOW, NOW + 60.0)


def test_who_wrote_first_is_told_when_the_line_opens_again():
    """Its refusal ends at a known moment; an operator's pause at none."""
    with router(recovery={"ineligible": 600}) as mine:
        mine.reserve(BOB).settle("LINE_REFUSED")
        with pytest.raises(Held, match="ineligible") as caught:
            mine.reserve(ANN, line=A, inbound=True)
        assert caught.value.retry_at == NOW + 600.0
        mine.pause(A)
        with pytest.raises(Held, match="paused") as caught:
            mine.reserve(ANN, line=A, inbound=True)
        assert caught.value.retry_at == NOW + Policy().health.ttl


def test_the_providers_word_of_a_conversation_blocks_a_person_nobody_has_heard_of():
    """And it says nothing against one of whom the library knows that they opted out. Who asks for it may write despite."""
    with router() as mine:
        with pytest.raises(Blocked, match="opted_out"):
            mine.reserve(ANN, chat_health="OPTED_OUT")
        mine.reserve(ANN, chat_health="HEALTHY").settle("SENT")
        mine.report(OptedOut(BOB, at=NOW))
        with pytest.raises(Blocked, match="opted_out"):
            mine.reserve(BOB, chat_health="HEALTHY")
        assert mine.reserve(CAT, chat_health="OPTED_OUT", override_optout=True).number == A


def test_a_first_message_after_an_operators_move_says_from_which_line():
    """The last one before, not the first."""
    with router(A, B, C) as mine:
        mine.assign(ANN, A)
        mine.move(ANN, B)
        mine.move(ANN, C)
        made = mine.reserve(ANN)
        assert (made.number, made.moved_from) == (C, B)


@pytest.mark.parametrize(
    ("to", "elsewhere"), [*((f"+1212555011{n}", 0.5) for n in range(10)), ("+442079460101", 1.0)]
)
def test_a_reservation_tells_what_the_area_was_worth(to, elsewhere):
    """Of the two best lines; nothing for somebody of no such area."""
    with router(A, B, C, affinity={"area_code": 0.5}) as mine:
        found = mine.reserve(to).decision.candidates
        assert len(found) == 2
        for each in found:
            assert each.terms["affinity"] == (1.0 if each.number == B else elsewhere)


def marks(store: MemoryStore) -> tuple[float, float]:
    """The pace's marks on record."""
    key = f"line/{A}/spending"
    spending = Spending.decode(store.read([key]).records[key].value)
    return spending.new_mark, spending.message_mark


@pytest.mark.parametrize("priority", ["urgent", "normal"])
def test_an_urgent_message_to_somebody_known_leaves_the_ordinary_pace_alone(priority):
    """It has a slot of its own; an ordinary one takes the next of theirs."""
    store = MemoryStore()
    people = [f"+1646555010{n}" for n in range(8)]
    with router(pace=paced(message_burst=10), priority={"urgent_share": 0.3}, store=store) as mine:
        for each in people:
            mine.assign(each, A)
        for each in people[:7]:
            assert mine.reserve(each, max_delay=0.0).send_at == NOW
        before = marks(store)
        made = mine.reserve(people[7], priority=priority, max_delay=600.0)
        assert (made.send_at > NOW) == (priority == "normal")
        assert (marks(store) == before) == (priority == "urgent")


def test_an_urgent_message_takes_what_is_kept_of_a_good_line_before_a_worse_one():
    """Where it would have to wait for an ordinary slot of that line, though an AT_RISK one could let it go at once."""
    pace = {"new_gap": 60, "new_burst": 10, "message_gap": 0, "spread": "off"}
    worse = Line(B, reputation="AT_RISK")
    with router(A, worse, pace=pace, priority={"urgent_share": 0.3}) as mine:
        for each in range(7):
            assert mine.reserve(f"+1646555010{each}", max_delay=0.0).number == A
        assert mine.preview(BOB, max_delay=300.0).delay > 0.0
        made = mine.reserve(ANN, priority="urgent", max_delay=300.0)
        assert (made.number, made.send_at) == (A, NOW)


def test_a_budget_that_opens_just_before_quiet_hours_is_worth_asking_for_then():
    """Only what waits for its slot might leave later than that."""
    nine = datetime(2026, 9, 22, 21, 0, tzinfo=UTC).timestamp()
    opens = nine - 0.5
    limits = {"new_per_day": 1, "new_per_hour": "off"}
    quiet = {"hours": "21:00-08:00", "zone": "UTC"}
    clock = ManualClock(opens - DAY)
    with router(limits=limits, quiet=quiet, clock=clock) as mine:
        mine.reserve(ANN)
        clock.advance(12 * HOUR)
        with pytest.raises(NoLine, match="day_budget") as caught:
            mine.reserve(BOB)
        assert caught.value.retry_at == opens


def test_a_rate_limited_conversation_goes_on_at_the_moment_that_was_told():
    """Not only after it."""
    clock = ManualClock(NOW)
    with router(clock=clock) as mine:
        mine.reserve(ANN).settle("RATE_LIMITED", retry_after=60.0)
        with pytest.raises(NotNow, match="pair") as caught:
            mine.reserve(ANN)
        clock.advance(caught.value.retry_at - NOW)
        assert mine.preview(ANN).outcome == "reserved"
        assert mine.reserve(ANN).send_at == NOW + 60.0


def test_a_line_that_was_asked_for_is_shown_as_it_is():
    """What the recipient's area is worth plays no part, though the policy weighs it."""
    with router(A, B, affinity={"area_code": 0.5}) as mine:
        made: Reservation = mine.reserve(YORKER, line=A)
        (shown,) = made.decision.candidates
        assert (made.number, made.kind, made.send_at) == (A, "new", NOW)
        assert shown.terms["affinity"] == 1.0


@pytest.mark.parametrize("exclude", [(), (B,)])
def test_a_slot_at_the_end_of_what_may_be_waited_is_taken(exclude):
    """Whether lines are ruled out or not."""
    pace = {"new_gap": 60, "new_burst": 1, "message_gap": 0, "spread": "off"}
    with router(pace=pace) as mine:
        mine.reserve(ANN)
        assert mine.reserve(BOB, max_delay=60.0, exclude=exclude).send_at == NOW + 60.0
