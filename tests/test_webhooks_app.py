"""Webhooks over HTTP: a real server on the loopback, real stores, and whatever may be sent to them."""

import asyncio
import base64
import contextlib
import hmac
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import takewhile

import attrs
import httpx
import pytest
import uvicorn

from linepicker import AsyncRouter, Line, NotNow, Policy, Router, SourceError
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock
from linepicker.webhooks import MAX_BODY, WebhookApp

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw7Jxx2Oll+OE="
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
LINES = [f"+120255501{i:02d}" for i in range(20)]
PERSON = "+12125550123"
NOW = 1_790_000_000.0
NOW_TEXT = "2026-09-21T14:13:20Z"
MANUAL = object()


def signed(body, *, stamp=NOW, name="msg_1", key=KEY):
    """The headers of a webhook with this body."""
    content = f"{name}.{stamp:.0f}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    return {
        "content-type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": f"{stamp:.0f}",
        "webhook-signature": f"v1,{signature}",
    }


def body_of(kind, data, *, event_id="e1", at=NOW_TEXT):
    """An event as it is sent."""
    event = {
        "api_version": "v3",
        "webhook_version": "2026-02-03",
        "event_type": kind,
        "event_id": event_id,
        "created_at": at,
        "trace_id": "t1",
        "partner_id": "p1",
        "data": data,
    }
    return json.dumps(event).encode()


def status(number=LINES[0], *, event_id="e1", at=NOW_TEXT, **data):
    """A line's change."""
    data = {"phone_number": number, "changed_at": at, **data}
    return body_of("phone_number.status_updated", data, event_id=event_id, at=at)


def reply(person=PERSON, number=LINES[0], *, text="hello", event_id="e1", at=NOW_TEXT):
    """A person's message."""
    data = {
        "id": f"m-{event_id}",
        "chat": {"id": f"c-{person}", "is_group": False, "owner_handle": {"handle": number}},
        "direction": "inbound",
        "sender_handle": {"handle": person, "is_me": False},
        "parts": [{"type": "text", "value": text}],
        "sent_at": at,
    }
    return body_of("message.received", data, event_id=event_id, at=at)


@attrs.define
class Served:
    """An application under uvicorn in a thread."""

    app: object
    port: int
    http: httpx.Client

    def post(self, body, headers=None, **more):
        """Send a webhook, signed unless headers are given."""
        headers = signed(body) if headers is None else headers
        return self.http.post("/", content=body, headers=headers, **more)

    def raw(self, request):
        """Send these bytes, and the head of what comes back, empty if nothing does."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            return b"".join(takewhile(bytes.strip, connection.makefile("rb"))).decode().strip()


@contextlib.contextmanager
def serving(app):
    """The application, served until the end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        port = listening.getsockname()[1]
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                yield Served(app, port, http)
        finally:
            server.should_exit = True
            thread.join()


def done(value):
    """What a router's verb gives, awaited where it has to be."""
    if asyncio.iscoroutine(value):
        return asyncio.run(value)
    return value


@pytest.fixture(params=[Router, AsyncRouter])
def door(request):
    """Either router."""
    return request.param


@pytest.fixture(params=["memory", "sqlite"])
def url(request, tmp_path):
    """The URL of a store."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'lines.db'}"


@contextlib.contextmanager
def watching(door, url="memory://", *, clock=MANUAL):
    """A served endpoint with its router and all that the router's store holds, to be looked at."""
    clock = ManualClock(NOW) if clock is MANUAL else clock
    handle = open_store(url)
    router = door([Line(number) for number in LINES], store=handle, clock=clock)
    with serving(WebhookApp(router, SECRET, clock=clock)) as served:
        yield served, router, lambda: dict(handle.store().scan(""))
    done(router.close())
    handle.close()


# What is taken


def test_a_line_turned_critical_is_out_at_once(door, url):
    """A webhook answered 2xx is in the store: the line is in nobody's choices any more."""
    body = status(new_reputation="CRITICAL", new_status="ACTIVE")
    with watching(door, url) as (served, router, _):
        answer = served.post(body)
        assert (answer.status_code, answer.content) == (204, b"")
        views = {view.line.number: view.standing for view in done(router.lines())}
        assert views == {LINES[0]: "critical"} | dict.fromkeys(LINES[1:], "ok")
        assert served.post(body).status_code == 204
        assert served.app.counts == {"applied": 1, "unchanged": 1}


