"""Reading the fleet from Linq: every shape it has had, every way it can fail, and within the time allowed."""

import asyncio
import gzip
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepicker.errors import SourceError
from linepicker.model import Line, Outcome, Reputation, ServiceStatus
from linepicker.providers.linq import AsyncLinqSource, LinqSource
from linepicker.providers.linq.client import MAX_BODY
from linepicker.providers.linq.lines import parse_lines
from linepicker.testing import FakeLinq

ONE, TWO = "+12025550100", "+12025550101"
TOKEN = "tok-5f0c2b"


class Door:
    """A source of either kind, called in the same way. `pauses` are the waits it asked for, which take no time."""

    def __init__(self, kind: str, base_url: str, **keywords):
        self.kind = kind
        self.pauses: list[float] = []
        keywords = {"token": TOKEN, "base_url": base_url, **keywords}
        self.source = LinqSource(**keywords) if kind == "sync" else AsyncLinqSource(**keywords)
        self.source._query.random = lambda: 1.0

        def sleep(seconds):
            self.pauses.append(seconds)

        async def asleep(seconds):
            sleep(seconds)

        self.source._sleep = sleep if kind == "sync" else asleep

    def fetch(self, **keywords) -> list[Line]:
        """Fetch, in a new event loop if need be."""
        if self.kind == "sync":
            return self.source.fetch(**keywords)
        return asyncio.run(self.source.fetch(**keywords))

    def close(self):
        """Close, in a new event loop if need be."""
        if self.kind == "sync":
            self.source.close()
        else:
            asyncio.run(self.source.close())


@pytest.fixture(params=["sync", "async"])
def door(request) -> Iterator[Callable[..., Door]]:
    """Opens a source, sync and async in turn."""
    opened = []

    def open_door(base_url: str, **keywords) -> Door:
        opened.append(Door(request.param, base_url, **keywords))
        return opened[-1]

    yield open_door
    for each in opened:
        each.close()


@pytest.fixture
def fake() -> Iterator[FakeLinq]:
    """A provider with two lines."""
    with FakeLinq([ONE, TWO], token=TOKEN) as provider:
        yield provider


@pytest.fixture
def raw() -> Iterator[Callable[[Callable[[socket.socket], object]], str]]:
    """Serves bytes as they are: give it what to do with a connection whose request has been read."""
    stopped = threading.Event()
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(answer: Callable[[socket.socket], object]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.05)
        listeners.append(listener)

        def accept() -> None:
            while not stopped.is_set():
                with suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(5)
                        connection.recv(65536)
                        answer(connection)

        threads.append(threading.Thread(target=accept))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    stopped.set()
    for thread in threads:
        thread.join()
    for listener in listeners:
        listener.close()


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer as it is sent."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def listed(*entries: object) -> bytes:
    """The body of a list with these entries."""
    return json.dumps({"phone_numbers": entries}).encode()


def test_the_lines_of_the_account_are_read(fake, door):
    """Number, reputation, id, type and explanation of each line arrive."""
    fake.set_reputation(TWO, "AT_RISK")
    one, two = door(fake.base_url).fetch()
    assert (one.number, one.reputation, one.line_type) == (ONE, Reputation.HEALTHY, "iMessage")
    assert (two.number, two.reputation) == (TWO, Reputation.AT_RISK)
    assert two.doc_url.endswith("#at-risk")
    assert one.id
    assert one.status is None


@pytest.mark.parametrize("shape", ["reputation", "both", "health_status"])
def test_every_shape_the_list_has_had_is_understood(fake, door, shape):
    """Old servers say health_status, for a while there were both, now it is reputation."""
    fake.list_shape = shape
    fake.set_reputation(ONE, "CRITICAL")
    assert [line.reputation for line in door(fake.base_url).fetch()] == ["CRITICAL", "HEALTHY"]


