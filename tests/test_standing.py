"""What a router tells by itself: lines that come to stand otherwise, and its log."""

import asyncio
import logging

import attrs
import pytest

from linepicker import (
    AsyncRouter,
    Blocked,
    Held,
    Line,
    LineChanged,
    LineReleased,
    NoLine,
    OptedOut,
    Policy,
    Router,
    StoreError,
)
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock

ONE, TWO, THREE = "+12025550100", "+12025550101", "+12025550102"
PERSON, FRIEND = "+12125550123", "ann@example.com"
NOON = 1_800_000_000.0


class Account:
    """A source whose lines may be changed."""

    def __init__(self, *lines):
        self.lines = {number: Line(number) for number in lines}

    def fetch(self):
        """The lines as they are."""
        return list(self.lines.values())

    def call(self, number, reputation):
        """Give a line another reputation."""
        self.lines[number] = attrs.evolve(self.lines[number], reputation=reputation)


class AsyncAccount(Account):
    """The same, awaited."""

    async def fetch(self):
        """The lines as they are."""
        return list(self.lines.values())


@pytest.fixture
def clock():
    """A clock that moves when told."""
    return ManualClock(NOON)


def told(changes):
    """The changes in short."""
    return [(each.number, each.was, each.standing) for each in changes]


def test_a_line_that_turns_critical_is_told_by_the_poll_that_sees_it(clock):
    """Once, with its reputation and the moment; so is its way back, step by step."""
    account, changes = Account(ONE, TWO), []
    router = Router(account, clock=clock, on_standing=changes.append)
    router.refresh()
    assert changes == []
    account.call(ONE, "CRITICAL")
    clock.advance(61.0)
    router.reserve(PERSON)
    ((change),) = changes
    assert (change.number, change.was, change.standing) == (ONE, "ok", "critical")
    assert (change.was_reputation, change.reputation) == ("HEALTHY", "CRITICAL")
    assert change.at == clock.now()
    router.reserve(PERSON)
    account.call(ONE, "HEALTHY")
    for _ in range(4):
        clock.advance(61.0)
        router.reserve(PERSON)
    assert told(changes[1:]) == [(ONE, "critical", "ok")]


def test_a_line_that_turns_at_risk_is_told_though_it_may_send(clock):
    """Its standing is the same; its reputation is not."""
    changes = []
    router = Router([Line(ONE)], clock=clock, on_standing=changes.append)
    router.refresh()
    router.report(LineChanged(ONE, reputation="AT_RISK", at=clock.now()))
    ((change),) = changes
    assert (change.standing, change.reputation, change.was_reputation) == (
        "ok",
        "AT_RISK",
        "HEALTHY",
    )


def test_a_report_and_the_operator_are_told_at_once(clock):
    """FLAGGED by a webhook, paused and resumed by hand, released: before the verb returns."""
    changes = []
    router = Router([Line(ONE), Line(TWO)], clock=clock, on_standing=changes.append)
    router.refresh()
    router.report(LineChanged(ONE, status="FLAGGED", at=clock.now()))
    router.pause(TWO, reason="carrier test")
    assert changes[-1].reason == "carrier test"
    router.resume(TWO)
    router.report(LineReleased(TWO, at=clock.now(), event_id="x"))
    assert told(changes) == [
        (ONE, "ok", "flagged"),
        (TWO, "ok", "paused"),
        (TWO, "paused", "ok"),
        (TWO, "ok", "not_in_fleet"),
    ]


def test_a_line_that_leaves_the_list_and_comes_back_is_told(clock):
    """Gone, and there again; a line that is new is no change."""
    account, changes = Account(ONE, TWO, THREE), []
    router = Router(account, clock=clock, on_standing=changes.append)
    router.refresh()
    kept = account.lines.pop(TWO)
    account.lines["+12025550109"] = Line("+12025550109")
    clock.advance(61.0)
    router.refresh()
    account.lines[TWO] = kept
    clock.advance(61.0)
    router.refresh()
    assert told(changes) == [(TWO, "ok", "not_in_fleet"), (TWO, "not_in_fleet", "ok")]


