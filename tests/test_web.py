"""The status page over HTTP: what it shows, who may see it, who may operate, and whatever may be sent to it."""

import asyncio
import base64
import contextlib
import html
import json
import logging
import re
import socket
import threading
import time
from importlib.resources import files

import attrs
import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from linepicker import AsyncRouter, Line, LineChanged, NoLine, Router, SourceError, StoreError
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock
from linepicker.web import StatusApp
from linepicker.web.app import STREAMS

NOW = 1_790_000_000.0
TOKEN = "a token that nobody guesses"
LINES = [f"+120255501{i:02d}" for i in range(4)]
ONE, TWO = LINES[:2]
PERSON = "+12125550123"
HERE = "http://127.0.0.1"


@pytest.fixture(params=[Router, AsyncRouter])
def door(request):
    """Either router."""
    return request.param


async def done(value):
    """What a router's verb gives, awaited where it has to be."""
    return await value if asyncio.iscoroutine(value) else value


class Broken:
    """A store that can be broken, of either kind."""

    wants_seen = True

    def __init__(self, store):
        self.store, self.broken = store, False

    def _check(self):
        if self.broken:
            raise StoreError("the store at 10.1.2.3 is gone")

    def __getattr__(self, name):
        verb = getattr(self.store, name)
        if name not in {"read", "swap", "scan"}:
            return verb
        if asyncio.iscoroutinefunction(verb):

            async def awaited(*values, **more):
                self._check()
                return await verb(*values, **more)

            return awaited

        def called(*values, **more):
            self._check()
            return verb(*values, **more)

        return called


@attrs.define
class Page:
    """A page with its router, asked within this process."""

    router: object
    app: StatusApp
    store: Broken
    clock: ManualClock

    def client(self, *, client="127.0.0.1", base=HERE, **more):
        """A browser at this address."""
        transport = httpx.ASGITransport(self.app, client=(client, 1234))
        return httpx.AsyncClient(transport=transport, base_url=base, **more)

    async def get(self, path="/", **more):
        """What is answered to a GET."""
        async with self.client() as http:
            return await http.get(path, **more)

    async def post(self, path, form=None, **more):
        """What is answered to a form."""
        async with self.client() as http:
            return await http.post(path, data=form, **more)

    async def form(self, **fields):
        """A form that would pause the second line, but for these fields."""
        page = (await self.get()).text
        proof = re.search(r'name=proof value="([^"]+)"', page)
        form = {"number": TWO, "verb": "pause", "reason": "carrier test", "token": TOKEN}
        form["proof"] = proof[1] if proof else ""
        return {name: value for name, value in {**form, **fields}.items() if value is not None}

    async def standings(self):
        """How the lines stand."""
        return [view.standing for view in await done(self.router.lines())]


def make(door, *, lines=LINES, token=TOKEN, **more):
    """A page and its router, on a store that can be broken."""
    clock, handle = ManualClock(NOW), open_store("memory://")
    store = Broken(handle.store() if door is Router else handle.astore())
    router = door([Line(each) for each in lines], store=store, clock=clock)
    return Page(router, StatusApp(router, token=token, every=0.05, **more), store, clock)


@pytest.fixture
def page(door):
    """A page with a token."""
    return make(door)