def test_a_reply_assigns_and_an_opt_out_blocks(door):
    """A person who wrote belongs to the line they wrote to; STOP blocks them."""
    with watching(door) as (served, router, _):
        assert served.post(reply()).status_code == 204
        assert done(router.assignment(PERSON)).number == LINES[0]
        assert served.post(reply(text="STOP", event_id="e2")).status_code == 204
        assert done(router.preview(PERSON)).outcome == "blocked"


def test_what_is_not_about_routing_is_answered_and_counted(door):
    """Other types, ones to come, and events that lack what they need are 2xx, counted, and change nothing."""
    with watching(door) as (served, _, stored):
        served.post(reply())
        before = stored()
        for kind in ("reaction.added", "line.exploded", "message.edited"):
            assert served.post(body_of(kind, {})).status_code == 204
        for data in ({}, None, {"phone_number": "none"}):
            assert served.post(body_of("phone_number.assigned", data)).status_code == 204
        assert served.post(reply(person="12345", event_id="e3")).status_code == 204
        counts = {"applied": 1, "ignored": 3, "unreadable": 4}
        assert served.app.counts == counts
        assert stored() == before


def test_an_event_about_somebody_elses_line_changes_nothing(door):
    """A line that is not in the fleet is answered 2xx."""
    with watching(door) as (served, _, _):
        body = status("+12025559999", new_status="FLAGGED")
        assert served.post(body).status_code == 204
        assert served.app.counts == {"unchanged": 1}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/x+json",
    ],
)
def test_json_may_be_said_in_several_ways(content_type):
    """Content types that mean JSON are taken, and so is none at all."""
    body = reply()
    with watching(Router) as (served, _, _):
        headers = {**signed(body), "content-type": content_type}
        assert served.post(body, headers).status_code == 204
        del headers["content-type"]
        assert served.post(body, headers).status_code == 204


def test_a_second_secret_is_good_while_secrets_are_rotated():
    """Of several secrets any will do."""
    key = bytes(range(32))
    other = "whsec_" + base64.b64encode(key).decode()
    clock = ManualClock(NOW)
    with (
        Router([Line(LINES[0])], clock=clock) as router,
        serving(WebhookApp(router, [other, SECRET], clock=clock)) as served,
    ):
        assert served.post(reply()).status_code == 204
        body = reply(event_id="e2")
        assert served.post(body, signed(body, key=key)).status_code == 204
        assert served.app.counts == {"applied": 2}