def test_a_list_without_any_reputation_is_of_healthy_lines(fake, door):
    """A line that was never scored counts as HEALTHY."""
    fake.list_shape = "neither"
    assert {line.reputation for line in door(fake.base_url).fetch()} == {Reputation.HEALTHY}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, Reputation.HEALTHY),
        ({"reputation": None}, Reputation.HEALTHY),
        ({"reputation": {}}, Reputation.HEALTHY),
        ({"reputation": {"status": None}, "health_status": None}, Reputation.HEALTHY),
        ({"reputation": "at_risk"}, Reputation.AT_RISK),
        ({"reputation": {"status": " Critical "}}, Reputation.CRITICAL),
        ({"health_status": "CRITICAL"}, Reputation.CRITICAL),
        ({"reputation": None, "health_status": {"status": "AT_RISK"}}, Reputation.AT_RISK),
        ({"reputation": "HEALTHY", "health_status": "CRITICAL"}, Reputation.HEALTHY),
    ],
)
def test_reputation_comes_before_health_status_in_any_case(entry, expected):
    """Each is an object or a string, in capitals or not, and null says as little as nothing."""
    (line,) = parse_lines(listed({"phone_number": ONE, **entry}))
    assert line.reputation is expected
    assert line.unrecognised is None


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("SUSPENDED", "SUSPENDED"),
        ({"status": "OPTED_OUT"}, "OPTED_OUT"),
        ("", "(str)"),
        (5, "(int)"),
        ([[]], "(list)"),
        ("X" * 1000, "X" * 64),
    ],
)
def test_an_unknown_reputation_is_at_risk_and_named(value, word):
    """What the provider may have added is never taken for HEALTHY."""
    (line,) = parse_lines(listed({"phone_number": ONE, "reputation": value}))
    assert (line.reputation, line.unrecognised) == (Reputation.AT_RISK, word)


def test_an_unknown_reputation_is_warned_of_once_per_value(fake, door, caplog):
    """Polling again and again does not fill the log."""
    fake.set_reputation(ONE, "DOZING")
    fake.set_reputation(TWO, "DOZING")
    source = door(fake.base_url)
    for _ in range(3):
        source.fetch()
    fake.set_reputation(TWO, "ASLEEP")
    source.fetch()
    messages = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert [("DOZING" in each, "ASLEEP" in each) for each in messages] == [
        (True, False),
        (False, True),
    ]


def test_a_provider_that_invents_words_does_not_fill_the_log(fake, door, caplog):
    """A source warns a hundred times at most."""
    fake.raw_lines([{"phone_number": ONE, "reputation": f"WORD {n}"} for n in range(200)])
    door(fake.base_url).fetch()
    assert sum(each.levelno == logging.WARNING for each in caplog.records) == 100


def test_a_service_status_is_honoured_if_the_list_ever_has_one():
    """FLAGGED and ACTIVE are taken over, other words are not."""
    body = listed(
        {"phone_number": ONE, "status": "flagged"},
        {"phone_number": TWO, "status": "ACTIVE"},
        {"phone_number": "+12025550102", "status": "MAYBE"},
    )
    assert [line.status for line in parse_lines(body)] == [
        ServiceStatus.FLAGGED,
        ServiceStatus.ACTIVE,
        None,
    ]


def test_a_number_listed_twice_is_kept_once_and_the_worse():
    """Equal entries are one line; of different ones the worse reputation and status hold, in either order."""
    entries = [
        {"phone_number": ONE, "reputation": "AT_RISK"},
        {"phone_number": ONE, "reputation": "CRITICAL"},
        {"phone_number": ONE, "reputation": "HEALTHY", "status": "FLAGGED"},
        {"phone_number": TWO},
        {"phone_number": TWO},
    ]
    for order in (entries, entries[::-1]):
        warnings: list[str] = []
        lines = {line.number: line for line in parse_lines(listed(*order), warnings.append)}
        assert len(lines) == 2
        assert lines[ONE].reputation is Reputation.CRITICAL
        assert lines[ONE].status is ServiceStatus.FLAGGED
        assert set(warnings) == {f"Linq lists {ONE} twice, and differently: the worse is kept"}


