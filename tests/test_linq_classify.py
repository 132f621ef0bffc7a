"""What Linq's answers mean: every documented error, as the official client raises it, as httpx and as plain JSON show it."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import httpx
import linq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepicker.model import Outcome, Verdict
from linepicker.providers.linq import classify
from linepicker.providers.linq.classify import retry_after
from linepicker.testing import FakeLinq

LINE, PERSON = "+12025550100", "+12025550177"
NOT_SENT, UNKNOWN = Outcome.NOT_SENT, Outcome.UNKNOWN
LINE_REFUSED, RECIPIENT_REFUSED = Outcome.LINE_REFUSED, Outcome.RECIPIENT_REFUSED
RATE_LIMITED = Outcome.RATE_LIMITED

TABLE = [
    (400, 1001, NOT_SENT),
    (400, 1002, NOT_SENT),
    (400, 1003, NOT_SENT),
    (400, 1004, NOT_SENT),
    (400, 1005, NOT_SENT),
    (409, 1006, NOT_SENT),
    (429, 1007, RATE_LIMITED),
    (400, 1008, NOT_SENT),
    (404, 2001, NOT_SENT),
    (404, 2002, NOT_SENT),
    (404, 2003, NOT_SENT),
    (401, 2004, NOT_SENT),
    (403, 2005, NOT_SENT),
    (403, 2006, LINE_REFUSED),
    (404, 2007, NOT_SENT),
    (403, 2008, RECIPIENT_REFUSED),
    (409, 2009, RATE_LIMITED),
    (404, 2010, NOT_SENT),
    (403, 2011, NOT_SENT),
    (409, 2013, NOT_SENT),
    (409, 2015, NOT_SENT),
    (409, 2016, NOT_SENT),
    (409, 2017, NOT_SENT),
    (409, 2018, NOT_SENT),
    (404, 2019, NOT_SENT),
    (409, 2023, NOT_SENT),
    (403, 2024, RECIPIENT_REFUSED),
    (403, 2026, RECIPIENT_REFUSED),
    (403, 2027, LINE_REFUSED),
    (422, 4005, NOT_SENT),
    (500, 3001, UNKNOWN),
    (500, 3002, UNKNOWN),
    (500, 3003, UNKNOWN),
    (500, 3004, UNKNOWN),
    (504, 3005, UNKNOWN),
    (500, 3006, UNKNOWN),
    (500, 3007, UNKNOWN),
    (500, 4001, UNKNOWN),
    (500, 4002, UNKNOWN),
    (503, 4004, UNKNOWN),
    (503, 4009, UNKNOWN),
    (503, 4010, UNKNOWN),
    # As a gateway in between would answer.
    (400, None, NOT_SENT),
    (401, None, NOT_SENT),
    (403, None, NOT_SENT),
    (404, None, NOT_SENT),
    (408, None, UNKNOWN),
    (409, None, NOT_SENT),
    (413, None, NOT_SENT),
    (422, None, NOT_SENT),
    (429, None, RATE_LIMITED),
    (500, None, UNKNOWN),
    (502, None, UNKNOWN),
    (503, None, UNKNOWN),
    (504, None, UNKNOWN),
    (599, None, UNKNOWN),
    # A refusal that names the line, with a status that leaves it open whether something was sent.
    (500, 2027, UNKNOWN),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeLinq]:
    """One provider for all rows."""
    with FakeLinq([LINE]) as fake:
        yield fake


@pytest.fixture(scope="module")
def client(provider) -> Iterator[linq.LinqAPIV3]:
    """The official client, which does not try again by itself."""
    with linq.LinqAPIV3(
        api_key=provider.token, base_url=provider.base_url, max_retries=0, timeout=5
    ) as official:
        yield official


@pytest.fixture
def fake(provider) -> Iterator[FakeLinq]:
    """The provider, without faults left over."""
    yield provider
    provider.heal()


def text(value: str) -> dict:
    """A message as the SDK takes it."""
    return {"parts": [{"type": "text", "value": value}]}


def post(client: linq.LinqAPIV3, to: str = PERSON) -> object:
    """What sending raised or returned."""
    try:
        return client.chats.create(from_=LINE, to=[to], message=text("Hello"))
    except linq.LinqApiv3Error as error:
        return error


@pytest.mark.parametrize(("status", "code", "outcome"), TABLE)
def test_each_documented_error_means_the_same_however_it_is_met(
    fake, client, status, code, outcome
):
    """As the SDK's exception, as httpx's response and exception, and as the JSON alone."""
    fake.fail_next(3, status=status, code=code)
    error = post(client)
    assert isinstance(error, linq.APIStatusError)
    answer = httpx.post(f"{fake.base_url}/v3/chats", json={})
    with pytest.raises(httpx.HTTPStatusError) as caught:
        httpx.post(f"{fake.base_url}/v3/chats", json={}).raise_for_status()
    for result in (error, answer, caught.value, answer.json()):
        verdict = classify(result)
        assert verdict is not None
        assert verdict.outcome is outcome
        assert (verdict.number, verdict.chat_id, verdict.message_id) == (None, None, None)


async def test_the_async_client_raises_the_same(fake):
    """One verdict for both doors of the SDK."""
    fake.fail_next(1, status=403, code=2027)
    async with linq.AsyncLinqAPIV3(
        api_key=fake.token, base_url=fake.base_url, max_retries=0
    ) as official:
        with pytest.raises(linq.PermissionDeniedError) as caught:
            await official.chats.create(from_=LINE, to=[PERSON], message=text("Hello"))
    assert classify(caught.value) == Verdict(LINE_REFUSED)


def test_the_account_s_own_refusals_are_told_apart(client):
    """What the provider says by itself: a line that can't, a stranger's line, people who don't want to."""
    with FakeLinq([LINE, "+12025550101"]) as account:
        official = client.with_options(base_url=account.base_url, api_key=account.token)
        account.opt_out("+12025550171")
        account.block("+12025550172")
        account.disallow("+12025550173")
        for person in ("+12025550171", "+12025550172", "+12025550173"):
            assert classify(post(official, person)) == Verdict(RECIPIENT_REFUSED)
        account.set_eligible(LINE, False)
        assert classify(post(official)) == Verdict(LINE_REFUSED)
        account.remove_line(LINE)
        assert classify(post(official)) == Verdict(LINE_REFUSED)


