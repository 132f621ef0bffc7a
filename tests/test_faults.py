"""What must hold when the world fails: provider, store, process, clock and caller.

Providers fail on real sockets, stores in real files, processes are really killed and forked. Only the clock is not real.
Tests are named after the numbers of the faults, F1 to F33; those of webhooks, Redis and PostgreSQL have no part here.
"""

# ruff: noqa: N802  a fault's number begins with a capital

import asyncio
import json
import logging
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import linq
import pytest

from linepicker import (
    AlreadySent,
    AsyncRouter,
    Blocked,
    Held,
    InvalidRecipient,
    Line,
    LineChanged,
    NoLine,
    NotNow,
    OptedOut,
    Policy,
    Reputation,
    Router,
    SourceError,
    StaleHealth,
    StoreError,
)
from linepicker import router as router_module
from linepicker.providers.linq import AsyncLinqSource, LinqMessenger, LinqSource
from linepicker.stores import Answer
from linepicker.stores import open as open_store
from linepicker.stores.memory import AsyncMemoryStore, MemoryStore
from linepicker.testing import FakeLinq, ManualClock

NOW = 1_790_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
TTL, MAX_AGE, HARD = 60.0, 900.0, 21600.0
A, B, C = "+12025550100", "+12025550101", "+12025550102"
ANN, BOB, CAT = "+14155550101", "+14155550102", "+14155550103"
TOKEN = "tok-5f0c2b"
LIST = "phone_numbers"
OFF = dict.fromkeys(
    ("new_per_day", "new_per_hour", "messages_per_day", "pair_per_minute", "moves_per_day"), "off"
)


def policy(**tables) -> Policy:
    """A policy that limits nothing but what *tables* say."""
    pace = {"new_gap": 0, "message_gap": 0, "spread": "off"}
    base = {"limits": OFF, "pace": pace, "learn": {"enabled": False}}
    for name, table in tables.items():
        base[name] = {**base.get(name, {}), **table} if isinstance(table, dict) else table
    return Policy.from_dict(base)


def person(n: int) -> str:
    """The n-th recipient."""
    return f"+1415{n:07d}"


def view(router: Router, number: str):
    """One line's view."""
    return next(each for each in router.lines() if each.line.number == number)


def used(router: Router) -> int:
    """All charges of the rolling day."""
    return sum(each.used for each in router.lines())


@pytest.fixture
def clock() -> ManualClock:
    """A moment in 2026 that stands still."""
    return ManualClock(NOW)


@pytest.fixture
def fake(clock) -> Iterator[FakeLinq]:
    """An account of three lines."""
    with FakeLinq([A, B, C], token=TOKEN, clock=clock) as provider:
        yield provider


@pytest.fixture
def source(fake) -> Iterator[LinqSource]:
    """Reads that account, and wastes no time between attempts."""
    with LinqSource(TOKEN, base_url=fake.base_url) as reader:
        reader._sleep = lambda seconds: None
        yield reader


@pytest.fixture
def router(source, clock) -> Router:
    """A router before that account, which has read the list."""
    made = Router(source, clock=clock, policy=policy(limits={"new_per_day": 400}))
    made.lines()
    return made


@pytest.fixture
def raw() -> Iterator[Callable[[Callable[[socket.socket], object]], int]]:
    """Serves bytes as they are: give it what to do with a connection whose request has been read; the port."""
    stopped = threading.Event()
    threads: list[threading.Thread] = []

    def serve(answer: Callable[[socket.socket], object]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.05)

        def accept() -> None:
            with listener:
                while not stopped.is_set():
                    with suppress(OSError):
                        connection, _ = listener.accept()
                        with connection:
                            connection.settimeout(5)
                            connection.recv(65536)
                            answer(connection)

        threads.append(threading.Thread(target=accept))
        threads[-1].start()
        return listener.getsockname()[1]

    yield serve
    stopped.set()
    for thread in threads:
        thread.join()


def ages(router: Router, clock: ManualClock, fake: FakeLinq | None, seconds: float) -> int:
    """Seconds pass with a request each; how often the provider was asked."""
    before = 0 if fake is None else len(fake.requests)
    for _ in range(int(seconds)):
        clock.advance(1)
        router.preview(ANN)
    return 0 if fake is None else len(fake.requests) - before


def check_an_outage(router: Router, clock: ManualClock, heal: Callable[[], object]) -> None:
    """Whatever keeps the list from being read: the last good one serves, slows down, and stops; then all is well again."""
    known = router.reserve(ANN).number
    assert view(router, A).standing == "ok"
    clock.set(NOW + TTL + 1)
    assert router.reserve(ANN).number == known
    assert router.reserve(person(1)).kind == "new"
    assert all(each.budget == 400 for each in router.lines())
    with pytest.raises(SourceError):
        router.refresh()
    clock.set(NOW + MAX_AGE + 1)
    assert router.reserve(person(2)).kind == "new"
    assert all(each.budget == 200 for each in router.lines())
    assert all("stale" in each.reasons[0] for each in router.lines())
    clock.set(NOW + HARD + 1)
    for to in (ANN, person(3)):
        with pytest.raises(StaleHealth) as caught:
            router.reserve(to)
        assert isinstance(caught.value.__cause__, SourceError)
        assert caught.value.retry_at > clock.now()
    heal()
    clock.advance(MAX_AGE)
    assert router.reserve(ANN).number == known
    clock.advance(TTL + 1)
    assert {each.standing for each in router.lines()} == {"ok"}
    assert all(each.budget == 400 for each in router.lines())


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_fault_F01_a_server_that_fails_leaves_the_last_good_list_in_force(
    fake, clock, router, status
):
    """5xx answers never reach a send; health ages visibly, and past its hard age nothing goes out."""
    fake.fail_next(10**6, status=status)
    check_an_outage(router, clock, fake.heal)


def test_fault_F01_a_connection_that_breaks_or_is_refused_is_no_different(fake, clock, router):
    """Cut answers first, then nobody listens at all."""
    fake.cut_next(1, path=LIST)
    clock.advance(TTL + 1)
    assert router.reserve(BOB).kind == "new"
    clock.set(NOW)
    fake.close()
    check_an_outage(router, clock, fake.start)


