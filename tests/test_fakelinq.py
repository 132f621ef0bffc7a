"""The fake provider, judged by the official client: its models, its exceptions, its way of asking."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import linq
import pydantic
import pytest

from linepicker.testing import FakeLinq, ManualClock
from linepicker.testing.fakelinq import Guesses

NOW = 1_790_000_000.0
ANN, BOB, EVE = "+14155550101", "+14155550102", "eve@example.com"
A, B, C = "+12025550100", "+12025550101", "+12025550102"

Client = linq.LinqAPIV3
AsyncClient = linq.AsyncLinqAPIV3


def text(value: str = "hello", **more: Any) -> Any:
    """A message of one text part."""
    return {"parts": [{"type": "text", "value": value}], **more}


def ids(fake: FakeLinq) -> list[str]:
    """The ids of the accepted messages."""
    return [each.message_id for each in fake.sent]


def senders(fake: FakeLinq) -> list[str]:
    """The lines of the accepted messages."""
    return [each.number for each in fake.sent]


@pytest.fixture
def clock() -> ManualClock:
    """A moment in 2026 that stands still."""
    return ManualClock(NOW)


@pytest.fixture
def fake(clock: ManualClock) -> Iterator[FakeLinq]:
    """An account of three lines: A, B and C."""
    with FakeLinq(lines=3, clock=clock) as fake:
        yield fake


@pytest.fixture
def client(fake: FakeLinq) -> Iterator[Client]:
    """The official client."""
    with connect(fake) as client:
        yield client


@pytest.fixture
async def aclient(fake: FakeLinq) -> AsyncIterator[AsyncClient]:
    """The official asynchronous client."""
    async with AsyncClient(
        base_url=fake.base_url,
        api_key=fake.token,
        max_retries=0,
        http_client=linq.DefaultAsyncHttpxClient(verify=False),
        _strict_response_validation=True,
    ) as client:
        yield client


def connect(fake: FakeLinq) -> Client:
    """The official client, which repeats nothing and refuses answers that don't fit its models."""
    return Client(
        base_url=fake.base_url,
        api_key=fake.token,
        max_retries=0,
        http_client=linq.DefaultHttpxClient(verify=False),  # loading certificates takes long
        _strict_response_validation=True,
    )


# Answers fit the official models


class Prepared(NamedTuple):
    """An account in which every list has an entry: the ids of a chat, of a line and of a complete audit."""

    chat: str
    line: str
    audit: str


ANSWERS: dict[str, Callable[[Any, Prepared], Any]] = {
    "GET phone_numbers": lambda c, _: c.phone_numbers.with_raw_response.list(),
    "GET phonenumbers": lambda c, _: c.phonenumbers.with_raw_response.list(),
    "PUT phone_numbers": lambda c, at: c.phone_numbers.with_raw_response.update(
        at.line, forwarding_number=ANN
    ),
    "GET available_number": lambda c, _: c.available_number.with_raw_response.retrieve(),
    "POST messages": lambda c, _: c.messages.with_raw_response.create(to=[ANN], message=text()),
    "POST messages to a group": lambda c, _: c.messages.with_raw_response.create(
        to=[EVE, BOB], message=text(preferred_service="SMS")
    ),
    "POST chats": lambda c, _: c.chats.with_raw_response.create(from_=A, to=[BOB], message=text()),
    "GET chats": lambda c, _: c.chats.with_raw_response.list_chats(),
    "GET chat": lambda c, at: c.chats.with_raw_response.retrieve(at.chat),
    "POST chat messages": lambda c, at: c.chats.messages.with_raw_response.send(
        at.chat,
        message={
            "parts": [
                {"type": "text", "value": "see"},
                {"type": "media", "url": "https://example.com/a.png"},
                {"type": "text", "value": "that"},
            ],
            "effect": {"type": "screen", "name": "confetti"},
            "reply_to": {"message_id": "m", "part_index": 0},
        },
    ),
    "POST a link": lambda c, at: c.chats.messages.with_raw_response.send(
        at.chat, message={"parts": [{"type": "link", "value": "https://example.com"}]}
    ),
    "GET chat messages": lambda c, at: c.chats.messages.with_raw_response.list(at.chat),
    "POST audit": lambda c, _: c.phone_numbers.with_raw_response.start_reputation_audit(B),
    "GET audit": lambda c, at: c.phone_numbers.with_raw_response.get_reputation_audit(
        at.audit, phone_number=A
    ),
    "GET blocked_handles": lambda c, _: c.blocked_handles.with_raw_response.list(),
    "POST blocked_handles": lambda c, _: c.blocked_handles.with_raw_response.block(
        handle=BOB, reason="asked to"
    ),
}

STATUS = {
    "POST messages": 202,
    "POST messages to a group": 202,
    "POST chats": 201,
    "POST chat messages": 202,
    "POST a link": 202,
    "POST audit": 202,
    "POST blocked_handles": 201,
}


def prepare(fake: FakeLinq, clock: ManualClock) -> Prepared:
    """Give every list an entry."""
    with connect(fake) as client:
        chat = client.chats.create(from_=A, to=[ANN], message=text()).chat.id
        line = client.phone_numbers.list().phone_numbers[0].id
        client.blocked_handles.block(handle="262966")
        fake.set_reputation(A, "CRITICAL")
        fake.set_chat_health(chat, "AT_RISK")
        audit = client.phone_numbers.start_reputation_audit(A).audit_id
    clock.advance(10.0)
    return Prepared(chat, line, audit)


def assert_declared(model: pydantic.BaseModel) -> None:
    """Nothing in *model*, however deep, is beyond what its type declares."""
    assert not model.model_extra
    for value in vars(model).values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, pydantic.BaseModel):
                assert_declared(each)


def assert_answer(name: str, response: httpx.Response, model: pydantic.BaseModel) -> None:
    """The bytes on the wire are strictly of the model's type, and the status is the documented one."""
    assert response.status_code == STATUS.get(name, 200)
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Trace-ID"])
    assert_declared(type(model).model_validate_json(response.content, strict=True))


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # GET phonenumbers is
@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_is_strictly_of_its_declared_type(
    name: str, fake: FakeLinq, clock: ManualClock, client: Client
) -> None:
    """Nothing is missing, nothing of another type, and nothing is there that the client doesn't know."""
    raw = ANSWERS[name](client, prepare(fake, clock))
    assert_answer(name, raw.http_response, raw.parse())


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # GET phonenumbers is
@pytest.mark.parametrize("name", ANSWERS)
async def test_each_answer_suits_the_asynchronous_client(
    name: str, fake: FakeLinq, clock: ManualClock, aclient: AsyncClient
) -> None:
    """Both clients get the same answers."""
    raw = await ANSWERS[name](aclient, prepare(fake, clock))
    assert_answer(name, raw.http_response, await raw.parse())


def test_the_strict_check_notices_a_wrong_answer(fake: FakeLinq, client: Client) -> None:
    """What these tests lean on does fail: an entry without its id is refused by the client."""
    fake.raw_lines([{"phone_number": A}])
    with pytest.raises(linq.APIResponseValidationError):
        client.phone_numbers.list()


def test_unblocking_has_no_content(fake: FakeLinq, client: Client) -> None:
    """DELETE with a body answers 204 and has a trace id; asking again is no error."""
    fake.block(BOB)
    for _ in range(2):
        raw = client.blocked_handles.with_raw_response.unblock(handle=BOB)
        assert (raw.http_response.status_code, raw.http_response.content) == (204, b"")
        assert "X-Trace-ID" in raw.headers
    assert client.blocked_handles.list().blocked_handles == []


# Errors

SEND = {"message": text()}


def nothing(_: FakeLinq) -> None:
    """The account as it is."""


