"""The endpoint driven by the fake provider over real HTTP: what happens there is in every process's choices."""

import contextlib
import json
import socket
import sqlite3
import subprocess
import sys
import threading

import httpx
import linq
import pytest
import uvicorn

from linepicker import AsyncRouter, Blocked, Held, Line, NoLine, Router
from linepicker.providers.linq import AsyncLinqSource, LinqSource
from linepicker.testing import FakeLinq, ManualClock
from linepicker.testing.fakelinq import Guesses, Person
from linepicker.webhooks import WebhookApp, parse, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw7Jxx2Oll+OE="
OTHER = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
NOW = 1_790_000_000.0
A, B, C = "+12025550100", "+12025550101", "+12025550102"
ANN, BOB, EVE = "+14155550101", "+14155550102", "eve@example.com"


@contextlib.contextmanager
def serving(app):
    """The application under uvicorn; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/linq"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def clock():
    """The time of everybody."""
    return ManualClock(NOW)


@pytest.fixture
def fake(clock):
    """A provider with three lines."""
    with FakeLinq([A, B, C], clock=clock) as fake:
        yield fake


@pytest.fixture
def store(tmp_path):
    """Where all processes keep their state."""
    return f"sqlite:///{tmp_path / 'lines.db'}"


@contextlib.contextmanager
def endpoint(fake, store, clock, door=Router, **more):
    """An endpoint subscribed to everything, on a store."""
    source = {Router: LinqSource, AsyncRouter: AsyncLinqSource}[door]
    router = door(source(fake.token, base_url=fake.base_url), store=store, clock=clock)
    app = WebhookApp(router, SECRET, clock=clock, **more)
    with serving(app) as url:
        yield app, url


ELSEWHERE = """
import sys
from linepicker import Line, Router
from linepicker.testing import ManualClock
store, now, *numbers = sys.argv[1:]
with Router([Line(number) for number in numbers], store=store, clock=ManualClock(float(now))) as router:
    print(router.reserve("+14155550100").number, flush=True)
    for _ in sys.stdin:
        print(*(view.standing for view in router.lines()), router.preview("+14155550199").number, flush=True)