def test_fault_F01_a_name_that_does_not_resolve_is_no_different(clock, router, monkeypatch):
    """Name resolution is down, and comes back."""

    def fail(*_):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", fail)
        check_an_outage(router, clock, patch.undo)


def test_fault_F01_an_outage_is_asked_about_ever_more_seldom(fake, clock, router):
    """Ten minutes of a call per second cause a few requests, with growing pauses of at most a ttl."""
    fake.fail_next(10**6, status=503)
    clock.advance(TTL)
    assert 8 <= ages(router, clock, fake, 600) <= 30
    fake.heal()
    assert ages(router, clock, fake, TTL + 1) >= 1


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("120", 120, 190),
        (300.0, 300, 370),
        ("soon", 0, TTL),
        ("-5", 0, TTL),
        ("nan", 0, TTL),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, TTL),
        ("1000000000", 300, MAX_AGE + 1),
        ("1e999", 0, MAX_AGE + 1),
        ("", 0, TTL),
        (None, 0, TTL),
    ],
)
def test_fault_F02_a_rate_limit_is_kept_and_clamped(fake, clock, router, asked, least, most):
    """Retry-After is waited for, but no longer than a list may age; garbage is ignored; sends go on."""
    fake.fail_next(1, status=429, code=1007, retry_after=asked, path=LIST)
    clock.advance(TTL + 1)
    router.reserve(BOB)
    before, began = len(fake.requests), clock.now()
    while len(fake.requests) == before:
        clock.advance(1)
        assert router.reserve(BOB).kind == "known"
    assert least <= clock.now() - began <= most


@pytest.mark.parametrize("status", [401, 403])
def test_fault_F03_a_bad_token_is_told_and_not_hammered(fake, clock, router, status, caplog):
    """Asked about once per ttl, loud in the log, fatal to who refreshes; no line is blamed; in the end requests are refused."""
    fake.fail_next(10**6, status=status)
    clock.advance(TTL)
    with caplog.at_level(logging.WARNING, "linepicker"):
        assert ages(router, clock, fake, 600) <= 600 / TTL + 1
    assert "token" in caplog.text
    assert TOKEN not in caplog.text
    with pytest.raises(SourceError) as caught:
        router.refresh()
    assert caught.value.fatal
    assert caught.value.status == status
    assert {each.standing for each in router.lines()} == {"ok"}
    clock.set(NOW + HARD + 1)
    with pytest.raises(StaleHealth) as stale:
        router.reserve(ANN)
    assert stale.value.__cause__.status == status


def _silent(connection):
    with suppress(OSError):
        connection.recv(1)