def text_of(answer):
    """A page as it reads."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


# What it shows


async def test_the_lines_are_shown_with_their_week(page):
    """Each line has a row: what it is called, how it stands and why, what it spent, and a drawing."""
    await done(page.router.reserve(PERSON, line=ONE))
    await done(page.router.report(LineChanged(TWO, reputation="CRITICAL", at=NOW)))
    await done(page.router.pause(LINES[2], reason="carrier <b>test</b> & more"))
    answer = await page.get()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    said = text_of(answer)
    assert "2 of 4 lines can take a new conversation now. 1 CRITICAL 2 open" in said
    assert f"{ONE} HEALTHY open 1 of 50 49 14:13:20 1 in 20 s 0 of 1" in said.replace(
        "now", "14:13:20"
    )
    assert f"{TWO} CRITICAL nothing goes out CRITICAL: nothing goes out until HEALTHY" in said
    assert 'Paused by the operator ("carrier <b>test</b> & more").' in said
    assert "<b>test" not in answer.text
    drawn = answer.text.split("<tbody")[1]
    assert (drawn.count("<svg>"), drawn.count("<path class=c"), drawn.count("V18z")) == (4, 1, 1)


async def test_what_changed_is_there_at_the_next_look(page):
    """A look is as old as it may be, and no older."""
    assert "1 CRITICAL" not in text_of(await page.get())
    await done(page.router.report(LineChanged(TWO, reputation="CRITICAL", at=NOW)))
    page.app._board.look_soon()
    assert "1 CRITICAL" in text_of(await page.get())


async def test_recent_decisions_are_shown_masked(page):
    """Who got which line and why, and who got none; in no form is a handle in clear."""
    assert "None yet in this process" in (await page.get()).text
    await done(page.router.reserve(PERSON))
    for number in LINES:
        await done(page.router.pause(number))
    with pytest.raises(NoLine):
        await done(page.router.reserve("ann@example.com"))
    page.app._board.look_soon()
    answer = await page.get()
    said = text_of(answer)
    assert "new +1•••••••123 +1202555010" in said
    assert (
        "no line a•••@•••.com no line may take a new conversation now; ask again in 1 min (paused 4)."
        in said
    )
    assert PERSON not in answer.text
    assert "ann@" not in answer.text


async def test_webhooks_taken_beside_it_are_told():
    """The counts of the webhook application and when the last one came."""

    class Hook:
        heard_at = NOW - 60

        @property
        def counts(self):
            return {"applied": 7}

    page = make(AsyncRouter, webhooks=Hook())
    assert "Webhooks taken here: the last one at 14:12:20, 7 applied." in text_of(await page.get())


async def test_it_works_wherever_it_is_mounted(page):
    """Below a path of another application all its links lead to itself, with and without the slash."""
    app = Starlette()
    app.mount("/ops/lines", page.app)
    outer = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=outer, base_url=HERE, follow_redirects=True) as http:
        answer = await http.get("/ops/lines")
        assert answer.url.path == "/ops/lines/"
        for link in re.findall(r'(?:href|src)="(static/[^"]+)"', answer.text):
            assert (await http.get(f"/ops/lines/{link}")).status_code == 200
        found = await http.post("/ops/lines/recipient", data={"to": PERSON})
        assert "has no line yet" in found.text
    bare = httpx.ASGITransport(page.app, client=("127.0.0.1", 1), root_path="/ops/lines")
    async with httpx.AsyncClient(transport=bare, base_url=HERE) as http:
        assert (await http.get("/ops/lines")).headers["location"] == "lines/"
        assert (await http.get("/ops/lines/")).status_code == 200


async def test_its_files_are_kept_by_their_tags(page):
    """Style, script and icon come with their types, and are not sent twice."""
    for name, kind in [
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ]:
        answer = await page.get(f"/static/{name}")
        assert answer.content == (files("linepicker.web") / "static" / name).read_bytes()
        assert answer.headers["content-type"].startswith(kind)
        again = await page.get(f"/static/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.css", "../app.py", "..%2fapp.py", ""):
        assert (await page.get(f"/static/{name}")).status_code == 404


async def test_a_page_is_compressed_for_who_takes_it(page):
    """The same page, smaller."""
    plain = await page.get(headers={"accept-encoding": "identity"})
    small = await page.get(headers={"accept-encoding": "gzip"})
    assert small.headers["content-encoding"] == "gzip"
    strip = re.compile(r"proof value=\S+|<time id=at>\S+|data-since=\S+")
    assert strip.sub("", small.text) == strip.sub("", plain.text)
    assert int(small.headers["content-length"]) < len(plain.content) / 2


async def test_a_head_is_answered(page):
    """A monitor may ask with HEAD."""
    async with page.client() as http:
        await http.get("/")
        assert (await http.head("/")).status_code == 200


# One recipient


async def test_a_recipient_is_found_masked(page):
    """Whose line they have and what a message would meet; asked for by POST, so that no log has the handle."""
    await done(page.router.reserve(PERSON, line=TWO))
    page.clock.advance(60)
    answer = await page.post("/recipient", {"to": " +1 (212) 555-0123 "})
    said = text_of(answer)
    assert answer.status_code == 200
    assert f"+1•••••••123 belongs to {TWO}, and would be written to from there now." in said
    assert f"+1•••••••123 has belonged to {TWO} since 2026-09-21 14:13:20 UTC." in said
    assert "2125550123" not in answer.text.replace("-", "")
    part = await page.post("/recipient", {"to": PERSON}, headers={"accept": "application/json"})
    assert f"has belonged to {TWO}" in part.json()["html"]


async def test_somebody_new_and_a_group_are_found_as_well(page):
    """Nothing is written by a look."""
    assert "has no line yet" in (await page.post("/recipient", {"to": "ann@example.com"})).text
    group = await page.post("/recipient", {"to": f"{PERSON}, ann@example.com"})
    assert "+1•••••••123, a•••@•••.com is new" in text_of(group)
    assert await done(page.router.assignment(PERSON)) is None


@pytest.mark.parametrize(
    "to", ["", "123", "<script>alert(1)</script>", "+1212555012x", "ä@b.de", ",", "x" * 5000]
)
async def test_what_is_no_recipient_is_said_without_it(page, to):
    """The sentence of the error, masked, and nothing else."""
    answer = await page.post("/recipient", {"to": to})
    assert answer.status_code == 400
    assert "<script>alert" not in answer.text
    assert to not in text_of(answer) or len(to) < 2


# Operating


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [("pause", "ok", "paused"), ("drain", "ok", "draining"), ("resume", "paused", "ok")],
)
async def test_who_has_the_token_may_operate(page, caplog, verb, before, after):
    """A line is paused, drained and resumed, with a reason that everybody sees, and the log says who did what."""
    if before == "paused":
        await done(page.router.pause(TWO))
    form = await page.form(verb=verb)
    with caplog.at_level(logging.INFO, "linepicker.web"):
        answer = await page.post("/operate", form)
    assert answer.status_code == 200
    assert (await page.standings())[1] == after
    assert f"{TWO} is {'resumed' if verb == 'resume' else after}: carrier test" in text_of(answer)
    assert [record.getMessage() for record in caplog.records] == [
        f"status page: {TWO} from 127.0.0.1: {'resumed' if verb == 'resume' else after} (carrier test)"
    ]
    assert TOKEN not in answer.text


@pytest.mark.parametrize(
    ("status", "fields", "headers"),
    [
        (403, {"token": ""}, {}),
        (403, {"token": None}, {}),
        (403, {"token": TOKEN[:-1]}, {}),
        (403, {"token": "ä"}, {}),
        (403, {"proof": None}, {}),
        (403, {"proof": "1790000000.00"}, {}),
        (403, {"proof": "ä.ä"}, {}),
        (403, {}, {"origin": "https://evil.example"}),
        (403, {}, {"origin": "null"}),
        (403, {}, {"sec-fetch-site": "cross-site"}),
        (403, {}, {"sec-fetch-site": "same-site"}),
        (400, {"verb": "forget"}, {}),
        (400, {"verb": None}, {}),
        (400, {"number": "+12025559999"}, {}),
        (400, {"number": "two"}, {}),
        (400, {"number": None}, {}),
        (400, {"reason": " "}, {}),
        (400, {"reason": "x" * 201}, {}),
        (400, {"reason": "one\nINFO two"}, {}),
        (415, {}, {"content-type": "text/plain"}),
    ],
)
async def test_who_may_not_or_asks_for_nonsense_changes_nothing(page, status, fields, headers):
    """A wrong token, a form that is not the page's own, another site, and what can't be done: refused with a sentence."""
    form = await page.form(**fields)
    answer = await page.post("/operate", form, headers=headers)
    assert answer.status_code == status
    assert await page.standings() == ["ok"] * 4
    assert TOKEN not in answer.text
    part = await page.post("/operate", form, headers={"accept": "application/json", **headers})
    assert part.status_code == status


async def test_a_form_does_not_last_for_ever(page, monkeypatch):
    """A day later it is too old, also for who has the token."""
    form = await page.form()
    later = time.time() + 86_500
    monkeypatch.setattr("linepicker.web.app.time.time", lambda: later)
    answer = await page.post("/operate", form)
    assert answer.status_code == 403
    assert "This form is too old" in answer.text


async def test_any_process_with_the_token_takes_the_form(page, door):
    """Behind several processes it does not matter which one showed the page."""
    form = await page.form()
    other = make(door)
    assert (await other.post("/operate", form)).status_code == 200


async def test_a_script_needs_no_form(page):
    """With the token as Bearer, which no other site can make a browser send, there is nothing to prove."""
    form = {"number": TWO, "verb": "drain", "reason": "night"}
    answer = await page.post("/operate", form, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert (await page.standings())[1] == "draining"


async def test_without_a_token_it_is_read_only(door):
    """No form is shown, and none is taken."""
    page = make(door, token=None)
    answer = await page.get()
    assert answer.status_code == 200
    assert "action=operate" not in answer.text
    assert "<button>" not in answer.text.split("<tbody")[1]
    refused = await page.post(
        "/operate", {"number": TWO, "verb": "pause", "reason": "x", "token": ""}
    )
    assert refused.status_code == 403
    assert "read only" in refused.text
    assert await page.standings() == ["ok"] * 4


# Who may see it


ELSEWHERE = [
    {"client": "192.0.2.7"},
    {"base": "http://192.0.2.1"},
    {"base": "http://rebound.example"},
    {"headers": {"host": "rebound.example"}},
    {"headers": {"x-forwarded-for": "127.0.0.1"}},
    {"headers": {"forwarded": "for=127.0.0.1"}},
    {"headers": {"via": "1.1 proxy"}},
]
PATHS = ["/", "/events", "/static/page.css", "/nowhere"]


@pytest.mark.parametrize("where", ELSEWHERE)
async def test_elsewhere_nobody_sees_it_without_the_token(where):
    """From another machine, through a proxy, or under another name: refused without a token, asked for where there is one."""
    for token, status in ((None, 403), (TOKEN, 401)):
        page = make(AsyncRouter, token=token)
        async with page.client(**where) as http:
            for path in PATHS:
                answer = await http.get(path)
                assert answer.status_code == status
                assert ONE not in answer.text
            assert (await http.post("/recipient", data={"to": PERSON})).status_code == status


def basic(token, name="ops"):
    """HTTP Basic, with the token as password."""
    return "Basic " + base64.b64encode(f"{name}:{token}".encode()).decode()


@pytest.mark.parametrize("where", ELSEWHERE[:2])
@pytest.mark.parametrize("given", [basic(TOKEN), f"Bearer {TOKEN}", f"bearer {TOKEN}"])
async def test_elsewhere_the_token_shows_it(where, given):
    """With HTTP Basic or Bearer the page is read, and its form does not ask for the token again."""
    page = make(AsyncRouter)
    async with page.client(**where, headers={"authorization": given}) as http:
        answer = await http.get("/")
        assert ONE in answer.text
        assert "id=token" not in answer.text
        proof = re.search(r'name=proof value="([^"]+)"', answer.text)[1]
        form = {"number": TWO, "verb": "pause", "reason": "x", "proof": proof}
        assert (await http.post("/operate", data=form)).status_code == 200


@pytest.mark.parametrize(
    "given",
    ["", "Basic", "Basic !!!", basic("wrong"), basic(""), basic(TOKEN).replace("Basic", "Digest"),
     "Basic " + base64.b64encode(b"\xff\xfe").decode(), "Bearer", "Bearer wrong", "x" * 9000],
)  # fmt: skip
async def test_what_is_not_the_token_is_not(given):
    """However it is written."""
    page = make(AsyncRouter)
    async with page.client(client="192.0.2.7", headers={"authorization": given}) as http:
        answer = await http.get("/")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")


async def test_cookies_and_basic_are_not_enough_for_another_site(page):
    """A browser that knows the token sends it along for a form of another site: that is refused all the same."""
    form = await page.form()
    headers = {"authorization": basic(TOKEN), "origin": "https://evil.example"}
    assert (await page.post("/operate", form, headers=headers)).status_code == 403
    del form["proof"]
    assert (
        await page.post("/operate", form, headers={"authorization": basic(TOKEN)})
    ).status_code == 403
    assert await page.standings() == ["ok"] * 4


@pytest.mark.parametrize(
    "wrong",
    [{"token": "short"}, {"token": ""}, {"token": "x" * 15}, {"token": "ä" * 16}, {"token": "x" * 16 + "\n"},
     {"every": 0.0}, {"every": float("nan")}, {"every": float("inf")}],
)  # fmt: skip
def test_what_it_is_made_with_is_checked(wrong):
    """A token that could be guessed, and looks without a pause, are ValueErrors that do not show the token."""
    with pytest.raises(ValueError, match="token must|every must"):
        StatusApp(Router([Line(ONE)]), **wrong)


# What every answer says


async def answers(page):
    """One of each kind."""
    yield await page.get()
    yield await page.get("/nowhere")
    yield await page.get("/static/page.js")
    yield await page.get("/static/nothing")
    yield await page.post("/")
    yield await page.post("/recipient", {"to": PERSON})
    yield await page.post("/recipient", {"to": PERSON}, headers={"accept": "application/json"})
    yield await page.post("/recipient", {"to": PERSON}, headers={"sec-fetch-site": "cross-site"})
    yield await page.post(
        "/recipient",
        content=b"x" * 20_000,
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    yield await page.post("/operate", await page.form())
    async with page.client(client="192.0.2.7") as http:
        yield await http.get("/")


async def test_every_answer_tells_the_browser_to_be_careful(page):
    """The same policy without exceptions, no cookie, nothing to be kept but the files."""
    async for answer in answers(page):
        headers = answer.headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert not re.search(r"unsafe|nonce|data:|\*|http", policy)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "set-cookie" not in headers
        assert headers["cache-control"] == ("no-cache" if "etag" in headers else "no-store")


async def test_the_page_needs_no_exception_from_its_policy(page):
    """No style and no script within the markup, and nothing from elsewhere."""
    await done(page.router.reserve(PERSON))
    text = (await page.get()).text
    assert not re.search(
        r"<style|\bstyle=|\bon\w+=|javascript:|<script(?! src=\"static/page.js\" defer></script>)",
        text,
    )
    assert not re.findall(r'(?:src|href|action)="?(?:https?:)?//', text)


# What may be sent to it


@settings(max_examples=60)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "X"]),
    st.sampled_from(
        ["/", "/events", "/recipient", "/operate", "/static/page.css", "/static/", "/a/b"]
    ),
    st.text(st.characters(codec="latin-1"), max_size=60),
    st.binary(max_size=200),
)
def test_no_request_makes_it_fail(method, path, query, body):
    """Whatever method, query and body: an answer that was meant, without a trace, and nothing changed."""

    async def ask():
        page = make(AsyncRouter)
        if path == "/events" and method in {"GET", "HEAD"}:
            page.app.close()  # a stream that ends at once
        kind = {"content-type": "application/x-www-form-urlencoded"}
        async with page.client() as http:
            answer = await http.request(
                method, path, params={"since": query, "q": query}, content=body, headers=kind
            )
        assert answer.status_code in {200, 400, 403, 404, 405, 503}
        assert "Traceback" not in answer.text
        assert await page.standings() == ["ok"] * 4

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (413, b"to=" + b"x" * 17_000),
        (400, b"&".join(b"a=1" for _ in range(40))),
        (400, b"to=\xff"),
        (400, b"to=%ff"),
    ],
)
async def test_a_form_is_small_and_readable(page, status, body):
    """What is too large, has too many fields or is not text is refused."""
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = await page.post("/recipient", content=body, headers=kind)
    assert answer.status_code == status


async def test_a_mistake_shows_no_trace(page, caplog, monkeypatch):
    """A fault of our own is a sentence for the reader, and a place for the log: what the error holds may be a handle."""

    async def broken(to):
        raise RuntimeError(f"{to} and {TOKEN}")

    monkeypatch.setattr(page.app._door, "preview", broken)
    answer = await page.post("/recipient", {"to": PERSON})
    assert answer.status_code == 500
    for text in (answer.text, caplog.text):
        assert PERSON not in text
        assert TOKEN not in text
        assert "Traceback" not in text
    assert "RuntimeError in test_web.py" in caplog.text


async def test_what_is_no_http_is_turned_away(page):
    """A websocket is closed; the lifespan of a server that runs it alone is answered."""
    sent = []

    async def send(message):
        sent.append(message["type"])

    async def receive():
        return {"type": "lifespan"}

    await page.app({"type": "websocket"}, receive, send)
    await page.app({"type": "lifespan"}, receive, send)
    assert sent == ["websocket.close", "lifespan.startup.complete", "lifespan.shutdown.complete"]


# A store that dies, a list that never comes


async def test_a_store_that_dies_leaves_the_last_figures(page, caplog):
    """What was seen stays, with the time it is of; the reason is the log's, once; it goes when the store is back."""
    assert "can't be read" not in (await page.get()).text
    page.store.broken = True
    page.clock.advance(60)
    for _ in range(3):
        page.app._board.look_soon()
        answer = await page.get()
        said = text_of(answer)
        assert answer.status_code == 200
        assert (
            "The store can't be read: the log says why. What is shown is of 14:13:20 UTC." in said
        )
        assert ONE in said
        assert "10.1.2.3" not in said
    assert caplog.text.count("10.1.2.3") == 1
    found = await page.post("/recipient", {"to": PERSON})
    assert found.status_code == 503
    form = await page.form()
    assert (await page.post("/operate", form)).status_code == 503
    page.store.broken = False
    page.app._board.look_soon()
    assert "can't be read" not in text_of(await page.get())


