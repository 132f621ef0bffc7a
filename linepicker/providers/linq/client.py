"""The account's lines, read from Linq's `GET /v3/phone_numbers`."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import attrs
import httpx
import tenacity

from linepicker.errors import SourceError
from linepicker.model import Line, Verdict
from linepicker.providers.linq.classify import classify, retry_after, trace_id
from linepicker.providers.linq.lines import parse_lines, unusable

__all__ = ["BASE_URL", "MAX_BODY", "AsyncLinqSource", "LinqSource"]

BASE_URL: Final = "https://api.linqapp.com/api/partner"
"""Where the API lives. Source: Linq's official SDK."""

MAX_BODY: Final = 8 * 1024 * 1024
"""Bytes of an answer beyond which it is refused; some 25,000 lines."""

_ATTEMPTS: Final = 3
_FIRST_PAUSE: Final = 0.25  # seconds, doubled per attempt, taken at random from 0 up
_LONGEST_PAUSE: Final = 2.0
_MOST_WARNINGS: Final = 100  # per source: a server that invents words must not fill the log

_ADVICE: Final[Mapping[int, str]] = {
    401: "the token is missing, wrong or expired: set LINQ_API_V3_API_KEY or token= to a valid one",
    403: "this token may not read the phone numbers: give it that permission, or use another one",
    404: "there is no line list at this address: check LINQ_API_V3_BASE_URL or base_url=",
}

_log = logging.getLogger(__name__)