def test_a_refused_line_is_told_and_so_is_the_end_of_it(clock):
    """The end comes with time alone: with the first call that looks after it."""
    account, changes = Account(ONE, TWO), []
    router = Router(account, clock=clock, on_standing=changes.append)
    made = router.reserve(PERSON)
    made.settle("LINE_REFUSED", retry_after=600.0)
    assert told(changes) == [(made.number, "ok", "ineligible")]
    clock.advance(601.0)
    router.reserve(FRIEND)
    assert told(changes[1:]) == [(made.number, "ineligible", "ok")]


def test_what_another_process_wrote_is_told_by_the_next_look(clock):
    """Each router on a store tells for itself, at the latest with its next look at the list."""
    store, changes = open_store("memory://"), []
    account = Account(ONE, TWO)
    here = Router(account, store=store, clock=clock, on_standing=changes.append)
    there = Router(account, store=store, clock=clock)
    here.refresh()
    there.pause(ONE)
    clock.advance(61.0)
    here.preview(PERSON)
    assert told(changes) == [(ONE, "ok", "paused")]


def test_a_callback_that_fails_does_not_reach_the_send(clock, caplog):
    """What it raises is in the log, and the reservation is made."""

    def fails(change):
        raise RuntimeError("no network")

    account = Account(ONE, TWO)
    router = Router(account, clock=clock, on_standing=fails)
    router.refresh()
    account.call(ONE, "CRITICAL")
    clock.advance(61.0)
    assert router.reserve(PERSON).number == TWO
    assert "on_standing failed: RuntimeError" in caplog.text


def test_what_a_slow_callback_took_is_not_taken_from_the_moment_of_the_choice(clock):
    """The clock is read again: a choice of half an hour ago would take what others did since for a clock that stepped back."""
    account = Account(ONE, TWO)
    router = Router(account, clock=clock, on_standing=lambda change: clock.advance(1800.0))
    router.refresh()
    account.call(ONE, "CRITICAL")
    clock.advance(61.0)
    reservation = router.reserve(PERSON)
    assert reservation.decision.at == reservation.send_at == clock.now() == NOON + 1861.0


def test_a_callback_may_use_the_router(clock):
    """It is called with no lock held."""
    seen = []

    def look(change):
        seen.extend(view.standing for view in router.lines())

    router = Router([Line(ONE)], clock=clock, on_standing=look)
    router.refresh()
    router.pause(ONE)
    assert seen == ["paused"]


async def test_an_async_router_awaits_its_callback(clock, caplog):
    """A coroutine function, with the same changes; what it raises goes no further."""
    account, changes = AsyncAccount(ONE, TWO), []

    async def hear(change):
        await asyncio.sleep(0)
        changes.append(change)
        raise RuntimeError("no network")

    router = AsyncRouter(account, clock=clock, on_standing=hear)
    await router.refresh()
    await router.pause(ONE)
    account.call(TWO, "CRITICAL")
    clock.advance(61.0)
    with pytest.raises(NoLine):
        await router.reserve(PERSON)
    assert told(changes) == [(ONE, "ok", "paused"), (TWO, "ok", "critical")]
    assert caplog.text.count("on_standing failed") == 2


# The log


def records(caplog, event):
    """The facts of the log's records of one kind."""
    found = [getattr(record, "linepicker", {}) for record in caplog.records]
    return [facts for facts in found if facts.get("event") == event]