ERRORS: dict[str, tuple[Callable[[FakeLinq], object], Callable[[Client], object], int, int]] = {
    "own number": (
        lambda fake: fake.remove_line(A),
        lambda c: c.chats.create(from_=A, to=[ANN], **SEND),
        403,
        2006,
    ),
    "ineligible": (
        lambda fake: fake.set_eligible(A, False),
        lambda c: c.chats.create(from_=A, to=[ANN], **SEND),
        403,
        2027,
    ),
    "flagged": (
        lambda fake: fake.set_status(A, "FLAGGED"),
        lambda c: c.chats.create(from_=A, to=[ANN], **SEND),
        403,
        2027,
    ),
    "opted out": (
        lambda fake: fake.opt_out(ANN),
        lambda c: c.chats.create(from_=A, to=[ANN], **SEND),
        403,
        2024,
    ),
    "opted out, line unnamed": (
        lambda fake: fake.opt_out(EVE),
        lambda c: c.messages.create(to=["Eve@Example.com"], **SEND),
        403,
        2024,
    ),
    "blocked": (
        lambda fake: fake.block(ANN),
        lambda c: c.messages.create(to=[ANN], **SEND),
        403,
        2026,
    ),
    "all of a group blocked": (
        lambda fake: (fake.block(ANN), fake.block(BOB)),
        lambda c: c.messages.create(to=[ANN, BOB], **SEND),
        403,
        2026,
    ),
    "not allowed": (
        lambda fake: fake.disallow(ANN),
        lambda c: c.messages.create(to=[ANN], **SEND),
        403,
        2008,
    ),
    "no eligible line": (
        lambda fake: [fake.set_eligible(each, False) for each in fake.numbers],
        lambda c: c.messages.create(to=[ANN], **SEND),
        409,
        2015,
    ),
    "all lines excluded": (
        lambda fake: fake.set_eligible(A, False),
        lambda c: c.messages.create(to=[ANN], exclude_from=[B, C], **SEND),
        400,
        1005,
    ),
    "no available line": (
        lambda fake: [fake.set_eligible(each, False) for each in fake.numbers],
        lambda c: c.available_number.retrieve(),
        503,
        4004,
    ),
    "no available line of the type": (
        nothing,
        lambda c: c.available_number.retrieve(type="RCS"),
        503,
        4004,
    ),
    "all available lines excluded": (
        nothing,
        lambda c: c.available_number.retrieve(exclude_from=[A, B, C]),
        400,
        1005,
    ),
    "exclusion not E.164": (
        nothing,
        lambda c: c.messages.create(to=[ANN], exclude_from=["4155551234"], **SEND),
        400,
        1002,
    ),
    "exclusion not E.164, in a query": (
        nothing,
        lambda c: c.available_number.retrieve(exclude_from=["4155551234"]),
        400,
        1002,
    ),
    "unknown type": (
        nothing,
        lambda c: c.available_number.retrieve(type="fax"),
        400,
        1005,
    ),
    "from not E.164": (
        nothing,
        lambda c: c.chats.create(from_="2025550100", to=[ANN], **SEND),
        400,
        1002,
    ),
    "recipient neither E.164 nor email": (
        nothing,
        lambda c: c.messages.create(to=["(415) 555-0101"], **SEND),
        400,
        1002,
    ),
    "chat list from": (
        nothing,
        lambda c: c.chats.list_chats(from_="2025550100"),
        400,
        1002,
    ),
    "chat list to": (nothing, lambda c: c.chats.list_chats(to="nobody"), 400, 1002),
    "nobody": (nothing, lambda c: c.messages.create(to=[], **SEND), 400, 1001),
    "no message": (
        nothing,
        lambda c: c.post("/v3/messages", cast_to=object, body={"to": [ANN]}),
        400,
        1001,
    ),
    "no from": (
        nothing,
        lambda c: c.post("/v3/chats", cast_to=object, body={"to": [ANN], **SEND}),
        400,
        1001,
    ),
    "no parts": (nothing, lambda c: c.messages.create(to=[ANN], message={}), 400, 1001),
    "wrong type": (
        nothing,
        lambda c: c.post("/v3/messages", cast_to=object, body={"to": ANN, **SEND}),
        400,
        1003,
    ),
    "override not a boolean": (
        nothing,
        lambda c: c.post(
            "/v3/messages", cast_to=object, body={"to": [ANN], "override_optout": "yes", **SEND}
        ),
        400,
        1003,
    ),
    "empty text": (
        nothing,
        lambda c: c.messages.create(to=[ANN], message=text("")),
        400,
        1004,
    ),
    "no part at all": (
        nothing,
        lambda c: c.messages.create(to=[ANN], message={"parts": []}),
        400,
        1004,
    ),
    "text after text": (
        nothing,
        lambda c: c.messages.create(to=[ANN], message={"parts": [*text()["parts"]] * 2}),
        400,
        1004,
    ),
    "link with company": (
        nothing,
        lambda c: c.messages.create(
            to=[ANN],
            message={"parts": [{"type": "link", "value": "https://example.com"}, *text()["parts"]]},
        ),
        400,
        1004,
    ),
    "media from nowhere": (
        nothing,
        lambda c: c.messages.create(to=[ANN], message={"parts": [{"type": "media"}]}),
        400,
        1004,
    ),
    "unknown part": (
        nothing,
        lambda c: c.messages.create(to=[ANN], message={"parts": [{"type": "poll"}]}),
        400,
        1004,
    ),
    "unknown service": (
        nothing,
        lambda c: c.messages.create(to=[ANN], message=text(preferred_service="fax")),
        400,
        1005,
    ),
    "long key": (
        nothing,
        lambda c: c.messages.create(to=[ANN], message=text(idempotency_key="k" * 256)),
        400,
        1005,
    ),
    "32 recipients": (
        nothing,
        lambda c: c.messages.create(to=[f"+141555502{i:02d}" for i in range(32)], **SEND),
        400,
        1005,
    ),
    "page of none": (nothing, lambda c: c.chats.list_chats(limit=0), 400, 1005),
    "page of 101": (nothing, lambda c: c.chats.list_chats(limit=101), 400, 1005),
    "made-up cursor": (nothing, lambda c: c.chats.list_chats(cursor="x"), 400, 1005),
    "unknown chat": (nothing, lambda c: c.chats.retrieve("nope"), 404, 2001),
    "send to an unknown chat": (
        nothing,
        lambda c: c.chats.messages.send("nope", **SEND),
        404,
        2001,
    ),
    "messages of an unknown chat": (
        nothing,
        lambda c: c.chats.messages.list("nope"),
        404,
        2001,
    ),
    "unknown line id": (
        nothing,
        lambda c: c.phone_numbers.update(A, forwarding_number=ANN),
        404,
        2019,
    ),
    "audit of a foreign number": (
        nothing,
        lambda c: c.phone_numbers.start_reputation_audit(ANN),
        404,
        2019,
    ),
    "unknown audit": (
        nothing,
        lambda c: c.phone_numbers.get_reputation_audit("nope", phone_number=A),
        404,
        2019,
    ),
    "nonsense on the block list": (
        nothing,
        lambda c: c.blocked_handles.block(handle="no such handle!"),
        400,
        1005,
    ),
    "chat being created": (
        lambda fake: fake.fail_next(status=409, code=2009, path="/v3/chats"),
        lambda c: c.chats.create(from_=A, to=[ANN], **SEND),
        409,
        2009,
    ),
    "unknown endpoint": (nothing, lambda c: c.experiences.list(), 404, 1003),
}

CLASSES = {
    400: linq.BadRequestError,
    401: linq.AuthenticationError,
    403: linq.PermissionDeniedError,
    404: linq.NotFoundError,
    409: linq.ConflictError,
    429: linq.RateLimitError,
    503: linq.InternalServerError,
}