def test_an_unknown_word_listed_beside_at_risk_wins():
    """Of two entries as bad the one that is less understood is kept."""
    entries = [{"phone_number": ONE, "reputation": word} for word in ("NEW", "AT_RISK")]
    for order in (entries, entries[::-1]):
        assert parse_lines(listed(*order))[0].unrecognised == "NEW"


@pytest.mark.parametrize(
    "number", ["2025550100", "", None, 12025550100, "+1202555010x", [], "1" * 99]
)
def test_an_entry_without_a_usable_number_does_not_cost_the_others(number):
    """It is left out with a warning."""
    warnings: list[str] = []
    lines = parse_lines(
        listed({"phone_number": number}, {"phone_number": TWO}, {}), warnings.append
    )
    assert [line.number for line in lines] == [TWO]
    assert len(warnings) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><title>Sign in</title>",
        b"not json",
        listed({"phone_number": ONE})[:-3],
        listed({"phone_number": ONE}) + b"x",
        b"[]",
        b"null",
        b'"phone_numbers"',
        b"{}",
        b'{"phone_numbers": null}',
        b'{"phone_numbers": {}}',
        listed({"phone_number": ONE}, "not an object"),
        listed(None),
        b'{"phone_numbers": [{"phone_number": "+12025550100", "x": NaN}]}',
        b'{"phone_numbers": [], "y": -Infinity}',
        b'{"phone_numbers": [], "phone_numbers": []}',
        b'{"phone_numbers": [{"phone_number": "+12025550100", "phone_number": "+12025550101"}]}',
        b"[" * 200_000,
        b'{"phone_numbers": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"phone_numbers": [' + b"9" * 5000 + b"]}",
        b"\xff\xfe\x00",
        b'{"phone_numbers": ["\x80"]}',
    ],
)
def test_an_answer_that_cannot_be_trusted_is_refused_whole(body):
    """HTML, half an answer, another structure, a key twice, NaN, deep nesting: nothing of it is taken."""
    with pytest.raises(SourceError) as caught:
        parse_lines(body)
    assert caught.value.status == 200
    assert not caught.value.fatal


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["phone_number", "reputation", "health_status", "status", "id", "doc_url"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_the_entries_hold_there_are_lines_or_a_source_error(entries):
    """No content of an answer escapes as another exception."""
    with suppress(SourceError):
        for line in parse_lines(json.dumps({"phone_numbers": entries}).encode()):
            assert isinstance(line, Line)


@given(st.binary(max_size=200))
def test_whatever_the_bytes_there_are_lines_or_a_source_error(body):
    """No bytes of an answer escape as another exception."""
    with suppress(SourceError):
        parse_lines(body)


def test_a_refused_answer_is_not_asked_for_again(fake, door):
    """A page of HTML does not become a list by asking three times."""
    fake.garbage_next(3, body=b"<html>", content_type="text/html")
    with pytest.raises(SourceError, match="HTML"):
        door(fake.base_url).fetch()
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(fake, door, status):
    """Two failures, then the lines, with growing pauses."""
    fake.fail_next(2, status=status)
    source = door(fake.base_url)
    assert len(source.fetch()) == 2
    assert source.pauses == [0.25, 0.5]


def test_three_failures_are_enough(fake, door):
    """The last one is raised, with its status."""
    fake.fail_next(9, status=503)
    source = door(fake.base_url)
    with pytest.raises(SourceError) as caught:
        source.fetch()
    assert caught.value.status == 503
    assert len(fake.requests) == 3


def test_one_attempt_can_be_asked_for(fake, door):
    """On the request path nothing is tried twice."""
    fake.fail_next(9, status=503)
    with pytest.raises(SourceError):
        door(fake.base_url).fetch(attempts=1)
    assert len(fake.requests) == 1


def test_pauses_are_random_and_capped(fake, door):
    """Full jitter: from nothing up to a bound that doubles and then stays."""
    fake.fail_next(99, status=500)
    source = door(fake.base_url, timeout=60)
    source.source._query.random = random.Random(7).random
    with pytest.raises(SourceError):
        source.fetch(attempts=30)
    bounds = [min(2.0, 0.25 * 2**n) for n in range(29)]
    assert all(0 <= pause <= bound for pause, bound in zip(source.pauses, bounds, strict=True))
    assert len(set(source.pauses)) == 29


@pytest.mark.parametrize(("text", "pause"), [("3", 3.0), ("0", 0.25), ("2.5", 2.5)])
def test_retry_after_in_seconds_is_honoured(fake, door, text, pause):
    """The pause is at least what the provider asks for."""
    fake.fail_next(1, status=429, retry_after=text)
    source = door(fake.base_url)
    source.fetch()
    assert source.pauses == [pause]


def test_retry_after_as_a_date_is_honoured(fake, door):
    """An HTTP date five seconds from now is a pause of five seconds, or a little less."""
    fake.fail_next(
        1,
        status=503,
        retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True),
    )
    source = door(fake.base_url)
    source.fetch()
    assert 3.0 < source.pauses[0] <= 5.0