@pytest.mark.parametrize("door", [Router, AsyncRouter])
async def test_a_list_that_never_came_is_told(door):
    """There is nothing to show, and the page says so with a status that a monitor understands."""

    class Sync:
        def fetch(self):
            raise SourceError("401 for token abc", fatal=True)

    class Async:
        async def fetch(self):
            raise SourceError("401 for token abc", fatal=True)

    router = door(Sync() if door is Router else Async())
    app = StatusApp(router)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as http:
        answer = await http.get("/")
    assert answer.status_code == 503
    assert "The list of lines can't be read: the log says why." in text_of(answer)
    assert "abc" not in answer.text


# Over sockets: the stream, and readers who are slow


@attrs.define
class Served:
    """A page under uvicorn in a thread."""

    page: Page
    port: int

    @contextlib.contextmanager
    def stream(self, since="", **headers):
        """The events, as they come."""
        with (
            httpx.Client(timeout=20) as http,
            http.stream(
                "GET", f"{HERE}:{self.port}/events", params={"since": since}, headers=headers
            ) as answer,
        ):
            yield events(answer)

    def get(self, path="/"):
        """What is answered to a GET."""
        return httpx.get(f"{HERE}:{self.port}{path}", timeout=20)

    def connect(self, request=b""):
        """A connection on which these bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(request)
        return connection


def events(answer):
    """(id, data) of each event of a stream."""
    name = None
    for line in answer.iter_lines():
        if line.startswith("id: "):
            name = line[4:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


@contextlib.contextmanager
def serving(page):
    """The page on a port of its own, until the end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            page.app, http="h11", log_config=None, access_log=False, lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Served(page, listening.getsockname()[1])
        finally:
            page.app.close()
            server.should_exit = True
            thread.join()