def refusal(call: Callable[[], object]) -> linq.APIStatusError:
    """The error status *call* is answered with."""
    with pytest.raises(linq.APIStatusError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_has_its_status_code_and_envelope(
    name: str, fake: FakeLinq, client: Client
) -> None:
    """The client raises the class of the status, with Linq's code; nothing was sent and no chat made."""
    arrange, call, status, code = ERRORS[name]
    arrange(fake)
    error = refusal(lambda: call(client))
    assert (type(error), error.status_code, error.code) == (CLASSES[status], status, code)
    envelope = error.response.json()
    assert envelope == {
        "success": False,
        "error": {
            "status": status,
            "code": code,
            "message": envelope["error"]["message"],
            "doc_url": f"https://docs.linqapp.com/error/codes/{code // 1000}xxx/{code}/",
        },
        "trace_id": error.response.headers["X-Trace-ID"],
    }
    assert fake.sent == []
    assert client.chats.list_chats().chats == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff"])
def test_a_body_that_is_no_object_is_refused(fake: FakeLinq, body: bytes) -> None:
    """Broken JSON and JSON of another kind are both 400/1003."""
    answer = httpx.post(
        f"{fake.base_url}/v3/messages",
        content=body,
        headers={"Authorization": f"Bearer {fake.token}"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 1003)


@pytest.mark.parametrize("path", ["/v3/messages", "/v3/nothing"])
def test_a_wrong_token_is_refused_before_anything_else(fake: FakeLinq, path: str) -> None:
    """401/2004, whatever else is wrong with the request."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": fake.token}):
        answer = httpx.post(f"{fake.base_url}{path}", content=b"{", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, 2004)


def test_only_the_base_url_is_served(fake: FakeLinq) -> None:
    """Without `/api/partner` there is nothing, and nothing is recorded."""
    url = fake.base_url.removesuffix("/api/partner")
    answer = httpx.get(f"{url}/v3/phone_numbers")
    assert (answer.status_code, len(answer.headers["X-Trace-ID"])) == (404, 32)
    assert fake.requests == []


def test_a_message_of_an_error_names_no_recipient(fake: FakeLinq, client: Client) -> None:
    """Refusals don't repeat the handle."""
    fake.opt_out(ANN)
    assert ANN not in str(refusal(lambda: client.messages.create(to=[ANN], message=text())))


# The list of lines


def test_lines_are_counted_out_or_named() -> None:
    """A count makes that many different E.164 numbers; a list is taken as it is."""
    many = FakeLinq(lines=250).numbers
    assert len(set(many)) == 250
    assert all(re.fullmatch(r"\+1[2-9]\d{2}55501\d{2}", each) for each in many)
    assert FakeLinq(lines=[C, A]).numbers == [C, A]


def test_the_list_shows_reputation_and_never_status(fake: FakeLinq, client: Client) -> None:
    """A FLAGGED line looks like any other; a CRITICAL one says so."""
    fake.set_status(A, "FLAGGED")
    fake.set_reputation(B, "CRITICAL")
    raw = client.phone_numbers.with_raw_response.list()
    listed = raw.http_response.json()["phone_numbers"]
    assert [each["reputation"]["status"] for each in listed] == ["HEALTHY", "CRITICAL", "HEALTHY"]
    assert listed[1]["reputation"]["doc_url"].endswith("/phone-reputation#critical")
    assert {key for each in listed for key in each} == {
        "id",
        "phone_number",
        "reputation",
        "forwarding_number",
        "line_type",
    }


@pytest.mark.parametrize(
    ("shape", "keys"),
    [
        ("reputation", {"reputation", "line_type"}),
        ("both", {"reputation", "health_status"}),
        ("health_status", {"health_status"}),
        ("neither", set()),
    ],
)
def test_the_list_can_have_each_of_its_historic_shapes(
    fake: FakeLinq, client: Client, shape: Any, keys: set[str]
) -> None:
    """The same value goes by the names it had over time."""
    fake.set_reputation(A, "AT_RISK")
    fake.list_shape = shape
    assert fake.list_shape == shape
    entry = client.phone_numbers.with_raw_response.list().http_response.json()["phone_numbers"][0]
    assert set(entry) == {"id", "phone_number", "forwarding_number"} | keys
    assert all(entry[key]["status"] == "AT_RISK" for key in keys - {"line_type"})


def test_there_are_no_other_shapes(fake: FakeLinq) -> None:
    """A misspelt shape is refused, and the shape stays."""
    with pytest.raises(ValueError, match="list_shape"):
        fake.list_shape = "round"
    assert fake.list_shape == "reputation"


def test_an_unheard_of_reputation_can_be_listed(fake: FakeLinq, client: Client) -> None:
    """The wire carries any text; the client's strict models refuse it."""
    fake.set_reputation(A, "LUKEWARM")
    with pytest.raises(linq.APIResponseValidationError) as caught:
        client.phone_numbers.list()
    assert caught.value.response.json()["phone_numbers"][0]["reputation"]["status"] == "LUKEWARM"


def test_raw_lines_are_listed_as_they_are(fake: FakeLinq) -> None:
    """Duplicates, numbers that are none, and missing fields reach the client; None lists the lines again."""
    wrong = [{"id": "1", "phone_number": A}, {"phone_number": A}, {"phone_number": "12"}, {}]
    headers = {"Authorization": f"Bearer {fake.token}"}
    url = f"{fake.base_url}/v3/phone_numbers"
    fake.raw_lines(wrong)
    assert httpx.get(url, headers=headers).json() == {"phone_numbers": wrong}
    fake.raw_lines([])
    assert httpx.get(url, headers=headers).json() == {"phone_numbers": []}
    fake.raw_lines(None)
    assert len(httpx.get(url, headers=headers).json()["phone_numbers"]) == 3


def test_lines_come_and_go(fake: FakeLinq, client: Client) -> None:
    """An added line is listed last with what it was given; a removed one is gone; ids are kept."""
    before = client.phone_numbers.list().phone_numbers
    fake.add_line(ANN, line_type="RCS", reputation="AT_RISK")
    fake.remove_line(A)
    after = client.phone_numbers.list().phone_numbers
    assert after[:2] == before[1:]
    last = after[2]
    assert (last.phone_number, last.line_type, last.reputation.status) == (ANN, "RCS", "AT_RISK")
    assert fake.numbers == [B, C, ANN]


def test_switches_refuse_what_is_not_there(fake: FakeLinq) -> None:
    """A line twice, a line that is none, a chat that is none, a handle that is none: each is a ValueError."""
    for mistake in (
        lambda: fake.add_line(A),
        lambda: fake.add_line("2025550100"),
        lambda: fake.remove_line(ANN),
        lambda: fake.set_reputation(ANN, "HEALTHY"),
        lambda: fake.set_status(ANN, "ACTIVE"),
        lambda: fake.set_eligible(ANN, True),
        lambda: fake.set_chat_health("nope", "AT_RISK"),
        lambda: fake.opt_out("nobody"),
    ):
        with pytest.raises(ValueError):
            mistake()


def test_forwarding_is_set_and_cleared(fake: FakeLinq, client: Client) -> None:
    """PUT takes the id; null and the empty text both clear; the list shows it."""
    line = client.phone_numbers.list().phone_numbers[0]
    for value, shown in ((ANN, ANN), ("", None), (BOB, BOB), (None, None)):
        answer = client.phone_numbers.update(line.id, forwarding_number=value)
        assert (answer.id, answer.phone_number, answer.forwarding_number) == (line.id, A, shown)
        assert client.phone_numbers.list().phone_numbers[0].forwarding_number == shown


# POST /v3/chats and /v3/chats/{id}/messages


def test_an_accepted_message_is_recorded_whole(fake: FakeLinq, client: Client) -> None:
    """`sent` knows the line, the recipient, the chat, the text, the ids, the moment."""
    answer = client.chats.create(
        from_=B, to=["Eve@Example.com"], message=text("hi", idempotency_key="k1")
    )
    (sent,) = fake.sent
    assert (sent.number, sent.to, sent.chat_id, sent.text) == (B, EVE, answer.chat.id, "hi")
    assert (sent.message_id, sent.idempotency_key) == (answer.chat.message.id, "k1")
    assert (sent.at, sent.override_optout) == (NOW, False)
    assert answer.chat.message.created_at.timestamp() == NOW


def test_a_chat_is_keyed_on_line_and_set(fake: FakeLinq, client: Client) -> None:
    """Line and set the same: the same chat, in any order and case; another line or set: another chat."""

    def chat(number: str, *to: str) -> str:
        return client.chats.create(from_=number, to=to, message=text()).chat.id

    assert chat(A, ANN, EVE) == chat(A, "EVE@example.com", ANN, ANN)
    assert len({chat(A, ANN, EVE), chat(B, ANN, EVE), chat(A, ANN), chat(A, ANN, BOB)}) == 4


def test_a_groups_handles_are_sorted(fake: FakeLinq, client: Client) -> None:
    """So that a group compares equal however it was written."""
    members = [f"+1415555010{i}" for i in (4, 1, 7, 2, 9, 3, 8)]
    client.messages.create(to=members, message=text())
    assert fake.sent[0].to == tuple(sorted(members))


def test_two_spellings_of_one_handle_are_no_group(fake: FakeLinq, client: Client) -> None:
    """One distinct handle makes a direct chat."""
    chat = client.chats.create(from_=A, to=[EVE, EVE.upper()], message=text()).chat
    assert (chat.is_group, len(chat.handles), fake.sent[0].to) == (False, 2, EVE)


def test_the_line_of_a_chat_is_the_handle_that_is_me(client: Client) -> None:
    """A chat has no `from`."""
    chat = client.chats.create(from_=B, to=[BOB, ANN], message=text()).chat
    assert [each.handle for each in chat.handles if each.is_me] == [B]
    assert [each.handle for each in chat.handles if not each.is_me] == [ANN, BOB]
    assert (chat.is_group, chat.display_name) == (True, f"{ANN}, {BOB}")


def test_a_chats_message_leaves_from_its_line(fake: FakeLinq, client: Client) -> None:
    """The chat names the line and the recipients."""
    chat = client.chats.create(from_=C, to=[ANN], message=text()).chat.id
    answer = client.chats.messages.send(chat, message=text("again"))
    assert answer.chat_id == chat
    assert [(each.number, each.to, each.text) for each in fake.sent] == [
        (C, ANN, "hello"),
        (C, ANN, "again"),
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"parts": [{"type": "link", "value": "https://example.com"}]},
        text("see https://example.com"),
        text("see HTTP://EXAMPLE.COM now"),
        text("www.example.com"),
        text(effect={"type": "screen", "name": "confetti"}),
        text(reply_to={"message_id": "m"}),
    ],
)
def test_the_first_message_of_a_named_line_has_no_link_and_no_frills(
    fake: FakeLinq, client: Client, message: Any
) -> None:
    """400/1005 on a new chat; the same message passes in the chat once it is there."""
    error = refusal(lambda: client.chats.create(from_=A, to=[ANN], message=message))
    assert (error.status_code, error.code, fake.sent) == (400, 1005, [])
    client.chats.create(from_=A, to=[ANN], message=text())
    client.chats.create(from_=A, to=[ANN], message=message)
    assert len(fake.sent) == 2