@pytest.mark.parametrize("text", ["soon", "-5", "nan", "inf", "Mon, 01 Jan 2001 00:00:00 GMT", ""])
def test_a_retry_after_that_makes_no_sense_is_ignored(fake, door, text):
    """Garbage, negative and past ones leave the usual pause."""
    fake.fail_next(1, status=429, retry_after=text)
    source = door(fake.base_url)
    source.fetch()
    assert source.pauses == [0.25]


@pytest.mark.parametrize("asked", ["30", "1000000000", "1e300"])
def test_a_retry_after_that_does_not_fit_is_raised_at_once(fake, door, asked):
    """The caller learns how long to wait, instead of waiting; more than a day counts as a day."""
    fake.fail_next(1, status=429, retry_after=asked)
    source = door(fake.base_url, timeout=10)
    with pytest.raises(SourceError) as caught:
        source.fetch()
    assert caught.value.retry_after == min(float(asked), 86400.0)
    assert source.pauses == []


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "LINQ_API_V3_API_KEY"), (403, "permission"), (404, "base_url")],
)
def test_what_asking_again_cannot_help_says_what_to_do(fake, door, status, advice):
    """A bad token or address is fatal, and asked once."""
    fake.fail_next(9, status=status)
    with pytest.raises(SourceError, match=advice) as caught:
        door(fake.base_url).fetch()
    assert (caught.value.status, caught.value.fatal) == (status, True)
    assert len(fake.requests) == 1


def test_a_wrong_token_is_named_in_no_message(fake, door, caplog):
    """The token is in no error, no repr and no log, even at the most talkative level."""
    caplog.set_level(1)
    source = door(fake.base_url, token="tok-wrong-9a41")
    with pytest.raises(SourceError) as caught:
        source.fetch()
    shown = [str(caught.value), repr(caught.value), repr(source.source), repr(source.source._query)]
    assert not any("9a41" in each for each in [*shown, caplog.text])


@pytest.mark.parametrize("source", [LinqSource, AsyncLinqSource])
@pytest.mark.parametrize("token", [None, "", "  ", "tok 9a41", "tok\n9a41", "tök9a41"])
def test_an_unusable_token_is_refused_at_once_and_not_shown(monkeypatch, source, token):
    """Without a token the message says what to set."""
    monkeypatch.delenv("LINQ_API_V3_API_KEY", raising=False)
    with pytest.raises(SourceError) as caught:
        source(token)
    assert caught.value.fatal
    assert "9a41" not in str(caught.value)
    assert "LINQ_API_V3_API_KEY" in str(caught.value) or token.strip()


def test_token_and_address_come_from_the_environment(fake, monkeypatch, door):
    """The official client's variables serve here too."""
    monkeypatch.setenv("LINQ_API_V3_API_KEY", f" {TOKEN}\n")
    monkeypatch.setenv("LINQ_API_V3_BASE_URL", fake.base_url + "/")
    assert len(door(None, token=None).fetch()) == 2


