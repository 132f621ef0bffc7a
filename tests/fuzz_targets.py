"""What `fuzz.py` drives, and what it begins with: everything that reads what somebody else wrote.

A target takes bytes. It raises if anything came of them that is not documented, or if what was refused changed a state.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import tempfile
import tomllib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from fuzz_webhooks import EVENTS, LINE, NOW, PERSON, SECRET, headers_of

from linepicker import InvalidRecipient, Line, Policy, PolicyError, Router, SourceError, StoreError
from linepicker._contact import Contact, Seldom
from linepicker._observations import Observations
from linepicker._record import Spending, Standing
from linepicker._small import (
    Block,
    FleetRecord,
    Link,
    Ticket,
    decode_block,
    decode_fleet,
    decode_link,
    decode_ticket,
    encode_small,
)
from linepicker._tally import Tally
from linepicker.cli import main
from linepicker.model import Report
from linepicker.providers.linq.lines import parse_lines
from linepicker.recipients import parse as parse_recipient
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock
from linepicker.web import StatusApp
from linepicker.webhooks import InvalidWebhook, WebhookApp, parse, verify

_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
TOKEN = "4f0c-b41e-9d27-a6f3"


def _say(error: Exception) -> None:
    """A refusal says why."""
    if not str(error):
        raise AssertionError("it does not say why")


# Texts


def policy(data: bytes) -> None:
    """A policy's file: PolicyError, or a policy that says the same when it is written and read again."""
    with tempfile.NamedTemporaryFile(dir=_MEMORY, suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            read = Policy.from_toml(file.name)
        except PolicyError as error:
            _say(error)
            return
    assert Policy.from_dict(tomllib.loads(read.to_toml())) == read


def recipient(data: bytes) -> None:
    """A handle: InvalidRecipient, which does not tell it, or one that is itself when it is read again."""
    text = data.decode(errors="replace")
    try:
        read = parse_recipient(text)
    except InvalidRecipient as error:
        _say(error)
        if len(text) > 8 and text in str(error):
            raise AssertionError("the handle is told") from None
        return
    assert parse_recipient(read.to) == read


def lines(data: bytes) -> None:
    """Linq's list of lines: SourceError, or lines with a number of their own each."""
    told: list[str] = []
    try:
        read = parse_lines(data, told.append)
    except SourceError as error:
        _say(error)
        return
    assert len({line.number for line in read}) == len(read)
    assert all(isinstance(each, str) and len(each) < 1000 for each in told)


# Records


CODECS: Sequence[tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = (
    (Standing.decode, Standing.encode),
    (Spending.decode, Spending.encode),
    (Tally.decode, Tally.encode),
    (Contact.decode, Contact.encode),
    (decode_block, encode_small),
    (decode_fleet, encode_small),
    (decode_link, encode_small),
    (decode_ticket, encode_small),
)


def record(data: bytes) -> None:
    """The bytes of a record, behind one that says of which kind: StoreError, or a record that can be written and read again."""
    if not data:
        return
    decode, encode = CODECS[data[0] % len(CODECS)]
    try:
        read = decode(data[1:])
    except StoreError as error:
        _say(error)
        return
    written = encode(read)
    assert encode(decode(written)) == written


def _records() -> list[bytes]:
    """One of each kind."""
    seen = Observations({"HEALTHY": (1e9,)}, {"FLAGGED": ((1e9, 1e9 + 1),)})
    written = (
        Standing(first_seen=1e9, reputation=seen, operator="paused", reason="x").encode(),
        Spending().encode(),
        Tally().encode(),
        Contact(
            LINE,
            1e9,
            times=array("d", [1e9]),
            ids=array("I", [7]),
            seldom=Seldom(chats={LINE: "c1"}),
        ).encode(),
        encode_small(Block()),
        encode_small(FleetRecord((1e9,))),
        encode_small(Link("p", PERSON, LINE, 1e9)),
        encode_small(Ticket("0" * 24, PERSON, LINE, "new", 1e9, 1e9)),
    )
    return [bytes([n]) + raw for n, raw in enumerate(written)]


# Webhooks


class _Hook:
    """An endpoint and its store, made once."""

    def __init__(self) -> None:
        self.store = open_store("memory://")
        self.router = Router([Line(LINE)], store=self.store, clock=ManualClock(float(NOW)))
        self.router.reserve(PERSON)
        self.app = WebhookApp(self.router, SECRET, clock=ManualClock(float(NOW)))

    def records(self) -> Mapping[str, Any]:
        """All that is on record."""
        return dict(self.store.store().scan(""))


def webhook(data: bytes) -> None:
    """A body with the right signature: InvalidWebhook, a report, or nothing, and a router takes every report."""
    hook = _made(_Hook)
    try:
        event = verify(data, headers_of(data), SECRET, now=float(NOW))
    except InvalidWebhook as error:
        _say(error)
        return
    report = parse(event)
    assert report is None or isinstance(report, Report)
    if report is not None:
        hook.router.report(report)


def endpoint(data: bytes) -> None:
    """A request to the endpoint, head and body, that nobody signed: refused with a status, and nothing is changed."""
    hook = _made(_Hook)
    before = hook.records()
    status, _ = asyncio.run(_ask(hook.app, data))
    assert status in {204, 400, 401, 405, 413, 415}, status
    if status != 204:
        assert hook.records() == before


# The page


class _Page:
    """A page that may be operated, and its router's records."""

    def __init__(self) -> None:
        self.store = open_store("memory://")
        self.router = Router([Line(LINE)], store=self.store, clock=ManualClock(float(NOW)))
        self.router.reserve(PERSON)
        self.app = StatusApp(self.router, token=TOKEN)

    def records(self) -> Mapping[str, Any]:
        """How the lines stand."""
        return dict(self.store.store().scan("line/"))


def page(data: bytes) -> None:
    """A request to the page without its token: an answer that tells neither handle nor token nor trace, and no line changes."""
    shown = _made(_Page)
    before = shown.records()
    status, body = asyncio.run(_ask(shown.app, data))
    assert status in {200, 303, 304, 307, 400, 401, 403, 404, 405, 413, 415, 421, 431, 503}, status
    assert PERSON.encode() not in body
    assert TOKEN.encode() not in body
    assert b"Traceback" not in body
    assert shown.records() == before


def _scope(data: bytes) -> tuple[dict[str, Any], bytes]:
    """A request line, header lines, and after an empty line the body; as a server would hand it on."""
    head, _, body = data.partition(b"\n\n")
    first, *rest = head.split(b"\n")
    method, _, target = first.partition(b" ")
    path, _, query = target.partition(b"?")
    headers = [(b"host", b"127.0.0.1")]
    for row in rest[:50]:
        name, colon, value = row.partition(b":")
        if colon:
            headers.append((name.strip().lower(), value.strip()))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.decode("latin-1").upper() or "GET",
        "scheme": "http",
        "path": "/" + path.decode(errors="replace").lstrip("/"),
        "raw_path": b"/" + path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", 80),
    }, body


async def _ask(app: Any, data: bytes) -> tuple[int, bytes]:
    scope, body = _scope(data)
    told, found = [{"type": "http.request", "body": body, "more_body": False}], []

    async def receive() -> Any:
        return told.pop() if told else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        found.append(message)

    await asyncio.wait_for(app(scope, receive, send), 20)
    begun = [each for each in found if each["type"] == "http.response.start"]
    assert len(begun) == 1, "one answer"
    return begun[0]["status"], b"".join(each.get("body", b"") for each in found)


# The command line


_COMMANDS = "lines pick why import assignments pause drain resume config plan capacity replay export copy migrate doctor"
COMMANDS = _COMMANDS.split()


def arguments(data: bytes) -> None:
    """A byte for a command, and its arguments, one a row: a documented status, and never a trace."""
    command = COMMANDS[data[0] % len(COMMANDS)] if data else "lines"
    given = data[1:].decode(errors="replace").replace("/", "_").split("\n")[:8]
    said, here = io.StringIO(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                status = main([command, *given])
        finally:
            os.chdir(here)
    assert status in {0, 1, 2, 3, 4}, status
    assert "Traceback" not in said.getvalue()


# All of them


@attrs.frozen
class Target:
    """What takes bytes, bytes to begin with, and words that mean something in them."""

    take: Callable[[bytes], None]
    seeds: Sequence[bytes]
    words: Iterable[str] = ()


def _requests(*firsts: str) -> list[bytes]:
    return [f"{first}\ncontent-type: application/json\n\n{{}}".encode() for first in firsts]


def _events() -> list[bytes]:
    return [
        json.dumps({"event_type": kind, "event_id": "e1", "created_at": "x", "data": data}).encode()
        for kind, data in EVENTS
    ]


_OTHER_TOML = (
    b'[line."+12025550100".limits]\nnew_per_day = 3\n[tag."x".limits]\nnew_per_hour = "off"\n'
)


def _sections() -> list[bytes]:
    """The default policy, a section each: more than a few thousand bytes are cut."""
    return [each.encode() for each in Policy().to_toml().split("\n\n")]


def _words(*texts: bytes) -> set[str]:
    return {word for text in texts for word in re.findall(r"[A-Za-z_]{3,40}", text.decode())}


TARGETS: Mapping[str, Target] = {
    "policy": Target(policy, [_OTHER_TOML, *_sections()], _words(_OTHER_TOML, *_sections())),
    "recipient": Target(recipient, [b"+1 (212) 555-0123", b"A.B@Example.com", b"tel:+1212"]),
    "lines": Target(
        lines,
        [
            b'{"phone_numbers":[{"phone_number":"+12025550100","reputation":{"status":"AT_RISK"}}]}',
            b'{"phone_numbers":[{"phone_number":"+12025550100","health_status":"CRITICAL","x":[1]}]}',
            b"<html>",
        ],
        [
            "phone_numbers",
            "phone_number",
            "reputation",
            "health_status",
            "status",
            "HEALTHY",
            "doc_url",
        ],
    ),
    "record": Target(record, _records()),
    "webhook": Target(webhook, _events(), _words(*_events())),
    "endpoint": Target(endpoint, _requests("POST /", "GET /?a=b", "PUT /%00")),
    "page": Target(
        page,
        [
            *_requests("GET /", "GET /events?since=3", "POST /recipient", "GET /static/page.css"),
            b"POST /operate\ncontent-type: application/x-www-form-urlencoded\n\nverb=pause&number=%2B12025550100&token=x",
            b"POST /recipient\ncontent-type: application/x-www-form-urlencoded\n\nto=%2B12125550123",
        ],
    ),
    "arguments": Target(
        arguments,
        [
            *(bytes([n]) + b"--json" for n in range(len(COMMANDS))),
            *(b"\x02+12125550123\n--json", b"\x01+1212\n--store\nsqlite:", b"\x00--config\nx.toml"),
        ],
        [
            "--config",
            "--store",
            "--pool",
            "--json",
            "--limit",
            "--reason",
            "--policy",
            "--audit",
            "memory:",
        ],
    ),
}

_KEPT: dict[type, Any] = {}


def _made(kind: type) -> Any:
    """One of its kind, kept from call to call."""
    if kind not in _KEPT:
        _KEPT[kind] = kind()
    return _KEPT[kind]
