"""The straight way of a reservation comes to what the flow comes to: both are gone side by side, and compared."""

import random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepicker import (
    ChatHealthChanged,
    Line,
    LineChanged,
    OptedIn,
    OptedOut,
    Policy,
    Replied,
    Reputation,
    Router,
)
from linepicker._asks import Made, Swap
from linepicker._flow import reserve
from linepicker._straight import straight as straight_way
from linepicker.errors import LinePickerError
from linepicker.stores import Same
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

NOON = 1_800_000_000.0
NUMBERS = ["+12025550100", "+13125550101", "+12025550102", "+13125550103"]
PEOPLE = [
    "+12025550190",
    "+13125550191",
    "a@example.com",
    ["+12025550190", "+12025550193"],
    "b@example.com",
]
TIGHT = {"new_per_day": 3, "new_per_hour": 2, "messages_per_day": 4, "pair_per_minute": 2}
SLOW = {"new_gap": 90.0, "new_burst": 1, "message_gap": 40.0, "message_burst": 1, "max_delay": 60.0}
POLICIES = [
    Policy.from_dict(tunables)
    for tunables in (
        {},
        {"limits": TIGHT},
        {"limits": dict.fromkeys(TIGHT, "off"), "pace": {"new_gap": 0.0, "message_gap": 0.0}},
        {"limits": {"pair_per_minute": 50}, "pace": SLOW},
        {"prefer": "weighted", "affinity": {"area_code": 0.5}},
        {"priority": {"urgent_share": 0.3}, "limits": TIGHT},
        {"conversation": {"chat_health": "shadow", "unanswered": "enforce", "unanswered_after": 2}},
        {"conversation": {"unanswered": "off", "unanswered_after": 1, "at_risk_gap": 30.0}},
        {"stickiness": {"on_critical": "move", "return_home": 60.0, "mid_conversation": 30.0}},
        {"quiet": {"hours": "20:00-09:00", "zone": "America/New_York"}},
        {"warmup": {"start": 1, "trust_first_snapshot": False}, "at_risk": {"budget": 0.5}},
    )
]
TOLD = [*Made.__annotations__, "id", "number", "kind", "at", "send_at", "line"]
SELDOM = ["NOT_SENT", "UNKNOWN", "RATE_LIMITED", "LINE_REFUSED", "RECIPIENT_REFUSED"]
WAITS = [0.0, 0.1, 1.0, 20.0, 0.5, 7.0, 61.0, 301.0, 4000.0, 30_000.0, 90_000.0, -400.0]

person = st.sampled_from(PEOPLE[:2] * 4 + PEOPLE)
line = st.sampled_from(NUMBERS)
reservations = st.tuples(st.just("reserve"), person, st.sampled_from(["SENT", None] * 8 + SELDOM))
STEPS = st.one_of(
    *[reservations] * 8,
    st.tuples(st.just("urgent"), person, st.none()),
    *[st.tuples(st.just("wait"), st.sampled_from(WAITS), st.none())] * 3,
    st.tuples(st.just("health"), line, st.sampled_from(list(Reputation))),
    st.tuples(st.just("chat"), person, st.sampled_from(["HEALTHY", "AT_RISK", "CRITICAL"])),
    st.tuples(st.just("reply"), person, line),
    st.tuples(st.sampled_from(["in", "out"]), st.sampled_from(PEOPLE[:3]), st.none()),
    st.tuples(st.sampled_from(["pause", "drain", "resume"]), line, st.none()),
    st.tuples(st.just("move"), person, line),
    st.tuples(st.just("assign"), person, line),
    st.tuples(st.just("reload"), st.sampled_from(POLICIES), st.none()),
)


def told(made):
    """All that is known of a reservation."""
    return {name: getattr(made, name) for name in TOLD}, made.decision


def packed(writes):
    """What is written, in bytes."""
    return [
        write
        if isinstance(write.value, bytes | Same)
        else write._replace(value=write.value.encode())
        for write in writes
    ]