def test_each_class_of_refusals_is_logged_once_a_minute(clock, caplog):
    """The first with its facts; the next after a minute tells how many there were."""
    caplog.set_level(logging.INFO, "linepicker")
    router = Router(
        [Line(ONE)], policy=Policy.from_dict({"limits": {"new_per_day": 1}}), clock=clock
    )
    router.reserve(PERSON)
    for n in range(5):
        with pytest.raises(NoLine):
            router.reserve(f"{n}@example.com")
    router.report(OptedOut(PERSON, at=clock.now()))
    with pytest.raises(Blocked):
        router.reserve(PERSON)
    first, second = records(caplog, "refused")
    assert (first["outcome"], first["reason"], first["more"]) == ("no_line", "day_budget", 0)
    assert first["to"] == "0•••@•••.com"
    assert first["retry_at"] == NOON + 86400.0
    assert (second["outcome"], second["reason"]) == ("blocked", "opted_out")
    clock.advance(60.0)
    with pytest.raises(NoLine):
        router.reserve(FRIEND)
    *_, last = records(caplog, "refused")
    assert last["more"] == 4
    assert "4 more of these" in caplog.text


def test_a_refusal_for_another_reason_is_another_class(clock, caplog):
    """Held because paused, and held because CRITICAL, are told apart, by line."""
    caplog.set_level(logging.INFO, "linepicker")
    router = Router([Line(ONE)], clock=clock)
    router.reserve(PERSON)
    router.pause(ONE)
    for _ in range(3):
        with pytest.raises(Held):
            router.reserve(PERSON)
    router.resume(ONE)
    router.report(LineChanged(ONE, reputation="CRITICAL", at=clock.now()))
    with pytest.raises(Held):
        router.reserve(PERSON)
    found = [(each["reason"], each["line"]) for each in records(caplog, "refused")]
    assert found == [("paused", ONE), ("critical", ONE)]


def test_standings_are_in_the_log_without_any_callback(clock, caplog):
    """As a warning where a line got worse, as information where it got better or the operator did it."""
    caplog.set_level(logging.INFO, "linepicker")
    router = Router([Line(ONE), Line(TWO)], clock=clock)
    router.refresh()
    router.report(LineChanged(ONE, reputation="CRITICAL", at=clock.now()))
    router.pause(TWO, reason="carrier test")
    found = [
        (r.levelname, r.linepicker["standing"])
        for r in caplog.records
        if r.linepicker["event"] == "standing"
    ]
    assert found == [("WARNING", "critical"), ("INFO", "paused")]
    assert '("carrier test")' in caplog.text


@pytest.mark.parametrize("full", [False, True])
def test_handles_are_masked_unless_the_switch_is_on(clock, caplog, full):
    """Everywhere in the log; the switch says what it does, as a warning, when the router is made."""
    caplog.set_level(logging.DEBUG, "linepicker")
    router = Router([Line(ONE), Line(TWO)], clock=clock, full_handles=full)
    router.reserve(PERSON)
    router.move(PERSON, reason="asked for it")
    router.report(OptedOut(PERSON, at=clock.now()))
    router.reserve(PERSON, override_optout=True)
    with pytest.raises(Blocked):
        router.reserve(PERSON)
    shown = PERSON if full else "+1•••••••123"
    assert {
        facts["to"] for event in ("refused", "moved", "despite") for facts in records(caplog, event)
    } == {shown}
    assert (PERSON in caplog.text) == full
    said = [record for record in caplog.records if "in clear" in record.getMessage()]
    assert [record.levelname for record in said] == (["WARNING"] if full else [])


def test_every_record_has_its_facts(clock, caplog):
    """`linepicker`, a dict with the event and the pool, is on each record a router writes."""
    caplog.set_level(logging.DEBUG, "linepicker")

    class Broken:
        def fetch(self):
            raise OSError("no network")

    router = Router(Broken(), clock=clock, pool="north")
    with pytest.raises(Exception, match="source failed"):
        router.refresh()
    assert caplog.records
    for record in caplog.records:
        assert record.linepicker["pool"] == "north"
        assert record.linepicker["event"] in {"list", "store"}


def test_an_error_of_the_store_is_raised_and_not_logged(clock, caplog):
    """Who gets it knows it."""

    class Gone:
        def read(self, keys):
            raise StoreError("gone")

        swap = scan = read

    router = Router([Line(ONE)], store=Gone(), clock=clock)
    with pytest.raises(StoreError):
        router.reserve(PERSON)
    assert caplog.records == []