def test_a_first_link_is_fine_where_the_provider_picks_the_line(
    fake: FakeLinq, client: Client
) -> None:
    """The rule is one of `POST /v3/chats` alone."""
    client.messages.create(
        to=[ANN], message={"parts": [{"type": "link", "value": "https://example.com"}]}
    )
    assert fake.sent[0].text == "https://example.com"


def test_critical_and_at_risk_refuse_nothing(fake: FakeLinq, client: Client) -> None:
    """Reputation is a prediction; only eligibility is enforced."""
    for reputation in ("AT_RISK", "CRITICAL", "LUKEWARM"):
        fake.set_reputation(A, reputation)
        client.chats.create(from_=A, to=[ANN], message=text())
    assert len(fake.sent) == 3


def test_flagged_and_eligible_are_linked_unless_told_otherwise(
    fake: FakeLinq, client: Client
) -> None:
    """FLAGGED refuses, ACTIVE accepts again; unlinked, the status alone changes nothing."""

    def send() -> object:
        return client.chats.create(from_=A, to=[ANN], message=text())

    fake.set_status(A, "FLAGGED")
    assert refusal(send).code == 2027
    fake.set_status(A, "ACTIVE", linked=False)
    assert refusal(send).code == 2027
    fake.set_status(A, "ACTIVE")
    fake.set_status(A, "FLAGGED", linked=False)
    assert send()


def test_an_ineligible_line_still_reads(fake: FakeLinq, client: Client) -> None:
    """Its chats and messages are there; only sending into them is 403/2027."""
    chat = client.chats.create(from_=A, to=[ANN], message=text()).chat.id
    fake.set_eligible(A, False)
    assert refusal(lambda: client.chats.messages.send(chat, message=text())).code == 2027
    assert client.chats.retrieve(chat).id == chat
    assert len(client.chats.messages.list(chat).messages) == 1


def test_a_released_lines_chats_can_be_read_only(fake: FakeLinq, client: Client) -> None:
    """Sending into the chat of a line that is gone is 403/2006."""
    chat = client.chats.create(from_=A, to=[ANN], message=text()).chat.id
    fake.remove_line(A)
    assert refusal(lambda: client.chats.messages.send(chat, message=text())).code == 2006
    assert client.chats.retrieve(chat).id == chat


@pytest.mark.parametrize(
    ("line_type", "preferred", "service"),
    [
        ("iMessage", None, "iMessage"),
        ("iMessage", "SMS", "SMS"),
        ("RCS", None, "RCS"),
        ("RCS", "SMS", "SMS"),
        ("RCS", "iMessage", "RCS"),
    ],
)
def test_an_rcs_line_never_sends_imessage(
    fake: FakeLinq, client: Client, line_type: Any, preferred: str | None, service: str
) -> None:
    """The service is the preferred one where the line can, else the line's own."""
    fake.add_line(BOB, line_type=line_type)
    more = {} if preferred is None else {"preferred_service": preferred}
    chat = client.chats.create(from_=BOB, to=[ANN], message=text(**more)).chat
    assert (chat.message.service, chat.message.preferred_service) == (service, preferred)


# Recipients


def test_an_opt_out_is_account_wide_and_ends_with_the_next_reply(
    fake: FakeLinq, client: Client
) -> None:
    """Every line is refused until they write again; only the conversation last active is marked."""
    older = client.chats.create(from_=A, to=[ANN], message=text()).chat.id
    latest = client.chats.create(from_=B, to=[ANN], message=text()).chat.id

    def health() -> list[str]:
        return [client.chats.retrieve(each).health_status.status for each in (older, latest)]

    fake.opt_out(ANN)
    for number in (A, B, C):
        error = refusal(lambda n=number: client.chats.create(from_=n, to=[ANN], message=text()))
        assert error.code == 2024
    assert refusal(lambda: client.chats.messages.send(older, message=text())).code == 2024
    assert health() == ["HEALTHY", "OPTED_OUT"]
    fake.opt_in(ANN)
    client.chats.messages.send(older, message=text())
    assert health() == ["HEALTHY", "HEALTHY"]


def test_groups_are_never_opted_out(fake: FakeLinq, client: Client) -> None:
    """Nor does one blocked member keep a group from its messages."""
    fake.opt_out(ANN)
    fake.block(BOB)
    client.messages.create(to=[ANN, BOB], message=text())
    client.chats.create(from_=A, to=[ANN, BOB], message=text())
    assert [each.to for each in fake.sent] == [(ANN, BOB), (ANN, BOB)]


def test_an_opt_out_is_overridden_for_one_request(fake: FakeLinq, client: Client) -> None:
    """All three ways of sending take the override; each use is on record, and the opt-out stays."""
    fake.opt_out(ANN)
    chat = client.chats.create(from_=A, to=[ANN], message=text(), override_optout=True).chat.id
    client.chats.messages.send(chat, message=text(), override_optout=True)
    client.messages.create(to=[ANN], message=text(), override_optout=True)
    assert [each.override_optout for each in fake.sent] == [True] * 3
    assert refusal(lambda: client.chats.messages.send(chat, message=text())).code == 2024


def test_an_override_is_for_opt_outs_only(fake: FakeLinq, client: Client) -> None:
    """A blocked recipient stays blocked, a disallowed one disallowed."""
    fake.block(ANN)
    fake.disallow(BOB)
    for to, code in ((ANN, 2026), (BOB, 2008)):
        error = refusal(
            lambda t=to: client.messages.create(to=[t], message=text(), override_optout=True)
        )
        assert error.code == code


def test_recipients_can_be_let_in_again(fake: FakeLinq, client: Client) -> None:
    """`unblock` and `allow` undo `block` and `disallow`."""
    fake.block(EVE)
    fake.unblock("EVE@example.com")
    fake.disallow(EVE)
    fake.allow(EVE)
    client.messages.create(to=[EVE], message=text())
    assert len(fake.sent) == 1


def test_the_block_list_is_normalised_and_newest_first(
    fake: FakeLinq, clock: ManualClock, client: Client
) -> None:
    """Blocking twice returns the first entry."""
    client.blocked_handles.block(handle="Eve@Example.com", reason="first")
    clock.advance(5.0)
    again = client.blocked_handles.block(handle=EVE, reason="second").blocked_handle
    assert (again.handle, again.reason, again.blocked_at.timestamp()) == (EVE, "first", NOW)
    fake.block(ANN)
    client.blocked_handles.block(handle="ACME")
    listed = [each.handle for each in client.blocked_handles.list().blocked_handles]
    assert listed == ["ACME", ANN, EVE]


# The order of refusals


def test_a_send_is_checked_in_the_supposed_order(fake: FakeLinq, client: Client) -> None:
    """Form, link, own number, recipient, line, pair: with everything wrong, mending one shows the next."""
    fake.block(ANN)
    fake.set_eligible(A, False)
    seen = []

    def attempt(number: str, to: str, message: Any) -> None:
        error = refusal(lambda: client.chats.create(from_=number, to=[to], message=message))
        seen.append(error.code)

    link = text("https://example.com")
    attempt("nonsense", "nobody", text(""))
    attempt(BOB, "nobody", link)
    attempt(BOB, ANN, link)
    attempt(BOB, ANN, text())
    attempt(A, ANN, text())
    attempt(A, EVE, text())
    assert seen == [1004, 1002, 1005, 2006, 2026, 2027]