class Side:
    """One of the two routers, and what it answered."""

    def __init__(self, lines, policy, *, straight, polled=False):
        self.clock = ManualClock(NOON)
        self.store = MemoryStore(time=self.clock.now)
        self.first = self.store._version
        self.lines = lines
        self.router = Router(
            self if polled else lines, policy=policy, store=self.store, clock=self.clock
        )
        self.router._dice = random.Random(7)
        self.went = 0
        self.drafting = self.router._desk.straight
        self.router._desk.straight = self.compared if straight else lambda *_: None
        self.flow = straight_way if straight else lambda *_: None

    def compared(self, who, now, made_id):
        """The draft, after a look at what the flow would ask for in its place."""
        draft = self.drafting(who, now, made_id)
        if draft is not None:
            self.went += 1
            desk, begun = self.router._desk, []
            flow = reserve(desk.fleet, desk._plain, who, now, made_id, begun=begun.append)
            try:
                swap = next(flow)
            except LinePickerError as error:
                raise AssertionError("the flow refuses") from error
            flow.close()
            assert isinstance(swap, Swap)
            assert [told(begun[0]), packed(swap.writes), dict(swap.seen)] == [
                told(draft[0]),
                packed(draft[3]),
                dict(draft[4]),
            ]
        return draft

    def fetch(self):
        """The list of lines, as a source gives it."""
        return self.lines

    def do(self, step):
        """What came of a step, in words."""
        what, one, two = step
        router, now = self.router, self.clock.now()
        try:
            with patch("linepicker._flow.straight", self.flow):
                return self._do(router, now, what, one, two)
        except (LinePickerError, ValueError) as error:
            return type(error), str(error), getattr(error, "decision", None)

    def _do(self, router, now, what, one, two):
        match what:
            case "reserve":
                made = router.reserve(one)
                if two is not None:
                    made.settle(two, retry_after=90.0, chat_id=f"chat {one} {two}")
                return told(made._made)
            case "urgent":
                return router.reserve(one, priority="urgent").decision
            case "wait":
                return self.clock.advance(one)
            case "health":
                return router.report(LineChanged(one, reputation=two, at=now))
            case "chat":
                return router.report(ChatHealthChanged(one, two, at=now))
            case "reply":
                return router.report(Replied(two, one, at=now))
            case "out":
                return router.report(OptedOut(one, at=now))
            case "in":
                return router.report(OptedIn(one, at=now))
            case "move":
                return router.move(one, two)
            case "assign":
                return router.assign(one, two)
            case "reload":
                return router.reload(one)
            case _:
                return getattr(router, what)(one)

    def stored(self):
        """Every record, as bytes, with its version counted from the store's first."""
        found = sorted(self.store.scan(""))
        return [
            (key, record.version - self.first, record.value)
            for key, record in found
            if key != "epoch"
        ]