def _dribbling(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    until = time.monotonic() + 5
    with suppress(OSError):
        while time.monotonic() < until:
            connection.sendall(b" ")
            time.sleep(0.02)


def _endless(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    with suppress(OSError):
        while True:
            connection.sendall(b" " * 1_000_000)


def _huge(connection):
    body = b'{"phone_numbers": [' + b" " * 10_000_000 + b"]}"
    with suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@pytest.mark.parametrize("server", [_silent, _dribbling, _endless, _huge])
def test_fault_F04_a_slow_or_endless_answer_holds_up_a_send_only_shortly(
    clock, raw, monkeypatch, server
):
    """A call that finds the list old waits for one short attempt, and goes on with what it has."""
    monkeypatch.setattr("linepicker._source.SHORT_FETCH", 0.3)
    store = MemoryStore()
    Router([Line(A), Line(B)], clock=clock, store=store, policy=policy()).reserve(ANN)
    with FakeLinq([A, B], token=TOKEN) as fake:
        source = LinqSource(TOKEN, base_url=fake.base_url)
        router = Router(source, clock=clock, store=store, policy=policy())
        router.lines()
        bad = LinqSource(TOKEN, base_url=f"http://127.0.0.1:{raw(server)}")
        source._query = bad._query
        clock.advance(TTL + 1)
        began = time.monotonic()
        assert router.reserve(ANN).kind == "known"
        assert router.reserve(BOB).kind == "new"
        assert time.monotonic() - began < 5
        source.close()


async def test_fault_F04_others_do_not_wait_for_a_refresh_that_hangs(clock):
    """While one call waits for the provider, the others go on with the list they have, and start no second request."""
    hang, fetches = asyncio.Event(), []

    class Hanging:
        async def fetch(self):
            fetches.append(clock.now())
            if len(fetches) > 1:
                await hang.wait()
            return [Line(A), Line(B)]

    router = AsyncRouter(Hanging(), clock=clock, policy=policy())
    await router.reserve(ANN)
    clock.advance(TTL + 1)
    waiting = asyncio.ensure_future(router.reserve(BOB))
    await asyncio.sleep(0)
    for n in range(20):
        assert (await asyncio.wait_for(router.reserve(person(n)), 1)).kind == "new"
    assert not waiting.done()
    assert len(fetches) == 2
    hang.set()
    assert (await waiting).kind == "new"
    assert len(fetches) == 2


GARBAGE = {
    "not json": b"{",
    "html": b"<html>oops</html>",
    "truncated": b'{"phone_numbers": [{"phone_number": "+120255501',
    "wrong type": b'{"phone_numbers": {"a": 1}}',
    "wrong entry": b'{"phone_numbers": [5]}',
    "no list": b"{}",
    "null": b"null",
    "a key twice": b'{"phone_numbers": [{"phone_number": "+12025550109", "phone_number": "+12025550100"}]}',
    "nesting": b"[" * 200_000,
    "nan": b"NaN",
    "not utf-8": b'{"phone_numbers": [{"phone_number": "\xff"}]}',
    "empty": b"",
    "half good": b'{"phone_numbers": [{"phone_number": "+12025550100", "reputation": "CRITICAL"}, 5]}',
}


@pytest.mark.parametrize("name", GARBAGE)
def test_fault_F05_garbage_is_rejected_whole(fake, clock, router, name):
    """No part of an answer that can't be read counts; the last good list stays."""
    fake.garbage_next(10**6, body=GARBAGE[name], path=LIST)
    check_an_outage(router, clock, fake.heal)


def test_fault_F05_an_entry_that_is_no_line_is_left_out(fake, clock, router, caplog):
    """One number that is none costs the others nothing; unknown members are borne; of one number twice the worse counts."""
    fake.raw_lines(
        [
            {"phone_number": A, "mood": {"x": [1]}},
            {"phone_number": "12"},
            {"phone_number": B, "reputation": {"status": "AT_RISK"}},
            {"phone_number": B},
        ]
    )
    clock.advance(TTL + 1)
    assert [(each.line.number, each.budget) for each in router.lines()] == [(A, 400), (B, 200)]
    assert "left out" in caplog.text


def test_fault_F06_an_unknown_reputation_is_at_risk_at_best(fake, clock, router, caplog):
    """That line is paced as AT_RISK and picked last, the others as ever; one warning per value."""
    fake.set_reputation(A, "DOZING")
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            clock.advance(TTL + 1)
            router.lines()
    assert caplog.text.count("DOZING") == 1
    assert [view(router, number).budget for number in (A, B, C)] == [200, 400, 400]
    assert "DOZING" in " ".join(view(router, A).reasons)
    assert {router.reserve(person(n)).number for n in range(30)} == {B, C}


def test_fault_F06_an_unknown_reputation_keeps_the_worse_that_is_known(fake, clock, router):
    """A CRITICAL line doesn't get better by a word nobody knows, and one never seen before is AT_RISK."""
    fake.set_reputation(A, "CRITICAL")
    clock.advance(TTL + 1)
    assert view(router, A).standing == "critical"
    fake.set_reputation(A, "DOZING")
    fake.add_line("+12025550109", reputation="DOZING")
    for _ in range(10):
        clock.advance(TTL + 1)
        assert view(router, A).standing in {"critical", "recovering"}
    assert any("AT_RISK" in reason for reason in view(router, "+12025550109").reasons)


def test_fault_F06_missing_and_extra_fields_are_borne(fake, clock, router):
    """A line without a reputation is unscored, HEALTHY; unknown fields are left."""
    fake.raw_lines(
        [
            {"phone_number": A},
            {"phone_number": B, "reputation": {"status": "AT_RISK", "mood": 3}, "new": [1, 2]},
            {"phone_number": C, "reputation": None},
        ]
    )
    clock.advance(TTL + 1)
    assert [view(router, number).budget for number in (A, B, C)] == [400, 200, 400]


@pytest.mark.parametrize("left", [0, 1])
def test_fault_F07_a_list_that_shrinks_much_must_come_twice(fake, clock, router, left):
    """Empty, or less than half: kept as it was until a second answer says the same; assignments stay for ever."""
    owner = {to: router.reserve(to).number for to in map(person, range(12))}
    for number in (A, B, C)[left:]:
        fake.remove_line(number)
    clock.advance(TTL + 1)
    assert len(router.lines()) == 3
    assert router.reserve(BOB).number in {A, B, C}
    clock.advance(TTL + 1)
    assert len(router.lines()) == left
    with pytest.raises(NoLine if not left else Held):
        router.reserve(CAT, exclude=[A]) if not left else router.reserve(CAT, line=B)
    assert {to: router.assignment(to).number for to in owner} == owner


def test_fault_F07_a_list_that_comes_back_whole_was_a_slip(fake, clock, router):
    """One empty answer between good ones changes nothing."""
    fake.garbage_next(body=b'{"phone_numbers": []}', path=LIST)
    for _ in range(4):
        clock.advance(TTL + 1)
        assert len(router.lines()) == 3
        assert {each.standing for each in router.lines()} == {"ok"}


def test_fault_F07_lines_that_vanish_take_no_one_new(fake, clock, router):
    """A smaller loss counts at once; the vanished line's people move, or hold, by policy."""
    router.assign(ANN, A)
    fake.remove_line(A)
    clock.advance(TTL + 1)
    assert {router.reserve(person(n)).number for n in range(20)} == {B, C}
    made = router.reserve(ANN)
    assert (made.kind, made.moved_from) == ("moved", A)
    fake.add_line(A)
    clock.advance(TTL + 1)
    assert router.reserve(ANN).number == made.number


def test_fault_F08_a_line_that_nobody_named_starts_with_warm_up(fake, clock, router):
    """HEALTHY is no proof: it begins with ten, in this process and in the next."""
    fake.add_line("+12025550109")
    clock.advance(TTL + 1)
    assert view(router, "+12025550109").budget == 10
    for pool in ("default", "other"):
        other = Router(router._source, clock=clock, store=router._store, pool=pool, policy=policy())
        assert view(other, "+12025550109").budget == 10


@pytest.mark.parametrize("jump", [-HOUR, HOUR, -DAY, DAY])
def test_fault_F14_a_wall_clock_that_jumps_does_not_matter_to_a_running_router(monkeypatch, jump):
    """Without clock=, time is monotonic: nothing freezes, nothing bursts, no key is lost."""
    real = time.time
    rules = policy(pace={"new_gap": 100, "new_burst": 3, "spread": "off", "max_delay": 0})
    router = Router([Line(A)], policy=rules)
    first = router.reserve(ANN, key="m1")
    router.reserve(BOB)
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    assert router.reserve(CAT).delay == 0
    with pytest.raises(NoLine) as caught:
        router.reserve(person(1))
    assert 0 < caught.value.retry_at - router._clock.now() <= 100
    assert router.reserve(ANN, key="m1").id == first.id


@pytest.mark.parametrize("jump", [-HOUR, HOUR, -DAY, DAY])
def test_fault_F14_a_restart_after_a_jump_goes_on(clock, jump):
    """A new process with another idea of the time freezes for no longer than one gap, and lets one burst through."""
    store = MemoryStore()
    rules = policy(pace={"new_gap": 100, "new_burst": 3, "spread": "off", "max_delay": 50})
    one = Router([Line(A)], clock=clock, store=store, policy=rules)
    for n in range(3):
        one.reserve(person(n))
    two = Router([Line(A)], clock=ManualClock(NOW + jump), store=store, policy=rules)
    delays = [two.reserve(person(10 + n), max_delay=1000.0).delay for n in range(5)]
    assert delays[0] <= 100 + 50
    assert sum(delay == 0 for delay in delays) <= 3 + 1
    assert two.assignment(person(0)).number == A


class Hour:
    """What a host shows that is *skew* seconds off: stands in for the `time` module."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.skew = 0.0

    def time(self) -> float:
        """The host's wall clock."""
        return self.clock.now() + self.skew

    def monotonic(self) -> float:
        """The host's monotonic clock, which began somewhere else."""
        return self.clock.now() + 17 * self.skew + 1000.0


class Telling(MemoryStore):
    """A store that tells its own time, as a server does."""

    clock: ManualClock

    def read(self, keys) -> Answer:
        """With the store's time."""
        return super().read(keys)._replace(now=self.clock.now())

    def swap(self, writes, *, seen={}) -> Answer:  # noqa: B006  as the port has it
        """With the store's time."""
        return super().swap(writes, seen=seen)._replace(now=self.clock.now())


def test_fault_F15_a_skewed_clock_takes_no_more_than_its_share(clock, monkeypatch):
    """Four hosts with equal demand, one 5 s fast and one 60 s slow: each gets at least half of an equal share."""
    host = Hour(clock)
    monkeypatch.setattr(sys.modules[router_module.HostTime.__module__], "time", host)
    monkeypatch.setattr(router_module, "asking", host.monotonic)
    store = Telling()
    store.clock = clock
    rules = policy(pace={"new_gap": 10, "new_burst": 3, "spread": "off", "max_delay": 0})
    skews = [0.0, 0.0, 5.0, -60.0]
    routers = []
    for skew in skews:
        host.skew = skew
        routers.append(Router([Line(A)], store=store, policy=rules))
    dice, got, n = random.Random(1), Counter(), 0
    while got.total() < 1000:
        for which in dice.sample(range(4), 4):
            host.skew = skews[which]
            n += 1
            with suppress(NoLine):
                routers[which].reserve(person(n))
                got[which] += 1
        clock.advance(5)
    assert min(got.values()) >= 125, got
    assert got.total() <= 3 + (clock.now() - NOW) / 10 + 1


class Failing(MemoryStore):
    """A memory store that can be out, or lose its answer after the work is done."""

    out = False
    lost = False

    def read(self, keys) -> Answer:
        """As ever, while not out."""
        if self.out:
            raise StoreError("the store is out")
        return super().read(keys)

    def swap(self, writes, *, seen={}) -> Answer:  # noqa: B006  as the port has it
        """As ever, while not out; the answer may be lost."""
        if self.out:
            raise StoreError("the store is out")
        answer = super().swap(writes, seen=seen)
        if self.lost:
            self.lost = False
            raise StoreError("the answer was lost", unknown=True)
        return answer


def test_fault_F16_without_its_store_nothing_goes_out(clock):
    """Neither new nor known recipients are served from memory; when the store is back all goes on."""
    store = Failing()
    router = Router([Line(A), Line(B)], clock=clock, store=store, policy=policy())
    number = router.reserve(ANN).number
    store.out = True
    calls = []
    for verb in (
        lambda: router.reserve(ANN),
        lambda: router.reserve(BOB),
        lambda: router.send(ANN, calls.append),
        lambda: router.assign(CAT, A),
        lambda: router.report(OptedOut(ANN, at=NOW)),
        lambda: router.pause(A),
        lambda: router.assignment(ANN),
        router.lines,
    ):
        with pytest.raises(StoreError):
            verb()
    assert not calls
    store.out = False
    assert router.reserve(ANN).number == number
    assert router.reserve(BOB).kind == "new"
    assert used(router) == 2


def test_fault_F16_a_store_that_is_out_at_the_start_is_no_new_store(clock):
    """A router that could not open its store begins when it can."""
    store = Failing()
    Router([Line(A)], clock=clock, store=store, policy=policy()).reserve(ANN)
    store.out = True
    router = Router([Line(A)], clock=clock, store=store, policy=policy())
    with pytest.raises(StoreError):
        router.reserve(ANN)
    store.out = False
    assert router.reserve(ANN).kind == "known"


def test_fault_F17_an_answer_lost_after_the_write_gives_the_same_reservation(clock):
    """What was written is found and taken: one line, one charge."""
    store = Failing()
    router = Router([Line(A), Line(B)], clock=clock, store=store, policy=policy())
    router.lines()
    store.lost = True
    made = router.reserve(ANN, key="m1")
    assert router.assignment(ANN).number == made.number
    assert used(router) == 1
    assert router.reserve(ANN, key="m1").id == made.id
    made.release()
    assert used(router) == 1  # it was handed out twice: the other may have been sent


class Meanwhile(Failing):
    """A store of which an answer is lost, while somebody else does something."""

    def __init__(self, done) -> None:
        super().__init__()
        self.done = done

    def swap(self, writes, *, seen={}) -> Answer:  # noqa: B006  as the port has it
        """As ever; before the answer is lost it is done."""
        lost, self.lost = self.lost, False
        answer = super().swap(writes, seen=seen)
        if lost:
            self.done()
            raise StoreError("the answer was lost", unknown=True)
        return answer


@pytest.mark.parametrize("verb", ["reserve", "send"])
@pytest.mark.parametrize(
    ("said", "refusal", "code"),
    [
        (lambda other: other.report(OptedOut(ANN, at=NOW)), Blocked, "opted_out"),
        (lambda other: other.pause(A), Held, "paused"),
        (lambda other: other.drain(A), Held, "draining"),
        (lambda other: other.report(LineChanged(A, status="FLAGGED", at=NOW)), Held, "flagged"),
    ],
    ids=["opted out", "paused", "drained", "flagged"],
)
def test_fault_F17_what_was_said_while_an_answer_was_lost_bars_the_message(
    clock, verb, said, refusal, code
):
    """A reservation whose answer was lost meets the gates as they are when it is found, and is given back."""
    store = Meanwhile(lambda: said(other))
    other, router = (Router([Line(A)], clock=clock, store=store, policy=policy()) for _ in range(2))
    other.lines(), router.lines()
    store.lost = True
    calls = []
    with pytest.raises(refusal) as raised:
        router.reserve(ANN) if verb == "reserve" else router.send(ANN, calls.append)
    assert raised.value.decision.reason == code
    assert not calls
    assert used(router) == 0
    assert router.assignment(ANN) is None


def test_fault_F17_a_store_that_dies_at_once_leaves_one_line(clock):
    """The write went in, the answer and the store are gone: an error that says so, and the retry finds the same line."""

    class Dying(Failing):
        def swap(self, writes, *, seen={}) -> Answer:  # noqa: B006  as the port has it
            lost = self.lost
            try:
                return super().swap(writes, seen=seen)
            finally:
                self.out = lost or self.out

    store = Dying()
    router = Router([Line(A), Line(B)], clock=clock, store=store, policy=policy())
    router.lines()
    store.lost = True
    with pytest.raises(StoreError) as caught:
        router.reserve(ANN)
    assert caught.value.unknown
    store.out = False
    first = router.assignment(ANN).number
    assert router.reserve(ANN).number == first
    assert used(router) == 1


def test_fault_F17_a_move_whose_answer_was_lost_is_made_once(clock):
    """Repeating the call after the error moves nobody a second time, nor charges them twice."""
    store = Failing()
    router = Router([Line(A), Line(B), Line(C)], clock=clock, store=store, policy=policy())
    router.assign(ANN, A)
    router.lines()
    store.lost = True
    with suppress(StoreError):
        router.move(ANN, B)
    assert router.assignment(ANN).number == B
    router.move(ANN, B)
    assert used(router) == 1
    store.lost = True
    router.move(ANN)
    assert used(router) == 2


def small_world(url: str, clock: ManualClock) -> Router:
    """A router over a store of its own, with two lines."""
    return Router([Line(A), Line(B)], clock=clock, store=url, policy=policy())


def test_fault_F19_a_locked_file_is_waited_for_and_then_told(tmp_path, clock):
    """Another process's transaction outlasts the timeout: StoreError, nothing half done, and all is well after it."""
    router = small_world(f"sqlite:///{tmp_path}/x.db?timeout=0.05", clock)
    router.reserve(ANN)
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        router.reserve(BOB)
    assert router.assignment(BOB) is None
    other.execute("ROLLBACK")
    other.close()
    assert router.reserve(BOB).kind == "new"
    assert used(router) == 2
    router.close()


def test_fault_F19_a_full_disk_is_told_and_leaves_no_partial_state(tmp_path, clock):
    """When the file can't grow, each recipient is there with the charge, or neither is."""
    handle = open_store(f"sqlite:///{tmp_path}/x.db")
    router = Router([Line(A), Line(B)], clock=clock, store=handle, policy=policy())
    router.lines()
    db = handle.store().file._connection
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages + 2}")
    served = 0

    def fill():
        nonlocal served
        while True:
            router.reserve(person(served))
            served += 1

    with pytest.raises(StoreError, match="full"):
        fill()
    assert router.assignment(person(served)) is None
    assert used(router) == served
    handle.store().file._connection.execute("PRAGMA max_page_count = 100000")
    assert router.reserve(person(served)).kind == "new"
    assert used(router) == served + 1
    handle.close()


def test_fault_F19_a_file_that_may_not_be_written_refuses(tmp_path, clock):
    """Read only: reserve is a StoreError, reading goes on."""
    writer = small_world(f"sqlite:///{tmp_path}/x.db", clock)
    number = writer.reserve(ANN).number
    reader = small_world(f"sqlite:///{tmp_path}/x.db?mode=ro", clock)
    assert reader.assignment(ANN).number == number
    for to in (ANN, BOB):
        with pytest.raises(StoreError):
            reader.reserve(to)
    assert writer.assignment(BOB) is None
    reader.close()
    writer.close()


def test_fault_F19_a_damaged_file_is_told(tmp_path, clock):
    """Overwritten pages are a StoreError for who needs them, never an empty store."""
    router = small_world(f"sqlite:///{tmp_path}/x.db", clock)
    for n in range(300):
        router.reserve(person(n))
    router.close()
    path = tmp_path / "x.db"
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    router = small_world(f"sqlite:///{tmp_path}/x.db", clock)
    with pytest.raises(StoreError):
        router.reserve(person(0))
    router.close()


def test_fault_F19_a_file_that_is_gone_is_not_made_anew(tmp_path, clock):
    """A running router never takes an empty file for its store."""
    router = small_world(f"sqlite:///{tmp_path}/x.db", clock)
    router.reserve(ANN)
    for each in tmp_path.iterdir():
        each.unlink()
    for to in (ANN, BOB):
        with pytest.raises(StoreError):
            router.reserve(to)
    assert not (tmp_path / "x.db").exists()
    router.close()


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs *script*; its stdout is read line by line."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


SENDER = """
    import sys
    from linepicker import Line, Policy, Router
    from linepicker.testing import ManualClock
    url, first = sys.argv[1], int(sys.argv[2])
    limits = {"new_per_day": "off", "new_per_hour": "off"}
    router = Router([Line("+12025550100"), Line("+12025550101")], store=url, clock=ManualClock(1_790_000_000.0),
        policy=Policy.from_dict({"limits": limits, "pace": {"new_gap": 0, "message_gap": 0}}))
    for n in range(first, first + 100_000):
        made = router.reserve(f"+1415{n:07d}")
        print(n, made.number, flush=True)
        if n % 3 == 0:
            made.release()
            print(n, "released", flush=True)
"""


def test_fault_F22_a_killed_process_loses_and_doubles_nothing(tmp_path, clock):
    """SIGKILL at any moment: what was answered is there, charges equal assignments, and the next process goes on."""
    url = f"sqlite:///{tmp_path}/x.db?synchronous=normal"
    dice, told, released, doubtful = random.Random(7), {}, set(), set()
    for cycle in range(5):
        process = start(SENDER, url, cycle * 100_000)
        wanted, n = dice.randint(5, 200), None
        for count, text in enumerate(process.stdout):
            which, what = text.split()
            n = int(which)
            if what == "released":
                released.add(n)
                del told[n]
            else:
                told[n] = what
            if count == wanted:
                break
        process.kill()
        rest = process.stdout.read()
        for text in rest.splitlines()[: rest.count("\n")]:
            which, what = text.split()
            n = int(which)
            if what == "released":
                released.add(n)
                told.pop(n, None)
            else:
                told[n] = what
        doubtful |= {n, n + 1}
        process.wait()
        process.stdout.close()
        process.stderr.close()
    router = small_world(url, clock)
    for n, number in told.items():
        found = router.assignment(person(n))
        assert (found and found.number) == number or n in doubtful
    assert all(router.assignment(person(n)) is None for n in released)
    kept = sum(router.assignment(person(n)) is not None for n in {*told, *doubtful})
    assert used(router) == kept
    assert kept >= len(told) - len(doubtful)
    router.close()


CRASHER = """
    import os, signal, sys
    from linepicker import Line, Router
    url, log, when = sys.argv[1:]
    router = Router([Line("+12025550100"), Line("+12025550101")], store=url)
    def call(made):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        with open(log, "a") as file:  # the provider accepts
            file.write(f"{made.id} {made.number}\\n")
        if when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
    router.send("+14155550101", call, key="m1")
    if when == "settled":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["before", "after", "settled"])
def test_fault_F23_a_crash_around_the_provider_s_answer_sends_one_message(tmp_path, when):
    """The retry carries the same id on the same line, so the provider takes it once; what is known to be sent isn't retried."""
    url, log = f"sqlite:///{tmp_path}/x.db", tmp_path / "provider"
    log.touch()
    crashed = start(CRASHER, url, log, when)
    crashed.communicate()
    assert crashed.returncode == -signal.SIGKILL
    again = start(CRASHER, url, log, "never")
    _, told = again.communicate()
    accepted = log.read_text().split("\n")[:-1]
    assert len(set(accepted)) == 1
    assert len(accepted) == {"before": 1, "after": 2, "settled": 1}[when]
    assert ("AlreadySent" in told) == (when == "settled")
    with Router([Line(A), Line(B)], store=url) as router:
        assert used(router) == 1


FORKER = """
    import os, sys, threading
    from linepicker import Line, Policy, Router, StoreError
    url, folder = sys.argv[1:]
    limits = dict.fromkeys(("new_per_day", "new_per_hour", "messages_per_day", "pair_per_minute"), "off")
    rules = Policy.from_dict({"limits": limits, "pace": {"new_gap": 0, "message_gap": 0}})
    router = Router([Line("+12025550100"), Line("+12025550101")], store=url, policy=rules)
    ids = [router.reserve("+14150000000").id]
    stop = threading.Event()
    def hammer():
        n = 0
        while not stop.is_set() and n < 100:
            n += 1
            ids.append(router.reserve(f"+1416{n:07d}").id)
    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                mine = [router.reserve(f"+14{child:02d}{n:07d}").id for n in range(20, 40)]
                mine.append(router.reserve("+14150000000").id)
                with open(f"{folder}/{child}.ids", "w") as file:
                    file.write("\\n".join(mine))
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    stop.set()
    for thread in threads:
        thread.join()
    with open(f"{folder}/parent.ids", "w") as file:
        file.write("\\n".join(ids))
    assert codes == [0] * 4, codes
"""


def test_fault_F24_a_fork_at_any_moment_shares_nothing_but_the_store(tmp_path):
    """While other threads reserve, children are forked: all go on, no id is used twice, every charge is there."""
    url = f"sqlite:///{tmp_path}/x.db?synchronous=normal"
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKER), url, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    ids = [name for path in tmp_path.glob("*.ids") for name in path.read_text().split()]
    assert len(ids) == len(set(ids))
    with Router([Line(A), Line(B)], store=url) as router:
        known = 1 + 4 * 20
        threads = {f"+1416{n:07d}" for n in range(1, len(ids))}
        assert used(router) == known + sum(router.assignment(to) is not None for to in threads)