def test_the_order_is_a_guess_that_can_be_changed(clock: ManualClock) -> None:
    """A known key can be answered before the line is looked at, and after the limit."""
    first = ("replay", "first_link", "own_number", "recipient", "line", "pair")
    last = ("first_link", "own_number", "recipient", "line", "pair", "replay")
    keyed = text(idempotency_key="k")
    with (
        FakeLinq(lines=1, clock=clock, guesses=Guesses(order=first)) as fake,
        connect(fake) as client,
    ):
        answer = client.chats.create(from_=A, to=[ANN], message=keyed)
        fake.set_eligible(A, False)
        assert client.chats.create(from_=A, to=[ANN], message=keyed) == answer
    with (
        FakeLinq(lines=1, clock=clock, guesses=Guesses(order=last)) as fake,
        connect(fake) as client,
    ):
        for _ in range(30):
            client.chats.create(from_=A, to=[ANN], message=keyed)
        assert len(fake.sent) == 1
        for _ in range(29):
            client.chats.create(from_=A, to=[ANN], message=text())
        error = refusal(lambda: client.chats.create(from_=A, to=[ANN], message=keyed))
        assert error.code == 1007


def test_an_order_names_every_check_once() -> None:
    """A check can be moved, not left out."""
    with pytest.raises(ValueError, match="order"):
        Guesses(order=("line",))


# The pair limit


def test_a_pair_is_limited_to_thirty_a_minute(
    fake: FakeLinq, clock: ManualClock, client: Client
) -> None:
    """The 31st waits until a minute after the first, to the second; header and body say for how long."""
    chat = client.chats.create(from_=A, to=[ANN], message=text()).chat.id
    clock.advance(14.5)
    for _ in range(29):
        client.chats.messages.send(chat, message=text())
    error = refusal(lambda: client.chats.messages.send(chat, message=text()))
    assert (type(error), error.status_code, error.code) == (linq.RateLimitError, 429, 1007)
    assert (error.retry_after, error.response.headers["Retry-After"]) == (46, "46")
    assert "46 seconds" in error.response.json()["error"]["message"]
    clock.advance(45.0)
    assert refusal(lambda: client.chats.messages.send(chat, message=text())).retry_after == 1
    clock.advance(1.0)
    client.chats.messages.send(chat, message=text())
    assert refusal(lambda: client.chats.messages.send(chat, message=text())).retry_after == 14
    assert len(fake.sent) == 31


def test_a_wait_as_long_as_told_is_enough(clock: ManualClock, client: Client) -> None:
    """After exactly `retry_after` seconds the next message passes."""
    for _ in range(30):
        client.chats.create(from_=A, to=[ANN], message=text())
    clock.advance(59.0)
    assert refusal(lambda: client.chats.create(from_=A, to=[ANN], message=text())).retry_after == 1
    clock.advance(1.0)
    client.chats.create(from_=A, to=[ANN], message=text())


def test_the_limit_is_the_pairs_own(fake: FakeLinq, client: Client) -> None:
    """Another line or another recipient goes on; every way of sending counts."""
    chat = client.chats.create(from_=A, to=[ANN], message=text()).chat.id
    for _ in range(14):
        client.chats.messages.send(chat, message=text())
        client.chats.create(from_=A, to=[ANN], message=text())
    client.messages.create(to=[ANN], message=text())
    assert refusal(lambda: client.messages.create(to=[ANN], message=text())).code == 1007
    client.chats.create(from_=B, to=[ANN], message=text())
    client.chats.create(from_=A, to=[BOB], message=text())
    assert len(fake.sent) == 32


def test_a_clock_stepping_back_does_not_lock_a_pair(
    fake: FakeLinq, clock: ManualClock, client: Client
) -> None:
    """Messages from the future are not counted."""
    for _ in range(30):
        client.chats.create(from_=A, to=[ANN], message=text())
    clock.advance(-3600.0)
    client.chats.create(from_=A, to=[ANN], message=text())
    assert fake.sent[-1].at == NOW - 3600.0


# Idempotency


def test_a_repeated_key_returns_the_original_result(fake: FakeLinq, client: Client) -> None:
    """Each way of sending answers as the first time, and sends once."""
    keyed = text(idempotency_key="k1")
    created = [client.chats.create(from_=A, to=[ANN], message=keyed) for _ in range(3)]
    chat = created[0].chat.id
    keyed = text(idempotency_key="k2")
    sent = [client.chats.messages.send(chat, message=keyed) for _ in range(3)]
    keyed = text(idempotency_key="k3")
    picked = [client.messages.create(to=[BOB], message=keyed) for _ in range(3)]
    for answers in (created, sent, picked):
        assert answers[0] == answers[1] == answers[2]
    assert [each.idempotency_key for each in fake.sent] == ["k1", "k2", "k3"]
    assert picked[2].created_new_chat is True


def test_a_key_holds_between_the_ways_of_sending(fake: FakeLinq, client: Client) -> None:
    """A message whose answer was lost may be asked for through its chat."""
    keyed = text(idempotency_key="k")
    first = client.chats.create(from_=A, to=[ANN], message=keyed).chat
    again = client.chats.messages.send(first.id, message=keyed)
    assert (again.chat_id, again.message) == (first.id, first.message)
    assert client.messages.create(to=[ANN], message=keyed).message == first.message
    assert len(fake.sent) == 1


def test_the_header_is_a_key_where_the_line_is_picked(fake: FakeLinq, client: Client) -> None:
    """`Idempotency-Key` counts on `POST /v3/messages` alone, and the body's key wins."""
    for _ in range(2):
        client.messages.create(to=[ANN], message=text(), idempotency_key="h")
    client.messages.create(to=[ANN], message=text(idempotency_key="b"), idempotency_key="h")
    for _ in range(2):
        client.chats.create(
            from_=A, to=[BOB], message=text(), extra_headers={"Idempotency-Key": "x"}
        )
    assert [each.idempotency_key for each in fake.sent] == ["h", "b", None, None]


def test_a_replay_is_not_limited(fake: FakeLinq, client: Client) -> None:
    """At the pair's limit a known key is still answered."""
    answer = client.chats.create(from_=A, to=[ANN], message=text(idempotency_key="k"))
    for _ in range(29):
        client.chats.create(from_=A, to=[ANN], message=text())
    again = client.chats.create(from_=A, to=[ANN], message=text(idempotency_key="k"))
    assert again.chat.message == answer.chat.message


def test_a_refused_key_is_free(fake: FakeLinq, client: Client) -> None:
    """What was refused was not sent, so its key may be used."""
    keyed = text(idempotency_key="k")
    fake.set_eligible(A, False)
    refusal(lambda: client.chats.create(from_=A, to=[ANN], message=keyed))
    fake.set_eligible(A, True)
    client.chats.create(from_=A, to=[ANN], message=keyed)
    assert len(fake.sent) == 1


@pytest.mark.parametrize(("scope", "count"), [("account", 1), ("line", 2)])
def test_what_a_key_is_unique_in_is_a_guess(clock: ManualClock, scope: Any, count: int) -> None:
    """Across lines the same key is one message, or two."""
    guesses = Guesses(idempotency_scope=scope)
    with FakeLinq(lines=2, clock=clock, guesses=guesses) as fake, connect(fake) as client:
        for number in (A, B, A, B):
            client.chats.create(from_=number, to=[ANN], message=text(idempotency_key="k"))
        assert len(fake.sent) == count


# POST /v3/messages


def test_a_new_recipient_gets_the_best_line(fake: FakeLinq, client: Client) -> None:
    """Healthier first, then least recently used; CRITICAL only if there is nothing better."""
    fake.set_reputation(A, "AT_RISK")
    fake.set_reputation(B, "CRITICAL")
    answer = client.messages.create(to=[ANN], message=text())
    assert (answer.from_, answer.from_selection.reason) == (C, "new_best_number")
    assert (answer.created_new_chat, answer.previous_chat_id) == (True, None)
    fake.set_eligible(C, False)
    assert client.messages.create(to=[BOB], message=text()).from_ == A
    fake.set_eligible(A, False)
    assert client.messages.create(to=[EVE], message=text()).from_ == B


def test_new_recipients_go_round_the_lines(fake: FakeLinq, client: Client) -> None:
    """Among equals the least recently used line is next; a send from a named line is a use."""
    client.chats.create(from_=A, to=[EVE], message=text())
    for i in range(6):
        client.messages.create(to=[f"+1415555020{i}"], message=text())
    assert senders(fake) == [A, B, C, A, B, C, A]


