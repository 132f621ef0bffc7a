"""The status page as an ASGI application."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import math
import re
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.types import Message, Receive, Scope, Send

from linepicker.errors import InvalidRecipient, SourceError, StoreError
from linepicker.web import pages, rows
from linepicker.web.board import Board, Hook
from linepicker.web.door import AnyRouter, Door
from linepicker.web.guard import HEADERS, Guard, is_own
from linepicker.web.ring import Ring

__all__ = ["STREAMS", "StatusApp"]

STREAMS: Final = 32
"""How many pages are kept up to date at once; the others are told to come back."""
STREAM_LASTS: Final = 600.0
"""Seconds after which a stream ends; the page's script begins another one."""
SLOW: Final = 60.0
"""Seconds that a reader may take to accept what is sent, or to send a form."""
_QUIET: Final = 15.0  # seconds after which a stream without news shows that it lives
_FORM: Final = 16_384  # bytes
_FIELDS: Final = 16
_REASON: Final = 200
_SMALL: Final = 1000
_LINE: Final = re.compile(r"\+[0-9]{7,15}")
_VERBS: Final = {"pause": "paused", "drain": "draining", "resume": "resumed"}
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

_log = logging.getLogger("linepicker.web")


class StatusApp:
    """An ASGI application that shows what a router's lines do, and why: to be mounted, or to run alone.

    router: a Router, asked in worker threads, or an AsyncRouter of the loop that the application runs in. token: 16 or more
    printable ASCII characters; with it lines can be paused, drained and resumed from the page, and the page can be read from
    other machines, or through a proxy, by who gives it (HTTP Basic with the token as password, or Bearer); without it the page
    is read only, and answers on this machine's loopback alone. webhooks: the WebhookApp of this process, whose counts are
    shown. every: seconds between two looks at the lines while somebody reads; more where a look takes long.

    It answers below wherever it is mounted, and sets no cookie. Recipients are masked, and no token is ever sent back. A
    server that is to end while pages are open has to close it (`close`), or to wait no longer than it likes.

    Raises ValueError for a token that is too short, or for *every* below 0.05 seconds.
    """

    def __init__(
        self,
        router: AnyRouter,
        *,
        token: str | None = None,
        webhooks: Hook | None = None,
        every: float = 2.0,
    ) -> None:
        if not 0.05 <= every < math.inf:
            raise ValueError(f"every must be 0.05 or more seconds, got {every!r}")
        self._guard = Guard(token)
        self._door = Door(router)
        ring = Ring()
        self._door.watch(ring)
        self._board = Board(self._door, ring, webhooks, every=every, operable=self._guard.operable)
        self._static = {each.name: each for each in _read_static()}
        self._streams = 0
        self._closed = False
        self._wake: asyncio.Event | None = None

    def close(self) -> None:
        """End all streams, in the loop that the application runs in."""
        self._closed = True
        if self._wake is not None:
            self._wake.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            self.close()
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def patiently(message: Message) -> None:
            nonlocal begun
            begun = True
            async with asyncio.timeout(SLOW):
                await send(message)

        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001  nobody is shown a trace
            response = _failed(error)
        try:
            await response(scope, receive, patiently)
        except (TimeoutError, OSError, ClientDisconnect):
            return  # nobody reads it
        except Exception as error:
            if begun:
                _tell(error)
                return
            raise

    async def _answer(self, request: Request) -> Response:
        guard, path = self._guard, _path(request)
        known = guard.knows(request)
        if not known and not guard.is_local(request):
            return _unknown(asks=guard.operable)
        name = path.removeprefix("/static/")
        if name != path:
            return self._file(request, name)
        if not path:
            here = request.scope["path"].rpartition("/")[2]
            return RedirectResponse(f"{here}/", headers=HEADERS)
        routes: Mapping[str, tuple[str, Callable[[Request], Any]]] = {
            "/": ("GET", self._page),
            "/events": ("GET", self._events),
            "/recipient": ("POST", self._recipient),
            "/operate": ("POST", self._operate),
        }
        if path not in routes:
            return _message(404, "Not here", "There is no such page.")
        method, handler = routes[path]
        if request.method != method and not (request.method == "HEAD" and method == "GET"):
            return _message(
                405, "Not like this", f"This address takes {method} requests only.", Allow=method
            )
        if path != "/" and not is_own(request):
            return _message(
                403, "Not from there", "Another site asked for this; only the page itself may."
            )
        response: Response = await handler(request)
        return response

    # The page

    async def _page(self, request: Request) -> Response:
        if request.method != "HEAD":
            await self._board.look()
        return self._whole(request)

    def _whole(
        self, request: Request, *, status: int = 200, found: str = "", operated: str = ""
    ) -> Response:
        board, guard = self._board, self._guard
        text = pages.page(
            pool=self._door.pool,
            at=board.at or "no time yet",
            since=board.turn,
            parts=board.parts,
            lines=board.lines,
            proof=guard.proof(time.time()) if guard.operable else None,
            asks_token=not guard.knows(request),
            found=found,
            operated=operated,
        )
        if not board.ready and status == 200:
            status = 503
        return _html(text, status, request)

    def _file(self, request: Request, name: str) -> Response:
        found = self._static.get(name)
        if found is None:
            return _message(404, "Not here", "There is no such file.")
        headers = {**HEADERS, "etag": found.tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        return Response(found.body, media_type=found.kind, headers=headers)

    # Its events

    async def _events(self, request: Request) -> Response:
        if self._streams >= STREAMS or self._closed:
            return _message(
                503,
                "Too many",
                "Too many pages are open; this one may try again.",
                **{"Retry-After": "10"},
            )
        since = request.headers.get("last-event-id") or request.query_params.get("since", "")
        headers = {**HEADERS, "cache-control": "no-store", "x-accel-buffering": "no"}
        return _Stream(self._stream(since[:64]), media_type="text/event-stream", headers=headers)

    async def _stream(self, turn: str) -> AsyncGenerator[bytes, None]:
        board, start = self._board, time.monotonic()
        self._wake = self._wake or asyncio.Event()
        told = start
        self._streams += 1
        try:
            yield b"retry: 3000\n\n"
            await board.look()
            while not self._closed and time.monotonic() - start < STREAM_LASTS:
                update = board.since(turn)
                if update is not None:
                    turn, told = update.turn, time.monotonic()
                    text = json.dumps(update.to_json(), ensure_ascii=False, separators=(",", ":"))
                    yield f"id: {turn}\ndata: {text}\n\n".encode()
                elif time.monotonic() - told > _QUIET:
                    told = time.monotonic()
                    yield b":\n\n"
                try:
                    async with asyncio.timeout(board.every):
                        await self._wake.wait()
                except TimeoutError:
                    await board.look()
        finally:
            self._streams -= 1

    # What is asked for

    async def _recipient(self, request: Request) -> Response:
        form = await _form(request)
        if isinstance(form, Response):
            return form
        names = [each.strip() for each in form.get("to", "").split(",")]
        to: str | list[str] = names[0] if len(names) == 1 else names
        try:
            owner, made = await self._door.assignment(to), await self._door.preview(to)
        except InvalidRecipient as error:
            status, part = 400, pages.notice(f"{error}.", good=False)
        except (StoreError, SourceError) as error:
            _tell(error)
            status, part = (
                503,
                pages.notice("The router can't tell now: the log says why.", good=False),
            )
        else:
            status, part = 200, pages.found(rows.found(owner, made))
        if _wants_part(request):
            return JSONResponse({"html": part}, status, headers=_NO_STORE)
        await self._board.look()
        return self._whole(request, status=status, found=part)

    async def _operate(self, request: Request) -> Response:
        form = await _form(request)
        if isinstance(form, Response):
            return form
        status, text = await self._operated(request, form)
        part = pages.notice(text, good=status == 200)
        self._board.look_soon()
        if _wants_part(request):
            return JSONResponse({"html": part}, status, headers=_NO_STORE)
        await self._board.look()
        return self._whole(request, status=status, operated=part)

    async def _operated(self, request: Request, form: Mapping[str, str]) -> tuple[int, str]:
        """Operate as a form asks, if it may: the status to answer with, and what to say."""
        guard = self._guard
        who = request.client.host if request.client else "somebody"
        if not guard.operable:
            return 403, "This page is read only: it was started without a token."
        if not (guard.knows(request) or guard.fits(form.get("token", ""))):
            _log.warning("status page: %s gave no token, or a wrong one", who)
            return 403, "That is not the token. Nothing was changed."
        bearer = request.headers.get("authorization", "")[:7].lower() == "bearer "
        if not bearer and not guard.proves(form.get("proof", ""), time.time()):
            return (
                403,
                "This form is too old, or not this page's. Load the page again. Nothing was changed.",
            )
        verb, number, reason = (form.get(name, "").strip() for name in ("verb", "number", "reason"))
        if verb not in _VERBS:
            return 400, "What to do must be pause, drain or resume. Nothing was changed."
        if _LINE.fullmatch(number) is None:
            return (
                400,
                "The line must be one of ours, a '+' and 7 to 15 digits. Nothing was changed.",
            )
        if not reason or len(reason) > _REASON or not reason.isprintable():
            return (
                400,
                f"The reason must be 1 to {_REASON} printable characters. Nothing was changed.",
            )
        try:
            await self._door.operate(verb, number, reason)
        except ValueError:
            return 400, "That is not a line of this fleet. Nothing was changed."
        except (StoreError, SourceError) as error:
            _tell(error)
            return 503, "The router can't do that now: the log says why."
        _log.info("status page: %s from %s: %s (%s)", number, who, _VERBS[verb], reason)
        return 200, f"{number} is {_VERBS[verb]}: {reason}"


class _Stream(StreamingResponse):
    """Ends its iterator with itself, however that ends."""

    body_iterator: AsyncGenerator[bytes, None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.body_iterator):
            await super().__call__(scope, receive, send)


# Requests


def _path(request: Request) -> str:
    """The path below where the page is mounted; empty where even the slash is missing."""
    path, root = request.scope["path"], request.scope.get("root_path", "")
    below: str = path.removeprefix(root) if root and path.startswith(root) else path
    return below


def _wants_part(request: Request) -> bool:
    return request.headers.get("accept", "").startswith("application/json")


async def _form(request: Request) -> Mapping[str, str] | Response:
    """The fields of a small form, or what to answer to one that is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return _message(415, "Not a form", "This address takes forms only.")
    chunks, size = list[bytes](), 0
    try:
        async with asyncio.timeout(SLOW):
            async for chunk in request.stream():
                size += len(chunk)
                if size > _FORM:
                    return _message(
                        413, "Too much", f"A form has at most {_FORM} bytes.", Connection="close"
                    )
                chunks.append(chunk)
    except TimeoutError:
        return _message(408, "Too slow", "The form did not arrive.", Connection="close")
    try:
        fields = parse_qs(
            b"".join(chunks).decode("ascii"),
            keep_blank_values=True,
            max_num_fields=_FIELDS,
            errors="strict",
        )
    except ValueError:
        return _message(400, "Not a form", "The form can't be read.")
    return {name: values[-1] for name, values in fields.items()}


# Answers


_NO_STORE: Final = {**HEADERS, "cache-control": "no-store"}


def _html(text: str, status: int, request: Request) -> Response:
    """A whole page, compressed where the reader takes that: nothing of a request is said back where a secret is."""
    headers = {**_NO_STORE, "vary": "accept-encoding"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return HTMLResponse(text, status, headers)
    body = gzip.compress(text.encode(), compresslevel=5)
    return HTMLResponse(body, status, {**headers, "content-encoding": "gzip"})


def _message(status: int, title: str, text: str, **headers: str) -> Response:
    return HTMLResponse(pages.message(title, text), status, {**_NO_STORE, **headers})


def _unknown(*, asks: bool) -> Response:
    """What somebody gets who is neither on this machine nor has the token."""
    if not asks:
        why = "This page answers on its own machine's loopback only, since it was started without a token."
        return _message(403, "Not from there", why)
    asked = {"WWW-Authenticate": 'Basic realm="linepicker", charset="UTF-8"'}
    return _message(401, "A token is needed", "Give the token as password, with any name.", **asked)


def _failed(error: Exception) -> Response:
    _tell(error)
    return _message(500, "A mistake of linepicker's own", "The log says where.")


def _tell(error: Exception) -> None:
    """Log an error without what it may hold; the library's own hold nothing secret, and are told whole."""
    if isinstance(error, StoreError | SourceError):
        _log.warning("status page: %s", error)
        return
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    _log.error("status page: %s in %s", type(error).__name__, where)


# Files


class _File:
    """A file that the page needs."""

    def __init__(self, name: str, body: bytes) -> None:
        self.name, self.body = name, body
        self.kind = _TYPES[Path(name).suffix]
        self.tag = f'"{blake2b(body, digest_size=8).hexdigest()}"'


def _read_static() -> list[_File]:
    folder = files("linepicker.web") / "static"
    return [_File(each.name, each.read_bytes()) for each in folder.iterdir() if each.is_file()]
