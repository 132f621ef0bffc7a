"""Signed HTTP POSTs from a thread of the fake's own, several in flight."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Literal
from urllib.parse import urlsplit
from zlib import crc32

import attrs
import httpx

__all__ = ["LOOPBACK", "Post", "Sender", "sign"]

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
"""The hosts the fake posts to; nothing it does leaves the machine."""

LANES: Final = 8
"""How many POSTs are in flight at most. Those of one lane, and so of one chat, go out one after another."""


@attrs.frozen(kw_only=True)
class Post:
    """One delivery to be made, and made again until it is settled.

    `about` is the id of the chat, or the number of the line: deliveries to one subscription about the same thing keep their
    order. `signed`: the headers it had when it was sent before; None signs it anew with `secret`.
    """

    subscription_id: str
    url: str
    event_id: str
    event_type: str
    webhook_id: str
    body: bytes = attrs.field(repr=False)
    secret: str = attrs.field(repr=False)
    about: str = ""
    extra: Mapping[str, str] = attrs.field(factory=dict)
    signed: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    attempt: int = 1


def sign(post: Post, *, at: float, legacy_key: Literal["text", "decoded"]) -> dict[str, str]:
    """The headers of a delivery made at *at*, with both signatures."""
    key = base64.b64decode(post.secret.removeprefix("whsec_"))
    moment = str(int(at))
    signed = b".".join((post.webhook_id.encode(), moment.encode(), post.body))
    legacy = post.secret.encode() if legacy_key == "text" else key
    return {
        "Content-Type": "application/json",
        "User-Agent": "FakeLinq",
        "webhook-id": post.webhook_id,
        "webhook-timestamp": moment,
        "webhook-signature": "v1,"
        + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode(),
        "X-Webhook-Event": post.event_type,
        "X-Webhook-Subscription-ID": post.subscription_id,
        "X-Webhook-Timestamp": moment,
        "X-Webhook-Signature": hmac.digest(
            legacy, moment.encode() + b"." + post.body, hashlib.sha256
        ).hex(),
        **post.extra,
    }


class Sender:
    """Posts what is submitted, and tells *done* of each: the headers it had, and its status or what went wrong.

    *headers* is asked for the headers when a POST goes out. An answer is waited for *timeout* seconds, by the host's clock.
    What is submitted before `start`, or not settled at `close`, is posted after the next `start`.
    """

    def __init__(
        self,
        headers: Callable[[Post], Mapping[str, str]],
        done: Callable[[Post, Mapping[str, str], int | str], None],
        *,
        timeout: float = 10.0,
    ) -> None:
        self._headers = headers
        self._done = done
        self.timeout = timeout
        self._lanes: list[deque[Post]] = [deque() for _ in range(LANES)]
        self._wake: list[asyncio.Event] = []
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._main: asyncio.Task[None] | None = None

    def submit(self, post: Post) -> None:
        """Post it when those before it in its lane are settled."""
        with self._lock:
            lane = crc32(f"{post.subscription_id} {post.about}".encode()) % LANES
            self._lanes[lane].append(post)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake[lane].set)

    def start(self) -> None:
        """Begin to post."""
        ready = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._serve(ready),), name="fakelinq-webhooks", daemon=True
        )
        self._thread.start()
        ready.wait()

    def close(self) -> None:
        """Stop posting, at once: what is in flight is broken off."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._main is not None and self._thread is not None:
            loop.call_soon_threadsafe(self._main.cancel)
            self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        with self._lock:
            self._main = asyncio.current_task()
            self._wake = [asyncio.Event() for _ in range(LANES)]
            self._loop = asyncio.get_running_loop()
        ready.set()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*(self._post_all(lane) for lane in range(LANES)))

    async def _post_all(self, lane: int) -> None:
        posts, wake = self._lanes[lane], self._wake[lane]
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # knows no authority, and loads no file
        async with httpx.AsyncClient(verify=plain, trust_env=False) as client:
            while True:
                wake.clear()
                while posts:
                    headers = self._headers(posts[0])
                    answer = await self._post(client, posts[0], headers)
                    self._done(posts.popleft(), headers, answer)
                await wake.wait()

    async def _post(
        self, client: httpx.AsyncClient, post: Post, headers: Mapping[str, str]
    ) -> int | str:
        if urlsplit(post.url).hostname not in LOOPBACK:
            return "not on this machine"
        try:
            async with asyncio.timeout(self.timeout):
                answer = await client.post(
                    post.url, content=post.body, headers=headers, timeout=None
                )
        except TimeoutError:
            return "TimeoutError"
        except httpx.HTTPError as error:
            return type(error).__name__
        return answer.status_code