def test_no_eligible_line_blames_no_line(client):
    """The provider's own choice finding none is a 409 and nobody's refusal."""
    with FakeLinq([LINE]) as account:
        account.set_eligible(LINE, False)
        official = client.with_options(base_url=account.base_url, api_key=account.token)
        with pytest.raises(linq.ConflictError) as caught:
            official.messages.create(to=[PERSON], message=text("Hello"))
        assert classify(caught.value) == Verdict(NOT_SENT)


@pytest.mark.parametrize(
    ("status", "code", "asked", "wait"),
    [
        (429, 1007, 45, 45.0),
        (429, 1007, "7", 7.0),
        (429, 1007, "soon", None),
        (429, 1007, "-3", None),
        (429, 1007, "1000000000", 86400.0),
        (429, None, "12", 12.0),
        (429, 1007, None, None),
        (409, 2009, None, 1.0),
        (409, 2009, "3", 3.0),
        (403, 2027, "600", 600.0),
        (403, 2027, None, None),
        (403, 2024, "600", None),
        (503, 4004, "30", None),
    ],
)
def test_how_long_to_wait_is_taken_from_the_header(fake, client, status, code, asked, wait):
    """For a pair or a line that has to wait; at most a day, and only what makes sense."""
    fake.fail_next(1, status=status, code=code, retry_after=asked)
    assert classify(post(client)).retry_after == wait


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        (45, 45.0),
        (0, 0.0),
        (-1, None),
        ("45", None),
        (True, None),
        (math.inf, None),
        (1e9, 86400.0),
    ],
)
def test_without_the_header_the_body_says_how_long(asked, wait):
    """`error.retry_after` is seconds."""
    envelope = {"error": {"status": 429, "code": 1007, "retry_after": asked}}
    for result in (envelope, httpx.Response(429, content=json.dumps(envelope))):
        assert classify(result) == Verdict(RATE_LIMITED, retry_after=wait)