def test_a_known_recipient_keeps_the_chat_last_active(fake: FakeLinq, client: Client) -> None:
    """Of two usable chats the more recent one is reused, whatever its line's reputation."""
    client.chats.create(from_=A, to=[ANN], message=text())
    latest = client.chats.create(from_=B, to=[ANN], message=text()).chat.id
    fake.set_reputation(B, "CRITICAL")
    answer = client.messages.create(to=[ANN], message=text())
    assert (answer.chat_id, answer.from_, answer.created_new_chat) == (latest, B, False)
    assert answer.from_selection.reason == "reused_active_chat"
    assert answer.from_selection.reused_existing_chat is True


def test_only_exactly_these_recipients_are_known(client: Client) -> None:
    """A group with the same person is another recipient."""
    client.chats.create(from_=A, to=[ANN, BOB], message=text())
    answer = client.messages.create(to=[ANN], message=text())
    assert (answer.created_new_chat, answer.is_group) == (True, False)
    assert client.messages.create(to=[BOB, ANN], message=text()).created_new_chat is False


def test_a_chat_on_a_flagged_line_is_abandoned(fake: FakeLinq, client: Client) -> None:
    """A new chat on a fresh line, naming the old one; once it is there, it is the one reused."""
    old = client.chats.create(from_=A, to=[ANN], message=text()).chat.id
    fake.set_status(A, "FLAGGED")
    moved = client.messages.create(to=[ANN], message=text())
    assert moved.from_selection.reason == "failover_flagged"
    assert (moved.previous_chat_id, moved.created_new_chat) == (old, True)
    assert moved.from_ in (B, C)
    again = client.messages.create(to=[ANN], message=text())
    assert (again.chat_id, again.previous_chat_id) == (moved.chat_id, None)


def test_a_continuation_replaces_the_message_on_failover_only(
    fake: FakeLinq, client: Client
) -> None:
    """Exactly one message is sent either way."""

    def send() -> object:
        return client.messages.create(
            to=[ANN], message=text("plain"), continuation_message={"text": "new number, hello"}
        )

    send()
    send()
    fake.set_eligible(fake.sent[0].number, False)
    send()
    send()
    assert [each.text for each in fake.sent] == ["plain", "plain", "new number, hello", "plain"]


def test_an_exclusion_concerns_new_chats_only(fake: FakeLinq, client: Client) -> None:
    """A chat on another line is preferred; the only chat is reused even on an excluded line."""
    assert client.messages.create(to=[EVE], message=text(), exclude_from=[A, B, ANN]).from_ == C
    client.chats.create(from_=A, to=[ANN], message=text())
    assert client.messages.create(to=[ANN], message=text(), exclude_from=[A, B, C]).from_ == A
    client.chats.create(from_=B, to=[ANN], message=text())
    assert client.messages.create(to=[ANN], message=text(), exclude_from=[B]).from_ == A


@pytest.mark.parametrize("refuse", [False, True])
def test_a_from_where_there_is_none_is_ignored_or_refused(refuse: bool) -> None:
    """What Linq does is not known, so both can be had."""
    with FakeLinq(lines=2, guesses=Guesses(refuse_from=refuse)) as fake, connect(fake) as client:

        def send() -> object:
            return client.messages.create(to=[ANN], message=text(), extra_body={"from": B})

        if refuse:
            assert refusal(send).code == 1005
        else:
            send()
        assert senders(fake) == ([] if refuse else [A])


# GET /v3/available_number


def test_available_numbers_go_round_and_count_as_use(fake: FakeLinq, client: Client) -> None:
    """Suggestions and sends both make a line the most recently used one."""

    def suggest() -> str:
        return client.available_number.retrieve().phone_number

    assert [suggest() for _ in range(4)] == [A, B, C, A]
    client.chats.create(from_=B, to=[ANN], message=text())
    assert [suggest(), suggest()] == [C, A]
    assert client.messages.create(to=[BOB], message=text()).from_ == B


def test_a_healthier_line_is_always_suggested_first(fake: FakeLinq, client: Client) -> None:
    """Recent use only decides among lines of one reputation."""
    for number in (A, C):
        fake.set_reputation(number, "AT_RISK")
    assert {client.available_number.retrieve().phone_number for _ in range(3)} == {B}


def test_a_suggestion_sticks_to_a_known_recipients_line(fake: FakeLinq, client: Client) -> None:
    """Unless that line is excluded, of another type, or can't send."""
    fake.add_line(BOB, line_type="RCS")
    client.chats.create(from_=C, to=[ANN, EVE], message=text())

    def suggest(**more: Any) -> str:
        return client.available_number.retrieve(to=[EVE, ANN], **more).phone_number

    assert {suggest() for _ in range(3)} == {C}
    assert suggest(type="RCS") == BOB
    assert suggest(exclude_from=[C]) != C
    assert suggest(type="iMessage") == C
    fake.set_eligible(C, False)
    assert suggest() != C


@pytest.mark.parametrize(
    "query",
    [
        {"exclude_from": f"{A},{B}", "to": f"{ANN},{EVE}"},
        {"exclude_from": [A, B], "to": [ANN, EVE]},
        {"exclude_from": [f"{A},{B}", ANN], "type": "imessage"},
    ],
)
def test_lists_in_a_query_may_be_joined_or_repeated(fake: FakeLinq, query: Any) -> None:
    """The docs repeat the parameter, the official client joins its values."""
    url = f"{fake.base_url}/v3/available_number"
    headers = {"Authorization": f"Bearer {fake.token}"}
    assert httpx.get(url, params=query, headers=headers).json()["phone_number"] == C


def test_a_bare_plus_in_a_query_is_a_blank(fake: FakeLinq) -> None:
    """A number has to be encoded, as Linq asks."""
    url = f"{fake.base_url}/v3/available_number?exclude_from={A}"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {fake.token}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 1002)


# Reading chats


def test_chats_are_filtered_by_line_and_participant(fake: FakeLinq, client: Client) -> None:
    """`to` is a participant, so groups match too; together the filters narrow."""
    direct = client.chats.create(from_=A, to=[ANN], message=text()).chat.id
    group = client.chats.create(from_=A, to=[ANN, EVE], message=text()).chat.id
    other = client.chats.create(from_=B, to=[ANN], message=text()).chat.id

    def listed(**filters: str) -> list[str]:
        return [chat.id for chat in client.chats.list_chats(**filters)]

    assert listed() == [other, group, direct]
    assert listed(from_=A) == [group, direct]
    assert listed(to="EVE@example.com") == [group]
    assert listed(from_=B, to=ANN) == [other]
    assert listed(from_=C) == []


def test_pages_follow_one_another_to_the_end(client: Client) -> None:
    """The client's own paginator sees every chat once; the last cursor is null."""
    made = {
        client.chats.create(from_=A, to=[f"+1415555{i:04d}"], message=text()).chat.id
        for i in range(25)
    }
    assert len(client.chats.list_chats().chats) == 20
    walked = [chat.id for chat in client.chats.list_chats(limit=10)]
    assert (len(walked), set(walked)) == (25, made)
    page = client.chats.list_chats(limit=25)
    assert (len(page.chats), page.next_cursor) == (25, None)
    assert client.chats.list_chats(limit=24).next_cursor == "24"


def test_messages_are_listed_newest_first(client: Client) -> None:
    """A page of messages knows its chat, its line and what was said."""
    chat = client.chats.create(from_=B, to=[ANN], message=text("one")).chat.id
    sent = [client.chats.messages.send(chat, message=text(each)) for each in ("two", "three")]
    listed = list(client.chats.messages.list(chat, limit=2))
    assert [each.parts[0].value for each in listed] == ["three", "two", "one"]
    assert listed[0].id == sent[1].message.id
    assert {(each.chat_id, each.from_, each.is_from_me) for each in listed} == {(chat, B, True)}


def test_chat_health_is_what_it_was_set_to(
    fake: FakeLinq, clock: ManualClock, client: Client
) -> None:
    """It changes nothing but what is shown, and when that changed."""
    chat = client.chats.create(from_=A, to=[ANN], message=text()).chat
    assert chat.health_status.status == "HEALTHY"
    clock.advance(60.0)
    fake.set_chat_health(chat.id, "CRITICAL")
    health = client.chats.retrieve(chat.id).health_status
    assert (health.status, health.updated_at.timestamp()) == ("CRITICAL", NOW + 60.0)
    client.chats.messages.send(chat.id, message=text())


# Reputation audits


