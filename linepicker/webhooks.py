"""What the provider tells us by itself: its webhooks verified, read as reports, and taken over HTTP.

`verify` and `parse` are for a handler of any framework; `WebhookApp` is that handler, as an ASGI application. Needs
`linepicker[web]`.
"""

from __future__ import annotations

import base64
import hmac
import inspect
import json
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, Protocol

import attrs
from cachetools import TTLCache
from standardwebhooks import Webhook
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from linepicker.errors import LinePickerError, SourceError, StoreError
from linepicker.model import Report
from linepicker.providers.linq.events import identifier, moment, read_event
from linepicker.recipients import parse as recipient
from linepicker.stores._together import OneThread, Together

__all__ = ["MAX_BODY", "TOLERANCE", "Event", "InvalidWebhook", "WebhookApp", "parse", "verify"]

MAX_BODY: Final = 1 << 20
"""The largest body that is looked at, in bytes."""

TOLERANCE: Final = 300.0
"""How many seconds a webhook's timestamp may be from now, either way. Source: Linq, webhooks; Standard Webhooks."""

RETRY_AFTER: Final = 5.0
"""Seconds after which a webhook that could not be stored may come again. Linq retries a 5xx for up to about half an hour."""

_FLOOD: Final = 8 * MAX_BODY
_TOO_LARGE: Final = f"the body has more than {MAX_BODY} bytes"
_AT_ONCE: Final = (
    4  # of a Router's reports that a thread takes; the last one's write keeps the first one waiting
)
TOLD_EVERY: Final = 3600.0
"""Seconds within which one kind of refusal is logged once."""

_LONGEST_HEADER: Final = 4096  # some 80 signatures
_STANDARD: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
_LEGACY: Final = ("x-webhook-timestamp", "x-webhook-signature")
_PREFIX: Final = "whsec_"
# What is signed is id.timestamp.body: without a brace in it no id can reach into another webhook's body.
_ID: Final = re.compile(r"[!-z|}~]{1,255}")
# Signed as text. One spelling for a number, so that no other one verifies.
_TIMESTAMP: Final = re.compile(r"[1-9][0-9]{0,10}")

_log = logging.getLogger(__name__)


class InvalidWebhook(LinePickerError):
    """A webhook that is not to be believed, or can't be read. The message holds nothing of it.

    `.reason`: "headers" (missing, twice, too long, not text), "timestamp" (none, or more than `TOLERANCE` from now),
    "signature" (none fits), "size" (of the body), "body" (not a JSON object in UTF-8). `.status` is the HTTP status to
    answer with: 401, 413 or 400.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = {"size": 413, "body": 400}.get(reason, 401)


@attrs.frozen
class Event:
    """A webhook that was verified.

    `id` tells duplicates apart: the body's `event_id`, else the header `webhook-id`, else empty. `type` is empty where the
    body names none. `created_at`: epoch seconds UTC, the timestamp that was signed where the body has none. `version`: the
    payload's generation, "2026-02-03" or "2025-01-01", None where the body does not say.
    """

    id: str
    type: str
    data: Any = attrs.field(repr=False)
    created_at: float
    version: str | None = None


class Clock(Protocol):
    """Time for a `WebhookApp`."""

    def now(self) -> float:
        """Epoch seconds UTC."""
        ...


class Reporting(Protocol):
    """What a `WebhookApp` needs of a router: `report`, of which an AsyncRouter's is awaited."""

    @property
    def report(self) -> Callable[[Report], bool] | Callable[[Report], Awaitable[bool]]:
        """Tell what was learned."""
        ...


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Iterable[str],
    *,
    now: float | None = None,
    legacy: bool = False,
) -> Event:
    """The event in a webhook that was signed with one of the *secrets* within the last (or next) five minutes.

    *body* is the request's as it came, never JSON written again. *headers* are looked up in any case. *secrets*: one, or
    several while they are rotated, each "whsec_" and base64. *now* is the moment it is, epoch seconds UTC; None: the host's.
    The signature is that of Standard Webhooks; with *legacy* the deprecated `X-Webhook-Signature` will do as well.

    Raises InvalidWebhook, and nothing else, for whatever body and headers there are; ValueError for *secrets* that are none.
    """
    keys = _Keys.of(secrets)
    return _verify(body, headers, keys, now=time.time() if now is None else now, legacy=legacy)


