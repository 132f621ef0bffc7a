"""Subscriptions, and what becomes of every event on its way to them."""

from __future__ import annotations

import base64
import ipaddress
import json
import math
import secrets
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from random import Random
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

import attrs

from linepicker.testing.fakelinq import events, render
from linepicker.testing.fakelinq.agenda import Agenda, Span, draw
from linepicker.testing.fakelinq.model import Guesses, Happening, Refusal, Subscription
from linepicker.testing.fakelinq.sender import LOOPBACK, Post, Sender, sign

__all__ = ["Delivery", "Retry", "Webhooks", "with_version"]

SETTLED_BY: Final = frozenset(range(200, 500)) - {429}
"""Answers after which Linq does not try again (Linq: webhook subscriptions)."""

PARTNER: Final = "fakelinq"

HELD: Final = 5.0
"""How many seconds an event waits for the next one, which it is to come after."""


@attrs.frozen(kw_only=True)
class Delivery:
    """One try to deliver one event, or the reason why there was none.

    `status` is the answer's, None if there was none; then `error` says why: "dropped" and "outage" were asked for, anything
    else went wrong on the way. `attempt` counts from 1. `at` is the moment by the fake's clock. `headers` and `body` are as
    sent. `subscription_id` and `url` say to whom.
    """

    event_id: str
    event_type: str
    subscription_id: str
    url: str
    attempt: int
    at: float
    status: int | None
    error: str | None
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)

    @property
    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


@attrs.frozen(kw_only=True)
class Retry:
    """When a delivery that was answered 5xx or 429, or not at all, is tried again.

    The first time after `first` seconds, then twice as long each time, `attempts` in all: with these defaults ten within
    25.5 minutes (Linq says up to ten over some 25 minutes, or up to 30). `clock`: whose seconds.
    """

    first: float = 3.0
    attempts: int = 10
    clock: Literal["fake", "host"] = "fake"