class LinqSource:
    """The lines of a Linq account.

    *token*: the API token, by default from LINQ_API_V3_API_KEY; it appears in no repr, message or log. *base_url*: by default
    from LINQ_API_V3_BASE_URL, else `BASE_URL`. *timeout*: seconds that one `fetch` may take in all. *client*: an
    `httpx.Client` to use instead of an own one; it is not closed, and a server that dribbles bytes can hold it for longer
    than *timeout*, as the system's name resolution can.

    Raises `SourceError` if there is no usable token.
    """

    def __init__(
        self,
        token: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = 10.0,
        client: httpx.Client | None = None,
    ) -> None:
        self._query = _Query.of(token, base_url, timeout)
        self._given = client
        self._own: httpx.Client | None = None
        self._sleep = time.sleep

    def fetch(self, *, timeout: float | None = None, attempts: int | None = None) -> list[Line]:
        """All lines, read afresh, within *timeout* seconds and at most *attempts* requests (default 3).

        Broken connections, timeouts, 408, 429 and 5xx are tried again, after `Retry-After` or a random pause that grows. Raises
        `SourceError`: at once if asking again can't help (`.fatal` for a bad token or address) or the pause does not fit.
        """
        tries = self._query.tries(timeout, attempts)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tries.pause,
            stop=tries.over,
            sleep=self._sleep,
            reraise=True,
        )
        return self._query.lines(retrying(self._read, tries))

    def classify(self, result: object) -> Verdict | None:
        """See `linepicker.providers.linq.classify`."""
        return classify(result)

    def close(self) -> None:
        """Close the connection, unless it was given. Closing twice is nothing; `fetch` opens it again."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def _read(self, tries: _Tries) -> bytes:
        client = self._given
        if client is None:
            client = self._own = self._own or httpx.Client(limits=_LIMITS)
        trace = {"trace": tries.trace} if self._given is None else {}
        body = bytearray()
        try:
            with client.stream(
                "GET",
                self._query.url,
                headers=self._query.headers,
                timeout=tries.left(),
                auth=None,
                follow_redirects=False,
                extensions=trace,
            ) as response:
                _check(response)
                for chunk in response.iter_bytes():
                    _append(body, chunk)
                    tries.left()
        except httpx.HTTPError as error:
            raise _unread(error) from error
        return bytes(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LinqSource({self._query.url.host!r})"


class AsyncLinqSource:
    """As `LinqSource`, with an `httpx.AsyncClient`, for asyncio. *timeout* binds everything. The own client serves any
    event loop, one after the other too."""

    def __init__(
        self,
        token: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = 10.0,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._query = _Query.of(token, base_url, timeout)
        self._given = client
        self._own: httpx.AsyncClient | None = None
        self._sleep = asyncio.sleep

    async def fetch(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # both doors have the same keywords
        attempts: int | None = None,
    ) -> list[Line]:
        """As `LinqSource.fetch`. Cancelling it closes the connection."""
        tries = self._query.tries(timeout, attempts)
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tries.pause,
            stop=tries.over,
            sleep=self._sleep,
            reraise=True,
        )
        return self._query.lines(await retrying(self._read, tries))

    def classify(self, result: object) -> Verdict | None:
        """See `linepicker.providers.linq.classify`."""
        return classify(result)

    async def close(self) -> None:
        """As `LinqSource.close`."""
        if self._own is not None:
            own, self._own = self._own, None
            await own.aclose()

    aclose = close

    async def _read(self, tries: _Tries) -> bytes:
        client = self._given
        if client is None:
            client = self._own = self._own or httpx.AsyncClient(limits=_LIMITS)
        left = tries.left()
        body = bytearray()
        try:
            async with (
                asyncio.timeout(left),
                client.stream(
                    "GET",
                    self._query.url,
                    headers=self._query.headers,
                    timeout=left,
                    auth=None,
                    follow_redirects=False,
                ) as response,
            ):
                _check(response)
                async for chunk in response.aiter_bytes():
                    _append(body, chunk)
        except (httpx.HTTPError, TimeoutError) as error:
            raise _unread(error) from error
        return bytes(body)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncLinqSource({self._query.url.host!r})"


# One request a minute gains nothing from an idle connection, and without one there is nothing that another event loop, a
# fork or the server's patience could break.
_LIMITS: Final = httpx.Limits(max_keepalive_connections=0)


@attrs.define
class _Query:
    """What both doors share: what is asked for, how long it may take, time and chance."""

    url: httpx.URL
    headers: Mapping[str, str] = attrs.field(repr=False)
    timeout: float
    now: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    warned: set[str] = attrs.Factory(set)

    @classmethod
    def of(cls, token: str | None, base_url: str | None, timeout: float) -> _Query:
        token = (token or os.environ.get("LINQ_API_V3_API_KEY") or "").strip()
        if not token:
            raise SourceError(
                "no Linq API token: set LINQ_API_V3_API_KEY, or give token=", fatal=True
            )
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise SourceError(
                "the Linq API token has characters that no token has: copy it again", fatal=True
            )
        base = base_url or os.environ.get("LINQ_API_V3_BASE_URL") or BASE_URL
        try:
            url = httpx.URL(base.rstrip("/") + "/v3/phone_numbers")
        except httpx.InvalidURL as error:
            raise ValueError(f"base_url is not a URL: {error}") from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError("base_url must be an http or https URL with a host")
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # or a small answer could unpack to a huge one
        }
        return cls(url, headers, _seconds(timeout))

    def tries(self, timeout: float | None, attempts: int | None) -> _Tries:
        most = _ATTEMPTS if attempts is None else attempts
        if most < 1:
            raise ValueError(f"attempts must be at least 1, got {attempts}")
        seconds = self.timeout if timeout is None else _seconds(timeout)
        return _Tries(most, self.now() + seconds, self.now, self.random)

    def lines(self, body: bytes) -> list[Line]:
        return parse_lines(body, self._warn)

    def _warn(self, message: str) -> None:
        if message not in self.warned and len(self.warned) < _MOST_WARNINGS:
            self.warned.add(message)
            _log.warning("%s", message)


@attrs.frozen
class _Tries:
    """How often one fetch may ask, until when, and how long it pauses in between."""

    most: int
    deadline: float
    now: Callable[[], float]
    random: Callable[[], float]

    def left(self) -> float:
        """Seconds until the deadline; a `SourceError` once there are none."""
        left = self.deadline - self.now()
        if left <= 0:
            raise SourceError("Linq's line list did not arrive in the time allowed")
        return left

    def pause(self, state: tenacity.RetryCallState) -> float:
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (state.attempt_number - 1))
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, SourceError) else None
        return max(self.random() * longest, asked or 0.0)

    def over(self, state: tenacity.RetryCallState) -> bool:
        return (
            state.attempt_number >= self.most or self.now() + state.upcoming_sleep >= self.deadline
        )

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """For httpx: make each stream, as it is opened, read within what is left of the whole. By itself httpx times
        each read of a socket alone, and a server that dribbles bytes never times out."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            stream = info["return_value"]
            read = stream.read

            def read_in_time(size: int, timeout: float | None = None) -> Any:
                return read(size, max(self.deadline - self.now(), 0.001))

            stream.read = read_in_time


def _seconds(timeout: float) -> float:
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
    return timeout


def _passes(error: BaseException) -> bool:
    """Whether it may pass by itself: no answer, 408, 429, 5xx."""
    return isinstance(error, SourceError) and (
        error.status is None or error.status in {408, 429} or error.status >= 500
    )


def _check(response: httpx.Response) -> None:
    status, told = response.status_code, trace_id(response.headers)
    if status == 200:
        return
    if advice := _ADVICE.get(status):
        text = f"Linq answered {status}: {advice}"
        raise SourceError(text, status=status, fatal=True, trace_id=told)
    if response.has_redirect_location:
        raise SourceError(
            f"Linq answered {status}, a redirect, which is not followed with the token: check base_url",
            status=status,
            trace_id=told,
        )
    raise SourceError(
        f"Linq answered {status} when asked for its line list",
        status=status,
        retry_after=retry_after(response.headers),
        trace_id=told,
    )


def _append(body: bytearray, chunk: bytes) -> None:
    if len(body) + len(chunk) > MAX_BODY:
        raise unusable(f"it has more than {MAX_BODY} bytes")
    body += chunk


def _unread(error: Exception) -> SourceError:
    reason = f"{type(error).__name__} {error}".strip()[:200]
    return SourceError(f"Linq's line list could not be read: {reason}")