def test_an_audit_runs_completes_and_is_forgotten(
    fake: FakeLinq, clock: ManualClock, client: Client
) -> None:
    """Pending for as long as guessed, the same audit while it runs, readable for a day."""
    fake.set_reputation(A, "CRITICAL")
    fake.set_status(A, "FLAGGED", linked=False)
    chat = client.chats.create(from_=A, to=[ANN], message=text()).chat.id
    fake.opt_out(ANN)
    audits = client.phone_numbers
    started = audits.start_reputation_audit(A)
    clock.advance(9.0)
    assert audits.start_reputation_audit(A) == started
    assert audits.get_reputation_audit(started.audit_id, phone_number=A).status == "pending"
    clock.advance(1.0)
    done = audits.get_reputation_audit(started.audit_id, phone_number=A)
    assert (done.status, done.phone) == ("complete", A)
    report = done.report
    assert report is not None
    assert (report.severity, report.primary_driver) == ("CRITICAL", "flagged")
    assert report.evidence is not None
    assert report.evidence.opt_out_chats is not None
    assert [each.chat_id for each in report.evidence.opt_out_chats] == [chat]
    clock.advance(86400.0)
    error = refusal(lambda: audits.get_reputation_audit(started.audit_id, phone_number=A))
    assert error.status_code == 404


def test_a_healthy_line_has_nothing_to_act_on(clock: ManualClock, client: Client) -> None:
    """No driver, an empty primary driver, one action item."""
    audit = client.phone_numbers.start_reputation_audit(A).audit_id
    clock.advance(10.0)
    report = client.phone_numbers.get_reputation_audit(audit, phone_number=A).report
    assert report is not None
    assert (report.severity, report.primary_driver, report.drivers) == ("HEALTHY", "", [])
    assert len(report.action_items or []) == 1


def test_an_audit_is_followed_by_a_cooldown(clock: ManualClock, client: Client) -> None:
    """429 with the wait, for that line only; then the next audit is another one."""
    first = client.phone_numbers.start_reputation_audit(A).audit_id
    clock.advance(10.0)
    error = refusal(lambda: client.phone_numbers.start_reputation_audit(A))
    assert (error.status_code, error.response.headers["Retry-After"]) == (429, "3600")
    assert first not in error.response.text
    client.phone_numbers.start_reputation_audit(B)
    clock.advance(3600.0)
    assert client.phone_numbers.start_reputation_audit(A).audit_id != first


def test_an_audit_belongs_to_its_line(client: Client) -> None:
    """Asked for under another line's number it is a 404."""
    audit = client.phone_numbers.start_reputation_audit(A).audit_id
    error = refusal(lambda: client.phone_numbers.get_reputation_audit(audit, phone_number=B))
    assert error.status_code == 404


def test_an_audits_number_may_be_percent_encoded(fake: FakeLinq) -> None:
    """`%2B` in the path is the plus."""
    url = f"{fake.base_url}/v3/phone_numbers/%2B{A[1:]}/reputation_audit"
    answer = httpx.post(url, headers={"Authorization": f"Bearer {fake.token}"})
    assert answer.status_code == 202


# Faults


def test_a_planned_failure_happens_that_often(fake: FakeLinq, client: Client) -> None:
    """Status and code as asked, no work done, and then it is over."""
    fake.fail_next(2, status=503, code=4004)
    errors = [refusal(lambda: client.messages.create(to=[ANN], message=text())) for _ in range(2)]
    assert [(each.status_code, each.code) for each in errors] == [(503, 4004)] * 2
    assert len({each.response.headers["X-Trace-ID"] for each in errors}) == 2
    assert fake.sent == []
    client.messages.create(to=[ANN], message=text())
    assert len(fake.sent) == 1


def test_a_planned_failure_may_come_without_a_code(fake: FakeLinq, client: Client) -> None:
    """As from a gateway that knows nothing of Linq's codes."""
    fake.fail_next(status=502)
    error = refusal(client.phone_numbers.list)
    assert (error.status_code, error.code, error.doc_url) == (502, None, None)


def test_plans_are_used_up_in_order_and_by_path(fake: FakeLinq, client: Client) -> None:
    """A plan for a path lets other requests pass; two plans follow one another."""
    fake.fail_next(status=500, code=3001, path="/v3/messages")
    fake.fail_next(status=503, code=4004)
    fake.fail_next(0, status=500, code=3002)
    assert refusal(client.phone_numbers.list).code == 4004
    assert client.phone_numbers.list()
    assert refusal(lambda: client.messages.create(to=[ANN], message=text())).code == 3001
    client.messages.create(to=[ANN], message=text())


def test_heal_forgets_what_was_planned(fake: FakeLinq, client: Client) -> None:
    """An outage without an end ends when told."""
    fake.fail_next(10**9, status=503, code=4004)
    fake.hang_next()
    refusal(client.phone_numbers.list)
    fake.heal()
    assert client.phone_numbers.list()


@pytest.mark.parametrize(
    ("retry_after", "header", "told"),
    [
        (45, "45", 45),
        (0.5, "0.5", 1),
        (3600, "3600", 3600),
        ("Wed, 21 Oct 2037 07:28:00 GMT", "Wed, 21 Oct 2037 07:28:00 GMT", None),
        (None, None, None),
    ],
)
def test_a_planned_failure_may_ask_to_wait(
    fake: FakeLinq, client: Client, retry_after: Any, header: str | None, told: int | None
) -> None:
    """The header says what it was told to; the body of a 429 says it in whole seconds, other bodies don't."""
    fake.fail_next(status=429, code=1007, retry_after=retry_after)
    fake.fail_next(status=503, code=4004, retry_after=retry_after)
    limited, unavailable = refusal(client.phone_numbers.list), refusal(client.phone_numbers.list)
    assert limited.response.headers.get("Retry-After") == header
    assert unavailable.response.headers.get("Retry-After") == header
    assert (limited.retry_after, unavailable.retry_after) == (told, None)


def test_a_hanging_answer_never_comes(fake: FakeLinq, client: Client) -> None:
    """The client gives up, and nothing was done; the next request is answered."""
    fake.hang_next()
    with pytest.raises(linq.APITimeoutError):
        client.messages.create(to=[ANN], message=text(), timeout=0.2)
    assert fake.sent == []
    client.messages.create(to=[ANN], message=text(), timeout=5.0)
    assert (len(fake.sent), len(fake.requests)) == (1, 2)


def test_an_answer_can_be_lost_after_the_work(fake: FakeLinq, client: Client) -> None:
    """The message is accepted, the answer never comes, and the key finds the message again."""
    fake.hang_next(after=True)
    keyed = text(idempotency_key="k")
    with pytest.raises(linq.APITimeoutError):
        client.messages.create(to=[ANN], message=keyed, timeout=0.2)
    assert len(fake.sent) == 1
    answer = client.messages.create(to=[ANN], message=keyed)
    assert [answer.message.id] == ids(fake)


def test_closing_releases_hung_requests() -> None:
    """Clients that wait without limit get an error, and no thread of the fake is left."""
    fake = FakeLinq()
    fake.start()
    fake.hang_next(3)
    with connect(fake) as client, ThreadPoolExecutor(3) as pool:
        waiting = [
            pool.submit(client.phone_numbers.list, timeout=httpx.Timeout(None)) for _ in range(3)
        ]
        fake.wait_for_requests(3)
        fake.close()
        errors = [each.exception(timeout=30.0) for each in waiting]
    assert [type(each) for each in errors] == [linq.APIConnectionError] * 3
    assert [each.name for each in threading.enumerate() if each.name.startswith("fakelinq")] == []


def test_an_answer_can_be_cut_short(fake: FakeLinq, client: Client) -> None:
    """The client sees a broken connection, also where there is no content; the work is done."""
    fake.cut_next(2)
    with pytest.raises(linq.APIConnectionError) as caught:
        client.messages.create(to=[ANN], message=text())
    assert isinstance(caught.value.__cause__, httpx.RemoteProtocolError)
    assert len(fake.sent) == 1
    with pytest.raises(linq.APIConnectionError):
        client.blocked_handles.unblock(handle=BOB)
    assert client.phone_numbers.list()


@pytest.mark.parametrize("body", [b"", b"<html>oops</html>", b'{"phone_numbers": [', b"null"])
def test_an_answer_can_be_garbage(fake: FakeLinq, client: Client, body: bytes) -> None:
    """The bytes arrive as they are, with a trace id; no work is done."""
    fake.garbage_next(body=body, content_type="text/plain", status=202)
    raw = client.phone_numbers.with_raw_response.list()
    assert (raw.http_response.content, raw.http_response.status_code) == (body, 202)
    assert (raw.headers["Content-Type"], len(raw.headers["X-Trace-ID"])) == ("text/plain", 32)
    fake.garbage_next(body=b"[]")
    assert client.phone_numbers.with_raw_response.list().headers["Content-Type"] == (
        "application/json"
    )