def until(stream, fits):
    """The first event of a stream that fits."""
    return next(each for each in stream if fits(each[1]))


def test_a_stream_begins_with_what_the_page_lacks():
    """All of it where the page is of another process, and nothing but the time where it is of this one."""
    with serving(make(Router)) as served:
        since = re.search(r'data-since="([^"]+)"', served.get().text)[1]
        with served.stream() as stream:
            _, news = next(stream)
            assert news["lines"].count("<tr>") == len(LINES)
            assert {"summary", "fresh", "outlook", "choices", "trouble"} == news["parts"].keys()
        with served.stream(since) as stream:
            _, news = next(stream)
            assert (news["lines"], news["rows"]) == (None, {})
        for hostile in ("-", "x-1", f"{since}9999999999999", "<script>", "\x00"):
            with served.stream(hostile) as stream:
                assert next(stream)[1]["at"]


def test_a_stream_tells_what_changes_and_no_more():
    """A line turns CRITICAL: its row and the summary come, the other rows do not; after a break it goes on from there."""
    page = make(Router)
    with serving(page) as served:
        with served.stream() as stream:
            next(stream)
            page.router.report(LineChanged(TWO, reputation="CRITICAL", at=NOW))
            name, news = until(stream, lambda news: news["rows"])
            assert news["rows"].keys() == {TWO}
            assert "CRITICAL" in news["rows"][TWO]
            assert "1</b> CRITICAL" in news["parts"]["summary"]
        page.router.pause(ONE, reason="<img src=x>")
        with served.stream(**{"last-event-id": name}) as stream:
            _, news = until(stream, lambda news: news["rows"])
            assert news["rows"].keys() == {ONE}
            assert "<img" not in news["rows"][ONE]