def test_the_deprecated_signature_is_taken_where_it_is_allowed():
    """With `legacy` the older headers are enough, by the host's clock where none is given."""
    body, stamp = reply(), f"{time.time():.0f}"
    made = hmac.digest(SECRET.encode(), f"{stamp}.".encode() + body, "sha256").hex()
    headers = {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": made}
    for more, wanted in (({"legacy": True}, 204), ({"legacy": False}, 401), ({}, 401)):
        with (
            Router([Line(LINES[0])]) as router,
            serving(WebhookApp(router, SECRET, **more)) as served,
        ):
            assert served.post(body, headers).status_code == wanted


def test_secrets_are_checked_when_the_application_is_made():
    """A secret that is none is found before the first webhook."""
    with Router([Line(LINES[0])]) as router:
        for secrets in ("", "whsec_!", []):
            with pytest.raises(ValueError):
                WebhookApp(router, secrets)


# What is refused


def bad_requests():
    """Requests that are to be refused: name, status, reason, body, headers."""
    body = status(new_reputation="CRITICAL", new_status="FLAGGED")
    good = signed(body)
    yield "forged", 401, "signature", body, signed(body, key=b"guess")
    yield "another body", 401, "signature", body[:-1] + b" }", good
    yield "truncated", 401, "signature", body[:-5], good
    yield "replayed", 401, "timestamp", body, signed(body, stamp=NOW - 301)
    yield "future-dated", 401, "timestamp", body, signed(body, stamp=NOW + 301)
    yield "no headers", 401, "headers", body, {"content-type": "application/json"}
    many = " ".join(["v1,AAAA"] * 5000)
    yield "many signatures", 401, "headers", body, {**good, "webhook-signature": many}
    some = " ".join(["v1,AAAA", "v1", "garbage", "v1,a,b"] * 50)
    yield "wrong signatures", 401, "signature", body, {**good, "webhook-signature": some}
    deep = b'{"data":' + b"[" * 300_000 + b"]" * 300_000 + b"}"
    yield "deeply nested", 400, "body", deep, signed(deep)
    broken = b'{"event_type": "\xff\xfe"}'
    yield "not UTF-8", 400, "body", broken, signed(broken)
    yield "not JSON", 400, "body", b"private", signed(b"private")
    yield "no object", 400, "body", b"[1]", signed(b"[1]")
    yield "empty", 400, "body", b"", signed(b"")
    large = b'{"data":"' + b"x" * 5_000_000 + b'"}'
    yield "5 MB", 413, "size", large, signed(large)
    form = {**good, "content-type": "application/x-www-form-urlencoded"}
    yield "wrong content type", 415, "content-type", body, form
    unsigned = {"content-type": "text/plain"}
    yield "wrong content type, unsigned", 401, "headers", body, unsigned


BAD = {name: rest for name, *rest in bad_requests()}


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_refused_logged_once_and_changes_nothing(door, name, caplog):
    """Each kind of bad request has its status; ten of them are one line of log, which shows none of it; no state changes."""
    code, reason, body, headers = BAD[name]
    with watching(door) as (served, _, stored):
        served.post(reply())
        before = stored()
        caplog.clear()
        for _ in range(10):
            answer = served.post(body, headers)
            assert answer.status_code == code
            assert LINES[0] not in answer.text
        assert served.app.counts == {"applied": 1, reason: 10}
        assert stored() == before
        assert served.post(reply(event_id="e2")).status_code == 204
    lines = [each.getMessage() for each in caplog.records if each.name.startswith("linepicker")]
    assert len(lines) == 1
    assert lines[0].startswith(f"webhook: {reason}: ")
    for secret in (LINES[0], PERSON, "private", "CRITICAL", "xxxx", SECRET[6:]):
        assert secret not in caplog.text


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_posts_are_webhooks(method):
    """Other methods are refused, and told which one there is."""
    body = reply()
    with watching(Router) as (served, _, stored):
        answer = served.http.request(method, "/", content=body, headers=signed(body))
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert served.app.counts == {"method": 1}
        assert stored() == {}


def test_a_body_in_chunks_may_be_too_large():
    """Whoever sends somewhat too much without saying so is heard to the end, told, and may go on."""
    with watching(Router) as (served, _, stored):
        chunks = (b"x" * (1 << 16) for _ in range(40))
        answer = served.http.post("/", content=chunks, headers=signed(b"x"))
        assert answer.status_code == 413
        assert "connection" not in answer.headers
        assert stored() == {}
        assert served.post(reply()).status_code == 204
        assert served.app.counts == {"size": 1, "applied": 1}


def test_an_endless_body_is_not_read_to_its_end():
    """A body in chunks that goes on and on is cut off."""
    taken = 0

    def endless():
        nonlocal taken
        while taken < 1 << 30:
            taken += 1 << 16
            yield b"x" * (1 << 16)

    with watching(Router) as (served, _, _):
        with contextlib.suppress(
            httpx.TransportError
        ):  # the answer may be lost with the connection
            answer = served.http.post("/", content=endless(), headers={"webhook-id": "e1"})
            assert answer.status_code == 413
        assert served.app.counts == {"size": 1}
        assert taken < 1 << 28
        assert served.post(reply()).status_code == 204


def test_a_body_that_is_too_large_is_refused_by_its_length():
    """What says that it will be too large is refused before it is sent; so is a length of any number of digits."""
    with watching(Router) as (served, _, _):
        for length, closes in ((str(MAX_BODY + 1), False), ("50000000", True), ("9" * 18, True)):
            head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
            answer = served.raw(head.encode()).lower()
            assert answer.startswith("http/1.1 413")
            assert ("connection: close" in answer) == closes
        assert served.app.counts == {"size": 3}


def test_a_body_may_be_as_large_as_is_said():
    """The last byte that is allowed is: then it is the signature that has to hold."""
    with watching(Router) as (served, _, _):
        assert served.post(b" " * MAX_BODY).status_code == 400
        assert served.post(b" " * (MAX_BODY + 1)).status_code == 413


def test_a_length_that_lies_is_no_way_in():
    """A body that is longer than it says is cut, and one that stops short of it is never taken for whole."""
    body = reply()
    head = "".join(f"{name}: {value}\r\n" for name, value in signed(body).items())
    with watching(Router) as (served, _, stored):
        for length, wanted in ((len(body) - 3, "HTTP/1.1 401"), (len(body) + 3, "")):
            request = f"POST / HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {length}\r\n\r\n"
            with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
                connection.sendall(request.encode() + body)
                connection.shutdown(socket.SHUT_WR)
                assert connection.makefile("rb").readline().decode().startswith(wanted)
        assert stored() == {}
        assert served.post(body).status_code == 204


def test_it_says_when_it_has_started_and_stopped():
    """What waits for the lifespan to begin and to end is told."""
    phases, sent = ["startup", "shutdown"], []

    async def receive():
        return {"type": f"lifespan.{phases[len(sent)]}"}

    async def send(message):
        sent.append(message)

    with Router([Line(LINES[0])]) as router:
        asyncio.run(WebhookApp(router, SECRET)({"type": "lifespan"}, receive, send))
    assert sent == [{"type": f"lifespan.{phase}.complete"} for phase in phases]


def test_a_web_socket_is_turned_away():
    """What is no HTTP request is closed."""
    sent = []

    async def go():
        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        await app({"type": "websocket", "path": "/", "headers": []}, receive, send)

    with Router([Line(LINES[0])]) as router:
        app = WebhookApp(router, SECRET)
        asyncio.run(go())
    assert sent == [{"type": "websocket.close", "code": 1003}]  # RFC 6455: data it can't accept


# Threads


def test_while_one_report_waits_for_the_list_the_others_go_on(monkeypatch):
    """A Router's reports share a thread; when that does not come back, another one takes those that come after."""
    monkeypatch.setattr("linepicker.stores._together.STUCK_AFTER", -1.0)
    begun, going = threading.Event(), threading.Event()
    told = []

    class Slow:
        def report(self, report):
            if report.to == PERSON:
                begun.set()
                assert going.wait(60)
            told.append(report.to)
            return True

    with serving(WebhookApp(Slow(), SECRET, clock=ManualClock(NOW))) as served:
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(served.post(reply())))
        waiting.start()
        assert begun.wait(60)
        with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=60) as other:
            body = reply("+12125550124", event_id="e2")
            assert other.post("/", content=body, headers=signed(body)).status_code == 204
        assert told == ["+12125550124"]
        going.set()
        waiting.join(60)
    assert [answer.status_code for answer in answers] == [204]
    assert told == ["+12125550124", PERSON]