# Requests, keep-alive, silence


def test_requests_are_recorded_without_the_token(fake: FakeLinq, client: Client) -> None:
    """Method, path, query and headers of each, answered or not."""
    client.chats.list_chats(to=EVE)
    fake.fail_next(status=500, code=3001)
    refusal(lambda: client.messages.create(to=[ANN], message=text(), idempotency_key="k"))
    listed, sent = fake.requests
    assert (listed.method, listed.path, listed.query) == (
        "GET",
        "/v3/chats",
        "to=eve%40example.com",
    )
    assert (sent.method, sent.path, sent.headers["idempotency-key"]) == (
        "POST",
        "/v3/messages",
        "k",
    )
    assert json.loads(sent.body)["to"] == [ANN]
    assert fake.token not in repr(fake.requests)
    assert "authorization" not in sent.headers


def test_waiting_for_requests_has_an_end(fake: FakeLinq, client: Client) -> None:
    """Those that have arrived are enough at once; one that never comes is a `TimeoutError`."""
    client.phone_numbers.list()
    fake.wait_for_requests(1)
    with pytest.raises(TimeoutError, match="1 requests"):
        fake.wait_for_requests(2, timeout=0.01)


def test_a_connection_is_kept_alive(fake: FakeLinq) -> None:
    """Good answers, errors and empty answers all leave the connection usable."""
    url = httpx.URL(fake.base_url)
    head = f"Host: {url.host}\r\nAuthorization: Bearer {fake.token}\r\n"
    body = b'{"handle": "262966"}'
    requests = [
        f"GET /api/partner/v3/phone_numbers HTTP/1.1\r\n{head}\r\n".encode(),
        f"GET /api/partner/v3/chats/nope HTTP/1.1\r\n{head}\r\n".encode(),
        f"DELETE /api/partner/v3/blocked_handles HTTP/1.1\r\n{head}"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body,
        f"GET /elsewhere HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode(),
    ]
    with socket.create_connection((url.host, url.port), timeout=5.0) as connection:
        connection.sendall(b"".join(requests))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200", b"404", b"204", b"404"]
    assert len(set(re.findall(rb"X-Trace-ID: (\w+)", received))) == 4


def test_a_request_that_never_arrives_whole_is_nothing(fake: FakeLinq, client: Client) -> None:
    """A client that dies in the middle of its body sends no message."""
    url = httpx.URL(fake.base_url)
    with socket.create_connection((url.host, url.port), timeout=5.0) as connection:
        connection.sendall(
            f"POST /api/partner/v3/messages HTTP/1.1\r\nHost: {url.host}\r\n"
            f"Authorization: Bearer {fake.token}\r\nContent-Length: 999\r\n\r\n".encode()
            + b"{}"
        )
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536) == b""
    assert (fake.requests, fake.sent) == ([], [])
    assert client.phone_numbers.list()


def test_nothing_is_written_about_what_it_serves(
    fake: FakeLinq, client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither answers nor errors, broken connections nor unknown methods are logged."""
    client.messages.create(to=[ANN], message=text())
    refusal(lambda: client.chats.retrieve("nope"))
    fake.cut_next()
    with pytest.raises(linq.APIConnectionError):
        client.phone_numbers.list()
    httpx.request("BREW", f"{fake.base_url}/v3/chats")
    url = httpx.URL(fake.base_url)
    with socket.create_connection((url.host, url.port), timeout=5.0) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(b"GET ")  # and a reset instead of the rest
    fake.close()
    assert capfd.readouterr() == ("", "")


def test_a_mistake_within_the_fake_is_shown(
    fake: FakeLinq, client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it can't turn into JSON breaks the connection and is told on stderr."""
    fake.raw_lines([{"id": object()}])
    with pytest.raises(linq.APIConnectionError):
        client.phone_numbers.list()
    fake.close()
    assert "TypeError" in capfd.readouterr().err


# Life


def test_an_outage_leaves_address_and_state(fake: FakeLinq, client: Client) -> None:
    """While closed the connection is refused; started again it goes on where it was."""
    chat = client.chats.create(from_=A, to=[ANN], message=text()).chat.id
    url = fake.base_url
    fake.close()
    with pytest.raises(linq.APIConnectionError):
        client.phone_numbers.list()
    fake.start()
    assert fake.base_url == url
    assert client.chats.retrieve(chat).id == chat
    assert len(fake.sent) == 1


def test_closing_does_not_wait_for_idle_connections(fake: FakeLinq, client: Client) -> None:
    """A client that keeps its connection open holds up nobody; closing again is nothing."""
    client.phone_numbers.list()
    fake.close()
    fake.close()
    assert [each.name for each in threading.enumerate() if each.name.startswith("fakelinq")] == []


def test_there_is_no_address_before_the_start() -> None:
    """Asking is a RuntimeError, and so is starting twice."""
    fake = FakeLinq()
    with pytest.raises(RuntimeError, match="address"):
        _ = fake.base_url
    with fake, pytest.raises(RuntimeError, match="already"):
        fake.start()


def test_tokens_differ_unless_given() -> None:
    """Two fakes don't take one another's token."""
    assert FakeLinq().token != FakeLinq().token
    assert FakeLinq(token="mine").token == "mine"  # the point of it


def test_the_hosts_clock_serves_if_none_is_given() -> None:
    """Moments are epoch seconds of now."""
    with FakeLinq(lines=1) as fake, connect(fake) as client:
        answer = client.messages.create(to=[ANN], message=text())
        assert answer.message.created_at.timestamp() > NOW - 86400 * 365
        assert abs(fake.sent[0].at - answer.message.created_at.timestamp()) < 0.001


# Concurrency


def test_threads_lose_and_double_nothing(fake: FakeLinq, client: Client) -> None:
    """Twenty threads sending two hundred messages: two hundred records with ids of their own."""

    def send(i: int) -> str:
        return client.messages.create(to=[f"+1415555{i:04d}"], message=text(str(i))).message.id

    with ThreadPoolExecutor(20) as pool:
        answered = list(pool.map(send, range(200)))
    assert len(set(answered)) == 200
    assert sorted(ids(fake)) == sorted(answered)
    assert {each.text for each in fake.sent} == {str(i) for i in range(200)}
    assert len(fake.requests) == 200


def test_threads_with_one_key_send_once(fake: FakeLinq, client: Client) -> None:
    """All twenty are answered with the same message."""

    def send(_: int) -> str:
        keyed = text(idempotency_key="k")
        return client.messages.create(to=[ANN], message=keyed).message.id

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(send, range(20))) == set(ids(fake))
    assert len(fake.sent) == 1


async def test_tasks_lose_and_double_nothing(fake: FakeLinq, aclient: AsyncClient) -> None:
    """A hundred concurrent sends of the asynchronous client: a hundred records."""

    async def send(i: int) -> str:
        answer = await aclient.messages.create(to=[f"+1415555{i:04d}"], message=text())
        return answer.message.id

    answered = await asyncio.gather(*map(send, range(100)))
    assert sorted(ids(fake)) == sorted(answered)


async def test_the_asynchronous_client_sees_the_same_faults(
    fake: FakeLinq, aclient: AsyncClient
) -> None:
    """Errors with code and wait, time-outs, broken connections."""
    fake.fail_next(status=429, code=1007, retry_after=7)
    with pytest.raises(linq.RateLimitError) as caught:
        await aclient.phone_numbers.list()
    assert (caught.value.code, caught.value.retry_after) == (1007, 7)
    fake.hang_next()
    with pytest.raises(linq.APITimeoutError):
        await aclient.phone_numbers.list(timeout=0.2)
    fake.cut_next()
    with pytest.raises(linq.APIConnectionError):
        await aclient.phone_numbers.list()
    walked = [chat.id async for chat in aclient.chats.list_chats()]
    assert walked == []


# As a process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_as_a_process_until_told_to_stop(number: signal.Signals) -> None:
    """One line of JSON says where it is; SIGINT and SIGTERM both end it with 0 and without a word."""
    command = [sys.executable, "-W", "error", "-m", "linepicker.testing.fakelinq", "--lines", "4"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        hello = json.loads(process.stdout.readline())
        with Client(base_url=hello["base_url"], api_key=hello["token"], max_retries=0) as client:
            assert len(client.phone_numbers.list().phone_numbers) == 4
            process.send_signal(number)
            rest = process.communicate(timeout=30.0)
    assert (set(hello), rest, process.returncode) == ({"base_url", "token"}, ("", ""), 0)