def parse(event: Event) -> Report | None:
    """What an event reports: something for `Router.report`, or None.

    None is for types without a bearing on routing, for unknown ones, for events that change nothing here (a message of our
    own without chat health), and for those that do not say what their type has to. These are logged, and lost: to refuse
    one would lose it as well, and to ask for it again brings the same.

    A message to a group has the chat and nobody as its recipient, since its members are not in the payload.
    """
    try:
        return _read(event)
    except ValueError:
        _log.warning("a webhook of type %s can't be read", _shown(event.type))
        return None


class WebhookApp:
    """An ASGI application that takes webhooks and reports them to a router: to be mounted, or to run alone.

    router: a Router, called in a worker thread, or an AsyncRouter of the loop that the application runs in. secrets,
    legacy: as in `verify`; ValueError if they are none. clock: `now()` in epoch seconds UTC; None: the host's.

    It answers any path. 204: the report is written, durably, or there was nothing to write. 401, 400, 413, 405, 415: refused
    for good, as `InvalidWebhook` says, for the method, or for a content type other than JSON; nothing was changed. 503: the
    store or the provider is out, and it is to come again. Each kind of refusal is logged once an hour, no payload ever.

    `counts` tells how often each thing happened since the start: "applied", "unchanged" (a duplicate, out of date, not about
    one of our lines), "ignored" (not about routing, or unknown), "unreadable" (verified, but without what its type has to
    say), "unavailable" (503), and for what was refused the reason: "headers", "timestamp", "signature", "size", "body",
    "method", "content-type".
    """

    def __init__(
        self,
        router: Reporting,
        secrets: str | Iterable[str],
        *,
        clock: Clock | None = None,
        legacy: bool = False,
    ) -> None:
        self._report = _awaited(router)
        self._keys = _Keys.of(secrets)
        self._now = time.time if clock is None else clock.now
        self._legacy = legacy
        self._counts = Counter[str]()
        self._told: TTLCache[str, None] = TTLCache(maxsize=64, ttl=TOLD_EVERY)
        self._heard_at: float | None = None

    @property
    def heard_at(self) -> float | None:
        """When the last verified webhook came, epoch seconds UTC; None: none since the start."""
        return self._heard_at

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each thing happened, as they are now."""
        return dict(self._counts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] == "http":
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)
        elif scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            return self._refuse("method", 405, "webhooks are POST requests", Allow="POST")
        try:
            body, flood = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody is there to read
        if body is None:
            headers = {"Connection": "close"} if flood else {}
            return self._refuse("size", 413, _TOO_LARGE, **headers)
        try:
            event = _verify(body, request.headers, self._keys, now=self._now(), legacy=self._legacy)
        except InvalidWebhook as error:
            return self._refuse(error.reason, error.status, str(error))
        if not _is_json(request.headers.get("content-type")):
            return self._refuse("content-type", 415, "the content type must be application/json")
        return await self._take(event)

    async def _take(self, event: Event) -> Response:
        self._heard_at = self._now()
        try:
            report = _read(event)
        except ValueError:
            self._tell("unreadable", f"of type {_shown(event.type)}, without what that has to say")
            return self._done("unreadable")
        if report is None:
            return self._done("ignored")
        try:
            news = await self._report(report)
        except (StoreError, SourceError) as error:
            wait = error.retry_after if isinstance(error, SourceError) else None
            after = math.ceil(min(max(wait or RETRY_AFTER, 1.0), 60.0))
            return self._refuse("unavailable", 503, str(error), **{"Retry-After": str(after)})
        self._told.pop("unavailable", None)
        return self._done("applied" if news else "unchanged")

    def _done(self, what: str) -> Response:
        self._counts[what] += 1
        return Response(status_code=204)

    def _refuse(self, reason: str, status: int, why: str, **headers: str) -> Response:
        self._counts[reason] += 1
        self._tell(reason, why)
        text = "try again later" if status == 503 else why
        return PlainTextResponse(text, status_code=status, headers=headers)

    def _tell(self, what: str, why: str) -> None:
        if what not in self._told:
            self._told[what] = None
            _log.warning(
                "webhook: %s: %s (for an hour, more of these are counted, not logged)", what, why
            )


# Verifying


@attrs.frozen(repr=False)
class _Keys:
    """What webhooks may be signed with."""

    standard: tuple[Webhook, ...]
    legacy: tuple[bytes, ...]

    @classmethod
    def of(cls, secrets: str | Iterable[str]) -> _Keys:
        """Raises ValueError, which shows no secret."""
        given = [secrets] if isinstance(secrets, str) else list(secrets)
        if not given:
            raise ValueError("secrets must hold at least one webhook secret")
        standard, legacy = list[Webhook](), list[bytes]()
        for secret in given:
            if not isinstance(secret, str):
                raise ValueError(f"a webhook secret must be a str, got {type(secret).__name__}")
            whole = secret.strip()
            text = whole.removeprefix(_PREFIX)
            try:
                key = base64.b64decode(text, validate=True)
            except ValueError:
                key = b""
            if not key:
                raise ValueError("a webhook secret must be 'whsec_' and the base64 of its key")
            standard.append(Webhook(key))
            # Linq does not say which of these it signs the deprecated header with.
            legacy += [whole.encode(), text.encode(), key]
        return cls(tuple(standard), tuple(legacy))


def _verify(
    body: bytes, headers: Mapping[str, str], keys: _Keys, *, now: float, legacy: bool
) -> Event:
    if not isinstance(body, bytes):
        raise InvalidWebhook("the body must be bytes, as they came", reason="body")
    if len(body) > MAX_BODY:
        raise InvalidWebhook(_TOO_LARGE, reason="size")
    found = _found(headers)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise InvalidWebhook("the body is not UTF-8", reason="body") from None
    try:
        name, at = _check_standard(text, found, keys.standard, now)
    except InvalidWebhook:
        if not legacy or _LEGACY[1] not in found:
            raise
        name, at = "", _check_legacy(body, found, keys.legacy, now)
    return _event(text, name, at)


def _found(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of the headers that sign, by their names in lower case."""
    found = dict[str, str]()
    for given, value in headers.items():
        name = _header(given).lower()
        if name not in _STANDARD and name not in _LEGACY:
            continue
        text = _header(value)
        if not text.isascii() or len(text) > _LONGEST_HEADER:
            raise InvalidWebhook(f"{name} is too long, or not ASCII", reason="headers")
        if found.setdefault(name, text) != text:
            raise InvalidWebhook(f"{name} comes twice", reason="headers")
    return found