def test_what_a_report_raises_is_its_own_answer():
    """Of several that a thread takes at once each one has its own; 503 for those that the store failed."""

    class Moody:
        def report(self, report):
            if report.event_id.endswith("3"):
                raise SourceError("out", status=503)
            return True

    with serving(WebhookApp(Moody(), SECRET, clock=ManualClock(NOW))) as served:

        def post(n):
            body = reply(event_id=f"e{n}")
            with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=60) as http:
                return http.post("/", content=body, headers=signed(body)).status_code

        with ThreadPoolExecutor(8) as clients:
            codes = list(clients.map(post, range(24)))
    assert codes == [503 if n % 10 == 3 else 204 for n in range(24)]


# When something is out


def test_while_the_store_is_out_webhooks_are_to_come_again(door, tmp_path, caplog):
    """503 while another process holds the store; it is applied when it comes again; each outage is logged once."""
    file = tmp_path / "lines.db"
    with watching(door, f"sqlite:///{file}?timeout=0.05") as (served, router, _):
        assert served.post(reply()).status_code == 204
        for round_ in (1, 2):
            body = reply(event_id=f"again-{round_}", person=f"+1212555010{round_}")
            caplog.clear()
            with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                for _ in range(3):
                    answer = served.post(body)
                    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                    assert str(file) not in answer.text
            assert served.post(body).status_code == 204
            assert served.post(body).status_code == 204
            assert done(router.assignment(f"+1212555010{round_}")).number == LINES[0]
            logged = [each for each in caplog.messages if each.startswith("webhook: unavailable")]
            assert len(logged) == 1
        assert served.app.counts == {"applied": 3, "unavailable": 6, "unchanged": 2}