"""


@pytest.mark.parametrize("door", [Router, AsyncRouter])
def test_a_line_turned_critical_is_out_of_every_process_with_one_webhook(fake, store, clock, door):
    """One process takes the webhook; another, which was choosing before, chooses the line no more."""
    command = [sys.executable, "-c", ELSEWHERE, store, str(NOW), A, B]
    with (
        endpoint(fake, store, clock, door) as (app, url),
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as elsewhere,
    ):
        chosen = elsewhere.stdout.readline().strip()
        fake.subscribe(url, secret=SECRET)
        fake.set_status(chosen, "ACTIVE", reputation="CRITICAL")
        fake.flush()
        assert [each.status for each in fake.deliveries] == [204]
        assert app.counts == {"applied": 1}
        print("go", file=elsewhere.stdin)
        *standings, other = elsewhere.stdout.readline().split()
        elsewhere.stdin.close()
    assert dict(zip([A, B], standings, strict=True))[chosen] == "critical"
    assert other == ({A, B} - {chosen}).pop()


@pytest.mark.parametrize("version", ["2025-01-01", "2026-02-03"])
@pytest.mark.parametrize("shape", ["reputation", "both", "health_status", "status"])
def test_all_that_the_fake_tells_is_read(fake, store, clock, version, shape):
    """Whatever happens at the provider, in either generation: events are reports or of no concern, and none is unreadable."""
    fake.webhooks.status_shape = shape
    fake.everyone(Person(reads=1.0, answers=1.0, says=("hi", "STOP", "ok")))
    client = linq.LinqAPIV3(api_key=fake.token, base_url=fake.base_url, max_retries=0)
    with endpoint(fake, store, clock) as (app, url):
        fake.subscribe(url, secret=SECRET, version=version)
        for turn in range(6):
            text = {"parts": [{"type": "text", "value": "Your bicycle is ready."}]}
            for to in ([ANN], [EVE], [ANN, BOB]):
                with contextlib.suppress(linq.APIStatusError):
                    client.chats.create(from_=A, to=to, message=text)
            fake.receive(B, BOB, "hello", late=3600.0 * turn)
            clock.advance(1.0)
            fake.tick()
        fake.fail_messages(code=4005)
        client.chats.create(from_=A, to=[BOB], message=text)
        fake.set_status(B, "FLAGGED", reputation="CRITICAL")
        fake.set_reputation(A, "AT_RISK")
        fake.set_reputation(A, "UNHEARD_OF")
        fake.add_line("+12025550103")
        fake.move_line(C, "staging")
        fake.remove_line("+12025550103")
        fake.flush(later=True)
        assert {each.status for each in fake.deliveries} == {204}
        counts = app.counts
    assert counts["applied"] > 30
    assert counts.keys() <= {"applied", "unchanged", "ignored"}
    found = {}
    for each in fake.deliveries:
        event = verify(each.body, each.headers, SECRET, now=each.at)
        found.setdefault(type(parse(event)).__name__, set()).add(each.event_type)
        assert event.version == version
    assert found["Replied"] == {"message.received"}
    assert found["Delivered"] == {"message.delivered"}
    assert found["MessageRead"] == {"message.read"}
    assert found["Failed"] == {"message.failed"}
    assert found["LineChanged"] == {"phone_number.status_updated"}
    assert found["LineAssigned"] == {"phone_number.assigned", "environment.line_moved"}
    assert found["LineReleased"] == {"phone_number.released"}
    assert "chat.created" in found["ChatHealthChanged"]


@pytest.mark.parametrize("door", [Router, AsyncRouter])
def test_someone_who_stops_is_left_alone_until_they_write_again(fake, store, clock, door):
    """STOP blocks the person in every process, before anything is asked of the provider; another word of theirs ends it."""
    with (
        endpoint(fake, store, clock, door) as (_, url),
        Router([Line(A), Line(B)], store=store, clock=clock) as router,
    ):
        fake.subscribe(url, secret=SECRET)
        fake.receive(A, ANN, "hello")
        fake.flush()
        assert router.reserve(ANN).number == A
        clock.advance(1.0)
        fake.receive(A, ANN, "STOP")
        fake.flush()
        asked = len(fake.requests)
        with pytest.raises(Blocked):
            router.reserve(ANN)
        assert len(fake.requests) == asked
        clock.advance(1.0)
        fake.receive(B, ANN, "sorry, do go on")
        fake.flush()
        assert router.reserve(ANN).number == A


def test_webhooks_twice_and_in_any_order_end_alike(fake, store, clock):
    """Half of them twice and a third of them overtaken: the last state counts."""
    fake.webhooks.duplicate, fake.webhooks.reorder = 0.5, 0.3
    with (
        endpoint(fake, store, clock) as (app, url),
        Router([Line(A), Line(B)], store=store, clock=clock) as router,
    ):
        fake.subscribe(url, secret=SECRET)
        for reputation in ("AT_RISK", "CRITICAL", "AT_RISK", "HEALTHY", "AT_RISK", "CRITICAL"):
            fake.set_reputation(A, reputation)
            fake.set_reputation(B, reputation)
            clock.advance(1.0)
            fake.flush()
        clock.advance(10.0)
        fake.flush(later=True)
        assert {each.status for each in fake.deliveries} == {204}
        assert sum(app.counts.values()) == len(fake.deliveries) > 12
        assert [view.standing for view in router.lines()] == ["critical", "critical"]
        with pytest.raises(NoLine):
            router.reserve(EVE)


def test_forgeries_and_replays_change_nothing(fake, store, clock):
    """What is signed with another secret, or was overheard and comes again after five minutes, is refused; sooner it is a
    duplicate."""
    with (
        endpoint(fake, store, clock) as (app, url),
        Router([Line(A), Line(B)], store=store, clock=clock) as router,
    ):
        fake.subscribe(url, secret=SECRET)
        fake.set_reputation(A, "CRITICAL")
        fake.flush()
        overheard = fake.deliveries[0]
        data = {"phone_number": B, "new_status": "FLAGGED", "changed_at": "2026-09-21T14:13:20Z"}
        fake.webhooks.emit("phone_number.status_updated", data, secret=OTHER)
        fake.webhooks.replay(overheard)
        fake.flush()
        clock.advance(301.0)
        fake.webhooks.replay(overheard)
        fake.flush()
        assert [each.status for each in fake.deliveries] == [204, 401, 204, 401]
        assert app.counts == {"applied": 1, "signature": 1, "unchanged": 1, "timestamp": 1}
        assert [view.standing for view in router.lines()] == ["critical", "ok"]


@pytest.mark.parametrize("key", ["text", "decoded"])
def test_the_deprecated_signature_alone_is_enough_where_it_is_allowed(clock, store, key):
    """However the provider keys the deprecated signature, it verifies, where the other one is lost on the way."""
    with (
        FakeLinq([A], clock=clock, guesses=Guesses(legacy_key=key)) as fake,
        endpoint(fake, store, clock, legacy=True) as (app, url),
    ):
        fake.subscribe(url, secret=SECRET)
        fake.set_status(A, "FLAGGED")
        fake.flush()
        (sent,) = fake.deliveries
        headers = {
            name: value for name, value in sent.headers.items() if "webhook-" not in name[:8]
        }
        assert httpx.post(url, content=sent.body, headers=headers).status_code == 204
        assert app.counts == {"applied": 1, "unchanged": 1}
        headers["X-Webhook-Signature"] = "0" * 64
        assert httpx.post(url, content=sent.body, headers=headers).status_code == 401


def test_what_could_not_be_stored_comes_again(fake, store, clock, tmp_path):
    """While the store is out the provider is told so, and tries again until it is in."""
    with (
        endpoint(fake, f"{store}?timeout=0.05", clock) as (app, url),
        Router([Line(A), Line(B)], store=store, clock=clock) as router,
    ):
        fake.subscribe(url, secret=SECRET)
        router.assign(ANN, A)
        fake.receive(A, ANN, "hello")
        fake.flush()
        with contextlib.closing(
            sqlite3.connect(tmp_path / "lines.db", isolation_level=None)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            fake.set_reputation(A, "CRITICAL")
            fake.flush()
            clock.advance(4.0)
            fake.flush()
        clock.advance(10.0)
        fake.flush(later=True)
        told = [each.status for each in fake.deliveries if "status" in each.event_type]
        assert told == [503, 503, 204]
        assert app.counts["unavailable"] == 2
        with pytest.raises(Held):
            router.reserve(ANN)


def test_bodies_are_verified_as_they_came(fake, store, clock):
    """A body that says the same in other bytes is not what was signed."""
    with endpoint(fake, store, clock) as (app, url):
        fake.subscribe(url, secret=SECRET)
        fake.set_status(A, "FLAGGED")
        fake.flush()
        sent = fake.deliveries[0]
        again = json.dumps(sent.json, indent=1)
        headers = {
            name: value for name, value in sent.headers.items() if name.lower() != "content-length"
        }
        assert httpx.post(url, content=again, headers=headers).status_code == 401
        assert app.counts == {"applied": 1, "signature": 1}
