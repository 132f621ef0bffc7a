"""What is learned is written on the records kept here: one question to the store, and right also when they were wrong."""

import asyncio
import itertools
from typing import Any

import attrs
import pytest

from linepicker import (
    AsyncRouter,
    ChatHealthChanged,
    Delivered,
    Line,
    LineChanged,
    OptedOut,
    Policy,
    Replied,
    Router,
)
from linepicker._kept import Guess, Kept
from linepicker.stores.memory import AsyncMemoryStore, MemoryStore
from linepicker.testing import ManualClock

NOW = 1_790_000_000.0
A, B = "+12025550100", "+12025550101"
ANN = "+14155550101"


@attrs.define
class Counted:
    """A store that notes what it is asked."""

    inner: Any
    asked: list[str] = attrs.field(factory=list)
    wants_seen = False

    def read(self, keys):
        """As the store."""
        self.asked.append("read")
        return self.inner.read(keys)

    def swap(self, writes, *, seen={}):  # noqa: B006  as the port has it
        """As the store."""
        self.asked.append("swap")
        return self.inner.swap(writes, seen=seen)

    def scan(self, prefix):
        """As the store."""
        return self.inner.scan(prefix)

    def close(self):
        """As the store."""


class Pair:
    """Two routers over one store, behind one of the doors: `mine`, whose questions are counted, and `other`."""

    def __init__(self, door: str) -> None:
        memory = MemoryStore()
        store = memory if door == "sync" else AsyncMemoryStore(memory)
        kind = Router if door == "sync" else AsyncRouter
        self.clock = ManualClock(NOW + 100)
        self.store = Counted(store)
        self._loop = asyncio.Runner()
        self.mine, self.other = (
            kind([Line(A), Line(B)], store=each, clock=self.clock) for each in (self.store, store)
        )

    def told(self, *reports, by=None) -> list[bool]:
        """Whether each report brought news."""
        answers = []
        for report in reports:
            answer = (by or self.mine).report(report)
            answers.append(self.get(answer))
        return answers

    def get(self, answer):
        """What a verb of either door answers."""
        return self._loop.run(answer) if asyncio.iscoroutine(answer) else answer

    def asked(self, *reports) -> list[str]:
        """What the store is asked for these reports."""
        self.store.asked.clear()
        assert all(self.told(*reports))
        return self.store.asked

    def close(self) -> None:
        """The end."""
        self._loop.close()


@pytest.fixture(params=["sync", "async"])
def pair(request):
    """Two routers behind each door."""
    pair = Pair(request.param)
    yield pair
    pair.close()


def reply(n, **more):
    """The n-th message of a person."""
    return Replied(A, ANN, at=NOW + n, event_id=f"e{n}", **{"chat_id": "c", **more})


def changed(n, status):
    """A line's change."""
    return LineChanged(A, status=status, at=NOW + n, event_id=f"e{n}")


def shown(pair, router):
    """Line A as a router shows it."""
    return next(each for each in pair.get(router.lines()) if each.line.number == A)


def test_a_reply_of_somebody_known_here_is_one_question(pair):
    """Nothing is read for the second one: a swap that demands what is kept of line, person and chat is all."""
    assert pair.told(reply(0)) == [True]
    assert pair.asked(reply(1)) == ["swap"]
    assert pair.asked(reply(2, text="STOP")) == ["swap"]


def test_a_status_event_is_one_question(pair):
    """The line's standing and the fleet's record are kept."""
    pair.get(pair.mine.lines())
    assert pair.asked(changed(0, "FLAGGED")) == ["swap"]
    assert pair.asked(changed(1, "ACTIVE")) == ["swap"]


def test_a_receipt_of_a_message_sent_from_here_is_written_at_once(pair):
    """Whose it was is read with its first receipt, and kept for the next."""
    made = pair.get(pair.mine.reserve(ANN, line=A))
    pair.get(made.settle("SENT", message_id="m1"))
    pair.get(pair.mine.report(Delivered(message_id="m1", at=NOW)))
    made = pair.get(pair.mine.reserve(ANN))
    pair.get(made.settle("SENT", message_id="m2"))
    assert pair.asked(Delivered(message_id="m2", at=NOW))[-1] == "swap"


def test_a_duplicate_is_found_out_by_the_store(pair):
    """An event is taken for new until the store refuses; then what it brings is enough to answer."""
    pair.told(reply(0), reply(1))
    pair.store.asked.clear()
    assert pair.told(reply(1)) == [False]
    assert pair.store.asked == ["swap"]


def test_an_event_that_another_process_took_is_a_duplicate(pair):
    """Whoever takes it first, it counts once."""
    pair.told(reply(0))
    assert pair.told(reply(1), by=pair.other) == [True]
    assert pair.told(reply(1)) == [False]