@pytest.mark.parametrize("url", ["ftp://example.com", "example.com", "http://", "http://[::1"])
def test_an_address_that_is_none_is_a_value_error(url):
    """It is noticed before anything is asked."""
    with pytest.raises(ValueError, match="base_url"):
        LinqSource(TOKEN, base_url=url)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_a_value_error(timeout):
    """So is asking no times at all."""
    with pytest.raises(ValueError, match="timeout"):
        LinqSource(TOKEN, timeout=timeout)
    source = LinqSource(TOKEN)
    with pytest.raises(ValueError, match="timeout"):
        source.fetch(timeout=timeout)
    with pytest.raises(ValueError, match="attempts"):
        source.fetch(attempts=0)


def test_a_server_that_is_not_there_is_asked_three_times(door):
    """A refused connection is a SourceError without a status, and not fatal."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    source = door(f"http://127.0.0.1:{port}")
    with pytest.raises(SourceError, match="ConnectError") as caught:
        source.fetch()
    assert (caught.value.status, caught.value.fatal) == (None, False)
    assert len(source.pauses) == 2


def test_a_connection_cut_in_the_answer_is_tried_again(fake, door):
    """Half an answer is no answer."""
    fake.cut_next(1)
    assert len(door(fake.base_url).fetch()) == 2


def test_the_timeout_bounds_all_attempts_together(fake, door):
    """A server that never answers costs the time allowed, once."""
    fake.hang_next(99)
    before = time.monotonic()
    with pytest.raises(SourceError):
        door(fake.base_url, timeout=0.4).fetch()
    assert 0.3 < time.monotonic() - before < 5


def dribble(connection: socket.socket, head: bytes) -> None:
    """Answer without end, a byte at a time."""
    connection.sendall(head)
    never = threading.Event()
    with suppress(OSError):
        while not never.wait(0.05):
            connection.sendall(b" ")


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nX-Slow: ", http(b"", "Content-Length: 100000")],
    ids=["headers", "body"],
)
def test_a_server_that_dribbles_bytes_is_left_in_time(raw, door, head):
    """Each byte comes in time, the whole never would."""
    url = raw(lambda connection: dribble(connection, head))
    before = time.monotonic()
    with pytest.raises(SourceError):
        door(url).fetch(timeout=0.4)
    assert 0.3 < time.monotonic() - before < 5


def test_a_huge_answer_is_left_before_its_end(raw, door):
    """Of an endless body 8 MiB are read, and no more."""
    taken = []

    def pour(connection):
        connection.sendall(http(b"", "Transfer-Encoding: chunked"))
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        with suppress(OSError):
            while True:
                connection.sendall(chunk)
                taken.append(0x10000)

    with pytest.raises(SourceError, match="bytes") as caught:
        door(raw(pour)).fetch()
    assert caught.value.status == 200
    assert sum(taken) < 2 * MAX_BODY


def test_a_small_answer_that_unpacks_to_a_huge_one_is_left_too(raw, door):
    """The bound is on what is unpacked."""
    packed = gzip.compress(b" " * (3 * MAX_BODY))
    answer = http(packed, "Content-Encoding: gzip", f"Content-Length: {len(packed)}")
    with pytest.raises(SourceError, match="bytes"):
        door(raw(lambda connection: connection.sendall(answer))).fetch()


def test_a_redirect_is_not_followed(raw, fake, door):
    """The token goes to no other address, and is not sent twice."""
    elsewhere = f"Location: {fake.base_url}/v3/phone_numbers"
    answer = http(b"", elsewhere, "Content-Length: 0", status="302 Found")
    with pytest.raises(SourceError, match="redirect") as caught:
        door(raw(lambda connection: connection.sendall(answer))).fetch()
    assert caught.value.status == 302
    assert fake.requests == []


def test_other_answers_than_200_are_refused(raw, door):
    """An empty success has no lines in it."""
    answer = http(b"", status="204 No Content")
    with pytest.raises(SourceError, match="204"):
        door(raw(lambda connection: connection.sendall(answer))).fetch()


def test_a_given_client_is_used_and_stays_open():
    """Its transport answers, its redirects and credentials stay out of it, and it is not closed."""
    seen = []

    def answer(request):
        seen.append(request)
        if len(seen) == 1:
            return httpx.Response(302, headers={"Location": "https://example.org/"})
        return httpx.Response(200, content=listed({"phone_number": ONE}))

    with httpx.Client(
        transport=httpx.MockTransport(answer), follow_redirects=True, auth=("me", "secret")
    ) as client:
        with LinqSource(TOKEN, client=client) as source:
            with pytest.raises(SourceError, match="redirect"):
                source.fetch()
            assert len(source.fetch()) == 1
        assert not client.is_closed
    assert str(seen[1].url) == "https://api.linqapp.com/api/partner/v3/phone_numbers"
    assert seen[1].headers["authorization"] == f"Bearer {TOKEN}"


def test_a_body_that_dribbles_is_left_in_time_with_a_given_client_too(raw):
    """Between two pieces of the body the clock is looked at."""
    head = http(b"", "Content-Length: 100000")
    before = time.monotonic()
    with httpx.Client() as client:
        source = LinqSource(
            TOKEN, base_url=raw(lambda connection: dribble(connection, head)), client=client
        )
        with pytest.raises(SourceError, match="time allowed"):
            source.fetch(timeout=0.4)
    assert time.monotonic() - before < 5


async def test_a_given_async_client_is_used_and_stays_open():
    """The same, for coroutines."""

    async def answer(request):
        return httpx.Response(200, content=listed({"phone_number": ONE}))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        async with AsyncLinqSource(TOKEN, client=client) as source:
            assert len(await source.fetch()) == 1
        assert not client.is_closed


def test_a_closed_source_opens_again(fake, door):
    """Closing lets go of what is open; it may happen twice, and before anything was opened."""
    source = door(fake.base_url)
    source.close()
    assert len(source.fetch()) == 2
    source.close()
    source.close()
    assert len(source.fetch()) == 2


def test_one_client_serves_all_reads(fake, door):
    """TLS is set up once, not once a minute; between two reads no connection is kept."""
    source = door(fake.base_url)
    source.fetch()
    client = source.source._own
    source.fetch()
    assert source.source._own is client
    assert client._transport._pool.connections == []


class Held:
    """A connection that gets no answer until it is let go."""

    def __init__(self):
        self.arrived = threading.Event()
        self.released = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        """Say that it is here, and wait."""
        self.arrived.set()
        self.released.wait(10)
        connection.sendall(http(listed({"phone_number": ONE}), "Connection: close"))


async def test_a_read_cancelled_on_the_way_is_cancelled_and_the_next_one_works(raw):
    """CancelledError comes out as it is, and nothing is left behind."""
    held = Held()
    async with AsyncLinqSource(TOKEN, base_url=raw(held)) as source:
        task = asyncio.create_task(source.fetch())
        await asyncio.to_thread(held.arrived.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.released.set()
        assert len(await source.fetch()) == 1


async def test_a_read_cancelled_in_a_pause_is_cancelled_and_the_next_one_works(fake):
    """The same, between two attempts."""
    paused = asyncio.Event()

    async def pause(seconds):
        paused.set()
        await asyncio.Event().wait()

    fake.fail_next(1, status=503)
    async with AsyncLinqSource(TOKEN, base_url=fake.base_url) as source:
        source._sleep = pause
        task = asyncio.create_task(source.fetch())
        await paused.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await source.fetch()) == 2


async def test_reading_does_not_block_the_loop(raw, fake):
    """While one read gets no answer, others go on."""
    held = Held()
    async with (
        AsyncLinqSource(TOKEN, base_url=raw(held)) as waiting,
        AsyncLinqSource(TOKEN, base_url=fake.base_url) as other,
    ):
        task = asyncio.create_task(waiting.fetch())
        await asyncio.to_thread(held.arrived.wait, 10)
        assert len(await other.fetch()) == 2
        assert not task.done()
        held.released.set()
        assert len(await task) == 1


@pytest.mark.parametrize("kind", [LinqSource, AsyncLinqSource])
def test_a_source_says_what_results_mean(kind):
    """The router asks its source."""
    assert kind(TOKEN).classify(httpx.Response(403, json={"error": {"code": 2027}})).outcome is (
        Outcome.LINE_REFUSED
    )