def test_fault_F24_memory_does_not_survive_a_fork(tmp_path):
    """A child would keep books of its own, unseen: it gets a StoreError instead."""
    script = """
        import os
        from linepicker import Line, Router, StoreError
        router = Router([Line("+12025550100")])
        router.reserve("+14150000000")
        pid = os.fork()
        if pid == 0:
            try:
                router.reserve("+14150000001")
            except StoreError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        router.reserve("+14150000002")
    """
    process = start(script)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """The results of that many threads that begin together."""
    barrier, results = threading.Barrier(count), [None] * count

    def body(n: int) -> None:
        barrier.wait()
        try:
            results[n] = work(n)
        except Exception as error:  # noqa: BLE001  told to who started the threads
            results[n] = error

    threads = [threading.Thread(target=body, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a deadlock"
    return results


@pytest.mark.parametrize("store", ["memory://", "sqlite:///{}/x.db?synchronous=normal&timeout=60"])
def test_fault_F25_many_threads_give_one_recipient_one_line(tmp_path, clock, store):
    """Sixty-four threads, two routers: one line and one charge per recipient, one poll per router, nobody stuck."""
    fetches = []

    class Source:
        def fetch(self):
            fetches.append(1)
            return [Line(A), Line(B), Line(C)]

    handle = open_store(store.format(tmp_path))
    rules = policy(limits={"new_per_day": 5})
    routers = [Router(Source(), clock=clock, store=handle, policy=rules) for _ in "ab"]

    def work(n):
        return routers[n % 2].reserve(person(n // 8)).number

    got = in_threads(64, work)
    for which in range(8):
        assert len(set(got[which * 8 : which * 8 + 8])) == 1, got
    assert len(fetches) == 2
    assert used(routers[0]) == 8
    handle.close()


def test_fault_F25_threads_never_overspend_a_budget(clock):
    """Sixty-four threads want fifteen places: fifteen get one, the others a NoLine, and released places are found again."""
    store = MemoryStore()
    rules = policy(limits={"new_per_day": 5})
    routers = [
        Router([Line(A), Line(B), Line(C)], clock=clock, store=store, policy=rules) for _ in "abcd"
    ]
    got = in_threads(64, lambda n: routers[n % 4].reserve(person(n)))
    made = [each for each in got if not isinstance(each, Exception)]
    assert Counter(each.number for each in made) == {A: 5, B: 5, C: 5}
    assert {type(each) for each in got if isinstance(each, Exception)} == {NoLine}
    in_threads(15, lambda n: made[n].release())
    assert used(routers[0]) == 0
    got = in_threads(64, lambda n: routers[n % 4].reserve(person(100 + n)))
    assert sum(not isinstance(each, Exception) for each in got) == 15


def test_fault_F25_a_reservation_settled_by_many_threads_is_given_back_once(clock):
    """Whoever comes first wins, and the other charges of the line stay."""
    router = Router([Line(A)], clock=clock, policy=policy())
    made = [router.reserve(person(n)) for n in range(4)]
    in_threads(16, lambda n: made[n % 2].release())
    assert used(router) == 2


async def test_fault_F26_a_cancelled_call_did_all_or_nothing(tmp_path, clock):
    """Cancelled at any point, a reserve leaves no charge without its caller; the cancellation comes through."""
    handle = open_store(f"sqlite:///{tmp_path}/x.db?synchronous=normal")
    router = AsyncRouter([Line(A), Line(B)], clock=clock, store=handle, policy=policy())
    await router.lines()
    kept = 0
    for n in range(40):
        task = asyncio.ensure_future(router.reserve(person(n)))
        for _ in range(n // 2):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
            kept += 1
        except asyncio.CancelledError:
            assert await router.assignment(person(n)) is None
        assert sum(each.used for each in await router.lines()) == kept
    await handle.aclose()


def test_fault_F27_a_router_serves_one_event_loop_after_the_other(clock, tmp_path):
    """A loop that is closed, even in the middle of a refresh, leaves nothing that the next one stumbles over."""

    class Slow:
        hanging = False

        async def fetch(self):
            if self.hanging:
                await asyncio.Event().wait()
            return [Line(A), Line(B)]

    source = Slow()
    for url in ("memory://", f"sqlite:///{tmp_path}/x.db"):
        source.hanging = False
        router = AsyncRouter(source, clock=clock, store=url, policy=policy())
        assert asyncio.run(router.reserve(ANN)).kind == "new"
        clock.advance(TTL + 1)
        source.hanging = True

        async def torn(router=router):
            tasks = [asyncio.ensure_future(router.reserve(person(n))) for n in range(3)]
            await asyncio.wait(tasks, timeout=0.02)

        asyncio.run(torn())
        source.hanging = False

        async def many(router=router):
            return await asyncio.gather(*(router.reserve(person(10 + n)) for n in range(10)))

        clock.advance(TTL + 1)
        assert {each.kind for each in asyncio.run(many())} == {"new"}
        asyncio.run(router.close())


def test_fault_F27_an_async_source_serves_one_event_loop_after_the_other(fake, clock):
    """The provider's connections are not bound to the loop that opened them."""
    source = AsyncLinqSource(TOKEN, base_url=fake.base_url)
    router = AsyncRouter(source, clock=clock, policy=policy())
    for n in range(3):
        assert asyncio.run(router.reserve(person(n))).kind == "new"
        clock.advance(TTL + 1)
    assert len(fake.requests) == 3
    asyncio.run(source.close())


@pytest.fixture
def messenger(fake, router) -> Iterator[LinqMessenger]:
    """Sends through the router with the official client."""
    client = linq.LinqAPIV3(
        api_key=fake.token,
        base_url=fake.base_url,
        http_client=linq.DefaultHttpxClient(verify=False),
    )
    with client:
        yield LinqMessenger(client, router, sleep=lambda seconds: None)


def posts(fake: FakeLinq) -> list:
    """The requests that would send something."""
    return [each for each in fake.requests if each.method == "POST"]


def test_fault_F28_a_rate_limited_pair_waits_on_its_line(fake, clock, router, messenger):
    """429: the pair waits as told, the same message keeps line and id, and nobody blames the line."""
    messenger.send(ANN, "hello")
    number = router.assignment(ANN).number
    fake.fail_next(1, status=429, code=1007, retry_after=30.0, path="chats")
    with pytest.raises(linq.RateLimitError):
        messenger.send(ANN, "again", key="m2")
    assert len(posts(fake)) == 2
    assert view(router, number).standing == "ok"
    with pytest.raises(NotNow) as caught:
        router.reserve(ANN)
    assert (caught.value.decision.reason, caught.value.retry_at) == ("pair", clock.now() + 30)
    clock.advance(30)
    messenger.send(ANN, "again", key="m2")
    assert [each.number for each in fake.sent] == [number, number]
    first, second = (
        json.loads(each.body)["message"]["idempotency_key"] for each in posts(fake)[1:]
    )
    assert first == second


@pytest.mark.parametrize(("verb", "reason"), [("opt_out", "blocked"), ("block", "blocked")])
def test_fault_F29_a_recipient_who_may_not_be_written_to_is_tried_once(
    fake, router, messenger, verb, reason
):
    """403 about the recipient: no other line is tried, none is blamed, and the next send does not even ask."""
    getattr(fake, verb)(ANN)
    with pytest.raises(linq.PermissionDeniedError):
        messenger.send(ANN, "hello")
    assert len(posts(fake)) == 1
    for _ in range(2):
        with pytest.raises(Blocked) as caught:
            messenger.send(ANN, "hello")
        assert caught.value.decision.reason == reason
    assert len(posts(fake)) == 1
    assert {each.standing for each in router.lines()} == {"ok"}
    assert used(router) == 0
    assert not fake.sent


def test_fault_F30_a_line_that_can_not_send_is_left_at_once(fake, clock, router, messenger):
    """403/2027: new recipients go out from another line at once, known ones move with their next message, and say so."""
    router.assign(ANN, A)
    fake.set_eligible(A, False)
    with pytest.raises(linq.PermissionDeniedError):
        messenger.send(ANN, "hello")
    assert view(router, A).standing == "ineligible"
    for n in range(6):
        messenger.send(person(n), "hello")
    messenger.send(ANN, "hello")
    assert A not in {each.number for each in fake.sent}
    assert len(posts(fake)) == 1 + 6 + 1
    assert [line for line, _ in router.assignment(ANN).history] == [A]


def test_fault_F30_a_new_recipient_is_failed_over(fake, router, messenger):
    """The refusal of a line that nobody knew about costs a new recipient nothing but a moment."""
    for number in (A, B):
        fake.set_eligible(number, False)
    for n in range(3):
        messenger.send(person(n), "hello")
    assert {each.number for each in fake.sent} == {C}
    assert [view(router, number).standing for number in (A, B, C)] == ["ineligible"] * 2 + ["ok"]
    assert used(router) == 3


@pytest.mark.parametrize("fault", ["500", "409", "cut", "408"])
def test_fault_F31_nothing_retries_underneath(fake, router, messenger, fault):
    """The SDK's own retries are off, and every message carries its reservation's id."""
    if fault == "cut":
        fake.cut_next(1, path="chats")
    else:
        fake.fail_next(1, status=int(fault), path="chats")
    with pytest.raises(linq.APIError):
        messenger.send(ANN, "hello", key="m1")
    assert len(posts(fake)) == 1
    with suppress(linq.APIError, AlreadySent):
        messenger.send(ANN, "hello", key="m1")
    keys = {json.loads(each.body)["message"]["idempotency_key"] for each in posts(fake)}
    assert len(fake.sent) == 1
    assert len(keys) == 1 or fault == "409"


def test_fault_F32_lines_fall_and_rise_one_by_one(clock):
    """All become CRITICAL in turn and recover in another order: none is left, then no rush on the first that is back."""
    numbers = [f"+1202555{n:04d}" for n in range(6)]
    reputation = dict.fromkeys(numbers, Reputation.HEALTHY)

    class Source:
        def fetch(self):
            return [Line(each, reputation=reputation[each]) for each in numbers]

    rules = policy(limits={"new_per_day": 40, "new_per_hour": 40})
    router = Router(Source(), clock=clock, policy=rules)
    people = iter(range(10**6))

    def rush() -> Counter[str]:
        got: Counter[str] = Counter()
        with suppress(NoLine):
            while True:
                got[router.reserve(person(next(people))).number] += 1
        return got

    clock.advance(2 * DAY)
    for fallen, number in enumerate(numbers, 1):
        reputation[number] = Reputation.CRITICAL
        clock.advance(DAY + 1)
        got = rush()
        assert not set(got) & set(numbers[:fallen])
        assert sum(got.values()) == 40 * (6 - fallen)
    with pytest.raises(NoLine) as caught:
        router.reserve(ANN)
    assert caught.value.retry_at == clock.now() + TTL
    random.Random(3).shuffle(numbers)
    back: list[str] = []
    for number in list(numbers):
        reputation[number] = Reputation.HEALTHY
        clock.advance(DAY + 1)
        assert number not in rush()
        clock.advance(TTL + 1)
        back.append(number)
        assert rush()[number] == 10
    clock.advance(10 * DAY)
    assert set(back) == set(rush())


HOSTILE = [
    "",
    " ",
    "+1415555010\u0661",
    "\u202e+14155550101",
    "+14155550101\x00",
    "+14155550101\n",
    "+14155550101,+14155550102",
    "a@b.com,c@d.com",
    "to/default/+14155550101",
    "a" * 1_000_000,
    "+" + "1" * 1_000_000,
    "а@example.com",
    "a@exаmple.com",
    "../../etc/passwd",
    "%00",
    "'; DROP TABLE record; --",
    "a@b.co\u0000m",
    "+1 415 555 0101 x5",
    "tel:+14155550101",
]


@pytest.mark.parametrize("to", HOSTILE, ids=range(len(HOSTILE)))
def test_fault_F33_a_hostile_recipient_is_normalised_or_rejected(clock, to):
    """Never mistaken for another, never shown in full, in no more time than it takes to look away."""
    router = Router([Line(A), Line(B)], clock=clock, policy=policy())
    router.assign(ANN, A)
    router.assign((ANN, BOB), B)
    began = time.monotonic()
    if to.strip() == ANN:
        assert router.reserve(to).kind == "known"
        return
    with pytest.raises(InvalidRecipient) as caught:
        router.reserve(to)
    assert len(str(caught.value)) < 300
    assert "4155550101" not in str(caught.value)
    assert time.monotonic() - began < 1


def test_fault_F33_a_name_with_slashes_is_a_name(clock):
    """What may stand in an email is kept, and reaches no other key."""
    router = Router([Line(A)], clock=clock, policy=policy())
    router.assign(ANN, A)
    for to in ("a/../b@example.com", "../a@example.com", "%2f@example.com", "block/x@example.com"):
        assert (router.reserve(to).kind, router.reserve(to).to) == ("new", to)


def test_fault_F33_groups_and_pools_never_collide(clock, tmp_path):
    """However they are cut, other sets are other recipients, and other pools other people."""
    store = open_store(f"sqlite:///{tmp_path}/x.db")
    kinds = []
    for pool in ("a", "a,b", "b"):
        router = Router([Line(A)], clock=clock, store=store, pool=pool, policy=policy())
        kinds += [
            router.reserve(to).kind
            for to in (
                ANN,
                BOB,
                (ANN, BOB),
                (ANN, BOB, CAT),
                (BOB, CAT),
                "a@b.com",
                (ANN, "a@b.com"),
            )
        ]
    assert set(kinds) == {"new"}
    store.close()


@pytest.mark.parametrize("pool", ["", "a/b", "x" * 65, "a\x00", None, 5])
def test_fault_F33_a_pool_that_could_be_mistaken_is_refused(pool):
    """A pool's name can't reach into another's keys."""
    with pytest.raises(ValueError, match="pool"):
        Router([Line(A)], pool=pool)


def test_fault_F33_an_endless_group_is_not_read_to_its_end(clock):
    """A generator that never stops is left after its bound."""
    router = Router([Line(A)], clock=clock, policy=policy())
    with pytest.raises(InvalidRecipient):
        router.reserve(iter(lambda: ANN, None))
    with pytest.raises(InvalidRecipient):
        router.reserve(person(n) for n in range(10**9))


@pytest.mark.parametrize("key", ["k/../x", "\u202ek", "k\x00", "k" * 255, "ключ", "🦊"])
def test_fault_F33_any_text_may_be_a_key(clock, tmp_path, key):
    """Separators, control characters and other scripts are kept apart."""
    router = Router([Line(A)], clock=clock, store=f"sqlite:///{tmp_path}/x.db", policy=policy())
    first = router.reserve(ANN, key=key)
    assert router.reserve(ANN, key=key).id == first.id
    assert router.reserve(ANN, key=key[:-1] or "x").id != first.id
    router.close()


async def test_fault_F33_reports_with_hostile_values_change_nothing(clock):
    """Moments far in the future or past neither freeze a line nor open one."""
    store = MemoryStore()
    router = AsyncRouter([Line(A)], clock=clock, store=AsyncMemoryStore(store), policy=policy())
    await router.report(LineChanged(A, at=1e300, reputation="AT_RISK"))
    assert (await router.lines())[0].standing == "ok"
    await router.report(LineChanged(A, at=-1e300, reputation="CRITICAL"))
    assert (await router.lines())[0].standing == "ok"
    await router.report(OptedOut(ANN, at=1e300))
    with pytest.raises(Blocked):
        await router.reserve(ANN)