def test_stale_records_are_put_right_by_the_refusal(pair):
    """What another process wrote meanwhile stays, and what is learned here is added to it."""
    pair.told(reply(0))
    pair.told(reply(1), reply(2, text="STOP"), by=pair.other)
    pair.get(pair.other.pause(A, reason="rest"))
    pair.store.asked.clear()
    assert pair.told(reply(3)) == [True]
    assert pair.store.asked == ["swap", "swap"]
    assert pair.get(pair.other.preview(ANN, inbound=True)).outcome == "held"  # paused; no opt-out
    assert shown(pair, pair.mine).standing == shown(pair, pair.other).standing == "paused"
    fresh = Router([Line(A), Line(B)], store=pair.store.inner, clock=pair.clock)
    if isinstance(pair.mine, Router):
        assert fresh.lines()[0].outcomes == shown(pair, pair.mine).outcomes


def test_a_line_flagged_elsewhere_stays_flagged(pair):
    """A reply that comes to a process which has not heard of it yet writes over nothing."""
    pair.told(reply(0))
    pair.told(changed(1, "FLAGGED"), by=pair.other)
    pair.told(reply(2))
    assert shown(pair, pair.mine).standing == shown(pair, pair.other).standing == "flagged"


def test_what_is_kept_may_only_say_yes(pair):
    """That something is known already is believed only when it was read anew: somebody may have been forgotten since."""
    critical = ChatHealthChanged(ANN, "CRITICAL", number=A, at=NOW)
    pair.get(pair.mine.assign(ANN, A))
    assert pair.told(critical) == [True]
    assert pair.told(critical) == [False]
    pair.get(pair.other.forget(ANN))
    pair.get(pair.other.assign(ANN, A))
    assert pair.told(critical) == [True]


def test_an_opt_out_elsewhere_outlasts_a_reply_that_was_earlier(pair):
    """The kept record knows of no opt-out; the store's does, and it is the later one."""
    pair.told(reply(0))
    pair.clock.advance(20)
    pair.told(OptedOut(ANN, at=NOW + 10), by=pair.other)
    pair.told(reply(5))
    assert pair.get(pair.mine.preview(ANN)).outcome == "blocked"


def test_those_used_last_are_kept():
    """So many, and no more."""
    kept = Kept(at_most=2)
    for key in ("a", "b"):
        kept.put(key, Guess(1, key))
    assert kept.get("a") == Guess(1, "a")
    kept.put("c", Guess(1, "c"))
    assert [kept.get(key) is not None for key in "abc"] == [True, False, True]


class Busy(MemoryStore):
    """A store at which somebody else writes first, so many times."""

    times = 0
    others = staticmethod(lambda: None)

    def swap(self, writes, *, seen={}):  # noqa: B006  as the port has it
        """After theirs."""
        if self.times:
            times, self.times = self.times - 1, 0
            self.others()
            self.times = times
        return super().swap(writes, seen=seen)


class Napping(ManualClock):
    """A clock by which others write while somebody sleeps."""

    others = staticmethod(lambda: None)

    def sleep(self, seconds):
        """They do."""
        super().sleep(seconds)
        self.others()


@pytest.fixture
def busy():
    """Two routers on one busy line: the store, at which and while we sleep theirs writes more; ours; a reservation of ours."""
    store, clock = Busy(), Napping(NOW)
    policy = Policy.from_dict(
        {
            "limits": {"new_per_hour": "off"},
            "pace": {"new_gap": 0, "message_gap": 0, "spread": "off"},
        }
    )
    mine, theirs = (Router([Line(A)], store=store, clock=clock, policy=policy) for _ in range(2))
    theirs.reserve(ANN)
    people = (f"+1415556{n:04d}" for n in itertools.count())
    made = mine.reserve(next(people))
    store.others = clock.others = lambda: theirs.reserve(next(people))
    return store, mine, made


def test_a_report_gets_through_though_its_line_is_written_from_all_the_time(busy):
    """It looks at what the line has spent; what is spent after that does not matter."""
    store, mine, _ = busy
    store.times = 1000
    assert mine.report(LineChanged(A, reputation="CRITICAL", at=NOW))
    assert store.times >= 995


def test_who_was_refused_acts_at_once_on_what_that_told_and_not_after_a_pause(busy):
    """In which others write: then it would be refused for ever."""
    store, mine, made = busy
    store.times = 3
    made.settle("NOT_SENT")
    (view,) = mine.lines()
    assert view.used == 1 + 3 + 1  # before, in the way of its writing, and while it waited once
