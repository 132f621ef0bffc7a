"""One send told once, where it is not the usual one: others are in the way, the key is known already, something is despite."""

from __future__ import annotations

import itertools
import logging
from itertools import pairwise

import pytest

from linepicker import (
    Blocked,
    Held,
    Line,
    LineChanged,
    NotNow,
    OptedIn,
    OptedOut,
    Outcome,
    Policy,
    Router,
    StoreError,
)
from linepicker._asks import Dice
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

NOW = 1_790_000_000.0
A, B = "+12025550100", "+12025550101"
ANN, BOB, CAT = "+14155550101", "+14155550102", "+14155550103"
LOOSE = {
    "limits": dict.fromkeys(("new_per_day", "new_per_hour", "pair_per_minute"), "off"),
    "pace": {"new_gap": 0, "message_gap": 0},
    "learn": {"enabled": False},
}


class Noted:
    """A store that notes what it is asked, and at which *others* write first."""

    wants_seen = False

    def __init__(self, inner):
        self.inner, self.asked, self.others = inner, [], lambda: None

    def read(self, keys):
        """As the store."""
        self.asked.append("read")
        return self.inner.read(keys)

    def swap(self, writes, *, seen={}):  # noqa: B006  as the port has it
        """After theirs."""
        self.asked.append("swap")
        self.others()
        return self.inner.swap(writes, seen=seen)


class World:
    """A clock and a store, and any number of routers over them."""

    def __init__(self):
        self.clock, self.store = ManualClock(NOW), MemoryStore()
        self.lines = [Line(A, tags={"gold"}), Line(B)]

    def router(self, store=None, **tables):
        """A process, whose policy limits nothing but what *tables* say."""
        rules = Policy.from_dict({**LOOSE, **tables})
        return Router(self.lines, policy=rules, store=store or self.store, clock=self.clock)


@pytest.fixture
def world():
    """A new one."""
    return World()


# Others are in the way


def test_who_is_refused_again_and_again_lets_others_go_first_for_ever_longer(world):
    """A second attempt is made at once, with what the refusal told; two more after each pause, which doubles up to a quarter
    of a second, or less by chance. With the second pause, and every fourth one after it, all lines are read. In the end the
    store is too busy."""
    store, people = Noted(world.store), (f"+1415556{n:04d}" for n in itertools.count())
    world.lines.pop()
    mine, theirs = world.router(store), world.router()
    mine._answers[Dice] = lambda _: 0.5
    mine.reserve(ANN)
    store.asked.clear()
    store.others = lambda: theirs.reserve(next(people))
    slept = world.clock.sleep

    def sleep(seconds):
        slept(seconds)
        store.asked.append(seconds)

    world.clock.sleep = sleep
    with pytest.raises(StoreError, match="64 attempts"):
        mine.reserve(BOB)
    pauses = [each for each in store.asked if isinstance(each, float)]
    assert (pauses[0], pauses[-1], len(pauses)) == (0.002, 0.125, 31)
    assert all(later == min(0.125, 2.0 * earlier) for earlier, later in pairwise(pauses))
    told = ["swap", "swap"]
    for place, pause in enumerate(pauses, 1):
        told += [pause, *(["read"] if place % 4 == 2 else []), "swap", "swap"]
    assert store.asked == told


@pytest.mark.parametrize("early", ["reserve", "settle"])
def test_a_call_that_slept_since_it_read_the_clock_looks_at_it_again(world, early):
    """The host slept for an hour in the middle of a call, and another one was quicker to write a refusal then: that is nothing
    of a time to come, and the line stays out. A settlement that slept so ends no earlier refusal either."""
    router = world.router()
    first, second = router.reserve(ANN, line=A), router.reserve(BOB, line=A)
    now, stale = world.clock.now, []
    world.clock.now = lambda: stale.pop() if stale else now()
    world.clock.advance(3600)
    first.settle("LINE_REFUSED", retry_after=1800)
    stale.append(NOW)
    if early == "settle":
        second.settle("LINE_REFUSED", retry_after=1)
    with pytest.raises(Held, match="ineligible"):
        router.reserve(CAT, line=A)
    assert router.lines()[0].standing == "ineligible"


def test_an_answer_that_comes_late_lets_nothing_out_to_who_opted_out_meanwhile(world):
    """What a check read before the opt-out reaches this process while another one, which read after it, looks at the clock."""
    store = Noted(world.store)
    router = world.router(store)
    made, other = router.reserve(ANN), router.reserve(ANN)
    answers, read = [], store.read
    store.read = lambda keys: answers.append(read(keys)) or answers[-1]
    other.check()
    late, now = list(answers), world.clock.now
    world.router().report(OptedOut(ANN, at=NOW))

    def meanwhile():
        if late and len(answers) > 1:
            store.read = lambda _: late.pop()
            other.check()
        return now()

    world.clock.now = meanwhile
    with pytest.raises(Blocked, match="opted_out"):
        made.check()
    assert not late