def _header(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _check_standard(
    text: str, found: Mapping[str, str], signers: Iterable[Webhook], now: float
) -> tuple[str, float]:
    """The id and the moment that were signed. The package's own `verify` reads the clock, takes other spellings of a
    timestamp, and lets more than its own error out of malformed headers: only its signature is used."""
    name, stamp, signatures = (found.get(header, "") for header in _STANDARD)
    if not (name and stamp and signatures):
        raise InvalidWebhook(f"one of {', '.join(_STANDARD)} is missing", reason="headers")
    if not _ID.fullmatch(name):
        raise InvalidWebhook("webhook-id is not an id", reason="headers")
    at = _timely(stamp, now)
    tokens = signatures.split(" ")
    for signer in signers:
        expected = signer.sign(name, datetime.fromtimestamp(at, UTC), text)
        if any(hmac.compare_digest(expected, token) for token in tokens):
            return name, at
    raise InvalidWebhook("no signature fits", reason="signature")


def _check_legacy(
    body: bytes, found: Mapping[str, str], keys: Iterable[bytes], now: float
) -> float:
    stamp, signature = (found.get(header, "") for header in _LEGACY)
    at = _timely(stamp, now)
    for key in keys:
        expected = hmac.digest(key, b"%s.%s" % (stamp.encode(), body), "sha256").hex()
        if hmac.compare_digest(expected, signature.lower()):
            return at
    raise InvalidWebhook("no signature fits", reason="signature")


def _timely(stamp: str, now: float) -> float:
    if not _TIMESTAMP.fullmatch(stamp):
        raise InvalidWebhook("the timestamp is not whole seconds", reason="timestamp")
    at = float(stamp)
    if not abs(now - at) <= TOLERANCE:  # also where now is no number
        raise InvalidWebhook("the timestamp is more than five minutes from now", reason="timestamp")
    return at


# Reading


def _event(text: str, name: str, at: float) -> Event:
    try:
        said = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidWebhook("the body is not JSON", reason="body") from None
    if not isinstance(said, dict):
        raise InvalidWebhook("the body is not a JSON object", reason="body")
    kind, version, created = (
        said.get("event_type"),
        said.get("webhook_version"),
        said.get("created_at"),
    )
    created_at = moment(created)
    return Event(
        id=identifier(said.get("event_id")) or name,
        type=kind if isinstance(kind, str) else "",
        data=said.get("data"),
        created_at=at if created_at is None else created_at,
        version=version if isinstance(version, str) else None,
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _read(event: Event) -> Report | None:
    """Raises ValueError, whose message may hold parts of the event; also for recipients that no router takes."""
    report = read_event(event.type, event.data, at=event.created_at, event_id=event.id or None)
    to = getattr(report, "to", None)
    if to is not None:
        recipient(to)
    return report


def _shown(kind: str) -> str:
    return identifier(kind[:64]) or "(unprintable)"


# HTTP


def _awaited(router: Reporting) -> Callable[[Report], Awaitable[bool]]:
    """The router's `report` as a coroutine function. A Router has a thread, and a second one for when the first waits for the
    provider's list."""
    report: Callable[[Report], Any] = router.report
    if inspect.iscoroutinefunction(report):
        return report

    def each(reports: Sequence[Report]) -> Sequence[bool | Exception]:
        return [_told(report, what) for what in reports]

    first, second = (Together(each, OneThread(), at_once=_AT_ONCE) for _ in range(2))

    async def in_a_thread(what: Report) -> bool:
        return await (second if first.stuck else first)(what)

    return in_a_thread


def _told(report: Callable[[Report], bool], what: Report) -> bool | Exception:
    try:
        return report(what)
    except Exception as error:  # noqa: BLE001  which is raised where it was asked for
        return error


async def _body(request: Request) -> tuple[bytes | None, bool]:
    """All of it, None if it is too large; and whether it is so large that the connection is to be closed.

    Somebody who sends a little too much is heard to the end: else they would find the connection broken, and no answer.
    """
    old = request.scope.get("http_version", "1.1") < "2"  # later ones end a request without closing
    declared = request.headers.get("content-length", "")
    if re.fullmatch(r"[0-9]+", declared):
        length = int(declared[:20])
        if length > MAX_BODY:
            return None, old and length > _FLOOD
    chunks, size = list[bytes](), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _FLOOD:
            return None, old
        if size <= MAX_BODY:
            chunks.append(chunk)
    return (b"".join(chunks) if size <= MAX_BODY else None), False


def _is_json(content_type: str | None) -> bool:
    """Whether it is JSON, or not said: then the body has to tell."""
    said = (content_type or "application/json").partition(";")[0].strip().lower()
    return said == "application/json" or (
        said.startswith("application/") and said.endswith("+json")
    )