lines = st.lists(
    st.builds(
        Line,
        line,
        reputation=st.sampled_from([Reputation.HEALTHY] * 3 + [Reputation.AT_RISK]),
        weight=st.sampled_from([1.0, 1.0, 2.0]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda one: one.number,
)


steps = st.lists(STEPS, min_size=20, max_size=60)


@given(lines, st.booleans(), st.sampled_from(POLICIES), steps)
@settings(max_examples=300, deadline=None)
def test_the_straight_way_drafts_what_the_flow_would(fleet, polled, policy, steps):
    """Whatever happened before: the same line, moment, notes and reasons, and the same bytes at the same versions."""
    side = Side(fleet, policy, straight=True, polled=polled)
    for step in steps:
        side.do(step)


@given(lines, st.booleans(), st.sampled_from(POLICIES), steps)
@settings(max_examples=30, deadline=None)
def test_both_ways_leave_the_same_records(fleet, polled, policy, steps):
    """Two routers of which one never goes straight answer alike, and their stores hold the same bytes at each step."""
    one, two = (Side(fleet, policy, straight=way, polled=polled) for way in (True, False))
    for step in steps:
        assert one.do(step) == two.do(step)
        assert one.stored() == two.stored()


ONE, TWO = NUMBERS[:2]
ANNA = PEOPLE[0]


def reserved(*outcomes, gap=61.0, who=ANNA):
    """Steps that reserve again and again, *gap* seconds apart."""
    return [step for each in outcomes for step in (("reserve", who, each), ("wait", gap, None))]


STORIES = {
    "the messages of a day": (1, reserved(*["SENT"] * 6)),
    "the messages of a pair": (1, reserved(*["SENT"] * 3, gap=1.0)),
    "a rate limit": (0, reserved("RATE_LIMITED", "SENT", "SENT", gap=50.0)),
    "no reply, enforced": (6, reserved(*["SENT"] * 4)),
    "no reply, in shadow": (0, reserved(*["SENT"] * 5)),
    "no reply, and no rule": (7, reserved(*["SENT"] * 3)),
    "a critical chat": (0, [*reserved("SENT"), ("chat", ANNA, "CRITICAL"), *reserved("SENT")]),
    "a chat at risk": (0, [*reserved("SENT"), ("chat", ANNA, "AT_RISK"), *reserved("SENT")]),
    "a chat at risk, soon": (
        7,
        [*reserved("SENT"), ("chat", ANNA, "AT_RISK"), *reserved(*["SENT"] * 3, gap=10.0)],
    ),
    "a chat at risk, in shadow": (
        6,
        [*reserved("SENT"), ("chat", ANNA, "AT_RISK"), *reserved("SENT")],
    ),
    "moved by an operator": (
        0,
        [*reserved("SENT"), ("move", ANNA, ONE), ("move", ANNA, TWO), *reserved("SENT", "SENT")],
    ),
    "moved, and home again": (
        8,
        [
            ("assign", ANNA, ONE),
            *reserved("SENT"),
            ("health", ONE, Reputation.CRITICAL),
            *reserved("SENT"),
            ("health", ONE, Reputation.HEALTHY),
            ("wait", 90.0, None),
            ("health", ONE, Reputation.HEALTHY),
            *reserved("SENT", "SENT", gap=90.0),
        ],
    ),
    "a paused line": (0, [("assign", ANNA, ONE), ("pause", ONE, None), *reserved("SENT")]),
    "a draining line": (0, [("assign", ANNA, ONE), ("drain", ONE, None), *reserved("SENT")]),
    "a critical line": (
        0,
        [("assign", ANNA, ONE), ("health", ONE, Reputation.CRITICAL), *reserved("SENT")],
    ),
    "a line that refused": (
        0,
        [
            ("assign", ANNA, ONE),
            *reserved("LINE_REFUSED", "SENT"),
            ("wait", 90_000.0, None),
            *reserved("SENT", "SENT"),
        ],
    ),
    "a pace that lets wait": (3, reserved(*["SENT"] * 3, gap=20.0)),
    "a pace that lets wait too long": (3, reserved(*["SENT"] * 5, gap=0.5)),
    "a pace, and strangers": (
        3,
        [step for who in PEOPLE for step in reserved("SENT", gap=10.0, who=who)],
    ),
    "nothing ahead any more": (
        3,
        [*reserved(*(["SENT"] * 3), gap=0.5), ("wait", 300.0, None), *reserved("SENT")],
    ),
    "a clock that stepped back": (
        0,
        [
            *reserved("SENT"),
            ("wait", 90_000.0, None),
            *reserved("SENT"),
            ("wait", -80_000.0, None),
            *reserved(*["SENT"] * 2),
        ],
    ),
    "an opt-out": (
        0,
        [
            *reserved("SENT"),
            ("out", ANNA, None),
            *reserved("SENT"),
            ("in", ANNA, None),
            *reserved("SENT"),
        ],
    ),
    "quiet hours": (9, [*reserved("SENT"), ("wait", 50_000.0, None), *reserved("SENT")]),
    "an area code": (4, [*reserved("SENT", "SENT"), *reserved("SENT", who=PEOPLE[1])]),
    "what is kept for urgent ones": (
        5,
        [*reserved(*(["SENT"] * 3)), ("urgent", ANNA, None), *reserved("SENT")],
    ),
    "a chat's name": (0, reserved("SENT", "SENT")),
}


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("lines_at_most", [1, 2])
def test_whatever_is_unusual_is_seen(story, lines_at_most):
    """The straight way steps aside for it, or drafts what the flow would."""
    policy, steps = STORIES[story]
    fleet = [Line(number) for number in NUMBERS[:lines_at_most]]
    side = Side(fleet, POLICIES[policy], straight=True)
    for step in [("reserve", PEOPLE[4], "SENT"), *steps]:
        side.do(step)


def test_the_usual_goes_straight():
    """Once a line's day has begun, a new recipient and a known one take no flow, nor do they where a rule in shadow mode has
    something to say."""
    side = Side([Line(NUMBERS[0])], None, straight=True)
    side.router.reserve(PEOPLE[1]).settle("SENT")
    assert side.went == 0
    for _ in range(5):
        side.router.reserve(PEOPLE[0]).settle("SENT")
        side.clock.advance(61.0)
    assert side.went == 5