def test_a_store_that_dies_while_streaming_is_told_in_the_stream():
    """Readers are told, the router beside says what it always says, and both go on when the store is back."""
    page = make(Router)
    with serving(page) as served, served.stream() as stream:
        next(stream)
        page.store.broken = True
        _, news = until(stream, lambda news: news["parts"].get("trouble"))
        assert "The store can&#39;t be read: the log says why." in news["parts"]["trouble"]
        assert "10.1.2.3" not in json.dumps(news)
        with pytest.raises(StoreError, match=r"10\.1\.2\.3"):
            page.router.reserve(PERSON)
        page.store.broken = False
        _, news = until(stream, lambda news: news["parts"].get("trouble") == "")
        assert page.router.reserve(PERSON).number in LINES


def test_there_are_not_more_streams_than_allowed():
    """One too many is told to come back; and when others end, it may."""
    with serving(make(Router)) as served:
        head = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        open_ones = [served.connect(head) for _ in range(STREAMS)]
        for each in open_ones:
            assert each.recv(12) == b"HTTP/1.1 200"
        refused = served.get("/events")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        for each in open_ones:
            each.close()
        for _ in range(200):
            with served.connect(head) as again:
                if again.recv(12) == b"HTTP/1.1 200":
                    break
            time.sleep(0.05)
        else:
            raise AssertionError("the streams that ended still count")