def test_a_store_that_was_replaced_takes_nothing(tmp_path):
    """A running endpoint that finds its store wiped answers 503, and writes nothing into the new one."""
    file = tmp_path / "lines.db"
    with watching(Router, f"sqlite:///{file}") as (served, _, stored):
        assert served.post(reply()).status_code == 204
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("DELETE FROM kept")
        assert served.post(reply(event_id="e2")).status_code == 503
        assert stored() == {}


@attrs.define
class Source:
    """Lines that can't be had until `up`."""

    up: bool = False
    retry_after: float | None = 7.2

    def fetch(self):
        """The list, or not."""
        if not self.up:
            raise SourceError("out", status=503, retry_after=self.retry_after)
        return [Line(number) for number in LINES]


@pytest.mark.parametrize(
    ("asked", "told"), [(7.2, "8"), (None, "5"), (0.1, "1"), (86400.0, "60"), (-1.0, "1")]
)
def test_while_no_list_was_read_webhooks_are_to_come_again(asked, told):
    """Without ever a list of lines nothing can be told apart: 503, with what the provider asked for, within a minute."""
    clock, source = ManualClock(NOW), Source(retry_after=asked)
    with (
        Router(source, clock=clock) as router,
        serving(WebhookApp(router, SECRET, clock=clock)) as served,
    ):
        body = status(new_status="FLAGGED")
        answer = served.post(body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, told)
        source.up = True
        clock.advance(90_000)
        assert served.post(body, signed(body, stamp=clock.now())).status_code == 204
        assert {view.standing for view in router.lines()} == {"flagged", "ok"}


# Many, and through a crash


def burst(port, bodies, *, connections=16):
    """Post all bodies over some connections at once; how often each status came back."""
    came, waiting, stamp = Counter(), iter(bodies), time.time()

    async def sender():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in waiting:
            headers = {**signed(body, stamp=stamp), "Host": "x", "Content-Length": len(body)}
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            came[answer[:12].decode()] += 1
            assert b"content-length" not in answer.lower()  # a 204 has no body
        writer.close()
        await writer.wait_closed()

    async def go():
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(sender())

    asyncio.run(go())
    return came


@pytest.mark.parametrize(
    ("door", "store"),
    [(AsyncRouter, "memory://"), (Router, "sqlite:///{}?synchronous=normal")],
)
def test_of_thousands_at_once_none_is_lost(door, store, tmp_path):
    """Thousands of replies over sixteen connections, a tenth of them twice, are each in the store once; and so is what
    happened to a line among them."""
    now = datetime.now(UTC).isoformat()
    people = [f"+1415{i:07d}" for i in range(2700)]
    bodies = [
        reply(person, LINES[i % 20], event_id=f"e-{i}", at=now) for i, person in enumerate(people)
    ]
    bodies += bodies[::9][:280]
    bodies += [
        status(number, event_id=f"s-{number}", at=now, new_status="FLAGGED") for number in LINES
    ]
    bodies = bodies[::2] + bodies[1::2]
    url = store.format(tmp_path / "lines.db")
    with watching(door, url, clock=None) as (served, router, _):
        assert burst(served.port, bodies) == {"HTTP/1.1 204": 3000}
        assert served.app.counts == {"applied": 2720, "unchanged": 280}
        assert {view.standing for view in done(router.lines())} == {"flagged"}
        found = done(numbers_of(router, people))
        assert found == [LINES[i % 20] for i in range(2700)]


async def numbers_of(router, people):
    """Whose line each is."""
    found = []
    for person in people:
        what = router.assignment(person)
        belongs = await what if asyncio.iscoroutine(what) else what
        found.append(belongs and belongs.number)
    return found


SERVER = """
import os, signal, socket, sys
import uvicorn
from linepicker import Line, Router
from linepicker.testing import ManualClock
from linepicker.webhooks import WebhookApp

store, secret, number, die = sys.argv[1:]
clock = ManualClock(1_790_000_000.0)
router = Router([Line(number)], store=store, clock=clock)

class Dying:
    def report(self, report):
        if die == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        news = router.report(report)
        if die == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return news

listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
app = WebhookApp(Dying(), secret, clock=clock)
uvicorn.Server(uvicorn.Config(app, log_config=None)).run(sockets=[listening])
"""