def test_a_date_to_wait_for_is_understood():
    """`Retry-After` may be an HTTP date, with a zone or without."""
    soon = datetime.now(UTC) + timedelta(seconds=30)
    for zone in ("GMT", "-0000"):
        date = format_datetime(soon, usegmt=True).replace("GMT", zone)
        assert 25 < retry_after(httpx.Headers({"Retry-After": date})) <= 30


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [+-]?\d+"))
def test_no_retry_after_is_an_exception(value):
    """Whatever the text, it is none or between nothing and a day."""
    seconds = retry_after({"retry-after": value})
    assert seconds is None or 0 <= seconds <= 86400


def test_a_server_that_never_answers_may_have_sent(fake):
    """A timeout after the request went out is UNKNOWN, and the message may be on its way indeed."""
    fake.hang_next(1, after=True)
    before = len(fake.sent)
    with linq.LinqAPIV3(
        api_key=fake.token, base_url=fake.base_url, max_retries=0, timeout=0.3
    ) as impatient:
        error = post(impatient)
    assert isinstance(error, linq.APITimeoutError)
    assert classify(error) == Verdict(UNKNOWN)
    assert len(fake.sent) == before + 1


def test_a_connection_that_breaks_may_have_sent(fake, client):
    """An answer cut in the middle is UNKNOWN."""
    fake.cut_next(1)
    error = post(client)
    assert isinstance(error, linq.APIConnectionError)
    assert classify(error) == Verdict(UNKNOWN)


def test_a_connection_that_was_never_made_sent_nothing():
    """With nobody listening, with the SDK and with httpx, it is NOT_SENT."""
    with FakeLinq([LINE]) as gone:
        url, token = gone.base_url, gone.token
    with linq.LinqAPIV3(api_key=token, base_url=url, max_retries=0) as lonely:
        assert classify(post(lonely)) == Verdict(NOT_SENT)
    with pytest.raises(httpx.ConnectError) as caught:
        httpx.post(url)
    assert classify(caught.value) == Verdict(NOT_SENT)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (httpx.ConnectTimeout("slow"), NOT_SENT),
        (httpx.PoolTimeout("full"), NOT_SENT),
        (httpx.ReadTimeout("slow"), UNKNOWN),
        (httpx.WriteTimeout("slow"), UNKNOWN),
        (httpx.ReadError("reset"), UNKNOWN),
        (httpx.WriteError("reset"), UNKNOWN),
        (httpx.CloseError("reset"), UNKNOWN),
        (httpx.RemoteProtocolError("half"), UNKNOWN),
        (httpx.TooManyRedirects("round"), UNKNOWN),
        (httpx.DecodingError("gzip"), UNKNOWN),
    ],
)
def test_connection_errors_are_judged_by_whether_anything_left(error, outcome):
    """Raised by httpx, or by the SDK because of it."""
    request = httpx.Request("POST", "https://api.linqapp.com")
    assert classify(error) == Verdict(outcome)
    wrapped = linq.APIConnectionError(request=request)
    wrapped.__cause__ = error
    assert classify(wrapped) == Verdict(outcome)


def test_a_connection_error_without_a_cause_may_have_sent():
    """What is not known to be harmless is not."""
    request = httpx.Request("POST", "https://api.linqapp.com")
    assert classify(linq.APITimeoutError(request=request)) == Verdict(UNKNOWN)


def test_each_way_to_send_is_recognised_when_it_worked(fake, client):
    """The chat, the message, and where Linq picked the line, that line, come with SENT."""
    created = post(client)
    assert classify(created) == Verdict(
        Outcome.SENT, chat_id=created.chat.id, message_id=created.chat.message.id
    )
    sent = client.chats.messages.send(created.chat.id, message=text("Again"))
    assert classify(sent) == Verdict(
        Outcome.SENT, chat_id=created.chat.id, message_id=sent.message.id
    )
    picked = client.messages.create(to=[PERSON], message=text("Whoever"))
    assert classify(picked) == Verdict(
        Outcome.SENT, number=LINE, chat_id=picked.chat_id, message_id=picked.message.id
    )
    for model, status in ((created, 201), (sent, 202), (picked, 202)):
        body = model.to_dict(mode="json")
        assert classify(body) == classify(model)
        assert classify(httpx.Response(status, json=body)) == classify(model)


