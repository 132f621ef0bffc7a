"""From end to end: the official client, a provider and its webhooks on the loopback, and routers that share one store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import linq
import pytest
import uvicorn

from linepicker import AsyncRouter, Blocked, Held, NotNow, Policy, Router
from linepicker.providers.linq import (
    AsyncLinqMessenger,
    AsyncLinqSource,
    LinqMessenger,
    LinqSource,
)
from linepicker.testing import FakeLinq, ManualClock
from linepicker.testing.fakelinq import Person
from linepicker.webhooks import WebhookApp

ANN, BOB, EVE, DAN = "+12125550177", "ada@example.com", "+12125550179", "+12125550180"
START = 1_790_000_000.0
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw7Jxx2Oll+OE="
UNHURRIED = {"pace": {"new_gap": 0, "message_gap": 0}}
HOUR, DAY = 3600.0, 86400.0
WORDS = "It's us, Ada's shop, from a new number."


@contextlib.contextmanager
def serving(app: Any) -> Iterator[int]:
    """The application under uvicorn, until the end; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


class Shop:
    """One account and one store. A router takes the webhooks, in a server; another sends, with the official client."""

    def __init__(
        self, kind: str, fake: FakeLinq, clock: ManualClock, url: str, policy: Policy
    ) -> None:
        self.fake, self.clock = fake, clock
        self._runner = asyncio.Runner()
        self._more = contextlib.ExitStack()
        account = {"base_url": fake.base_url}
        sdk = {"api_key": fake.token, **account}
        options = {"clock": clock, "policy": policy, "store": url}
        if kind == "sync":
            self.open: Callable[..., Any] = lambda **more: Router(
                LinqSource(fake.token, **account), **{**options, **more}
            )
            self.router, self.client = self.open(), linq.LinqAPIV3(**sdk)
            self.messenger: Any = LinqMessenger(self.client, self.router)
        else:
            self.open = lambda **more: AsyncRouter(
                AsyncLinqSource(fake.token, **account), **{**options, **more}
            )
            self.router, self.client = self.open(), linq.AsyncLinqAPIV3(**sdk)
            self.messenger = AsyncLinqMessenger(self.client, self.router)
        self.told = self.open()
        self.app = WebhookApp(self.told, SECRET, clock=clock)
        self.port = self._more.enter_context(serving(self.app))

    def run(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call *method*, and wait for it if it is a coroutine."""

        async def awaited(coroutine: Any) -> Any:
            return await coroutine

        result = method(*arguments, **keywords)
        return self._runner.run(awaited(result)) if asyncio.iscoroutine(result) else result

    def subscribe(self, version: str = "2026-02-03") -> None:
        """Have the webhooks sent here, each a second after what it tells of, so that it does not overtake the answer."""
        self.fake.webhooks.delay = 1.0
        self.fake.subscribe(f"http://127.0.0.1:{self.port}/", version=version, secret=SECRET)

    def send(self, to: Any, text: str = "Hello", **keywords: Any) -> Any:
        """Send a message."""
        return self.run(self.messenger.send, to, text, **keywords)

    def pass_time(self, seconds: float = 2.0) -> None:
        """Let this time pass, and every webhook of it arrive."""
        self.clock.advance(seconds)
        self.fake.flush(timeout=60)

    def poll(self, times: int = 1) -> None:
        """Let this many polls happen, each a little more than `health.ttl` after the other."""
        for _ in range(times):
            self.pass_time(61)
            self.run(self.router.refresh)

    def refused(self, kind: type[Any], to: Any, **keywords: Any) -> Any:
        """The decision of the refusal that a send raises, which asks the provider nothing."""
        before = self.fake.requests
        with pytest.raises(kind) as caught:
            self.send(to, "Again", **keywords)
        assert self.fake.requests == before
        return caught.value.decision

    def line_of(self, to: Any) -> str | None:
        """The line that *to* is assigned to."""
        assignment = self.run(self.router.assignment, to)
        return assignment and assignment.number

    def standings(self) -> dict[str, str]:
        """The standing of each line."""
        return {view.line.number: view.standing for view in self.run(self.router.lines)}

    def outcomes(self, number: str) -> dict[str, int]:
        """What became of a line's messages."""
        (view,) = (view for view in self.run(self.router.lines) if view.line.number == number)
        return dict(view.outcomes)

    def close(self) -> None:
        """Close everything."""
        self._more.close()
        for router in (self.told, self.router):
            self.run(router.close)
        self.run(self.client.close)
        self._runner.close()


@pytest.fixture
def clock() -> ManualClock:
    """The time of routers and provider."""
    return ManualClock(START)


@pytest.fixture
def fake(clock) -> Iterator[FakeLinq]:
    """A provider with four lines."""
    with FakeLinq(4, clock=clock) as provider:
        yield provider


@pytest.fixture(params=["sync", "async"])
def kind(request) -> str:
    """Sync and async in turn."""
    return request.param


@pytest.fixture
def opened(kind, fake, clock, tmp_path) -> Iterator[Callable[..., Shop]]:
    """Opens a shop with a policy; its webhooks are subscribed to."""
    with contextlib.ExitStack() as stack:

        def make(
            tables: dict[str, Any] | None = None, *, version: str = "2026-02-03", query: str = ""
        ) -> Shop:
            url = f"sqlite:///{tmp_path / 'lines.db'}?synchronous=normal{query}"
            policy = Policy.from_dict({**UNHURRIED, **(tables or {})})
            shop = Shop(kind, fake, clock, url, policy)
            stack.callback(shop.close)
            shop.subscribe(version)
            return shop

        yield make


# People who don't want messages


@pytest.mark.parametrize("version", ["2025-01-01", "2026-02-03"])
def test_who_answers_stop_gets_nothing_until_they_write_again(opened, fake, clock, version):
    """The next send is Blocked without any request, on each line and in each pool, but not in a group; their next message
    ends it, even one that only looks like STOP."""
    shop = opened(version=version)
    shop.send(ANN)
    shop.send([ANN, BOB])
    home, chat_id = fake.sent[0].number, fake.sent[0].chat_id
    fake.receive(home, ANN, " STOP ", chat_id=chat_id)
    shop.pass_time()
    assert shop.refused(Blocked, ANN).reason == "opted_out"
    elsewhere = shop.open(pool="elsewhere")
    decision = shop.run(elsewhere.preview, ANN)
    assert (decision.outcome, decision.reason) == ("blocked", "opted_out")
    shop.run(elsewhere.close)
    shop.send([ANN, BOB], "You two")
    shop.send(ANN, "Your code is 1234", override_optout=True)
    assert shop.refused(Blocked, ANN).reason == "opted_out"
    fake.receive(home, ANN, "stop", chat_id=chat_id)
    shop.pass_time()
    shop.send(ANN, "Welcome back")
    texts = ["Hello", "Hello", "You two", "Your code is 1234", "Welcome back"]
    assert [sent.text for sent in fake.sent] == texts
    assert shop.outcomes(home)["opted_out"] == 1


def test_where_no_webhook_tells_the_provider_has_the_last_word(opened, fake):
    """A STOP that got lost is learned from the 403 of the next send, and then is as good as told."""
    shop = opened()
    shop.send(ANN)
    fake.webhooks.drop = 1.0
    fake.receive(fake.sent[0].number, ANN, "STOP")
    shop.pass_time()
    with pytest.raises(linq.PermissionDeniedError):
        shop.send(ANN, "Again")
    assert shop.refused(Blocked, ANN).reason == "blocked"
    fake.webhooks.drop = 0.0
    shop.pass_time()
    fake.receive(fake.sent[0].number, ANN, "I am back")
    shop.pass_time()
    shop.send(ANN, "Welcome back")
    assert [sent.text for sent in fake.sent] == ["Hello", "Welcome back"]


# Lines


def test_who_belongs_to_a_critical_line_is_held_until_it_is_healthy_again(opened, fake):
    """Held, not moved, without any request; new people go elsewhere; HEALTHY, confirmed, serves them in the same chat."""
    shop = opened()
    home, *others = fake.numbers
    people = [ANN, BOB, EVE]
    for person in people:
        shop.send(person, line=home)
    fake.set_reputation(home, "CRITICAL")
    shop.pass_time()
    for person in people:
        decision = shop.refused(Held, person)
        assert (decision.reason, decision.number) == ("critical", home)
    shop.send(DAN)
    assert shop.line_of(DAN) in others
    fake.set_reputation(home, "AT_RISK")
    shop.poll(3)
    assert {shop.refused(Held, person).reason for person in people} == {"recovering"}
    fake.set_reputation(home, "HEALTHY")
    shop.pass_time()
    assert {shop.refused(Held, person).reason for person in people} == {"recovering"}
    shop.poll(2)
    for person in people:
        shop.send(person, "Again")
    chats = {sent.to: sent.chat_id for sent in fake.sent[:3]}
    assert {sent.to: sent.chat_id for sent in fake.sent[-3:]} == chats
    assert {sent.number for sent in fake.sent[-3:]} == {home}


WORKER = """
import json, sys
from linepicker import LinePickerError, Policy, Router
from linepicker.providers.linq import LinqSource

url, base, token = sys.argv[1:]
tables = {
    "health": {"ttl": 3600, "max_age": 3600},
    "pace": {"new_gap": 0, "message_gap": 0},
    "limits": {"new_per_day": "off", "new_per_hour": "off"},
}
with Router(LinqSource(token, base_url=base), store=url, policy=Policy.from_dict(tables)) as router:
    for row in sys.stdin:
        answers = []
        for to, line in json.loads(row):
            try:
                answers.append(router.reserve(to, line=line).number)
            except LinePickerError as refusal:
                answers.append(refusal.decision.reason)
        print(json.dumps(answers), flush=True)
"""


class Worker:
    """A process of its own that reserves."""

    def __init__(self, url: str, fake: FakeLinq) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, url, fake.base_url, fake.token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def reserve(self, *asked: tuple[str, str | None]) -> list[str]:
        """For each recipient, and the line it has to be if any: the line, or the reason why there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        answers: list[str] = json.loads(self.process.stdout.readline())
        return answers

    def close(self) -> None:
        """Let it end."""
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0


def test_one_webhook_takes_a_line_from_every_process(tmp_path):
    """One process is told that a line is CRITICAL: the next reservation of each of three others knows, without a poll."""
    url = f"sqlite:///{tmp_path / 'lines.db'}?synchronous=normal"
    with contextlib.ExitStack() as stack:
        fake = stack.enter_context(FakeLinq(4))
        policy = Policy.from_dict({"health": {"ttl": 3600, "max_age": 3600}})
        source = LinqSource(fake.token, base_url=fake.base_url)
        told = stack.enter_context(Router(source, store=url, policy=policy))
        told.refresh()
        port = stack.enter_context(serving(WebhookApp(told, SECRET)))
        fake.subscribe(f"http://127.0.0.1:{port}/", secret=SECRET)
        workers = [Worker(url, fake) for _ in range(3)]
        for worker in workers:
            stack.callback(worker.close)
        line = fake.numbers[0]
        known = [f"+1415555100{i}" for i in range(len(workers))]
        for person, worker in zip(known, workers, strict=True):
            assert worker.reserve((person, line)) == [line]
        new = [(f"+1415555{i:04d}", None) for i in range(300)]
        for n, worker in enumerate(workers):
            assert line in worker.reserve(*new[n::10])
        before = fake.requests
        fake.set_reputation(line, "CRITICAL")
        fake.flush()
        for n, worker in enumerate(workers):
            assert worker.reserve((known[n], None), ("+14155559990", line)) == ["critical"] * 2
            chosen = worker.reserve(*new[3 + n :: 10])
            assert set(chosen) == set(fake.numbers) - {line}
        assert fake.requests == before


def test_who_belongs_to_a_flagged_line_moves_within_the_day_s_moves(opened, fake):
    """Two a day may come to each line, and are told so first; the others wait for the day after."""
    shop = opened({"limits": {"moves_per_day": 2}, "stickiness": {"continuation": WORDS}})
    fake.remove_line(fake.numbers[-1])
    home, *others = fake.numbers
    people = [f"+1212555010{i}" for i in range(6)]
    for person in people:
        shop.send(person, line=home)
    chats = {sent.to: sent.chat_id for sent in fake.sent}
    fake.set_status(home, "FLAGGED")
    shop.pass_time()
    moved_at = shop.clock.now()
    for person in people[:4]:
        shop.send(person, "Your order is here")
    for sent in fake.sent[6:]:
        assert sent.text == f"{WORDS}\n\nYour order is here"
        assert sent.chat_id not in chats.values()
    assert Counter(sent.number for sent in fake.sent[6:]) == dict.fromkeys(others, 2)
    for person in people[4:]:
        decision = shop.refused(Held, person)
        assert (decision.reason, decision.number) == ("flagged", home)
        assert decision.retry_at == pytest.approx(moved_at + DAY, abs=1)
        assert shop.line_of(person) == home
    shop.send(people[0], "And another")
    assert fake.sent[-1].text == "And another"
    shop.pass_time(DAY + 1)
    for person in people[4:]:
        shop.send(person, "Your order is here")
    assert fake.sent[-1].text == f"{WORDS}\n\nYour order is here"
    assert {shop.line_of(person) for person in people} <= set(others)


def test_who_was_moved_returns_home_when_the_line_has_long_been_well(opened, fake):
    """Not before, not amid an exchange, two a day, into the chat they had, and without a word of it."""
    home_again = {"continuation": WORDS, "return_home": 2 * HOUR, "mid_conversation": HOUR}
    shop = opened({"limits": {"moves_per_day": 2}, "stickiness": home_again})
    home, *others = fake.numbers
    people = [f"+1212555010{i}" for i in range(4)]
    for person in people:
        shop.send(person, line=home)
    chats = {sent.to: sent.chat_id for sent in fake.sent}
    fake.set_status(home, "FLAGGED")
    shop.pass_time()
    for person in people:
        shop.send(person, "Your order is here")
    shop.pass_time(DAY)
    fake.set_status(home, "ACTIVE")
    shop.poll(2)
    assert shop.standings()[home] == "ok"
    away = shop.line_of(people[0])
    shop.send(people[0], "It waits for you")
    assert fake.sent[-1].number == away
    shop.pass_time(2 * HOUR)
    fake.receive(shop.line_of(people[1]), people[1], "Any news?")
    shop.pass_time()
    for person in people:
        shop.send(person, "News")
    at_home = [(sent.to, sent.chat_id) for sent in fake.sent[-4:] if sent.number == home]
    assert at_home == [(person, chats[person]) for person in (people[0], people[2])]
    assert {sent.text for sent in fake.sent[-4:]} == {"News"}
    assert {shop.line_of(person) for person in (people[1], people[3])} <= set(others)


def test_messages_that_fail_take_their_line_out_until_one_is_delivered(opened, fake):
    """The webhook names no line; three in a row are too many; after the time out one message at a time is tried."""
    rules = {"failures": {"streak": 3, "time_out": 300.0}, "conversation": {"unanswered": "off"}}
    shop = opened(rules)
    home, other, *_ = fake.numbers
    people = [f"+1212555010{i}" for i in range(6)]
    shop.send(DAN, line=other)
    fake.fail_messages(3, number=home, code=4001)
    for person in people[:3]:
        assert shop.standings()[home] == "ok"
        shop.send(person, line=home)
        shop.send(DAN, "Hello again")
        shop.pass_time()
    assert shop.outcomes(home) == {"sent": 3, "opened": 3, "failed:4001": 3}
    assert shop.outcomes(other) == {"sent": 4, "opened": 1, "delivered": 4}
    assert shop.standings()[home] == "failing"
    assert shop.standings()[other] == "ok"
    decision = shop.refused(Held, people[0])
    assert decision.reason == "failing"
    assert 270.0 <= decision.retry_at - shop.clock.now() <= 330.0
    assert shop.refused(Held, people[4], line=home).reason == "failing"
    shop.pass_time(331)
    shop.poll()
    shop.send(people[0], "Once more")
    assert shop.refused(Held, people[1]).reason == "failing"
    shop.pass_time()
    assert shop.standings()[home] == "ok"
    shop.send(people[1], "Once more")
    shop.pass_time()
    assert shop.outcomes(home)["delivered"] == 2


@pytest.mark.parametrize("known", ["message_id", "chat_id"])
def test_a_failure_is_known_by_its_message_or_its_chat(opened, fake, known):
    """Either id, as the send's answer told them, leads to the line, for people and groups, new chats and known ones; an id
    of nobody's leads nowhere."""
    shop = opened({"failures": {"mode": "off"}})
    home, other, *_ = fake.numbers
    fake.everyone(Person(receives=0.0))
    for to, line in ((ANN, home), (ANN, home), ((BOB, EVE), other)):
        shop.send(to, line=line)
    shop.pass_time()
    for sent in fake.sent:
        data = {known: getattr(sent, known), "code": 4001, "failed_at": None, "reason": "broken"}
        fake.webhooks.emit("message.failed", data, chat_id=sent.chat_id)
    fake.webhooks.emit("message.failed", {known: "nobody", "code": 4001, "failed_at": None})
    shop.pass_time()
    assert shop.outcomes(home) == {"sent": 2, "opened": 1, "failed:4001": 2}
    assert shop.outcomes(other) == {"sent": 1, "opened": 1, "failed:4001": 1}


def test_in_shadow_each_time_out_that_would_begin_is_told_once(opened, fake, caplog):
    """Eight failures in a row are one line of log, and so are the next three; the line goes on."""
    shop = opened({"failures": {"streak": 3, "mode": "shadow"}})
    home = fake.numbers[0]
    for n, (count, lines) in enumerate([(8, 1), (3, 2)]):
        fake.fail_messages(count, number=home)
        for i in range(count + 1):  # the last one is delivered
            shop.send(f"+12125550{n}{i:02d}", line=home)
            shop.pass_time()
        told = [each for each in caplog.messages if "fail (streak): shadow" in each]
        assert len(told) == lines
    assert shop.outcomes(home) == {"sent": 13, "opened": 13, "failed:4001": 11, "delivered": 2}
    assert shop.standings()[home] == "ok"


def test_a_delivery_after_a_failure_corrects_it(opened, fake):
    """It came after all: no failure is left on the line."""
    shop = opened()
    home = fake.numbers[0]
    fake.fail_messages(2, number=home, delivered_after=60.0)
    for person in (ANN, EVE):
        shop.send(person, line=home)
    shop.pass_time()
    assert shop.outcomes(home) == {"sent": 2, "opened": 2, "failed:4001": 2}
    shop.pass_time(61)
    shop.pass_time()
    assert shop.outcomes(home) == {"sent": 2, "opened": 2, "delivered": 2}


# Conversations


def test_a_reply_assigns_and_opens_nothing(opened, fake):
    """Who wrote first belongs to the line they wrote to, which spends nothing on it, and is answered in that chat."""
    shop = opened()
    line = fake.numbers[2]
    fake.receive(line, ANN, "Do you have this in blue?")
    shop.pass_time()
    assert shop.line_of(ANN) == line
    views = {view.line.number: view.used for view in shop.run(shop.router.lines)}
    assert views == dict.fromkeys(fake.numbers, 0)
    answer = shop.send(ANN, "We do")
    assert answer.chat_id == fake.sent[0].chat_id
    assert fake.sent[0].number == line
    assert shop.outcomes(line) == {"sent": 1}


def test_the_reply_of_a_group_is_found_by_its_chat(opened, fake):
    """Its webhook names one person and one chat; the group's run of unanswered messages ends, nobody's line changes."""
    shop = opened({"conversation": {"unanswered": "enforce", "unanswered_after": 2}})
    group = (BOB, EVE)
    shop.send(group)
    shop.send(group, "Anybody there?")
    line, chat_id = fake.sent[0].number, fake.sent[0].chat_id
    shop.pass_time()
    assert shop.refused(Held, group).reason == "quiet"
    fake.receive(line, EVE, "Yes", chat_id=chat_id)
    shop.pass_time()
    shop.send(group, "Good")
    assert [sent.chat_id for sent in fake.sent] == [chat_id] * 3
    assert shop.line_of(EVE) is None
    assert shop.outcomes(line) == {"sent": 3, "opened": 1, "answered": 1}


def test_a_conversation_is_held_as_long_as_it_is_critical(opened, fake):
    """The health that comes with any message's webhook holds this conversation and no other, and frees it."""
    shop = opened()
    line = fake.numbers[0]
    for person in (ANN, EVE):
        shop.send(person, line=line)
    chat_id = fake.sent[0].chat_id
    shop.pass_time()
    fake.set_chat_health(chat_id, "CRITICAL")
    fake.receive(line, ANN, "Who is this?", chat_id=chat_id)
    shop.pass_time()
    assert shop.refused(Held, ANN).reason == "quiet"
    shop.send(EVE, "Again")
    assert shop.standings()[line] == "ok"
    fake.set_chat_health(chat_id, "AT_RISK")
    fake.receive(line, ANN, "Ah", chat_id=chat_id)
    shop.pass_time()
    decision = shop.refused(NotNow, ANN)
    assert decision.reason == "quiet"
    assert decision.retry_at == pytest.approx(START + HOUR - 300, abs=10)
    fake.set_chat_health(chat_id, "HEALTHY")
    fake.receive(line, ANN, "Good to know", chat_id=chat_id)
    shop.pass_time()
    shop.send(ANN, "Good")
    assert fake.sent[-1].text == "Good"


class Behind:
    """A clock that is twenty seconds behind another."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def now(self) -> float:
        """Epoch seconds UTC, all but twenty."""
        return self._clock.now() - 20.0


def test_a_provider_whose_clock_is_behind_is_understood(kind, clock, tmp_path):
    """Who answers at once has answered, by its clock before they were written to; what else it tells counts at once too."""
    rules = {"conversation": {"unanswered": "enforce", "unanswered_after": 1}}
    policy = Policy.from_dict({**UNHURRIED, **rules})
    url = f"sqlite:///{tmp_path / 'lines.db'}?synchronous=normal"
    with (
        FakeLinq(4, clock=Behind(clock)) as fake,
        contextlib.closing(Shop(kind, fake, clock, url, policy)) as shop,
    ):
        shop.subscribe()
        home = fake.numbers[0]
        for person in (ANN, EVE):
            shop.send(person, line=home)
        for text in ("Yes?", "Hello?"):
            fake.receive(home, ANN, text)
            shop.pass_time()
        counted = {"sent": 2, "opened": 2, "delivered": 2, "answered": 1}
        assert shop.outcomes(home) == counted
        assert shop.refused(Held, EVE).reason == "quiet"
        shop.send(ANN, "It is us")
        shop.pass_time(30)
        fake.receive(home, ANN, "STOP")
        shop.pass_time()
        assert shop.refused(Blocked, ANN).reason == "opted_out"
        fake.receive(home, ANN, "Go on")
        shop.pass_time()
        assert shop.run(shop.router.preview, ANN).outcome == "reserved"
        fake.set_reputation(home, "CRITICAL")
        shop.pass_time()
        assert shop.refused(Held, ANN).reason == "critical"


# When the way is bad


def a_day(shop: Shop) -> None:
    """What happens to an account within half an hour."""
    fake = shop.fake
    lines, people = fake.numbers, [f"+1212555010{i}" for i in range(10)]
    busy = Person(reads=1.0, answers=1.0, read_after=30.0, answers_after=60.0)
    for person in people[::2]:
        fake.person(person, busy)
    fake.fail_messages(1, number=lines[2], code=3007)
    fake.fail_messages(1, number=lines[3], code=4001, delivered_after=240.0)
    for i, person in enumerate(people):
        shop.send(person, line=lines[i % 4])
    group = shop.send((people[0], people[9]), line=lines[1]).chat.id
    shop.pass_time(200)
    for person, *texts in (
        (people[0], "STOP"),
        (people[1], "STOP", "Sorry, go on"),
        (people[2], "Hm", "opt out"),
        (people[3], "QUIT", "Never mind", "STOP"),
        (people[5], "STOP", "STOP", "hello?"),
    ):
        for text in texts:
            fake.receive(shop.line_of(person), person, text)
            shop.pass_time(3)
    fake.receive(lines[1], people[9], "We two?", chat_id=group)
    fake.receive(lines[3], DAN, "Hi")
    for number, reputations in (
        (lines[0], ["AT_RISK", "CRITICAL"]),
        (lines[1], ["CRITICAL", "HEALTHY"]),
        (lines[3], ["AT_RISK", "HEALTHY"]),
    ):
        for reputation in reputations:
            fake.set_reputation(number, reputation)
            shop.pass_time(20)
    fake.set_status(lines[2], "FLAGGED")
    shop.pass_time(10)
    fake.set_status(lines[2], "ACTIVE")
    shop.pass_time(10)
    fake.set_status(lines[2], "FLAGGED")
    shop.pass_time(250)
    shop.pass_time(250)
    shop.fake.flush(later=True)


def what_is_known(shop: Shop) -> dict[str, Any]:
    """Everything about lines and people that matters to the next message. How often somebody left who came back is left out."""
    found: dict[str, Any] = {
        view.line.number: (view.standing, view.used, {**view.outcomes, "opted_out": None})
        for view in shop.run(shop.router.lines)
    }
    people = [f"+1212555010{i}" for i in range(10)]
    for to in (*people, DAN, (people[0], people[9])):
        decision = shop.run(shop.router.preview, to)
        found[str(to)] = (shop.line_of(to), decision.outcome, decision.reason, decision.notes)
    return found


def test_duplicates_disorder_and_delay_change_nothing(kind, tmp_path):
    """Half of the webhooks come twice, half of them after the next one, all of them up to four minutes late: what is known
    in the end is the same."""
    known = []
    for seed in (None, 1, 2, 3):
        clock = ManualClock(START)
        policy = Policy.from_dict(UNHURRIED)
        with FakeLinq(4, clock=clock, seed=seed or 0) as fake:
            url = f"sqlite:///{tmp_path / f'{seed}.db'}?synchronous=normal"
            shop = Shop(kind, fake, clock, url, policy)
            shop.subscribe()
            if seed is not None:
                fake.webhooks.duplicate = fake.webhooks.reorder = 0.5
                fake.webhooks.delay = (1.0, 240.0)
            a_day(shop)
            shop.poll(2)
            known.append(what_is_known(shop))
            answers = Counter(delivery.status for delivery in fake.deliveries)
            assert set(answers) == {204}
            shop.close()
    assert known[1:] == known[:1] * 3
    blocked = {person for person, found in known[0].items() if "blocked" in found}
    assert blocked == {f"+1212555010{i}" for i in (0, 2, 3)}


def test_a_reply_that_is_told_often_is_one_message(opened, fake):
    """Five more deliveries of one webhook, signed anew, leave the line's day as it is."""
    shop = opened({"limits": {"messages_per_day": 3}})
    home = fake.numbers[0]
    shop.send(ANN, line=home)
    fake.receive(home, ANN, "Yes?", chat_id=fake.sent[0].chat_id)
    shop.pass_time()
    (told,) = (each for each in fake.deliveries if each.event_type == "message.received")
    for _ in range(5):
        fake.webhooks.replay(told, fresh=True)
    shop.pass_time()
    shop.send(ANN, "The third message of the day")
    assert shop.refused(NotNow, ANN).reason == "messages"


def test_after_an_hour_without_webhooks_two_polls_know_every_line(opened, fake):
    """What happened to reputations meanwhile is repaired by the list; what it can't show, by the refusal of a send."""
    shop = opened()
    first, second, third, fourth = fake.numbers
    for number in fake.numbers:
        shop.send(f"+1212555{number[-4:]}", line=number)
    fake.set_reputation(second, "CRITICAL")
    shop.pass_time()
    assert shop.standings()[second] == "critical"
    fake.webhooks.outage(HOUR)
    fake.set_reputation(first, "CRITICAL")
    shop.pass_time(HOUR / 2)
    fake.set_reputation(second, "HEALTHY")
    fake.set_reputation(third, "AT_RISK")
    fake.set_status(fourth, "FLAGGED", reputation="HEALTHY")
    shop.pass_time(HOUR / 3)
    lost = [delivery for delivery in fake.deliveries if delivery.error == "outage"]
    assert len(lost) == 4
    shop.poll(2)
    assert shop.standings() == {first: "critical", second: "ok", third: "ok", fourth: "ok"}
    views = {view.line.number: view for view in shop.run(shop.router.lines)}
    assert views[third].budget == 21  # half of what is left after the cut
    assert shop.refused(Held, f"+1212555{first[-4:]}").reason == "critical"
    shop.send(f"+1212555{second[-4:]}", "Again")
    with pytest.raises(linq.PermissionDeniedError):
        shop.send(f"+1212555{fourth[-4:]}", "Again")
    assert shop.standings()[fourth] == "ineligible"
    shop.send(f"+1212555{fourth[-4:]}", "Again")
    assert fake.sent[-1].number == second


@contextlib.contextmanager
def endpoint(fake: FakeLinq, url: str, policy: Policy, directory: Path) -> Iterator[str]:
    """`linepicker webhooks` as a process of its own, until the end; its address."""
    config = directory / "policy.toml"
    config.write_text(policy.to_toml())
    account = {"LINQ_API_V3_API_KEY": fake.token, "LINQ_API_V3_BASE_URL": fake.base_url}
    command = ["webhooks", "--port", "0", "--json", "--config", str(config), "--store", url]
    process = subprocess.Popen(
        [sys.executable, "-m", "linepicker", *command],
        env={**os.environ, **account, "LINQ_WEBHOOK_SECRET": SECRET},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_of_a_burst_none_is_lost(tmp_path):
    """Thousands of webhooks at once, of messages, receipts and replies: each line's counts are exactly the provider's."""
    clock = ManualClock(float(int(time.time())))  # as in the endpoint
    free = {"new_per_day": "off", "new_per_hour": "off", "messages_per_day": "off"}
    policy = Policy.from_dict({**UNHURRIED, "limits": free, "failures": {"mode": "shadow"}})
    url = f"sqlite:///{tmp_path / 'lines.db'}?synchronous=normal"
    with (
        FakeLinq(8, clock=clock) as fake,
        endpoint(fake, url, policy, tmp_path) as address,
        linq.LinqAPIV3(api_key=fake.token, base_url=fake.base_url) as client,
        Router(
            LinqSource(fake.token, base_url=fake.base_url), policy=policy, store=url, clock=clock
        ) as router,
    ):
        fake.webhooks.delay = 1.0
        fake.subscribe(f"{address}/hook", secret=SECRET)
        fake.everyone(Person(receives=0.9, reads=0.8, answers=0.7))
        fake.fail_line(fake.numbers[0], 0.5, code=3007)
        messenger = LinqMessenger(client, router)
        for i in range(250):
            messenger.send(f"+1415{i:07d}", "Hello", line=fake.numbers[i % 8])
        for i in range(1300):
            fake.receive(fake.numbers[i % 8], f"+1416{i % 904:07d}", "Hello?")
        clock.advance(1)
        fake.flush(timeout=120)
        deliveries = fake.deliveries
        assert len(deliveries) > 2500
        assert {delivery.status for delivery in deliveries} == {204}
        wanted: dict[str, Counter[str]] = {number: Counter() for number in fake.numbers}
        lines = {sent.chat_id: sent.number for sent in fake.sent}
        for number in lines.values():
            wanted[number].update(sent=1, opened=1)
        counted = {"message.failed": "failed:3007", "message.received": "answered"}
        counted |= {f"message.{name}": name for name in ("delivered", "read")}
        for delivery in deliveries:
            data, name = delivery.json["data"], counted.get(delivery.event_type)
            chat_id = data.get("chat_id") or data.get("chat", data)["id"]
            if name is not None and chat_id in lines:
                wanted[lines[chat_id]].update({name: 1})
        assert {view.line.number: dict(view.outcomes) for view in router.lines()} == wanted
        assert wanted[fake.numbers[0]]["failed:3007"] > 10
        for i in range(904):
            assert router.assignment(f"+1416{i:07d}") is not None


def test_while_the_store_is_out_the_provider_is_asked_to_try_again(opened, fake, tmp_path):
    """503, and nothing changes, as long as another process holds the file; then the provider's next try counts, once."""
    shop = opened(query="&timeout=0.05")
    line = fake.numbers[0]
    shop.send(ANN, line=line)
    with contextlib.closing(sqlite3.connect(tmp_path / "lines.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        fake.receive(line, ANN, "STOP", chat_id=fake.sent[0].chat_id)
        fake.set_reputation(line, "CRITICAL")
        shop.pass_time()
        tries = Counter((each.event_type, each.status) for each in fake.deliveries)
        assert {status for _, status in tries} == {503}
        assert tries["message.received", 503] == 1
    assert shop.run(shop.router.preview, ANN).outcome == "reserved"
    assert shop.standings()[line] == "ok"
    shop.pass_time(4)
    assert {each.status for each in fake.deliveries if each.attempt == 2} == {204}
    fake.flush(later=True)
    assert shop.standings()[line] == "critical"
    assert shop.refused(Blocked, ANN).reason == "opted_out"
    counts = {"sent": 1, "opened": 1, "delivered": 1, "answered": 1, "opted_out": 1}
    assert shop.outcomes(line) == counts
    fake.webhooks.replay(next(each for each in fake.deliveries if each.attempt == 2))
    for delivery in fake.deliveries:
        fake.webhooks.replay(delivery, fresh=True)
    shop.pass_time()
    assert shop.outcomes(line) == counts