def test_slow_readers_hold_up_nobody():
    """Readers who never read, and clients who never finish asking: others are answered, and the router goes on."""
    page = make(Router, lines=[f"+1202555{i:04d}" for i in range(200)])
    with serving(page) as served, contextlib.ExitStack() as house:
        for _ in range(10):
            house.enter_context(served.connect(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
            house.enter_context(served.connect(b"GET / HTTP/1.1\r\nHost: 127.0"))
            house.enter_context(
                served.connect(
                    b"POST /recipient HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n"
                    b"Content-Type: application/x-www-form-urlencoded\r\n\r\nto="
                )
            )
        for n in range(50):
            page.router.reserve(f"+1212555{n:04d}")
            page.clock.advance(1)
        assert served.get().status_code == 200
        with served.stream() as stream:
            assert next(stream)[1]["lines"]


def test_huge_headers_are_refused():
    """A megabyte of header is a 4xx or a closed connection, and the next request is answered."""
    with serving(make(Router)) as served:
        with contextlib.suppress(ConnectionError), served.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 1_000_000)
            answer = connection.recv(12)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        for name in ("authorization", "last-event-id", "cookie", "origin"):
            with served.connect(
                f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{name}: {'y' * 9000}\r\n\r\n".encode()
            ) as connection:
                assert connection.recv(12) in {b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 403"}
        assert served.get().status_code == 200


def test_it_ends_with_pages_open():
    """A server that closes the page does not wait for its readers: their streams end, and a new one is not begun."""
    page = make(Router)
    with serving(page) as served, served.stream() as stream:
        next(stream)
        page.app.close()
        assert all(news["at"] for _, news in stream)
        assert served.get("/events").status_code == 503