@contextlib.contextmanager
def server(store, die):
    """An endpoint in a process of its own, which may kill itself on the first webhook; and its port."""
    command = [sys.executable, "-c", SERVER, store, SECRET, LINES[0], die]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_webhook_whose_handler_was_killed_is_applied_once(moment, tmp_path):
    """Killed between verification and write, or between write and answer: the retry finds a server, and counts once."""
    store, body = f"sqlite:///{tmp_path / 'lines.db'}", reply()
    with server(store, moment) as (process, port):
        with pytest.raises(httpx.TransportError):
            httpx.post(f"http://127.0.0.1:{port}/", content=body, headers=signed(body))
        assert process.wait(30) == -signal.SIGKILL
    with server(store, "never") as (_, port):
        for _ in range(2):
            answer = httpx.post(f"http://127.0.0.1:{port}/", content=body, headers=signed(body))
            assert answer.status_code == 204
    policy = Policy.from_dict({"limits": {"messages_per_day": 2}})
    clock = ManualClock(NOW)
    with Router([Line(LINES[0])], store=store, clock=clock, policy=policy) as router:
        assert router.assignment(PERSON).number == LINES[0]
        assert router.reserve(PERSON).kind == "known"  # the reply is one message of the day's two
        with pytest.raises(NotNow):
            router.reserve(PERSON)


# The command


@pytest.fixture
def account(monkeypatch, tmp_path):
    """A provider on the loopback, and an environment that names it."""
    from linepicker.testing import FakeLinq

    with FakeLinq(LINES[:3]) as fake:
        yield {
            **{name: value for name, value in os.environ.items() if "LINQ" not in name},
            "LINQ_API_V3_API_KEY": fake.token,
            "LINQ_API_V3_BASE_URL": fake.base_url,
            "LINQ_WEBHOOK_SECRET": SECRET,
            "LINEPICKER_STORE": f"sqlite:///{tmp_path / 'lines.db'}",
            "NO_PROXY": "127.0.0.1",
        }


def command(*arguments):
    """`linepicker webhooks` with these arguments."""
    return [sys.executable, "-m", "linepicker", "webhooks", *arguments]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_takes_webhooks_until_it_is_stopped(account, stop):
    """`linepicker webhooks` prints where it listens, writes what it is told to the store, and ends when told to."""
    body = status(new_status="FLAGGED", new_reputation="CRITICAL")
    arguments = command("--port", "0", "--json")
    with subprocess.Popen(
        arguments, env=account, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            headers = signed(body, stamp=time.time())
            assert httpx.post(url, content=body, headers=headers).status_code == 204
            assert httpx.post(url, content=body, headers=signed(body)).status_code == 401
            process.send_signal(stop)
            assert process.wait(30) in {130, -stop}
            errors = process.stderr.read().decode()
        finally:
            process.kill()
    assert "webhook: timestamp" in errors
    assert "Traceback" not in errors
    with Router([Line(LINES[0])], store=account["LINEPICKER_STORE"]) as router:
        assert [view.standing for view in router.lines()] == ["flagged"]


def test_the_command_says_what_it_lacks(account):
    """Without a secret, with a bad one, or on a port that is taken, it says so in one sentence, which shows no secret."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for changes, arguments, told in [
            ({"LINQ_WEBHOOK_SECRET": ""}, [], "LINQ_WEBHOOK_SECRET must hold the signing secret"),
            ({}, ["--secret-env", "HOOK"], "HOOK must hold the signing secret"),
            ({"LINQ_WEBHOOK_SECRET": "private!"}, [], "a webhook secret must be 'whsec_'"),
            ({"LINQ_API_V3_API_KEY": "wrong"}, [], "token"),
            ({}, ["--port", str(port)], "in use"),
        ]:
            done = subprocess.run(
                command(*arguments),
                env={**account, **changes},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 1
            assert done.stderr.count("\n") == 1
            assert told in done.stderr
            assert "private" not in done.stderr


def test_the_command_names_the_extra_it_needs(account):
    """Where the extra is not installed, it says what to install."""
    code = "import sys; sys.modules['uvicorn'] = None\nfrom linepicker.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "webhooks"],
        env=account,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "linepicker: this command needs: pip install 'linepicker[web]'\n"
