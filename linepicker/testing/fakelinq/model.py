"""The nouns of the account: lines, chats, messages, and what is said when something is refused."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit

import attrs

__all__ = [
    "CHECKS",
    "Accepted",
    "Audit",
    "Blocked",
    "Chat",
    "Content",
    "Draft",
    "Guesses",
    "Happening",
    "LineType",
    "Message",
    "PhoneNumber",
    "Reason",
    "Refusal",
    "SentMessage",
    "Subscription",
    "e164",
    "handle",
]

LineType: TypeAlias = Literal["iMessage", "RCS"]
Reason: TypeAlias = Literal["reused_active_chat", "new_best_number", "failover_flagged"]

CHECKS: Final = ("first_link", "own_number", "recipient", "line", "replay", "pair")
"""What a well-formed send is checked for. Linq publishes no order but that refusals come before anything is created."""

_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_EMAIL: Final = re.compile(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+")
_URL: Final = re.compile(r"https?://|\bwww\.", re.IGNORECASE)


def e164(text: object) -> str | None:
    """*text* if it is an E.164 number, else None."""
    return text if isinstance(text, str) and _E164.fullmatch(text) else None


def handle(text: object) -> str | None:
    """*text* as the provider keeps a recipient (E.164, or an email in lower case), None if it is neither."""
    if isinstance(text, str) and _EMAIL.fullmatch(text):
        return text.lower()
    return e164(text)


class Refusal(Exception):
    """An answer that is an error: an HTTP status, Linq's code, a message, and the whole seconds to wait, if any."""

    def __init__(
        self, status: int, code: int | None, message: str, *, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


def _a_permutation(instance: object, attribute: object, value: tuple[str, ...]) -> None:
    if sorted(value) != sorted(CHECKS):
        raise ValueError(f"order must name each of {', '.join(CHECKS)} once, got {value!r}")


@attrs.frozen(kw_only=True)
class Guesses:
    """What Linq does not publish, as the fake does it unless told otherwise. Nothing should depend on these.

    `none_eligible_code`: `error.code` of the 409 of `POST /v3/messages` when no line is eligible; `all_excluded_code` of
    the 400 when `exclude_from` leaves no line; `none_available_code` of the 503 of `GET /v3/available_number`.
    `idempotency_scope`: what a key is unique in. `refuse_from`: whether a `from` in `POST /v3/messages` is a 400 rather
    than ignored. `order`: in which order a well-formed send is checked. `audit_seconds`: how long a reputation audit
    runs; `audit_cooldown`: seconds from its end until the line's next one.

    `webhook_version`: the payloads of a subscription whose address names no version. `webhook_id_is_event_id`: whether the
    header `webhook-id` repeats the body's `event_id`. `legacy_key`: what the deprecated signature is keyed with: the
    secret's "text", or the bytes it "decoded" to. `filter_line_events`: whether a subscription's `phone_numbers` also
    filters `phone_number.*`.
    """

    none_eligible_code: int = 2015
    all_excluded_code: int = 1005
    none_available_code: int = 4004
    idempotency_scope: Literal["account", "line"] = "account"
    refuse_from: bool = False
    order: tuple[str, ...] = attrs.field(default=CHECKS, validator=_a_permutation)
    audit_seconds: float = 10.0
    audit_cooldown: float = 3600.0
    webhook_version: str = "2026-02-03"
    webhook_id_is_event_id: bool = True
    legacy_key: Literal["text", "decoded"] = "text"
    filter_line_events: bool = False


def _uuid() -> str:
    return str(uuid.uuid4())


@attrs.define(kw_only=True)
class PhoneNumber:
    """One line: `reputation` is what the list shows, `eligible` what sending asks, `status` what is told of it.

    `used` grows with each use; the smallest was used least recently.
    """

    number: str
    line_type: LineType = "iMessage"
    reputation: str = "HEALTHY"
    status: str = "ACTIVE"
    eligible: bool = True
    forwarding_number: str | None = None
    id: str = attrs.field(factory=_uuid)
    used: int = 0


@attrs.frozen(kw_only=True)
class Content:
    """What a message says, checked for form."""

    parts: tuple[Mapping[str, Any], ...]
    preferred_service: str | None = None
    effect: Mapping[str, Any] | None = None
    reply_to: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The texts and links, one a line."""
        return "\n".join(part["value"] for part in self.parts if "value" in part)

    @property
    def has_link(self) -> bool:
        """Whether there is a link part, or a URL in a text."""
        return any(part["type"] == "link" for part in self.parts) or bool(_URL.search(self.text))


@attrs.define(kw_only=True, eq=False)
class Message:
    """One message in a chat. `sender` None: the line wrote it; else a person did.

    `status` is Linq's delivery status. `reconciled_at`: an inbound message that came to light late. `trace_id` is that of
    the request it was sent with, which the webhooks about it repeat.
    """

    content: Content
    service: str
    created_at: float
    sender: str | None = None
    status: str = "queued"
    sent_at: float | None = None
    delivered_at: float | None = None
    read_at: float | None = None
    reconciled_at: float | None = None
    key: str | None = None
    trace_id: str | None = None
    id: str = attrs.field(factory=_uuid)


@attrs.define(kw_only=True)
class Chat:
    """A conversation of one line with one set of recipients. `active` grows with each message in the account."""

    number: str
    line_type: LineType
    to: tuple[str, ...]
    created_at: float
    updated_at: float
    health_at: float
    health: str = "HEALTHY"
    active: int = 0
    messages: list[Message] = attrs.field(factory=list)
    id: str = attrs.field(factory=_uuid)

    @property
    def is_group(self) -> bool:
        """Whether there is more than one recipient."""
        return len(self.to) > 1


@attrs.frozen(kw_only=True)
class Happening:
    """A change of the account. `type` is Linq's event type, or `message.queued`, which Linq tells nobody.

    `number` is the line it is about; `details` what the chat and the message don't say.
    """

    type: str
    at: float
    number: str | None = None
    chat: Chat | None = None
    message: Message | None = None
    details: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class SentMessage:
    """A message the fake accepted. `to` is a handle, or a group's sorted handles, normalised; `at` epoch seconds UTC."""

    number: str
    to: str | tuple[str, ...]
    chat_id: str
    text: str
    message_id: str
    idempotency_key: str | None
    at: float
    override_optout: bool


@attrs.frozen
class Accepted:
    """What came of a send; also what a repeated idempotency key is answered with."""

    chat: Chat
    message: Message
    reason: Reason
    previous_chat_id: str | None


@attrs.define(kw_only=True)
class Draft:
    """One request to send, while it is checked.

    `opens` is true for `POST /v3/chats`, `picks` for `POST /v3/messages`; the third way to send names its `chat`.
    """

    content: Content
    to: tuple[str, ...] = ()
    key: str | None = None
    override: bool = False
    number: str | None = None
    chat: Chat | None = None
    opens: bool = False
    picks: bool = False
    exclude: Collection[str] = ()
    continuation: Content | None = None
    reason: Reason = "reused_active_chat"
    previous_chat_id: str | None = None
    trace_id: str | None = None


@attrs.frozen(kw_only=True)
class Audit:
    """One reputation audit, of a line as it stood when the audit began."""

    number: str
    severity: str
    flagged: bool
    started_at: float
    ready_at: float
    id: str = attrs.field(factory=_uuid)


@attrs.frozen
class Blocked:
    """A handle on the account's block list."""

    handle: str
    reason: str | None
    at: float


@attrs.define(kw_only=True, eq=False)
class Subscription:
    """An address that is told of events. `phone_numbers` empty: of all lines."""

    target_url: str
    subscribed_events: tuple[str, ...]
    secret: str = attrs.field(repr=False)
    created_at: float
    updated_at: float
    phone_numbers: tuple[str, ...] = ()
    routing_key_header: str | None = None
    routing_id_header: str | None = None
    is_active: bool = True
    id: str = attrs.field(factory=_uuid)

    @property
    def version(self) -> str | None:
        """The generation of payloads its address asks for."""
        return parse_qs(urlsplit(self.target_url).query).get("version", [None])[-1]