def test_who_is_held_for_want_of_another_line_is_not_when_that_has_room_again(world):
    """Before somebody is held, all lines they could move to are read anew: another process gave back what filled one."""
    one, two = (world.router(limits={"new_per_day": 1}) for _ in range(2))
    one.assign(ANN, A)
    made = two.reserve(BOB, line=B)
    one.report(LineChanged(A, status="FLAGGED", at=NOW))
    with pytest.raises(Held, match="flagged"):
        one.reserve(ANN)
    made.release()
    assert one.reserve(ANN).number == B


def test_what_another_process_heard_of_somebody_counts_in_every_answer(world):
    """An opt-out in the preview of a process that never met them, and their return in its next refusal."""
    one, two = world.router(), world.router()
    two.report(OptedOut(ANN, at=NOW))
    assert one.preview(ANN).reason == "opted_out"
    world.clock.advance(1.0)
    two.report(OptedIn(ANN, at=world.clock.now()))
    assert one.reserve(ANN).kind == "new"


def test_nobody_is_moved_from_a_line_that_has_come_back(world):
    """A move demands that the line they leave still stands as it did: another process may know that it is good again."""
    one, two = (world.router(recovery={"confirmations": 1}) for _ in range(2))
    one.assign(ANN, A)
    one.report(LineChanged(A, status="FLAGGED", at=NOW))
    world.clock.advance(60)
    two.report(LineChanged(A, status="ACTIVE", at=world.clock.now()))
    assert one.reserve(ANN).number == A


@pytest.mark.parametrize(
    ("refusal", "lines"),
    [(Blocked, set()), (NotNow, {f"line/{A}/standing", f"line/{A}/spending"})],
)
def test_a_refusal_reads_only_what_it_rests_on(world, refusal, lines):
    """Whoever opted out has no line to be read of, and a line that is asked for is the only one."""
    store = Noted(world.store)
    router = world.router(store, pace={"new_gap": 60, "new_burst": 1, "max_delay": 0})
    if refusal is NotNow:
        router.reserve(BOB, line=A)
    else:
        router.report(OptedOut(ANN, at=NOW))
    read, asked = store.read, set()
    store.read = lambda keys: asked.update(keys) or read(keys)
    with pytest.raises(refusal):
        router.reserve(ANN, line=A)
    assert {key for key in asked if key.startswith("line/")} == lines


# Keys


def test_the_store_is_asked_no_more_than_it_must_be(world):
    """A new key takes one swap. That it was handed out again while it was open is written once, the first time. Of a message
    that was sent nothing is left to be written."""
    store = Noted(world.store)
    router = world.router(store)
    router.reserve(ANN)
    for asked in (["swap"], ["swap", "swap", "read"], ["swap", "read"]):
        store.asked.clear()
        router.reserve(BOB, key="k")
        assert store.asked == asked
    made = router.reserve(CAT, max_delay=60.0)
    store.asked.clear()
    made.settle("SENT")
    assert store.asked == []


def test_a_repeated_key_gives_all_that_the_first_time_gave(world):
    """The line as it is listed, and the chat that was learned since; also where the line takes nobody new any more."""
    router = world.router()
    made = router.reserve(ANN, line=A, key="k")
    made.settle("UNKNOWN", chat_id="chat-1")
    router.drain(A)
    again = router.reserve(ANN, key="k")
    assert (again.id, again.kind, again.chat_id) == (made.id, "new", "chat-1")
    assert again.line == made.line == Line(A, tags={"gold"})


def test_a_key_whose_message_went_out_is_told_to_those_who_may_be_written_to(world):
    """After an opt-out that is what is told, unless it is overridden; after a return it is as before."""
    router = world.router()
    made = router.reserve(ANN, key="k")
    made.settle("SENT")
    router.report(OptedOut(ANN, at=NOW))
    with pytest.raises(Blocked, match="opted_out"):
        router.reserve(ANN, key="k")
    override = router.reserve(ANN, key="k", override_optout=True)
    world.clock.advance(1.0)
    router.report(OptedIn(ANN, at=world.clock.now()))
    for again in (override, router.reserve(ANN, key="k")):
        assert (again.id, again.outcome) == (made.id, Outcome.SENT)


# What is unusual of a message


def test_what_they_wrote_is_answered_and_not_counted_as_silence(world):
    """An answer is the first message since, also where nobody was held yet."""
    router = world.router(conversation={"unanswered": "enforce", "unanswered_after": 3})
    router.assign(ANN, A)
    for inbound in (False, False, True, False, False):
        router.reserve(ANN, inbound=inbound)
    with pytest.raises(Held, match="quiet"):
        router.reserve(ANN)


def test_a_message_despite_an_opt_out_is_logged_whatever_else_is_remarked(world, caplog):
    """The log names the opt-out, and not what a rule in shadow says of the same message."""
    router = world.router(conversation={"unanswered": "shadow", "unanswered_after": 1})
    router.reserve(ANN)
    router.report(OptedOut(ANN, at=NOW))
    with caplog.at_level(logging.INFO, "linepicker"):
        made = router.reserve(ANN, override_optout=True)
    assert len(made.decision.notes) == 2
    (record,) = (each for each in caplog.records if each.linepicker["event"] == "despite")
    assert record.getMessage().endswith("is written to despite: opted_out")
    assert record.levelname == "INFO"