class Webhooks:
    """Tells subscribers of what happens. For tests: the switches, `emit`, `replay` and `outage`, each at any time.

    All other methods are called under *lock*. The attributes are the switches. `drop`, `duplicate` and `reorder` are the
    shares of deliveries that get lost, are made twice, or come after the next one about the same chat or line; `delay` how
    long after the event one is made, by the fake's clock. Chance is *dice*.

    `status_shape`: how `phone_number.status_updated` is told. `lost_until`: the moment by the fake's clock until which every
    delivery gets lost. `sender.timeout`: how many seconds of the host's time an answer may take.
    """

    def __init__(
        self,
        clock: Agenda,
        host_clock: Agenda,
        lock: threading.Condition,
        guesses: Guesses,
        dice: Random,
    ) -> None:
        self.drop = self.duplicate = self.reorder = 0.0
        self.delay: Span = 0.0
        self.retry = Retry()
        self.status_shape: events.StatusShape = "reputation"
        self.lost_until = -math.inf
        self.subscriptions: dict[str, Subscription] = {}
        self.deliveries: list[Delivery] = []
        self.sender = Sender(self._headers, self._done)
        self._clock = clock
        self._host_clock = host_clock
        self._lock = lock
        self._guesses = guesses
        self._dice = dice
        self._held: dict[tuple[str, str], Post] = {}
        self._under_way = 0
        self._waiting = 0

    # Subscriptions

    def create(
        self,
        target_url: str,
        subscribed_events: Iterable[str],
        *,
        secret: str | None = None,
        phone_numbers: Iterable[str] = (),
        routing_key_header: str | None = None,
        routing_id_header: str | None = None,
    ) -> Subscription:
        """Subscribe an address. Raises `Refusal`."""
        now = self._clock.now()
        subscription = Subscription(
            target_url=self._free(target_url),
            subscribed_events=_known(subscribed_events),
            secret=_secret(secret),
            created_at=now,
            updated_at=now,
            phone_numbers=tuple(phone_numbers),
            routing_key_header=routing_key_header or None,
            routing_id_header=routing_id_header or None,
        )
        self.subscriptions[subscription.id] = subscription
        return subscription

    def get(self, subscription_id: str) -> Subscription:
        """The subscription with this id, or a 404."""
        if subscription_id not in self.subscriptions:
            raise Refusal(404, 2010, "Webhook subscription not found.")
        return self.subscriptions[subscription_id]

    def update(self, subscription_id: str, changes: Mapping[str, Any]) -> Subscription:
        """Change these fields of a subscription. Raises `Refusal`."""
        subscription = self.get(subscription_id)
        changes = dict(changes)
        if "target_url" in changes and changes["target_url"] != subscription.target_url:
            self._free(changes["target_url"])
        if "subscribed_events" in changes:
            changes["subscribed_events"] = _known(changes["subscribed_events"])
        for name, value in changes.items():
            setattr(subscription, name, value)
        subscription.updated_at = self._clock.now()
        return subscription

    def delete(self, subscription_id: str) -> None:
        """Unsubscribe; what is on its way still arrives. Raises `Refusal`."""
        del self.subscriptions[self.get(subscription_id).id]

    def _free(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise Refusal(400, 1005, "target_url must be a valid URL.") from None
        try:
            private = not ipaddress.ip_address(host).is_global
        except ValueError:
            private = not host
        allowed = ("http", "https") if host in LOOPBACK else ("https",)
        if parts.scheme not in allowed or (private and host not in LOOPBACK):
            raise Refusal(400, 1005, "target_url must be HTTPS, and a public address.")
        if any(each.target_url == url for each in self.subscriptions.values()):
            raise Refusal(409, 2015, "target_url is used by another subscription.")
        return url

    # Events

    def publish(self, happening: Happening) -> None:
        """Tell the subscribers of the happening."""
        if not events.shown(happening, self.status_shape):
            return
        chat_id = happening.chat.id if happening.chat else None
        bodies: dict[str, bytes] = {}
        event_id, trace_id = str(uuid.uuid4()), uuid.uuid4().hex
        if happening.type.startswith("message.") and happening.message is not None:
            trace_id = happening.message.trace_id or trace_id
        for subscription in self._subscribers(happening.type, happening.number):
            version = subscription.version or self._guesses.webhook_version
            if version not in bodies:
                data = events.data(happening, version, self.status_shape)
                bodies[version] = self._body(happening.type, event_id, trace_id, version, data)
            body, number = bodies[version], happening.number
            self._dispatch(
                self._post(subscription, happening.type, event_id, body, number, chat_id)
            )

    def emit(
        self,
        event_type: str,
        data: Mapping[str, Any],
        *,
        number: str | None = None,
        chat_id: str | None = None,
        secret: str | None = None,
    ) -> str:
        """Tell of an event that has not happened, of any type and with any data. Returns its id.

        It goes to those subscribed to its type, and of a type Linq has not got to everybody. *number* and *chat_id* say what
        it is about. *secret* signs it instead of each subscription's own: a forgery.
        """
        event_id, secret = str(uuid.uuid4()), secret and _secret(secret)
        with self._lock:
            for subscription in self._subscribers(event_type, number):
                version = subscription.version or self._guesses.webhook_version
                body = self._body(event_type, event_id, uuid.uuid4().hex, version, data)
                post = self._post(subscription, event_type, event_id, body, number, chat_id)
                self._dispatch(attrs.evolve(post, secret=secret or post.secret))
        return event_id

    def replay(self, delivery: Delivery, *, fresh: bool = False, secret: str | None = None) -> None:
        """Send a delivery once more, byte for byte, as who overheard it could.

        *fresh*: signed anew at this moment, as the provider itself could; *secret*: with this one, which makes it a forgery.
        """
        with self._lock:
            own = self.subscriptions.get(delivery.subscription_id)
            known = _secret(secret) if secret else own.secret if own else ""
            post = Post(
                subscription_id=delivery.subscription_id,
                url=delivery.url,
                event_id=delivery.event_id,
                event_type=delivery.event_type,
                webhook_id=delivery.headers.get("webhook-id", delivery.event_id),
                body=delivery.body,
                secret=known,
                signed=None if fresh or secret else delivery.headers or None,
            )
            self._send(post)

    def outage(self, seconds: float = math.inf) -> None:
        """Lose every delivery from now on, for *seconds* by the fake's clock; 0 ends it."""
        with self._lock:
            self.lost_until = self._clock.now() + seconds

    def _subscribers(self, event_type: str, number: str | None) -> Iterator[Subscription]:
        lines = not event_type.startswith("phone_number.") or self._guesses.filter_line_events
        for each in list(self.subscriptions.values()):
            wanted = event_type in each.subscribed_events or event_type not in events.EVENT_TYPES
            ours = not each.phone_numbers or not lines or number in each.phone_numbers
            if each.is_active and wanted and ours:
                yield each

    def _body(
        self, event_type: str, event_id: str, trace_id: str, version: str, data: Mapping[str, Any]
    ) -> bytes:
        envelope = {
            "api_version": "v3",
            "webhook_version": version,
            "event_type": event_type,
            "event_id": event_id,
            "created_at": render.moment(self._clock.now()),
            "trace_id": trace_id,
            "partner_id": PARTNER,
            "data": data,
        }
        return json.dumps(envelope, separators=(",", ":"), ensure_ascii=False).encode(
            errors="replace"
        )

    def _post(
        self,
        subscription: Subscription,
        event_type: str,
        event_id: str,
        body: bytes,
        number: str | None,
        chat_id: str | None,
    ) -> Post:
        name = "Linq-Chat-Id"
        if subscription.routing_key_header:
            name = subscription.routing_id_header or name
        same = self._guesses.webhook_id_is_event_id
        return Post(
            subscription_id=subscription.id,
            url=subscription.target_url,
            event_id=event_id,
            event_type=event_type,
            webhook_id=event_id if same else f"msg_{uuid.uuid4().hex}",
            body=body,
            secret=subscription.secret,
            about=chat_id or number or "",
            extra={} if chat_id is None else {name: chat_id},
        )

    # On the way

    def _dispatch(self, post: Post) -> None:
        lane = post.subscription_id, post.about
        if self._dice.random() < self.drop:
            self._record(post, {}, "dropped")
            return
        for _ in range(2 if self._dice.random() < self.duplicate else 1):
            held = self._held.pop(lane, None)
            if held is None and self._dice.random() < self.reorder:
                self._held[lane] = post
                self._waiting += 1
                self._clock.after(HELD, lambda: self._release(lane, post))
                continue
            delay = draw(self._dice, self.delay)
            self._later(post, delay, self._clock)
            if held is not None:
                self._waiting -= 1
                self._later(held, delay, self._clock)

    def release(self) -> None:
        """Send what is held back to come after something that has not happened."""
        for lane, post in list(self._held.items()):
            self._release(lane, post)

    def _release(self, lane: tuple[str, str], post: Post) -> None:
        if self._held.get(lane) is post:
            self._arrive(self._held.pop(lane))

    def _later(self, post: Post, delay: float, clock: Agenda) -> None:
        if delay <= 0:
            self._send(post)
            return
        self._waiting += 1
        clock.after(delay, partial(self._arrive, post))

    def _arrive(self, post: Post) -> None:
        self._waiting -= 1
        self._send(post)

    def _send(self, post: Post) -> None:
        if self._clock.now() < self.lost_until:
            self._record(post, {}, "outage")
            return
        self._under_way += 1
        self.sender.submit(post)

    def _headers(self, post: Post) -> Mapping[str, str]:
        if post.signed is not None:
            return post.signed
        with self._lock:
            return sign(post, at=self._clock.now(), legacy_key=self._guesses.legacy_key)

    def _done(self, post: Post, headers: Mapping[str, str], answer: int | str) -> None:
        with self._lock:
            self._record(post, headers, answer)
            if answer not in SETTLED_BY and post.attempt < self.retry.attempts:
                clock = self._clock if self.retry.clock == "fake" else self._host_clock
                delay = self.retry.first * 2.0 ** (post.attempt - 1)
                self._later(attrs.evolve(post, attempt=post.attempt + 1), delay, clock)
            self._under_way -= 1
            if not self._under_way:
                self._lock.notify_all()

    def _record(self, post: Post, headers: Mapping[str, str], answer: int | str) -> None:
        answered = isinstance(answer, int)
        self.deliveries.append(
            Delivery(
                event_id=post.event_id,
                event_type=post.event_type,
                subscription_id=post.subscription_id,
                url=post.url,
                attempt=post.attempt,
                at=self._clock.now(),
                status=answer if isinstance(answer, int) else None,
                error=None if answered else str(answer),
                headers=headers,
                body=post.body,
            )
        )

    def settled(self, *, later: bool) -> bool:
        """Whether nothing is on its way; *later*: nor waits to be, delayed or to be tried again."""
        return self._under_way == 0 and (not later or self._waiting == 0)


def with_version(url: str, version: str) -> str:
    """The address asking for this generation of payloads, unless it asks for one."""
    parts = urlsplit(url)
    if "version" in parse_qs(parts.query):
        return url
    asked = f"version={version}"
    return parts._replace(query=f"{parts.query}&{asked}" if parts.query else asked).geturl()


def _known(names: Iterable[str]) -> tuple[str, ...]:
    names = tuple(names)
    if not names or not set(names) <= set(events.EVENT_TYPES):
        raise Refusal(400, 1005, "subscribed_events must be a list of event types.")
    return names


def _secret(text: str | None) -> str:
    if text is None:
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    base64.b64decode(text.removeprefix("whsec_"), validate=True)
    return text