def test_the_sdk_s_raw_responses_are_recognised(client):
    """Callers who want the headers get the same verdict."""
    raw = client.chats.with_raw_response.create(from_=LINE, to=[PERSON], message=text("Hello"))
    assert classify(raw) == classify(raw.parse())
    assert classify(raw).message_id


def test_a_success_without_a_body_is_still_sent():
    """2xx means accepted, whatever can be read of it."""
    assert classify(httpx.Response(202)) == Verdict(Outcome.SENT)
    assert classify(httpx.Response(201, content=b"<html>")) == Verdict(Outcome.SENT)
    assert classify(httpx.Response(201, content=b"[" * 100_000)) == Verdict(Outcome.SENT)


def test_a_redirect_may_have_sent():
    """What is neither a success nor a refusal is UNKNOWN."""
    assert classify(httpx.Response(302)) == Verdict(UNKNOWN)


def test_a_streamed_answer_is_judged_by_its_status(fake):
    """A body that was not read is not waited for."""
    fake.fail_next(1, status=403, code=2027)
    with httpx.stream("POST", f"{fake.base_url}/v3/chats") as answer:
        assert classify(answer) == Verdict(NOT_SENT)
        answer.read()
        assert classify(answer) == Verdict(LINE_REFUSED)


def test_a_picked_line_that_is_no_number_is_left_out():
    """A verdict's number is E.164 or nothing."""
    body = {"from": "somebody", "chat_id": "c", "message": {"id": "m"}}
    assert classify(body) == Verdict(Outcome.SENT, chat_id="c", message_id="m")


def test_other_clients_are_understood_by_their_attributes():
    """A response that is false in itself, as those of requests are on an error, and exceptions that carry only a code."""

    class Falsy(SimpleNamespace):
        def __bool__(self):
            return False

    body = json.dumps({"error": {"code": 2027}}).encode()
    response = Falsy(status_code=403, headers={"retry-after": "60"}, content=body)
    assert classify(response) == Verdict(LINE_REFUSED, retry_after=60)
    error = RuntimeError("403")
    error.response = response
    assert classify(error) == Verdict(LINE_REFUSED, retry_after=60)
    bare = RuntimeError("403")
    bare.status_code, bare.code = 403, 2024
    assert classify(bare) == Verdict(RECIPIENT_REFUSED)


@pytest.mark.parametrize(
    "result",
    [
        None,
        "sent",
        {},
        {"id": "x"},
        {"chat_id": "c"},
        {"chat_id": 1, "message": {"id": 2}},
        [],
        object(),
        ValueError("mine"),
        KeyboardInterrupt(),
        SimpleNamespace(status_code="200"),
    ],
)
def test_what_is_not_linq_s_is_left_to_the_router(result):
    """Nothing is claimed of other objects."""
    assert classify(result) is None


def test_an_error_body_is_never_a_success():
    """Even one that names no status."""
    assert classify({"success": False, "error": {"code": 2027}}) == Verdict(UNKNOWN)
    assert classify({"success": False, "error": "no"}) == Verdict(UNKNOWN)


@given(
    st.integers(100, 599),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["error", "code", "status", "retry_after", "chat", "message", "id", "chat_id"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
)
def test_no_answer_is_an_exception(status, body):
    """Whatever an answer holds, there is a verdict, and it is SENT for 2xx and never for anything else."""
    verdict = classify(httpx.Response(status, content=json.dumps(body)))
    assert (verdict.outcome is Outcome.SENT) == (200 <= status < 300)
    classify(body)


def test_nothing_of_the_sdk_is_needed():
    """The verdicts are had without the official client installed."""
    program = (
        "import sys; sys.modules['linq'] = None\n"
        "import httpx, linepicker.providers.linq as provider\n"
        "print(provider.classify(httpx.Response(403, json={'error': {'code': 2027}})).outcome)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "LINE_REFUSED\n"
